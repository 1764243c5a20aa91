//! The service without any server.

use std::time::Duration;

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
    let log = std::fs::read_to_string(&second.log).unwrap();
    assert!(log.contains("another process"), "{log}");
    let coupon = deployment.create(&service.api, 1).await;
    deployment.settles(&coupon, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_configuration_names_every_fault() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let mut service = deployment.spawn("consumer", &[("COUPON__API__IDENTITY", "jwt"), ("COUPON__JWT__HS256_SECRET", "short")]);
    assert_eq!(service.wait(), Some(64));
    let log = std::fs::read_to_string(&service.log).unwrap();
    assert!(log.contains("role") && log.contains("hs256_secret"), "{log}");
}
