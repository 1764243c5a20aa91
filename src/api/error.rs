//! The one error type of the API: an RFC 9457 problem with a stable `code`.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::Value;

use crate::domain::FieldFault;
use crate::issuer::Unavailable;
use crate::ledger::LedgerError;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What went wrong, as a word that clients may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Invalid,
    Unauthenticated,
    Forbidden,
    CouponNotFound,
    NotRequested,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Exists,
    SoldOut,
    NotOpen,
    Paused,
    Closed,
    Revoked,
    /// A dead letter is not in the state that the call needs.
    State,
    /// The dead letter is a message no reader could read: there is nothing to write.
    NotAWin,
    /// The database refuses the row of a dead letter again.
    StillRefused,
    Version,
    TooLarge,
    TooManyRequests,
    Internal,
    Unavailable,
}

impl Code {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::CouponNotFound => "COUPON_NOT_FOUND",
            Self::NotRequested => "NOT_REQUESTED",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::Exists => "EXISTS",
            Self::SoldOut => "SOLD_OUT",
            Self::NotOpen => "NOT_OPEN",
            Self::Paused => "PAUSED",
            Self::Closed => "CLOSED",
            Self::Revoked => "REVOKED",
            Self::State => "STATE",
            Self::NotAWin => "NOT_A_WIN",
            Self::StillRefused => "STILL_REFUSED",
            Self::Version => "VERSION",
            Self::TooLarge => "TOO_LARGE",
            Self::TooManyRequests => "TOO_MANY_REQUESTS",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::CouponNotFound | Self::NotRequested | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Exists
            | Self::SoldOut
            | Self::NotOpen
            | Self::Paused
            | Self::Closed
            | Self::Revoked
            | Self::State
            | Self::NotAWin
            | Self::StillRefused => StatusCode::CONFLICT,
            Self::Version => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn default_detail(self) -> &'static str {
        match self {
            Self::Invalid => "the request is not valid; errors names every bad field",
            Self::Unauthenticated => "the caller is not known",
            Self::Forbidden => "only an admin may do this",
            Self::CouponNotFound => "there is no such coupon",
            Self::NotRequested => "this user has not asked for this coupon",
            Self::NotFound => "there is nothing here",
            Self::MethodNotAllowed => "this method is not known here",
            Self::RequestTimeout => "the body did not arrive in time",
            Self::Exists => "the coupon exists with other fields",
            Self::SoldOut => "every coupon is taken",
            Self::NotOpen => "the coupon does not open before opens_at",
            Self::Paused => "the coupon is paused",
            Self::Closed => "the coupon is closed for good",
            Self::Revoked => "this user's coupon was revoked",
            Self::State => "the dead letter is not open",
            Self::StillRefused => "the database refuses the row again: the dead letter stays open",
            Self::NotAWin => "the dead letter is no win: there is nothing to write, it can only be abandoned",
            Self::Version => "the coupon has another version than If-Match names",
            Self::TooLarge => "the body is too large",
            Self::TooManyRequests => "too much is in flight here, ask again",
            Self::Internal => "something went wrong here; the trace id finds it in the log",
            Self::Unavailable => "the answer is not known now, ask again",
        }
    }
}

/// One problem: the code, and whatever the client needs beside it.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    members: Vec<(&'static str, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// The problem with its usual detail and Retry-After.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self { code, detail: Cow::Borrowed(code.default_detail()), members: Vec::new(), headers: Vec::new() }
    }

    /// 400, naming every fault.
    #[must_use]
    pub fn invalid(faults: &[FieldFault]) -> Self {
        let errors = faults.iter().map(|fault| serde_json::json!({"field": fault.field, "message": fault.message})).collect();
        Self::new(Code::Invalid).member("errors", Value::Array(errors))
    }

    /// 400 for one field.
    #[must_use]
    pub fn invalid_field(field: &str, message: &str) -> Self {
        Self::invalid(&[FieldFault::new(field, message)])
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Seconds after which asking again makes sense.
    #[must_use]
    pub fn retry_after(self, seconds: i64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The answer. With `result` the code is repeated under that name, as every answer of the issue call has it.
    #[must_use]
    pub fn respond(&self, trace_id: &str, result: bool) -> HttpResponse {
        let mut response = HttpResponse::new(self.code.status());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if matches!(self.code, Code::TooManyRequests | Code::Unavailable) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        response.set_body(self.body(trace_id, result)).map_into_boxed_body()
    }

    fn body(&self, trace_id: &str, result: bool) -> Vec<u8> {
        let status = self.code.status();
        let mut body = Vec::with_capacity(320);
        body.extend_from_slice(b"{\"type\":\"about:blank\"");
        push(&mut body, "title", status.canonical_reason().unwrap_or("Error"));
        push(&mut body, "status", &status.as_u16());
        push(&mut body, "code", self.code.as_str());
        if result {
            push(&mut body, "result", self.code.as_str());
        }
        push(&mut body, "detail", self.detail.as_ref());
        for (name, value) in &self.members {
            push(&mut body, name, value);
        }
        push(&mut body, "trace_id", trace_id);
        body.push(b'}');
        body
    }
}

/// Appends a member; `name` needs no escaping.
fn push<T: serde::Serialize + ?Sized>(body: &mut Vec<u8>, name: &str, value: &T) {
    body.extend_from_slice(b",\"");
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(b"\":");
    let before = body.len();
    // Neither text nor numbers nor a `Value` can fail to serialize into memory.
    if serde_json::to_writer(&mut *body, value).is_err() {
        body.truncate(before);
        body.extend_from_slice(b"null");
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    /// The answer without a trace id; [`super::edge`] puts it in.
    fn error_response(&self) -> HttpResponse {
        self.respond("", false)
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl From<Unavailable> for Problem {
    fn from(_: Unavailable) -> Self {
        Self::new(Code::Unavailable)
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        tracing::warn!(%error, "a read of the ledger failed");
        Self::new(Code::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(problem: &Problem, result: bool) -> String {
        String::from_utf8(problem.body("t-1", result)).unwrap()
    }

    #[test]
    fn bodies_are_as_promised() {
        assert_eq!(
            text(&Problem::new(Code::SoldOut), true),
            r#"{"type":"about:blank","title":"Conflict","status":409,"code":"SOLD_OUT","result":"SOLD_OUT","detail":"every coupon is taken","trace_id":"t-1"}"#
        );
        assert_eq!(
            text(&Problem::invalid(&[FieldFault::new("name", "must be \"text\"")]), false),
            concat!(
                r#"{"type":"about:blank","title":"Bad Request","status":400,"code":"INVALID","#,
                r#""detail":"the request is not valid; errors names every bad field","#,
                r#""errors":[{"field":"name","message":"must be \"text\""}],"trace_id":"t-1"}"#
            )
        );
        assert_eq!(
            text(&Problem::new(Code::Version).member("version", 3), false),
            concat!(
                r#"{"type":"about:blank","title":"Precondition Failed","status":412,"code":"VERSION","#,
                r#""detail":"the coupon has another version than If-Match names","version":3,"trace_id":"t-1"}"#
            )
        );
    }

    #[test]
    fn busy_answers_say_when_to_ask_again() {
        for code in [Code::TooManyRequests, Code::Unavailable] {
            let response = Problem::new(code).respond("t", true);
            assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), "1");
            assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), "application/problem+json");
        }
        assert_eq!(Problem::new(Code::NotOpen).retry_after(7).respond("t", true).headers().get(header::RETRY_AFTER).unwrap(), "7");
    }
}
