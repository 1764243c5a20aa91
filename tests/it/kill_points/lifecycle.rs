//! A process that starts, and a coupon that is over.

use std::time::Duration;

use serde_json::json;

use super::{STOCK, VARIABLE, deployment, dies_at, doomed, everybody_asks_once, everybody_has_an_answer};
use crate::support::{Deployment, Parts, ask, eventually};

/// Of the first start of all: one after the other, each finds what the one before left. Every migration is killed at once.
pub const START: &[&str] = &[
    "start.locked",
    "ledger.migrate.ran",
    "ledger.migrate.ran:2",
    "ledger.migrate.ran:4",
    "ledger.migrate.ran:3",
    "ledger.partitions.recorded",
    "follower.start.after",
];

pub const START_OF_MYSQL: &[&str] = &["ledger.migrate.locked"];

pub const SNAPSHOT: &[&str] =
    &["ledger.snapshot.positions", "ledger.snapshot.coupons:2", "ledger.snapshot.users", "ledger.snapshot.users:7", "follower.start.after"];

async fn dies_starting(deployment: &Deployment, point: &str) {
    let mut process = deployment.spawn("all", &[(VARIABLE, point)]);
    dies_at(&mut process, point).await;
}

async fn a_start_goes_on(parts: Parts) {
    let deployment = deployment(parts).await;
    let of_mysql = if parts == Parts::Distributed { START_OF_MYSQL } else { &[] };
    for point in of_mysql.iter().chain(START) {
        dies_starting(&deployment, point).await;
    }
    let mut calm = deployment.start("all").await;
    let first = deployment.create(&calm.api, STOCK).await;
    let second = deployment.create(&calm.api, STOCK).await;
    let mut told = Vec::new();
    for coupon in [&first, &second] {
        told.push(everybody_asks_once(&deployment, &calm.api, coupon).await);
        deployment.settles(coupon, STOCK).await;
    }
    calm.kill();
    for point in SNAPSHOT {
        dies_starting(&deployment, point).await;
    }
    let calm = deployment.start("all").await;
    for (coupon, told) in [&first, &second].into_iter().zip(&told) {
        everybody_has_an_answer(&deployment, &calm.api, coupon, STOCK, told).await;
        deployment.settles(coupon, STOCK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_where_a_kill_left_it() {
    tokio::join!(a_start_goes_on(Parts::Embedded), a_start_goes_on(Parts::Distributed));
}

pub const UNLOAD: &[&str] = &["unload.before", "unload.after"];

async fn an_unloaded_coupon_stays_over(parts: Parts, point: &str) {
    let deployment = deployment(parts).await;
    let mut process = doomed(&deployment, "all", point).await;
    let coupon = deployment.create(&process.api, STOCK).await;
    let told = everybody_asks_once(&deployment, &process.api, &coupon).await;
    deployment.patch(&process.api, &coupon, json!({"status": "CLOSED"})).await;
    dies_at(&mut process, point).await;
    let calm = deployment.start("all").await;
    for answer in &told {
        let again = ask(&deployment.http, &calm.api, &coupon, &answer.user).await;
        if answer.result == "ACCEPTED" {
            assert_eq!((again.result.as_str(), &again.body["sequence"]), ("ALREADY_ISSUED", &answer.body["sequence"]), "{point}");
        } else {
            assert_eq!(again.result, "CLOSED", "{point}: {answer:?}");
        }
    }
    deployment.settles(&coupon, STOCK).await;
    let status = eventually("the coupon is known", Duration::from_secs(5), async || {
        let (status, shown) = deployment.get(&calm.api, &format!("/api/v1/coupons/{coupon}"), "u-0").await;
        (status == 200).then_some(shown)
    })
    .await;
    assert_eq!((&status["status"], &status["issued"]), (&json!("CLOSED"), &json!(STOCK)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_that_is_over_stays_over_after_a_kill_while_it_is_unloaded() {
    tokio::join!(
        an_unloaded_coupon_stays_over(Parts::Embedded, UNLOAD[0]),
        an_unloaded_coupon_stays_over(Parts::Embedded, UNLOAD[1]),
        an_unloaded_coupon_stays_over(Parts::Distributed, UNLOAD[1]),
    );
}
