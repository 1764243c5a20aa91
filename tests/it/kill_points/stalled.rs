//! A consumer that is frozen for longer than its claim, taken over, and wakes up in the middle of what it was doing.

use std::fs;
use std::time::Duration;

use super::{STOCK, USERS, VARIABLE, deployment, everybody_asks_once, everybody_has_an_answer, name_of};
use crate::support::{Deployment, Parts, Process, ask, crowd, eventually, users};

async fn stops_at(process: &Process, point: &str) {
    let stat = format!("/proc/{}/stat", process.pid());
    eventually(&format!("stopped at {point}"), Duration::from_secs(20), async || {
        // After the name in brackets: T is stopped.
        let is_stopped = fs::read_to_string(&stat).unwrap().rsplit_once(") ").unwrap().1.starts_with('T');
        let log = process.log_text();
        (is_stopped && log.contains(&format!("stopped at {}\n", name_of(point)))).then_some(())
    })
    .await;
}

async fn settles_without_the_frozen_one(deployment: &Deployment, point: &str) {
    let api = deployment.start("api").await;
    let coupon = deployment.create(&api.api, STOCK).await;
    let frozen = deployment.spawn("consumer", &[(VARIABLE, point)]);
    let before = everybody_asks_once(deployment, &api.api, &coupon).await;
    stops_at(&frozen, point).await;
    let other = deployment.start("consumer").await;
    everybody_has_an_answer(deployment, &api.api, &coupon, STOCK, &before).await;
    deployment.settles(&coupon, STOCK).await;

    frozen.signal("CONT");
    frozen
        .logged("the one that was frozen sees that it was fenced", Duration::from_secs(20), |log| {
            ["moved by another owner", "another consumer moved this partition"].iter().any(|words| log.contains(words)).then_some(())
        })
        .await;
    let log = frozen.log_text();
    assert!(!log.contains("\"issued\""), "it wrote nothing:\n{log}");
    deployment.settles(&coupon, STOCK).await;

    // Both go on, each with its share.
    for _ in 0..6 {
        let coupon = deployment.create(&api.api, STOCK).await;
        let tally = crowd(&deployment.http, std::slice::from_ref(&api.api), &coupon, &users("u", USERS), true).await;
        assert_eq!(tally.counts().get("ACCEPTED"), Some(&usize::try_from(STOCK).unwrap()), "{:?}", tally.counts());
        deployment.settles(&coupon, STOCK).await;
    }
    assert_eq!(ask(&deployment.http, &api.api, &coupon, "late").await.result, "SOLD_OUT");
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_frozen_for_longer_than_its_claim_writes_nothing_when_it_wakes_up() {
    let (first, second) = (deployment(Parts::Distributed).await, deployment(Parts::Distributed).await);
    tokio::join!(
        settles_without_the_frozen_one(&first, "consumer.fold.after:stop"),
        settles_without_the_frozen_one(&second, "consumer.commit.before:stop"),
    );
}

/// Its transaction is open and holds the lock of the offset: the database ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_frozen_inside_its_transaction_does_not_hold_up_the_others_for_long() {
    let deployment = deployment(Parts::Distributed).await;
    settles_without_the_frozen_one(&deployment, "ledger.commit.written:stop").await;
}
