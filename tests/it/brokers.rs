//! A cluster of three brokers that loses one at a time: leaders change, and the service follows them.

use std::time::Duration;

use crate::support::{BROKERS, Deployment, Parts, Stack, crowd, users};

/// As many as there are partitions, so that every broker leads some of them.
const COUPONS: usize = 6;

/// A third more users than stock ask for each of the coupons until every one has a final answer.
async fn sell(deployment: &Deployment, api: &str, coupons: &[String], round: &str) {
    for (number, coupon) in coupons.iter().enumerate() {
        let users = users(&format!("{round}-{number}"), 40);
        let tally = crowd(&deployment.http, &[api.to_owned()], coupon, &users, true).await;
        let mut counts = tally.counts();
        // Who was not answered in time the first time may have it already.
        let yes = counts.remove("ACCEPTED").unwrap_or(0) + counts.remove("ALREADY_ISSUED").unwrap_or(0);
        assert_eq!((yes, counts.remove("SOLD_OUT")), (30, Some(10)), "{round}: {counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_or_stalled_or_missing_at_the_start_costs_time_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Stack::start(dir.path(), &BROKERS).await;
    let mut deployment = Deployment::new(Parts::Distributed).await;
    deployment.env.insert("COUPON__KAFKA__BROKERS".into(), cluster.bootstrap());
    deployment.env.insert("COUPON__KAFKA__REPLICATION_FACTOR".into(), "3".into());
    let mut service = deployment.start("all").await;
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let mut coupons = Vec::new();
        for _ in 0..COUPONS {
            coupons.push(deployment.create(&service.api, 30).await);
        }
        rounds.push(coupons);
    }
    sell(&deployment, &service.api, &rounds[0], "whole").await;

    cluster.signal(BROKERS[0], "KILL");
    sell(&deployment, &service.api, &rounds[1], "one-killed").await;
    // A client that first sees the cluster without this broker must find it again later.
    service.kill();
    let service = deployment.start("all").await;
    cluster.up(&[BROKERS[0]]).await;
    sell(&deployment, &service.api, &rounds[2], "one-back").await;

    cluster.signal(BROKERS[1], "STOP");
    sell(&deployment, &service.api, &rounds[3], "one-stalled").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.signal(BROKERS[1], "CONT");
    sell(&deployment, &service.api, &rounds[4], "all-back").await;
    for coupon in rounds.iter().flatten() {
        deployment.settles(coupon, 30).await;
    }
    drop(service);
}
