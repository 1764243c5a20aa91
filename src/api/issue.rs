//! The hot path: asking for a coupon, and what became of it.

use std::fmt::Write;
use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use actix_web::{HttpResponse, web};
use prometheus::IntCounter;
use uuid::Uuid;

use super::error::{Code, Problem};
use super::identity::Caller;
use super::trace::TraceId;
use super::{App, CouponPath, instant};
use crate::domain::{CouponId, EpochMillis, Sequence, now_millis};
use crate::issuer::{IssueAnswer, ResultAnswer};
use crate::telemetry::Metrics;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Nobody sleeps longer than this on our word.
const MAX_RETRY_SECONDS: i64 = 3_600;

/// `coupon_issue_total`, bound once.
#[derive(Debug)]
pub(super) struct IssueCounters {
    accepted: IntCounter,
    already_issued: IntCounter,
    sold_out: IntCounter,
    not_open: IntCounter,
    paused: IntCounter,
    closed: IntCounter,
    revoked: IntCounter,
    not_found: IntCounter,
    overloaded: IntCounter,
    unavailable: IntCounter,
}

impl IssueCounters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counter = |result| metrics.issue_total.with_label_values(&[result]);
        Self {
            accepted: counter("ACCEPTED"),
            already_issued: counter("ALREADY_ISSUED"),
            sold_out: counter(Code::SoldOut.as_str()),
            not_open: counter(Code::NotOpen.as_str()),
            paused: counter(Code::Paused.as_str()),
            closed: counter(Code::Closed.as_str()),
            revoked: counter(Code::Revoked.as_str()),
            not_found: counter(Code::CouponNotFound.as_str()),
            overloaded: counter(Code::TooManyRequests.as_str()),
            unavailable: counter(Code::Unavailable.as_str()),
        }
    }

    const fn of(&self, answer: &IssueAnswer) -> &IntCounter {
        match answer {
            IssueAnswer::Accepted { .. } => &self.accepted,
            IssueAnswer::AlreadyIssued { .. } => &self.already_issued,
            IssueAnswer::SoldOut => &self.sold_out,
            IssueAnswer::NotOpen { .. } => &self.not_open,
            IssueAnswer::Paused => &self.paused,
            IssueAnswer::Closed => &self.closed,
            IssueAnswer::Revoked => &self.revoked,
            IssueAnswer::NotFound => &self.not_found,
            IssueAnswer::Overloaded => &self.overloaded,
            IssueAnswer::Unavailable => &self.unavailable,
        }
    }
}

/// `POST /api/v1/coupons/{coupon_id}/issue`
pub(super) async fn issue(caller: Caller, path: CouponPath, trace: TraceId, app: web::Data<App>) -> HttpResponse {
    let started = Instant::now();
    let answer = app.state.issuer.issue(path.0, &caller.user, trace.as_str()).await;
    app.state.metrics.issue_seconds.observe(started.elapsed().as_secs_f64());
    app.issue_counters.of(&answer).inc();
    issue_answer(path.0, answer, trace.as_str())
}

fn issue_answer(coupon: CouponId, answer: IssueAnswer, trace_id: &str) -> HttpResponse {
    let code = match answer {
        IssueAnswer::Accepted { issue_id, sequence } => {
            let mut response = won(StatusCode::ACCEPTED, "ACCEPTED", issue_id, sequence, |_| Ok(()));
            if let Ok(location) = HeaderValue::try_from(format!("/api/v1/coupons/{coupon}/issue")) {
                response.headers_mut().insert(LOCATION, location);
            }
            return response;
        }
        IssueAnswer::AlreadyIssued { issue_id, sequence } => {
            return won(StatusCode::OK, "ALREADY_ISSUED", issue_id, sequence, |_| Ok(()));
        }
        IssueAnswer::NotOpen { opens_at } => return not_open(opens_at, now_millis()).respond(trace_id, true),
        IssueAnswer::SoldOut => Code::SoldOut,
        IssueAnswer::Paused => Code::Paused,
        IssueAnswer::Closed => Code::Closed,
        IssueAnswer::Revoked => Code::Revoked,
        IssueAnswer::NotFound => Code::CouponNotFound,
        IssueAnswer::Overloaded => Code::TooManyRequests,
        IssueAnswer::Unavailable => Code::Unavailable,
    };
    Problem::new(code).respond(trace_id, true)
}

fn not_open(opens_at: EpochMillis, now: EpochMillis) -> Problem {
    let seconds = opens_at.saturating_sub(now).saturating_add(999).div_euclid(1_000).clamp(1, MAX_RETRY_SECONDS);
    Problem::new(Code::NotOpen).member("opens_at", instant::to_text(opens_at)).retry_after(seconds)
}

/// The answer to a winner; `more` writes further members, each with a comma before it.
fn won(
    status: StatusCode,
    result: &'static str,
    issue_id: Uuid,
    sequence: Sequence,
    more: impl FnOnce(&mut String) -> std::fmt::Result,
) -> HttpResponse {
    let mut body = String::with_capacity(192);
    // Writing to a string does not fail.
    let written = write!(body, r#"{{"result":"{result}","issue_id":"{issue_id}","sequence":{sequence}"#).and_then(|()| more(&mut body));
    if written.is_err() {
        return Problem::new(Code::Internal).respond("", true);
    }
    body.push('}');
    let mut response = HttpResponse::new(status);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.set_body(body).map_into_boxed_body()
}

/// `GET /api/v1/coupons/{coupon_id}/issue`
pub(super) async fn result(caller: Caller, path: CouponPath, app: web::Data<App>) -> Result<HttpResponse, Problem> {
    result_answer(app.state.issuer.result_of(path.0, &caller.user).await)
}

/// What is known is answered 200, whether the caller likes it or not; only "nothing is here" and "not known" are problems.
fn result_answer(answer: ResultAnswer) -> Result<HttpResponse, Problem> {
    match answer {
        ResultAnswer::Issued { issue_id, sequence, issued_at } => Ok(won(StatusCode::OK, "ISSUED", issue_id, sequence, |body| {
            write!(body, r#","issued_at":"{}""#, instant::to_text(issued_at).unwrap_or_default())
        })),
        ResultAnswer::Pending { issue_id, sequence, ahead } => {
            Ok(won(StatusCode::OK, "PENDING", issue_id, sequence, |body| write!(body, r#","ahead":{ahead}"#)))
        }
        ResultAnswer::SoldOut => Ok(HttpResponse::Ok().json(serde_json::json!({"result": Code::SoldOut.as_str()}))),
        ResultAnswer::Revoked => Ok(HttpResponse::Ok().json(serde_json::json!({"result": Code::Revoked.as_str()}))),
        ResultAnswer::NotRequested => Err(Code::NotRequested.into()),
        ResultAnswer::NotFound => Err(Code::CouponNotFound.into()),
        ResultAnswer::Unavailable => Err(Code::Unavailable.into()),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::http::header::RETRY_AFTER;
    use serde_json::{Value, json};

    use super::*;

    async fn json_of(response: HttpResponse) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap()
    }

    #[actix_web::test]
    async fn every_answer_carries_its_result() {
        let coupon: CouponId = "7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a".parse().unwrap();
        let issue_id = Uuid::nil();
        let cases = [
            (IssueAnswer::Accepted { issue_id, sequence: 3 }, 202, "ACCEPTED"),
            (IssueAnswer::AlreadyIssued { issue_id, sequence: 3 }, 200, "ALREADY_ISSUED"),
            (IssueAnswer::SoldOut, 409, "SOLD_OUT"),
            (IssueAnswer::NotOpen { opens_at: 1_767_225_600_000 }, 409, "NOT_OPEN"),
            (IssueAnswer::Paused, 409, "PAUSED"),
            (IssueAnswer::Closed, 409, "CLOSED"),
            (IssueAnswer::Revoked, 409, "REVOKED"),
            (IssueAnswer::NotFound, 404, "COUPON_NOT_FOUND"),
            (IssueAnswer::Overloaded, 429, "TOO_MANY_REQUESTS"),
            (IssueAnswer::Unavailable, 503, "UNAVAILABLE"),
        ];
        for (answer, status, result) in cases {
            let response = issue_answer(coupon, answer, "t-1");
            assert_eq!(response.status().as_u16(), status, "{result}");
            assert_eq!(response.headers().contains_key(LOCATION), status == 202);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), matches!(result, "NOT_OPEN" | "TOO_MANY_REQUESTS" | "UNAVAILABLE"));
            let body = json_of(response).await;
            assert_eq!(body["result"], result);
            if status >= 400 {
                assert_eq!((&body["code"], &body["trace_id"]), (&json!(result), &json!("t-1")));
            } else {
                assert_eq!(body, json!({"result": result, "issue_id": issue_id, "sequence": 3}));
            }
        }
    }

    #[actix_web::test]
    async fn what_opens_later_says_when() {
        let at = 1_767_225_600_000;
        for (now, seconds) in [(at - 1, "1"), (at - 1_500, "2"), (at + 5_000, "1"), (at - 86_400_000, "3600")] {
            let response = not_open(at, now).respond("t", true);
            assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), seconds);
            assert_eq!(json_of(response).await["opens_at"], "2026-01-01T00:00:00Z");
        }
    }

    #[actix_web::test]
    async fn a_result_is_told_as_it_is() {
        let issue_id = Uuid::nil();
        let issued = ResultAnswer::Issued { issue_id, sequence: 3, issued_at: 1_767_225_600_000 };
        let expected = json!({"result": "ISSUED", "issue_id": issue_id, "sequence": 3, "issued_at": "2026-01-01T00:00:00Z"});
        assert_eq!(json_of(result_answer(issued).unwrap()).await, expected);
        let pending = ResultAnswer::Pending { issue_id, sequence: 3, ahead: 12 };
        let expected = json!({"result": "PENDING", "issue_id": issue_id, "sequence": 3, "ahead": 12});
        assert_eq!(json_of(result_answer(pending).unwrap()).await, expected);
        assert_eq!(json_of(result_answer(ResultAnswer::SoldOut).unwrap()).await, json!({"result": "SOLD_OUT"}));
        assert_eq!(json_of(result_answer(ResultAnswer::Revoked).unwrap()).await, json!({"result": "REVOKED"}));
        for (answer, code) in [
            (ResultAnswer::NotRequested, Code::NotRequested),
            (ResultAnswer::NotFound, Code::CouponNotFound),
            (ResultAnswer::Unavailable, Code::Unavailable),
        ] {
            assert_eq!(result_answer(answer).unwrap_err().code(), code);
        }
    }
}
