//! A process that ends in order, killed at every stage of that.

use std::time::Duration;

use super::{STOCK, deployment, dies_at, doomed, everybody_asks_once, everybody_has_an_answer, is_yes};
use crate::support::crowd::Answer;
use crate::support::{Deployment, Parts, Process, ask, crowd, eventually, users};

/// `shutdown.stage` is tried for every stage there is.
pub const ALL: &[&str] = &["shutdown.begin", "shutdown.stage", "ledger.release.freed", "shutdown.end"];

/// A new coupon, some users with an answer, a crowd on its way, and SIGTERM into it.
async fn terminated_in_a_crowd(deployment: &Deployment, process: &Process) -> (String, Vec<Answer>) {
    let coupon = deployment.create(&process.api, STOCK).await;
    let mut told = vec![ask(&deployment.http, &process.api, &coupon, "u-0").await];
    assert!(is_yes(&told[0]), "{told:?}");
    eventually("the drain is at work", Duration::from_secs(20), async || {
        let (_, result) = deployment.get(&process.api, &format!("/api/v1/coupons/{coupon}/issue"), "u-0").await;
        (result["result"] == "ISSUED").then_some(())
    })
    .await;
    let apis = [process.api.clone()];
    let rest = users("u", super::USERS).split_off(1);
    let asking = crowd(&deployment.http, &apis, &coupon, &rest, false);
    let terminating = async { process.signal("TERM") };
    told.extend(tokio::join!(asking, terminating).0.answers);
    (coupon, told)
}

async fn every_stage(parts: Parts) {
    let deployment = deployment(parts).await;
    let mut coupons = Vec::new();
    let points = ALL.iter().filter(|point| **point != "shutdown.stage").map(|point| (*point).to_owned());
    for point in points {
        let mut process = doomed(&deployment, "all", &point).await;
        coupons.push(terminated_in_a_crowd(&deployment, &process).await);
        dies_at(&mut process, &point).await;
    }
    let mut stages = 0;
    loop {
        let point = format!("shutdown.stage:{}", stages + 1);
        let mut process = doomed(&deployment, "all", &point).await;
        coupons.push(terminated_in_a_crowd(&deployment, &process).await);
        process.ends(Duration::from_secs(20)).await;
        if process.status().unwrap().success() {
            break;
        }
        dies_at(&mut process, &point).await;
        stages += 1;
    }
    assert!(stages >= 10, "{stages} stages");
    let calm = deployment.start("all").await;
    for (coupon, told) in &coupons {
        everybody_has_an_answer(&deployment, &calm.api, coupon, STOCK, told).await;
    }
    for (coupon, _) in &coupons {
        deployment.settles(coupon, STOCK).await;
    }
    drop(calm);
    // Once more from the ledger alone.
    let calm = deployment.start("all").await;
    let coupon = deployment.create(&calm.api, STOCK).await;
    let told = everybody_asks_once(&deployment, &calm.api, &coupon).await;
    everybody_has_an_answer(&deployment, &calm.api, &coupon, STOCK, &told).await;
    for (coupon, told) in &coupons {
        everybody_has_an_answer(&deployment, &calm.api, coupon, STOCK, told).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_may_be_cut_short_at_every_stage() {
    tokio::join!(every_stage(Parts::Embedded), every_stage(Parts::Distributed));
}
