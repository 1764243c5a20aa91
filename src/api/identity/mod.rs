//! Who is calling.

mod header;
mod jwt;

use std::future::{Ready, ready};
use std::net::IpAddr;

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use actix_web::{FromRequest, HttpRequest};

use super::app;
use super::error::{Code, Problem};
use super::trace::TraceId;
use crate::domain::UserId;
use crate::telemetry::admin::Actor;

pub use header::{BadNetwork, Network};
pub use jwt::{JwtError, JwtOptions, JwtVerifier, mint_hs256};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user: UserId,
    pub admin: bool,
}

/// How a caller is known.
#[derive(Debug)]
pub enum Identity {
    /// `X-User-Id` and `X-Admin`, believed of anybody: development on loopback only.
    Header,
    /// The same headers, believed of these proxies only.
    Gateway { proxies: Vec<Network> },
    /// `Authorization: Bearer`.
    Jwt(JwtVerifier),
}

impl Identity {
    /// The caller of a request that came from `peer`.
    ///
    /// # Errors
    /// 401.
    pub fn caller(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Result<Caller, Problem> {
        match self {
            Self::Header => header::caller(headers).map_err(|detail| unauthenticated(detail, "X-User-Id")),
            Self::Gateway { proxies } => {
                let known = peer.is_some_and(|peer| proxies.iter().any(|proxy| proxy.contains(peer)));
                let refused = if known { header::caller(headers) } else { Err("only a listed gateway may name the caller") };
                refused.map_err(|detail| unauthenticated(detail, "X-User-Id"))
            }
            Self::Jwt(verifier) => {
                let given = header::single(headers, &AUTHORIZATION);
                let given = given.map_err(|()| unauthenticated("Authorization must be given once", "Bearer error=\"invalid_request\""))?;
                let token = given.and_then(bearer).ok_or_else(|| unauthenticated("a bearer token is missing", "Bearer"))?;
                verifier.verify(token).map_err(|detail| unauthenticated(detail, "Bearer error=\"invalid_token\""))
            }
        }
    }
}

fn unauthenticated(detail: &'static str, challenge: &'static str) -> Problem {
    Problem::new(Code::Unauthenticated).detail(detail).header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let peer = request.peer_addr().map(|address| address.ip());
        ready(app(request).and_then(|app| app.state.identity.caller(peer, request.headers())))
    }
}

/// A caller who is an admin; anybody else is answered 403.
#[derive(Debug)]
pub(super) struct Admin(pub(super) UserId);

impl FromRequest for Admin {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let caller = Caller::from_request(request, payload).into_inner();
        ready(caller.and_then(|caller| if caller.admin { Ok(Self(caller.user)) } else { Err(Code::Forbidden.into()) }))
    }
}

/// For the admin log.
pub(super) fn actor<'a>(admin: &'a Admin, trace: &'a TraceId) -> Actor<'a> {
    Actor { by: admin.0.as_str(), trace_id: Some(trace.as_str()) }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn headers_name_the_caller() {
        let caller = |pairs| Identity::Header.caller(None, &headers(pairs)).map(|caller| (caller.user.to_string(), caller.admin));
        assert_eq!(caller(&[("x-user-id", "alice")]).unwrap(), ("alice".to_owned(), false));
        assert_eq!(caller(&[("x-user-id", "alice"), ("x-admin", "true")]).unwrap(), ("alice".to_owned(), true));
        assert_eq!(caller(&[("x-user-id", "alice"), ("x-admin", "false")]).unwrap(), ("alice".to_owned(), false));
    }

    #[test]
    fn bad_or_doubled_headers_name_nobody() {
        let bad: [&[(&str, &str)]; 7] = [
            &[],
            &[("x-user-id", "")],
            &[("x-user-id", "a b")],
            &[("x-user-id", "alice"), ("x-user-id", "bob")],
            &[("x-user-id", "alice"), ("x-admin", "1")],
            &[("x-user-id", "alice"), ("x-admin", "true"), ("x-admin", "true")],
            &[("x-admin", "true")],
        ];
        for pairs in bad {
            let problem = Identity::Header.caller(None, &headers(pairs)).unwrap_err();
            assert_eq!(problem.code(), Code::Unauthenticated, "{pairs:?}");
            assert!(problem.respond("", false).headers().contains_key(WWW_AUTHENTICATE));
        }
    }

    #[test]
    fn only_listed_gateways_are_believed() {
        let identity = Identity::Gateway { proxies: vec!["10.1.0.0/16".parse().unwrap(), "::1".parse().unwrap()] };
        let alice = headers(&[("x-user-id", "alice")]);
        assert!(identity.caller(Some("10.1.2.3".parse().unwrap()), &alice).is_ok());
        assert!(identity.caller(Some("::1".parse().unwrap()), &alice).is_ok());
        assert!(identity.caller(Some("10.2.2.3".parse().unwrap()), &alice).is_err());
        assert!(identity.caller(None, &alice).is_err());
    }

    #[test]
    fn a_token_is_given_once_and_alone() {
        let secret = "a secret of at least thirty-two bytes";
        let options = JwtOptions { hs256_secret: Some(secret.into()), ..JwtOptions::default() };
        let identity = Identity::Jwt(JwtVerifier::new(options).unwrap());
        let ttl = std::time::Duration::from_secs(60);
        let of = |name: &str| mint_hs256(&secret.into(), &name.parse().unwrap(), false, ttl, None, None).unwrap();
        let (alice, bob) = (of("alice"), of("bob"));
        let caller = |values: &[String]| {
            let mut map = HeaderMap::new();
            for value in values {
                map.append(AUTHORIZATION, HeaderValue::try_from(value).unwrap());
            }
            identity.caller(None, &map).map(|caller| caller.user.to_string())
        };
        assert_eq!(caller(&[format!("Bearer {alice}")]).unwrap(), "alice");
        assert_eq!(caller(&[format!("bEARER  {alice} ")]).unwrap(), "alice");
        for bad in [
            vec![format!("Bearer {alice}"), format!("Bearer {alice}")],
            vec![format!("Bearer {alice}"), format!("Bearer {bob}")],
            vec!["Basic x".to_owned(), format!("Bearer {alice}")],
            vec![format!("Bearer {alice}, Bearer {bob}")],
            vec![format!("Bearer {alice} {bob}")],
            vec![format!("Bearer{alice}")],
            vec![alice.clone()],
            vec![format!("Bearer {}", "x".repeat(100_000))],
            vec![format!("Bearer {alice}{}", "x".repeat(8_192))],
        ] {
            assert_eq!(caller(&bad).unwrap_err().code(), Code::Unauthenticated);
        }
    }
}
