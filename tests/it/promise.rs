//! What holds in every topology: run on embedded and on distributed parts.

use std::collections::HashSet;

use serde_json::json;

use crate::support::{Deployment, Parts, Process, ask, crowd, users};

async fn all_in_one(parts: Parts) -> (Deployment, Process) {
    let deployment = Deployment::new(parts).await;
    let process = deployment.start("all").await;
    (deployment, process)
}

macro_rules! on_both_parts {
    ($($name:ident),+ $(,)?) => {
        mod on_embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(super::Parts::Embedded).await; })+
        }
        mod on_distributed {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(super::Parts::Distributed).await; })+
        }
    };
}

on_both_parts!(
    stock_of_one_and_64_at_once_gives_exactly_one,
    ten_thousand_users_get_a_thousand_coupons,
    asking_again_gives_the_same_coupon,
    restock_after_sold_out_sells_exactly_the_rest,
    paused_and_closed_are_obeyed,
    a_user_sees_what_became_of_the_request,
    bad_requests_name_every_fault,
    shutdown_answers_what_is_in_flight_and_a_restart_knows_everybody,
);

async fn stock_of_one_and_64_at_once_gives_exactly_one(parts: Parts) {
    let (deployment, service) = all_in_one(parts).await;
    let coupon = deployment.create(&service.api, 1).await;
    let tally = crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 64), false).await;
    let counts = tally.counts();
    assert_eq!((counts.get("ACCEPTED"), counts.get("SOLD_OUT")), (Some(&1), Some(&63)), "{counts:?}");
    deployment.settles(&coupon, 1).await;
}

async fn ten_thousand_users_get_a_thousand_coupons(parts: Parts) {
    let (deployment, service) = all_in_one(parts).await;
    let coupon = deployment.create(&service.api, 1_000).await;
    let tally = crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 10_000), false).await;
    let counts = tally.counts();
    assert_eq!((counts.get("ACCEPTED"), counts.get("SOLD_OUT"), counts.len()), (Some(&1_000), Some(&9_000), 2), "{counts:?}");
    let sequences: HashSet<i64> = tally.with("ACCEPTED").map(|answer| answer.body["sequence"].as_i64().unwrap()).collect();
    assert_eq!(sequences, (1..=1_000).collect());
    deployment.settles(&coupon, 1_000).await;
}

async fn asking_again_gives_the_same_coupon(parts: Parts) {
    let (deployment, service) = all_in_one(parts).await;
    let coupon = deployment.create(&service.api, 10).await;
    let first = ask(&deployment.http, &service.api, &coupon, "Alice").await;
    assert_eq!((first.status, first.result.as_str()), (202, "ACCEPTED"), "{first:?}");
    for _ in 0..3 {
        let again = ask(&deployment.http, &service.api, &coupon, "Alice").await;
        assert_eq!((again.status, again.result.as_str()), (200, "ALREADY_ISSUED"), "{again:?}");
        assert_eq!((&again.body["issue_id"], &again.body["sequence"]), (&first.body["issue_id"], &first.body["sequence"]));
    }
    let other = ask(&deployment.http, &service.api, &coupon, "alice").await;
    assert_eq!(other.result, "ACCEPTED", "another user, byte by byte");
    deployment.settles(&coupon, 2).await;
}

async fn restock_after_sold_out_sells_exactly_the_rest(parts: Parts) {
    let (deployment, service) = all_in_one(parts).await;
    let coupon = deployment.create(&service.api, 5).await;
    let all = users("u", 50);
    let apis = [service.api.clone()];
    assert_eq!(crowd(&deployment.http, &apis, &coupon, &all, false).await.counts()["ACCEPTED"], 5);
    let changed = deployment.patch(&service.api, &coupon, json!({"total_quantity": 12})).await;
    assert_eq!((&changed["total_quantity"], &changed["version"]), (&json!(12), &json!(2)));
    let tally = crowd(&deployment.http, &apis, &coupon, &all, false).await;
    let counts = tally.counts();
    assert_eq!((counts["ACCEPTED"], counts["ALREADY_ISSUED"], counts["SOLD_OUT"]), (7, 5, 38), "{counts:?}");
    let lowered = deployment.patch(&service.api, &coupon, json!({"total_quantity": 3})).await;
    assert_eq!(lowered["total_quantity"], 12, "what is given out stays given out");
    deployment.settles(&coupon, 12).await;
}

async fn paused_and_closed_are_obeyed(parts: Parts) {
    let (deployment, service) = all_in_one(parts).await;
    let coupon = deployment.create(&service.api, 5).await;
    let holder = ask(&deployment.http, &service.api, &coupon, "holder").await;
    deployment.patch(&service.api, &coupon, json!({"status": "PAUSED"})).await;
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "late").await.result, "PAUSED");
    deployment.patch(&service.api, &coupon, json!({"status": "OPEN"})).await;
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "late").await.result, "ACCEPTED");
    deployment.patch(&service.api, &coupon, json!({"status": "CLOSED"})).await;
    let refused = ask(&deployment.http, &service.api, &coupon, "later").await;
    assert_eq!((refused.status, refused.result.as_str()), (409, "CLOSED"));
    let again = ask(&deployment.http, &service.api, &coupon, "holder").await;
    assert_eq!((again.result.as_str(), &again.body["sequence"]), ("ALREADY_ISSUED", &holder.body["sequence"]));
    deployment.settles(&coupon, 2).await;
}

async fn a_user_sees_what_became_of_the_request(parts: Parts) {
    let (deployment, service) = all_in_one(parts).await;
    let coupon = deployment.create(&service.api, 1).await;
    let path = format!("/api/v1/coupons/{coupon}/issue");
    let (status, body) = deployment.get(&service.api, &path, "alice").await;
    assert_eq!((status, body["code"].as_str()), (404, Some("NOT_REQUESTED")), "{body}");
    ask(&deployment.http, &service.api, &coupon, "alice").await;
    crate::support::eventually("the row is written", std::time::Duration::from_secs(10), async || {
        let (status, body) = deployment.get(&service.api, &path, "alice").await;
        assert_eq!(status, 200, "{body}");
        assert!(["PENDING", "ISSUED"].contains(&body["result"].as_str().unwrap()), "{body}");
        (body["result"] == "ISSUED").then_some(())
    })
    .await;
    let (_, body) = deployment.get(&service.api, &path, "bob").await;
    assert_eq!(body["result"], "SOLD_OUT", "{body}");
    let (status, page) = deployment.get(&service.api, "/api/v1/me/coupons", "alice").await;
    assert_eq!((status, page["items"][0]["coupon_id"].as_str()), (200, Some(coupon.as_str())), "{page}");
    let (_, page) = deployment.get(&service.api, "/api/v1/me/coupons", "bob").await;
    assert_eq!(page["items"], json!([]), "nobody else's");
    let (status, list) = deployment.get(&service.api, "/api/v1/coupons?limit=10", "bob").await;
    assert_eq!((status, list["items"][0]["coupon_id"].as_str()), (200, Some(coupon.as_str())), "{list}");
    deployment.settles(&coupon, 1).await;
}

async fn bad_requests_name_every_fault(parts: Parts) {
    let (deployment, service) = all_in_one(parts).await;
    let post = async |body: String| {
        let request = deployment.http.post(format!("{}/api/v1/coupons", service.api)).header("X-User-Id", "root").header("X-Admin", "true");
        let answer = request.header("Content-Type", "application/json").body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    let (status, body) = post(r#"{"name":"","discount":{"type":"FIXED","value":0},"total_quantity":-1,"colour":"red"}"#.into()).await;
    assert_eq!((status, body["code"].as_str()), (400, Some("INVALID")), "{body}");
    let text = body.to_string();
    for field in ["name", "kind", "discount.value", "total_quantity", "colour"] {
        assert!(text.contains(&format!("\"{field}\"")), "{field} is not named: {text}");
    }
    assert_eq!(post("{".into()).await.0, 400);
    assert_eq!(post(format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 20))).await.0, 413);
    let unknown = ask(&deployment.http, &service.api, &uuid::Uuid::new_v4().to_string(), "alice").await;
    assert_eq!((unknown.status, unknown.result.as_str()), (404, "COUPON_NOT_FOUND"), "{unknown:?}");
    let coupon = deployment.create(&service.api, 1).await;
    let stranger = deployment.http.post(format!("{}/api/v1/coupons/{coupon}/issue", service.api)).send().await.unwrap();
    assert_eq!(stranger.status(), 401);
    deployment.settles(&coupon, 0).await;
}

async fn shutdown_answers_what_is_in_flight_and_a_restart_knows_everybody(parts: Parts) {
    let (deployment, mut service) = all_in_one(parts).await;
    let coupon = deployment.create(&service.api, 500).await;
    let (http, api, id) = (deployment.http.clone(), service.api.clone(), coupon.clone());
    let asking = tokio::spawn(async move { crowd(&http, &[api], &id, &users("u", 400), false).await });
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    service.signal("TERM");
    let tally = asking.await.unwrap();
    assert_eq!(service.wait(), Some(0), "an ordered shutdown exits with 0");
    let service = deployment.start("all").await;
    for answer in tally.with("ACCEPTED") {
        let again = ask(&deployment.http, &service.api, &coupon, &answer.user).await;
        assert_eq!((again.result.as_str(), &again.body["sequence"]), ("ALREADY_ISSUED", &answer.body["sequence"]));
    }
    let rest = crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 600), true).await;
    let counts = rest.counts();
    assert_eq!(counts.get("SOLD_OUT"), Some(&100), "{counts:?}");
    deployment.settles(&coupon, 500).await;
}
