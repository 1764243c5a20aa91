use std::future::pending;

use actix_web::body::BoxBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::header::{ALLOW, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, init_service, try_call_service};
use actix_web::web;
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::testing::{NOT_A_WIN, app_with, json_of};
use super::*;

const COUPON_ID: &str = "7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a";

fn admin(method: Method, uri: &str) -> TestRequest {
    TestRequest::default().method(method).uri(uri).insert_header(("X-User-Id", "root")).insert_header(("X-Admin", "true"))
}

fn user(method: Method, uri: &str) -> TestRequest {
    TestRequest::default().method(method).uri(uri).insert_header(("X-User-Id", "alice"))
}

async fn call_app(app: &web::Data<App>, request: TestRequest) -> ServiceResponse<BoxBody> {
    let service = init_service(actix_web::App::new().configure(|config| configure(config, app))).await;
    try_call_service(&service, request.to_request()).await.unwrap()
}

async fn call(request: TestRequest) -> ServiceResponse<BoxBody> {
    call_app(&app_with(&ApiOptions::default()), request).await
}

async fn call_json(request: TestRequest) -> (u16, Value) {
    let response = call(request).await;
    (response.status().as_u16(), json_of(response).await)
}

fn path_of(route: Route) -> String {
    route.template.replace("{coupon_id}", COUPON_ID).replace("{id}", "1")
}

fn fields_of(body: &Value) -> Vec<&str> {
    body["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect()
}

#[actix_web::test]
async fn an_unknown_path_is_a_problem() {
    for uri in ["/", "/api/v1/coupon", "/api/v1/coupons/", "/api/v2/coupons"] {
        let (status, body) = call_json(user(Method::GET, uri).insert_header(("X-Trace-Id", "t-1"))).await;
        let expected = json!({
            "type": "about:blank", "title": "Not Found", "status": 404, "code": "NOT_FOUND",
            "detail": "there is nothing here", "trace_id": "t-1",
        });
        assert_eq!((status, body), (404, expected), "{uri}");
    }
}

#[actix_web::test]
async fn an_unknown_method_names_the_known_ones() {
    for route in ROUTES {
        for method in [Method::DELETE, Method::PUT, Method::OPTIONS] {
            let response = call(admin(method, &path_of(route))).await;
            assert_eq!(response.headers().get(ALLOW).unwrap(), route.allow);
            let body = json_of(response).await;
            assert_eq!((&body["status"], &body["code"]), (&json!(405), &json!("METHOD_NOT_ALLOWED")), "{}", route.template);
        }
    }
}

#[actix_web::test]
async fn a_trace_id_comes_back_or_is_made() {
    let traced = |trace: &'static str| call(user(Method::GET, "/api/v1/me/coupons").insert_header(("X-Trace-Id", trace)));
    assert_eq!(traced("req-1._x").await.headers().get("x-trace-id").unwrap(), "req-1._x");
    let made = traced("not one").await.headers().get("x-trace-id").unwrap().clone();
    assert_eq!(made.len(), 32);
    let response = call(TestRequest::post().uri(&path_of(ISSUE))).await;
    let header = response.headers().get("x-trace-id").unwrap().to_str().unwrap().to_owned();
    assert_eq!(json_of(response).await["trace_id"], header);
}

#[actix_web::test]
async fn the_issue_call_has_its_result_in_every_problem() {
    let response = call(TestRequest::post().uri(&path_of(ISSUE))).await;
    assert!(response.headers().contains_key(WWW_AUTHENTICATE));
    let body = json_of(response).await;
    assert_eq!((&body["status"], &body["code"], &body["result"]), (&json!(401), &json!("UNAUTHENTICATED"), &json!("UNAUTHENTICATED")));
    let (status, body) = call_json(user(Method::POST, "/api/v1/coupons/not-a-uuid/issue")).await;
    assert_eq!((status, &body["code"], &body["result"]), (404, &json!("COUPON_NOT_FOUND"), &json!("COUPON_NOT_FOUND")));
    let (status, body) = call_json(user(Method::GET, "/api/v1/coupons/not-a-uuid")).await;
    assert_eq!((status, &body["code"], &body["result"]), (404, &json!("COUPON_NOT_FOUND"), &Value::Null));
}

#[actix_web::test]
async fn only_admins_change_anything() {
    let calls = [
        (Method::POST, COUPONS),
        (Method::PATCH, COUPON),
        (Method::GET, DEAD_LETTERS),
        (Method::GET, DEAD_LETTER),
        (Method::POST, REPLAY),
        (Method::POST, ABANDON),
    ];
    for (method, route) in calls {
        let (status, body) = call_json(user(method.clone(), &path_of(route)).set_payload("{}")).await;
        assert_eq!((status, &body["code"]), (403, &json!("FORBIDDEN")), "{method} {}", route.template);
        let (status, body) = call_json(TestRequest::default().method(method).uri(&path_of(route)).set_payload("{}")).await;
        assert_eq!((status, &body["code"]), (401, &json!("UNAUTHENTICATED")), "{}", route.template);
    }
}

#[actix_web::test]
async fn every_bad_field_of_a_new_coupon_is_named_at_once() {
    let body = json!({
        "coupon_id": "x", "kind": 7, "discount": {"type": "FREE", "value": 1.5, "unit": "EUR"}, "total_quantity": "many",
        "opens_at": "tomorrow", "closes_at": 12, "colour": "red",
    });
    let (status, body) = call_json(admin(Method::POST, "/api/v1/coupons").set_json(body)).await;
    assert_eq!((status, &body["code"]), (400, &json!("INVALID")));
    let mut fields = fields_of(&body);
    fields.sort_unstable();
    let expected = [
        "closes_at",
        "colour",
        "coupon_id",
        "discount.type",
        "discount.unit",
        "discount.value",
        "kind",
        "name",
        "opens_at",
        "total_quantity",
    ];
    assert_eq!(fields, expected);
}

#[actix_web::test]
async fn what_can_be_read_is_judged_although_the_rest_cannot() {
    let body = json!({
        "name": " ", "discount": {"type": "PERCENTAGE", "value": 101}, "total_quantity": 0,
        "opens_at": "2026-01-02T00:00:00Z", "closes_at": "2026-01-01T00:00:00Z",
    });
    let (_, body) = call_json(admin(Method::POST, "/api/v1/coupons").set_json(body)).await;
    assert_eq!(fields_of(&body), ["kind", "name", "discount.value", "total_quantity", "closes_at"]);
    assert_eq!(body["errors"][0], json!({"field": "kind", "message": "is missing"}));
}

#[actix_web::test]
async fn every_bad_field_of_a_change_is_named_at_once() {
    let body = json!({"status": "open", "total_quantity": -1, "opens_at": false, "name": "New", "colour": "red"});
    let request = admin(Method::PATCH, &path_of(COUPON)).insert_header(("If-Match", "newest")).set_json(body);
    let (status, body) = call_json(request).await;
    assert_eq!(status, 400);
    assert_eq!(fields_of(&body), ["colour", "name", "status", "opens_at", "total_quantity", "If-Match"]);
}

#[actix_web::test]
async fn what_is_no_object_is_refused() {
    for bad in ["", "{", "[]", "null", "\"text\"", "{\"name\":\"\u{1}\"}", &"[".repeat(1_000)] {
        let (status, body) = call_json(admin(Method::POST, "/api/v1/coupons").set_payload(bad.to_owned())).await;
        assert_eq!((status, fields_of(&body)), (400, vec![""]), "{bad}");
    }
}

#[actix_web::test]
async fn a_large_body_is_refused_with_and_without_its_length() {
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(16 * 1024));
    for length in [Some("20000"), Some("99999999999999999999999"), None] {
        let mut request = admin(Method::POST, "/api/v1/coupons").set_payload(large.clone());
        if let Some(length) = length {
            request = request.insert_header(("Content-Length", length));
        }
        let (status, body) = call_json(request).await;
        assert_eq!((status, &body["code"]), (413, &json!("TOO_LARGE")), "{length:?}");
    }
}

#[actix_web::test]
async fn bad_queries_are_named() {
    let (status, body) = call_json(admin(Method::GET, "/api/v1/admin/dead-letters?limit=0&after=x&state=lost")).await;
    assert_eq!((status, fields_of(&body)), (400, vec!["limit", "after", "state"]));
    let (status, body) = call_json(user(Method::GET, "/api/v1/me/coupons?limit=201&after=1")).await;
    assert_eq!((status, fields_of(&body)), (400, vec!["limit", "after"]));
    let (status, body) = call_json(TestRequest::get().uri("/api/v1/coupons?limit=-1&after=1")).await;
    assert_eq!((status, fields_of(&body)), (400, vec!["limit", "after"]));
}

#[actix_web::test]
async fn a_user_pages_through_their_coupons() {
    let (status, first) = call_json(user(Method::GET, "/api/v1/me/coupons?limit=2")).await;
    assert_eq!((status, first["items"].as_array().unwrap().len()), (200, 2));
    let expected = json!({
        "coupon_id": COUPON_ID, "name": "Spring", "kind": "event", "discount": {"type": "FIXED", "value": 5},
        "issue_id": crate::domain::issue_id(COUPON_ID.parse().unwrap(), &"alice".parse().unwrap()),
        "sequence": 1, "requested_at": "2025-12-31T23:59:59.999Z", "issued_at": "2025-12-31T23:59:59.999Z",
    });
    assert_eq!(first["items"][0], expected);
    let next = first["next"].as_str().unwrap();
    let (_, second) = call_json(user(Method::GET, &format!("/api/v1/me/coupons?limit=2&after={next}"))).await;
    assert_eq!((second["items"][0]["sequence"].clone(), second["next"].clone()), (json!(3), Value::Null));
}

#[actix_web::test]
async fn dead_letters_are_listed_and_shown() {
    let (_, page) = call_json(admin(Method::GET, "/api/v1/admin/dead-letters?limit=3")).await;
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (3, &json!("3")));
    let (_, page) = call_json(admin(Method::GET, "/api/v1/admin/dead-letters?state=replayed")).await;
    assert_eq!((&page["items"][0]["id"], &page["next"]), (&json!(3), &Value::Null));
    let (status, letter) = call_json(admin(Method::GET, "/api/v1/admin/dead-letters/1")).await;
    let expected = json!({
        "id": 1, "state": "open", "partition": 7, "log_offset": 101,
        "win": {"coupon_id": COUPON_ID, "user_id": "alice", "sequence": 1, "requested_at": "2026-01-01T00:00:00Z"},
        "error": "data too long", "key": "key", "value": "{}",
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
    });
    assert_eq!((status, letter), (200, expected));
    for (id, status) in [("9", 404), ("x", 404), ("5", 503)] {
        assert_eq!(call_json(admin(Method::GET, &format!("/api/v1/admin/dead-letters/{id}"))).await.0, status, "{id}");
    }
}

#[actix_web::test]
async fn replay_and_abandon_answer_by_state() {
    // 1 open, 2 abandoning, 3 replayed, 4 abandoned and no win, 5 not answered, 6 open and no win, 9 absent
    for (id, replay, abandon) in [
        (1, "", "UNAVAILABLE"),
        (2, "STATE", ""),
        (3, "", "STATE"),
        (4, "STATE", ""),
        (NOT_A_WIN, "NOT_A_WIN", "UNAVAILABLE"),
        (9, "NOT_FOUND", "NOT_FOUND"),
    ] {
        for (verb, code) in [("replay", replay), ("abandon", abandon)] {
            let (status, body) = call_json(admin(Method::POST, &format!("/api/v1/admin/dead-letters/{id}/{verb}"))).await;
            assert_eq!(body["code"].as_str().unwrap_or_default(), code, "{verb} {id}");
            assert_eq!(status == 202, (id, verb) == (2, "abandon"), "{verb} {id}");
        }
    }
    let response = call(admin(Method::POST, "/api/v1/admin/dead-letters/5/abandon")).await;
    assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "1");
}

#[actix_web::test]
async fn a_panic_is_a_problem_that_tells_nothing() {
    let app = app_with(&ApiOptions::default());
    async fn boom() -> &'static str {
        panic!("a secret")
    }
    let resource = web::resource("/boom").route(web::get().to(boom)).wrap(Edge::new(&app, route("/boom", "GET")));
    let service = init_service(actix_web::App::new().app_data(app.clone()).service(resource)).await;
    for _ in 0..2 {
        let request = TestRequest::get().uri("/boom").insert_header(("X-Trace-Id", "t-1")).to_request();
        let response = service.call(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().get("x-trace-id").unwrap().as_bytes()), (500, &b"t-1"[..]));
        let body = json_of(response).await;
        assert_eq!((&body["code"], body.to_string().contains("secret")), (&json!("INTERNAL"), false));
    }
    let counted = app.state.metrics.http_requests_total.with_label_values(&["/boom", "500"]).get();
    assert_eq!((counted, app.other_in_flight.enter().is_some()), (2, true));
}

#[actix_web::test]
async fn a_crowd_is_turned_away_and_does_not_keep_others_out() {
    let app = app_with(&ApiOptions { max_in_flight: 1, ..ApiOptions::default() });
    let held = app.issue_in_flight.enter();
    assert!(held.is_some());
    let response = call_app(&app, user(Method::POST, &path_of(ISSUE))).await;
    assert_eq!((response.status(), response.headers().get(RETRY_AFTER).unwrap().as_bytes()), (StatusCode::TOO_MANY_REQUESTS, &b"1"[..]));
    assert_eq!(json_of(response).await["result"], "TOO_MANY_REQUESTS");
    assert_eq!(app.state.metrics.issue_total.with_label_values(&["TOO_MANY_REQUESTS"]).get(), 1);
    assert_eq!(call_app(&app, user(Method::GET, "/api/v1/me/coupons")).await.status(), StatusCode::OK);
    drop(held);
    let response = call_app(&app, TestRequest::post().uri(&path_of(ISSUE))).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn a_request_given_up_leaves_its_place() {
    let app = app_with(&ApiOptions { max_in_flight: 1, ..ApiOptions::default() });
    let resource = web::resource("/slow").route(web::get().to(pending::<&'static str>)).wrap(Edge::new(&app, route("/slow", "GET")));
    let service = init_service(actix_web::App::new().app_data(app.clone()).service(resource)).await;
    let mut call = Box::pin(service.call(TestRequest::get().uri("/slow").to_request()));
    assert!((&mut call).now_or_never().is_none());
    assert!(app.other_in_flight.enter().is_none());
    drop(call);
    assert!(app.other_in_flight.enter().is_some());
}

#[actix_web::test]
async fn requests_are_counted_by_route_template() {
    let app = app_with(&ApiOptions::default());
    call_app(&app, user(Method::GET, "/api/v1/me/coupons")).await;
    call_app(&app, user(Method::GET, "/some/where")).await;
    let count = |route, status| app.state.metrics.http_requests_total.with_label_values(&[route, status]).get();
    assert_eq!((count("/api/v1/me/coupons", "200"), count("unmatched", "404")), (1, 1));
    assert_eq!(app.state.metrics.http_seconds.with_label_values(&["/api/v1/me/coupons"]).get_sample_count(), 1);
}

/// On a real socket: what the test utilities pass over.
#[actix_web::test]
async fn a_server_serves_and_stops() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app_with(&ApiOptions::default());
    let Ok(app) = Arc::try_unwrap(app.into_inner()) else { panic!("shared") };
    let server = serve(listener, app.state, ApiOptions { workers: 1, ..ApiOptions::default() }).unwrap();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    let client = reqwest::Client::new();
    let get = |path: &str| client.get(format!("http://{address}{path}")).header("X-User-Id", "alice");
    let response = get("/api/v1/me/coupons").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers().contains_key("x-trace-id")), (200, true));
    assert!(!response.headers().contains_key(LOCATION.as_str()));
    let post = client.post(format!("http://{address}/api/v1/coupons")).header("X-User-Id", "root").header("X-Admin", "true");
    let response = post.body("x".repeat(100_000)).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 413);
    // The issue call reads no body; a small one does not spoil the connection.
    for _ in 0..3 {
        let post = client.post(format!("http://{address}/api/v1/coupons/x/issue")).header("X-User-Id", "alice");
        assert_eq!(post.body("{}").send().await.unwrap().status().as_u16(), 404);
    }
    handle.stop(true).await;
    running.await.unwrap().unwrap();
    assert!(get("/api/v1/me/coupons").send().await.is_err());
}

#[actix_web::test]
async fn slow_clients_are_not_waited_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let Ok(app) = Arc::try_unwrap(app_with(&ApiOptions::default()).into_inner()) else { panic!("shared") };
    let options = ApiOptions {
        workers: 1,
        // The server's clock ticks every 500 ms.
        client_request_timeout: Duration::from_secs(1),
        ..ApiOptions::default()
    };
    let server = serve(listener, app.state, options).unwrap();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    let head = "POST /api/v1/coupons HTTP/1.1\r\nHost: x\r\nX-User-Id: root\r\nX-Admin: true\r\nContent-Length: 10\r\n\r\n{\"na";
    for sent in ["POST /api/v1/cou", head] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{sent}: {read:?} {answer}");
        assert_eq!(answer.contains("REQUEST_TIMEOUT"), sent == head, "{answer}");
    }
    handle.stop(true).await;
    running.await.unwrap().unwrap();
}

#[test]
fn every_route_is_documented() {
    let document = openapi();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), ROUTES.len());
    for route in ROUTES {
        let methods: Vec<_> = paths[route.template].as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        assert_eq!(methods.join(", "), route.allow, "{}", route.template);
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn visit(value: &Value, document: &Value) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(target)) = object.get("$ref") {
                    assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                }
                object.values().for_each(|value| visit(value, document));
            }
            Value::Array(items) => items.iter().for_each(|value| visit(value, document)),
            _ => {}
        }
    }
    let document = openapi();
    visit(&document, &document);
}
