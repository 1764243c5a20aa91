//! The service without any server.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Deployment, Parts, ask, crowd, users};

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_mid_crowd_loses_nobody_who_was_answered_yes() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let mut service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 2_000).await;
    let (http, api, id) = (deployment.http.clone(), service.api.clone(), coupon.clone());
    let asking = tokio::spawn(async move { crowd(&http, &[api], &id, &users("u", 3_000), false).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    service.kill();
    let before = asking.await.unwrap();
    let service = deployment.start("all").await;
    for answer in before.with("ACCEPTED") {
        let again = ask(&deployment.http, &service.api, &coupon, &answer.user).await;
        assert_eq!((again.result.as_str(), &again.body["sequence"]), ("ALREADY_ISSUED", &answer.body["sequence"]));
    }
    let after = crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 3_000), true).await;
    let counts = after.counts();
    assert_eq!(counts.get("SOLD_OUT"), Some(&1_000), "{counts:?}");
    deployment.settles(&coupon, 2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_serves_one_process() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let service = deployment.start("all").await;
    let mut second = deployment.spawn("all", &[]);
    assert_eq!(second.wait(), Some(1));
    let log = second.log_text();
    assert!(log.contains("another process"), "{log}");
    let coupon = deployment.create(&service.api, 1).await;
    deployment.settles(&coupon, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_configuration_names_every_fault() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let mut service = deployment.spawn("consumer", &[("COUPON__API__IDENTITY", "jwt"), ("COUPON__JWT__HS256_SECRET", "short")]);
    assert_eq!(service.wait(), Some(64));
    let log = service.log_text();
    assert!(log.contains("role") && log.contains("hs256_secret"), "{log}");
}

/// Half of its body is there when the signal comes, the other half when the shutdown is on its way: it still reaches the log and is seen there.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_carried_out_during_the_shutdown() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let mut service = deployment.start("all").await;
    let body = r#"{"name":"late","kind":"FIRST_COME","discount":{"type":"FIXED","value":1},"total_quantity":5}"#;
    let (first, second) = body.split_at(20);
    let mut client = TcpStream::connect(service.api.trim_start_matches("http://")).await.unwrap();
    let head =
        "POST /api/v1/coupons HTTP/1.1\r\nHost: x\r\nX-User-Id: root\r\nX-Admin: true\r\nContent-Type: application/json\r\nContent-Length";
    client.write_all(format!("{head}: {}\r\n\r\n{first}", body.len()).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.signal("TERM");
    service.logs(&["\"stopping\""], Duration::from_secs(5)).await;
    let readiness = reqwest::get(format!("{}/readyz", service.ops)).await.unwrap();
    assert_eq!(readiness.status(), 503, "nobody is sent here any more");
    client.write_all(second.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(service.ends(Duration::from_secs(10)).await, Some(0));
    let coupon: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let service = deployment.start("all").await;
    let coupon = coupon["coupon_id"].as_str().unwrap();
    assert_eq!(ask(&deployment.http, &service.api, coupon, "alice").await.result, "ACCEPTED");
    deployment.settles(coupon, 1).await;
}
