//! The trace id of a request: the client's, or made here.

use std::collections::hash_map::RandomState;
use std::future::{Ready, ready};
use std::hash::{BuildHasher, Hasher};

use actix_web::dev::Payload;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use uuid::Uuid;

use super::error::{Code, Problem};

/// Where the trace id comes in and goes out.
pub const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const MAX_LEN: usize = 64;

/// 1-64 characters of `A-Za-z0-9._-`; a clone shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceId(HeaderValue);

impl TraceId {
    /// The client's id if it is one, else a new one.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(TRACE_ID) {
            Some(value) if is_valid(value.as_bytes()) => Self(value.clone()),
            _ => Self::made(),
        }
    }

    /// A new id: 32 hex digits. Unique, not secret, so no system call is paid for it.
    fn made() -> Self {
        // Every `RandomState` of a thread has another key.
        let random = || RandomState::new().build_hasher().finish();
        let id = uuid::Builder::from_random_bytes(Uuid::from_u64_pair(random(), random()).into_bytes()).into_uuid();
        let mut buffer = Uuid::encode_buffer();
        let text = id.simple().encode_lower(&mut buffer);
        Self(HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none")))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn is_valid(bytes: &[u8]) -> bool {
    (1..=MAX_LEN).contains(&bytes.len()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

impl FromRequest for TraceId {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    /// What [`super::edge`] put into the request.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(request.extensions().get::<Self>().cloned().ok_or_else(|| Problem::new(Code::Internal)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> TraceId {
        let mut headers = HeaderMap::new();
        headers.insert(TRACE_ID, HeaderValue::from_bytes(text.as_bytes()).unwrap());
        TraceId::of(&headers)
    }

    #[test]
    fn a_good_id_is_kept_and_a_bad_one_replaced() {
        for good in ["a", "req-1.b_C", &"x".repeat(64)] {
            assert_eq!(of(good).as_str(), good);
        }
        for bad in ["", "a b", "a\"b", "a/b", "ü", &"x".repeat(65)] {
            let made = of(bad);
            assert_eq!(made.as_str().len(), 32, "{bad}");
            assert!(made.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn made_ids_differ() {
        let ids: std::collections::HashSet<_> = (0..1_000).map(|_| TraceId::made().as_str().to_owned()).collect();
        assert_eq!(ids.len(), 1_000);
    }
}
