use actix_web::body::to_bytes;
use serde_json::json;

use super::*;
use crate::domain::{EpochMillis, FieldFault};

fn view(opens_at: Option<EpochMillis>) -> CouponView {
    let draft = TermsDraft {
        name: "Spring".to_owned(),
        kind: "event".to_owned(),
        discount: Discount::Percentage(10),
        total_quantity: 100,
        opens_at,
        closes_at: None,
    };
    CouponView {
        coupon: "7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a".parse().unwrap(),
        terms: draft.first_version(uuid::Uuid::nil()),
        issued: 40,
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[actix_web::test]
async fn a_coupon_is_answered_with_its_place_and_version() {
    for (answer, status) in
        [(CreateAnswer::Created(view(Some(1_767_225_600_000))), 201), (CreateAnswer::Same(view(Some(1_767_225_600_000))), 200)]
    {
        let response = create_answer(answer).unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().get(LOCATION).unwrap(), "/api/v1/coupons/7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a");
        assert_eq!(response.headers().get(ETAG).unwrap(), "\"1\"");
        let body: Value = serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap();
        let expected = json!({
            "coupon_id": "7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a", "name": "Spring", "kind": "event",
            "discount": {"type": "PERCENTAGE", "value": 10}, "total_quantity": 100,
            "opens_at": "2026-01-01T00:00:00Z", "closes_at": null,
            "status": "OPEN", "issued": 40, "remaining": 60, "version": 1,
        });
        assert_eq!(body, expected);
    }
}

#[test]
fn refusals_have_their_code() {
    assert_eq!(create_answer(CreateAnswer::Exists(view(None))).unwrap_err().code(), Code::Exists);
    assert_eq!(create_answer(CreateAnswer::Unavailable).unwrap_err().code(), Code::Unavailable);
    let changes = [
        (ChangeAnswer::Version(view(None)), Code::Version),
        (ChangeAnswer::Closed(view(None)), Code::Closed),
        (ChangeAnswer::Invalid(vec![FieldFault::new("closes_at", "must be after opens_at")]), Code::Invalid),
        (ChangeAnswer::NotFound, Code::CouponNotFound),
        (ChangeAnswer::Unavailable, Code::Unavailable),
    ];
    for (answer, code) in changes {
        assert_eq!(change_answer(answer).unwrap_err().code(), code);
    }
    let response = change_answer(ChangeAnswer::Version(view(None))).unwrap_err().respond("t", false);
    assert_eq!(response.headers().get(ETAG).unwrap(), "\"1\"");
    assert_eq!(change_answer(ChangeAnswer::Done(view(None))).unwrap().headers().get(ETAG).unwrap(), "\"1\"");
}

#[test]
fn a_good_draft_is_read_whole() {
    let given = object(json!({
        "coupon_id": "7F9C24E8-3B12-4FEF-91E0-CF0F6E9F4D2A", "name": "Spring", "kind": "event",
        "discount": {"type": "PERCENTAGE", "value": 10}, "total_quantity": 100, "opens_at": "2026-01-01T09:00:00+09:00", "closes_at": null,
    }));
    let (id, draft) = parse_draft(&given).unwrap();
    assert_eq!(id, Some(view(None).coupon));
    assert!(draft.agrees_with(&view(Some(1_767_225_600_000)).terms));
}

#[test]
fn a_change_tells_absent_from_null() {
    let patch = |value| parse_patch(&object(value)).unwrap();
    assert_eq!(patch(json!({})), TermsPatch::default());
    let expected = TermsPatch { status: Some(Status::Paused), opens_at: Some(None), ..TermsPatch::default() };
    assert_eq!(patch(json!({"status": "PAUSED", "opens_at": null})), expected);
    assert_eq!(patch(json!({"closes_at": "2026-01-01T00:00:00Z"})).closes_at, Some(Some(1_767_225_600_000)));
    assert_eq!(parse_patch(&object(json!({"total_quantity": null}))).unwrap_err().len(), 1);
}

#[test]
fn if_match_is_one_version() {
    let parse = |value: &str| parse_if_match(&actix_web::test::TestRequest::get().insert_header((IF_MATCH, value)).to_http_request());
    assert_eq!(parse("\"3\""), Ok(Some(3)));
    assert_eq!(parse("3"), Ok(Some(3)));
    assert_eq!(parse("*"), Ok(None));
    for bad in ["W/\"3\"", "\"a\"", "\"1\", \"2\"", ""] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
