//! Any bytes a client may put into a request: a documented status, a problem with a code, never a 500.

use std::collections::HashSet;

use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, Uri};
use actix_web::test::{TestRequest, init_service, try_call_service};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Value, json};

use super::testing::{app_with, json_of};
use super::*;

const COUPON_ID: &str = "7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a";

/// Calls one application with each of the requests; `check` sees the answer's status and body.
fn serve_all(requests: Vec<TestRequest>) -> Vec<(StatusCode, Value)> {
    actix_web::rt::System::new().block_on(async {
        let app = app_with(&ApiOptions::default());
        let service = init_service(actix_web::App::new().configure(|config| configure(config, &app))).await;
        let mut answers = Vec::new();
        for request in requests {
            let response = try_call_service(&service, request.to_request()).await.unwrap();
            // Which asserts that an error is a problem.
            answers.push((response.status(), json_of(response).await));
        }
        answers
    })
}

/// Whether the document names this status for this call, or the answer is of nobody's route.
fn is_documented(template: &str, method: &str, status: StatusCode) -> bool {
    let document = openapi();
    let responses = &document["paths"][template][method.to_lowercase()]["responses"];
    assert!(responses.is_object(), "{method} {template} is not documented");
    status != StatusCode::INTERNAL_SERVER_ERROR && responses.get(status.as_str()).is_some()
}

/// Runs `cases` values of a strategy through one application: starting one for each would take the time.
fn each<S: Strategy>(cases: usize, strategy: &S, request: impl Fn(&S::Value) -> TestRequest, template: &str, method: &str)
where
    S::Value: std::fmt::Debug,
{
    let mut runner = proptest::test_runner::TestRunner::default();
    let values: Vec<_> = (0..cases).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let answers = serve_all(values.iter().map(request).collect());
    for (value, (status, body)) in values.iter().zip(answers) {
        assert!(is_documented(template, method, status), "{value:?}: {status} {body}");
        assert_eq!(status.as_u16() >= 400, body["code"].is_string(), "{value:?}: {status} {body}");
    }
}

fn admin(method: Method, uri: &str) -> TestRequest {
    TestRequest::default().method(method).uri(uri).insert_header(("X-User-Id", "root")).insert_header(("X-Admin", "true"))
}

fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from), any::<u64>().prop_map(Value::from)];
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number, any::<String>().prop_map(Value::from)];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Fields that the API knows, with values that it may or may not.
fn any_fields() -> impl Strategy<Value = Value> {
    let extreme = prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), Just(-1), Just(1), Just(1_000_000_000), any::<i64>()];
    let instant = prop_oneof![
        Just(json!("2026-01-01T00:00:00Z")),
        Just(json!("0000-01-01T00:00:00Z")),
        Just(json!("9999-12-31T23:59:59.999999999Z")),
        Just(json!("-262144-01-01T00:00:00Z")),
        Just(json!("2026-01-01T00:00:00+99:99")),
        Just(json!("1969-12-31T23:59:60Z")),
        any_json(),
    ];
    let discount = (prop_oneof![Just(json!("FIXED")), Just(json!("PERCENTAGE")), any_json()], extreme.clone())
        .prop_map(|(kind, value)| json!({"type": kind, "value": value}));
    let value = prop_oneof![any_json(), extreme.prop_map(Value::from), instant, discount, Just(json!("OPEN")), Just(json!(COUPON_ID))];
    let name =
        prop::sample::select(vec!["coupon_id", "name", "kind", "discount", "total_quantity", "opens_at", "closes_at", "status", "x"]);
    prop::collection::hash_map(name.prop_map(str::to_owned), value, 0..9).prop_map(|map| map.into_iter().collect())
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => any_json().prop_map(|value| value.to_string().into_bytes()),
        4 => any_fields().prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
        // Valid JSON with something broken in it.
        2 => (any_fields(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(value, at, byte)| {
            let mut text = value.to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            text
        }),
    ]
}

/// Bytes that a header may hold on the wire.
fn any_header() -> impl Strategy<Value = HeaderValue> {
    let byte = prop_oneof![Just(b'\t'), 32..127_u8, 128..=255_u8];
    let bytes = prop_oneof![prop::collection::vec(byte, 0..100), "[\\\"*WA-Za-z0-9/, .-]{0,30}".prop_map(String::into_bytes)];
    bytes.prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}

#[test]
fn any_body_of_a_new_coupon_has_a_documented_answer() {
    each(400, &any_body(), |body| admin(Method::POST, "/api/v1/coupons").set_payload(body.clone()), COUPONS.template, "POST");
}

#[test]
fn any_body_of_a_change_has_a_documented_answer() {
    let uri = format!("/api/v1/coupons/{COUPON_ID}");
    each(400, &any_body(), |body| admin(Method::PATCH, &uri).set_payload(body.clone()), COUPON.template, "PATCH");
}

#[test]
fn any_header_has_a_documented_answer() {
    const NAMES: [&str; 9] =
        ["x-user-id", "x-admin", "x-trace-id", "if-match", "content-type", "authorization", "content-length", "accept", "expect"];
    let headers = || prop::collection::vec((prop::sample::select(NAMES.to_vec()), any_header()), 1..5);
    let with = |mut request: TestRequest, headers: &[(&'static str, HeaderValue)]| {
        for (name, value) in headers {
            request = request.append_header((HeaderName::from_static(name), value.clone()));
        }
        request
    };
    let issue = ISSUE.template.replace("{coupon_id}", COUPON_ID);
    each(300, &headers(), |given| with(TestRequest::post().uri(&issue), given), ISSUE.template, "POST");
    let patch = format!("/api/v1/coupons/{COUPON_ID}");
    let body = |request: TestRequest| request.set_payload(r#"{"status":"PAUSED"}"#);
    each(300, &headers(), |given| body(with(admin(Method::PATCH, &patch), given)), COUPON.template, "PATCH");
    each(300, &headers(), |given| body(with(TestRequest::post().uri("/api/v1/coupons"), given)), COUPONS.template, "POST");
}

#[test]
fn any_query_has_a_documented_answer() {
    let number =
        prop_oneof![any::<i64>().prop_map(|number| number.to_string()), Just("99999999999999999999".to_owned()), "[-+0-9a-fx%]{0,8}"];
    let value = prop_oneof![number, "[!-~]{0,40}", Just("%00".to_owned()), Just("%ff%fe".to_owned()), Just(format!("1_{COUPON_ID}"))];
    let pair = (prop::sample::select(vec!["limit", "after", "state", "x", ""]), value).prop_map(|(name, value)| format!("{name}={value}"));
    let query = prop::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&"));
    for (path, template) in [
        ("/api/v1/coupons", COUPONS.template),
        ("/api/v1/me/coupons", MY_COUPONS.template),
        ("/api/v1/admin/dead-letters", DEAD_LETTERS.template),
    ] {
        let uri = query.clone().prop_filter_map("not on the wire", |query| format!("{path}?{query}").parse::<Uri>().ok());
        each(200, &uri, |uri| admin(Method::GET, &uri.to_string()), template, "GET");
    }
}

/// On the wire a header holds no control characters but the tab; those are refused below the routes.
#[test]
fn a_user_id_has_its_characters_and_its_length() {
    let wire = |byte: u8| byte == b'\t' || (byte >= 32 && byte != 127);
    let mut ids: Vec<Vec<u8>> = (0..=255).filter(|byte| wire(*byte)).map(|byte| vec![b'a', byte, b'z']).collect();
    ids.extend([0, 1, 64, 65, 4_096].map(|length| vec![b'x'; length]));
    let answers = serve_all(
        ids.iter()
            .map(|id| TestRequest::get().uri("/api/v1/me/coupons").insert_header(("X-User-Id", HeaderValue::from_bytes(id).unwrap())))
            .collect(),
    );
    let allowed: HashSet<u8> = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-".iter().copied().collect();
    for (id, (status, body)) in ids.iter().zip(answers) {
        let good = (1..=64).contains(&id.len()) && id.iter().all(|byte| allowed.contains(byte));
        assert_eq!(status, if good { 200 } else { 401 }, "{id:?}: {body}");
    }
}

#[test]
fn two_names_are_nobody() {
    let mine = || TestRequest::get().uri("/api/v1/me/coupons");
    let doubled =
        |name: &'static str, first: &'static str, second: &'static str| mine().append_header((name, first)).append_header((name, second));
    let answers = serve_all(vec![
        doubled("X-User-Id", "alice", "alice"),
        doubled("X-User-Id", "alice", "bob"),
        mine().insert_header(("X-User-Id", "alice,bob")),
        doubled("X-Admin", "true", "false").insert_header(("X-User-Id", "alice")),
    ]);
    assert!(answers.iter().all(|(status, _)| *status == 401), "{answers:?}");
}

#[test]
fn a_content_type_changes_nothing() {
    let body = json!({"name": "n"}).to_string();
    let kinds = ["application/json", "text/plain", "multipart/form-data; boundary=x", "application/json; charset=utf-7"];
    let requests = kinds.map(|kind| admin(Method::POST, "/api/v1/coupons").insert_header((CONTENT_TYPE, kind)).set_payload(body.clone()));
    let answers = serve_all(requests.into_iter().collect());
    assert!(
        answers.iter().all(|(status, body)| *status == 400 && body["errors"].as_array().is_some_and(|errors| errors.len() == 3)),
        "{answers:?}"
    );
}
