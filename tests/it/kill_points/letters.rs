//! Rows that the database refuses: buried, replayed, abandoned, and killed on every one of these ways.

use std::time::Duration;

use serde_json::{Value, json};

use super::{STOCK, VARIABLE, command_dies_at, deployment, dies_at, doomed};
use crate::support::{Deployment, Parts, Process, ask, crowd, eventually, users};

const BURY: &[&str] = &["ledger.bury.before", "ledger.bury.after"];
const REPLAY: &[&str] = &["ledger.replay.marked", "ledger.replay.written"];

pub const ALL: &[&str] = &[
    BURY[0],
    BURY[1],
    REPLAY[0],
    REPLAY[1],
    "ledger.abandon.marked",
    "abandon.revoke.before",
    "abandon.revoke.after",
    "consumer.revoke.again",
    "ledger.revoke.marked",
];

/// The dead letters of a coupon, whatever their state.
fn letters(deployment: &Deployment, coupon: &str) -> Vec<Value> {
    let output = deployment.command(&["dlq", "list", "--json"]);
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    all.into_iter().filter(|letter| letter["win"]["coupon_id"] == coupon).collect()
}

/// The one dead letter of a coupon: its id, once it is in `state`.
async fn letter(deployment: &Deployment, coupon: &str, state: &str) -> String {
    eventually(&format!("a dead letter is {state}"), Duration::from_secs(30), async || {
        let found = letters(deployment, coupon);
        assert!(found.len() < 2, "{found:?}");
        found.first().filter(|letter| letter["state"] == state).map(|letter| letter["id"].to_string())
    })
    .await
}

fn state(deployment: &Deployment, coupon: &str) -> Value {
    letters(deployment, coupon)[0]["state"].clone()
}

/// A coupon whose first winner is `poison`; nobody else has asked.
async fn poisoned_coupon(deployment: &Deployment, service: &Process) -> String {
    let coupon = deployment.create(&service.api, STOCK).await;
    let won = ask(&deployment.http, &service.api, &coupon, "poison").await;
    assert_eq!((won.result.as_str(), &won.body["sequence"]), ("ACCEPTED", &json!(1)), "{won:?}");
    coupon
}

/// `poison` holds its number and the others have all the rest.
async fn poison_keeps_its_slot(deployment: &Deployment, api: &str, coupon: &str) {
    let again = ask(&deployment.http, api, coupon, "poison").await;
    assert_eq!((again.result.as_str(), &again.body["sequence"]), ("ALREADY_ISSUED", &json!(1)), "{again:?}");
    let tally = crowd(&deployment.http, &[api.to_owned()], coupon, &users("u", 14), true).await;
    assert_eq!(tally.with("SOLD_OUT").count(), 5, "{:?}", tally.counts());
    assert_eq!(super::yes(&tally.answers).len(), 9, "{:?}", tally.counts());
}

/// The number of `poison` is free again and the next one gets it, with a new one.
async fn the_slot_is_given_to_somebody_else(deployment: &Deployment, api: &str, coupon: &str) {
    letter(deployment, coupon, "abandoned").await;
    eventually("the win is taken back", Duration::from_secs(10), async || {
        (ask(&deployment.http, api, coupon, "poison").await.result == "REVOKED").then_some(())
    })
    .await;
    let tally = crowd(&deployment.http, &[api.to_owned()], coupon, &users("u", 14), true).await;
    let sequences: std::collections::BTreeSet<i64> = super::yes(&tally.answers).into_values().collect();
    assert_eq!(sequences, (2..=STOCK + 1).collect(), "{:?}", tally.counts());
    assert_eq!(tally.with("SOLD_OUT").count(), 4, "{:?}", tally.counts());
    deployment.settles(coupon, STOCK).await;
}

async fn abandon_over_http(deployment: &Deployment, service: &Process, id: &str) -> Option<u16> {
    let url = format!("{}/api/v1/admin/dead-letters/{id}/abandon", service.api);
    let answer = deployment.http.post(url).header("X-User-Id", "root").header("X-Admin", "true").send().await.ok()?;
    Some(answer.status().as_u16())
}

async fn dead_letters_survive(parts: Parts) {
    let deployment = deployment(parts).await;
    let mut calm = deployment.start("all").await;
    deployment.poison().await;

    // Buried once.
    let mut buried = String::new();
    for point in BURY {
        calm.kill();
        let mut process = doomed(&deployment, "all", point).await;
        buried = poisoned_coupon(&deployment, &process).await;
        dies_at(&mut process, point).await;
        assert!(letters(&deployment, &buried).is_empty(), "{point}: nothing of the transaction stays");
        calm = deployment.start("all").await;
        poison_keeps_its_slot(&deployment, &calm.api, &buried).await;
        letter(&deployment, &buried, "open").await;
        deployment.settles(&buried, STOCK - 1).await;
    }

    // Abandoned by the command: killed in the transaction, and after its append.
    let coupon = poisoned_coupon(&deployment, &calm).await;
    let id = letter(&deployment, &coupon, "open").await;
    let abandon = ["dlq", "abandon", &id, "--yes"];
    command_dies_at(&deployment, &abandon, "ledger.abandon.marked");
    assert_eq!(state(&deployment, &coupon), "open");
    poison_keeps_its_slot(&deployment, &calm.api, &coupon).await;
    command_dies_at(&deployment, &abandon, "abandon.revoke.after");
    letter(&deployment, &coupon, "abandoned").await;
    let late = eventually("the slot is free", Duration::from_secs(10), async || {
        Some(ask(&deployment.http, &calm.api, &coupon, "late").await).filter(|answer| answer.result == "ACCEPTED")
    })
    .await;
    assert_eq!(late.body["sequence"], STOCK + 1, "a number is never used twice");
    deployment.settles(&coupon, STOCK).await;

    // The same by the service, and the command killed before its append: the consumer sends the revoke again.
    for point in ["abandon.revoke.after", "abandon.revoke.before"] {
        let coupon = poisoned_coupon(&deployment, &calm).await;
        let id = letter(&deployment, &coupon, "open").await;
        calm.kill();
        let mut process = doomed(&deployment, "all", point).await;
        assert_eq!(abandon_over_http(&deployment, &process, &id).await, None, "{point}: no answer");
        dies_at(&mut process, point).await;
        if point == "abandon.revoke.before" {
            assert_eq!(state(&deployment, &coupon), "abandoning");
            command_dies_at(&deployment, &["dlq", "abandon", &id, "--yes"], point);
            for point in ["consumer.revoke.again", "ledger.revoke.marked"] {
                let mut process = deployment.spawn("all", &[(VARIABLE, point)]);
                dies_at(&mut process, point).await;
                assert_eq!(state(&deployment, &coupon), "abandoning", "{point}");
            }
        }
        calm = deployment.start("all").await;
        the_slot_is_given_to_somebody_else(&deployment, &calm.api, &coupon).await;
    }

    // Replayed whole or not at all.
    deployment.antidote().await;
    let id = letter(&deployment, &buried, "open").await;
    for point in REPLAY {
        command_dies_at(&deployment, &["dlq", "replay", &id], point);
        assert_eq!(state(&deployment, &buried), "open", "{point}");
        deployment.settles(&buried, STOCK - 1).await;
    }
    assert!(deployment.command(&["dlq", "replay", &id]).status.success());
    assert_eq!(state(&deployment, &buried), "replayed");
    poison_keeps_its_slot(&deployment, &calm.api, &buried).await;
    deployment.settles(&buried, STOCK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_is_buried_replayed_or_abandoned_whole_after_a_kill_at_every_step() {
    tokio::join!(dead_letters_survive(Parts::Embedded), dead_letters_survive(Parts::Distributed));
}
