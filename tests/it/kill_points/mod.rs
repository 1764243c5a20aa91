//! The process is killed at every named step of the path (`src/kill_point.rs`) and started again. Then whoever was told yes still has that
//! number, exactly the stock is given out, everybody gets an answer in the end, and the audit is clean.

mod letters;
mod lifecycle;
mod path;
mod shutdown;
mod stalled;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use coupon_svc::kill_point::POINTS;

use crate::support::crowd::Answer;
use crate::support::{Deployment, Parts, Process, ask, crowd, eventually, users};

const VARIABLE: &str = "COUPON_KILL_POINT";
/// Of every coupon here.
const STOCK: i64 = 10;
const USERS: usize = 15;

async fn deployment(parts: Parts) -> Deployment {
    let mut deployment = Deployment::new(parts).await;
    // A killed process's partitions are taken over after this.
    deployment.env.insert("COUPON__CONSUMER__LEASE_MS".into(), "1000".into());
    deployment
}

/// Starts a process that will be killed at `point` (`NAME` or `NAME:PASS`); returns when it is ready, or dead already.
async fn doomed(deployment: &Deployment, role: &str, point: &str) -> Process {
    let mut process = deployment.spawn(role, &[(VARIABLE, point)]);
    let url = format!("{}/readyz", process.ops);
    eventually(&format!("ready, or dead at {point}"), Duration::from_secs(60), async || {
        let is_ready = reqwest::get(&url).await.is_ok_and(|answer| answer.status() == 200);
        (is_ready || process.status().is_some()).then_some(())
    })
    .await;
    process
}

fn name_of(point: &str) -> &str {
    point.split(':').next().unwrap()
}

fn assert_killed(point: &str, status: ExitStatus, log: &str) {
    assert_eq!(status.signal(), Some(9), "not killed at {point}: {status}\n{log}");
    assert!(log.contains(&format!("killed at {}\n", name_of(point))), "killed, but not at {point}:\n{log}");
}

/// Waits until the process was killed at `point`, and nowhere else.
async fn dies_at(process: &mut Process, point: &str) {
    let status = eventually(&format!("killed at {point}"), Duration::from_secs(40), async || process.status()).await;
    assert_killed(point, status, &process.log_text());
}

/// Runs a subcommand that is killed at `point`.
fn command_dies_at(deployment: &Deployment, args: &[&str], point: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_coupon-svc")).args(args).envs(&deployment.env).env(VARIABLE, point).output().unwrap();
    assert_killed(point, output.status, &String::from_utf8_lossy(&output.stderr));
}

/// A few users one after the other, then the rest at once; nobody insists.
async fn everybody_asks_once(deployment: &Deployment, api: &str, coupon: &str) -> Vec<Answer> {
    let everybody = users("u", USERS);
    let mut answers = Vec::new();
    for user in &everybody[..4] {
        answers.push(ask(&deployment.http, api, coupon, user).await);
    }
    let rest = crowd(&deployment.http, &[api.to_owned()], coupon, &everybody[4..], false).await;
    answers.extend(rest.answers);
    answers
}

fn is_yes(answer: &Answer) -> bool {
    ["ACCEPTED", "ALREADY_ISSUED"].contains(&answer.result.as_str())
}

fn yes(answers: &[Answer]) -> BTreeMap<&str, i64> {
    answers.iter().filter(|answer| is_yes(answer)).map(|answer| (answer.user.as_str(), answer.body["sequence"].as_i64().unwrap())).collect()
}

/// Everybody insists on a final answer: the stock is given out to the last, nobody has another number than `before`.
async fn everybody_has_an_answer(deployment: &Deployment, api: &str, coupon: &str, stock: i64, before: &[Answer]) {
    let after = crowd(&deployment.http, &[api.to_owned()], coupon, &users("u", USERS), true).await;
    let holders = yes(&after.answers);
    let sequences: BTreeSet<i64> = holders.values().copied().collect();
    assert_eq!(sequences, (1..=stock).collect(), "{:?}", after.counts());
    assert_eq!(holders.len(), sequences.len(), "{holders:?}");
    assert_eq!(after.with("SOLD_OUT").count(), USERS - holders.len(), "{:?}", after.counts());
    for (user, sequence) in yes(before) {
        assert_eq!(holders.get(user), Some(&sequence), "{user} was told yes before");
    }
    for answer in before.iter().filter(|answer| answer.result == "SOLD_OUT") {
        assert!(!holders.contains_key(answer.user.as_str()), "{} was told no before", answer.user);
    }
}

#[test]
fn every_point_of_the_sources_is_listed_and_dies_in_a_test() {
    let mut named = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            named.extend(text.split("kill_point(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    let listed: BTreeSet<String> = POINTS.iter().map(|point| (*point).to_owned()).collect();
    assert_eq!(named, listed, "the points of the sources and their list");
    let all = [
        path::REQUEST,
        path::ROW,
        path::TERMS,
        letters::ALL,
        lifecycle::START,
        lifecycle::START_OF_MYSQL,
        lifecycle::SNAPSHOT,
        lifecycle::UNLOAD,
        shutdown::ALL,
    ];
    let tried: BTreeSet<String> = all.concat().into_iter().map(|point| name_of(point).to_owned()).collect();
    assert_eq!(tried, listed, "the points that a test dies at and their list");
}
