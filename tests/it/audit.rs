//! The audit finds what was planted: each corruption by its name, with the coupon and the user, and nothing else; as a command and in the
//! background of a running consumer.

use std::collections::BTreeMap;
use std::time::Duration;

use coupon_svc::audit::Kind;
use coupon_svc::domain::{CouponId, partition_of};
use rskafka::client::partition::UnknownTopicHandling;
use rskafka::client::{Client, ClientBuilder};
use serde_json::{Value, json};

use crate::support::{Deployment, Parts, Process, SOON, ask, eventually, users};

/// Kind and user (`-`: of nobody) of each violation, sorted.
type Found = Vec<(String, String)>;

fn audit(deployment: &Deployment) -> (Option<i32>, Value) {
    let output = deployment.command(&["audit", "--json"]);
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

/// What the command finds. Whatever is of a coupon must name it.
fn found(deployment: &Deployment, coupon: &str) -> Found {
    let (code, report) = audit(deployment);
    let lists = report["coupons"].as_array().unwrap().iter().map(|coupon| &coupon["violations"]);
    let all = lists.chain([&report["journal"], &report["tables"]]).flat_map(|list| list.as_array().unwrap());
    let mut found = Found::new();
    for violation in all {
        let kind = violation["kind"].as_str().unwrap();
        let of_partition = kind.starts_with("journal_") || kind.starts_with("offset_a") || kind == "offset_behind";
        assert_eq!(violation["coupon_id"], if of_partition { Value::Null } else { json!(coupon) }, "{violation}");
        found.push((kind.to_owned(), violation["user_id"].as_str().unwrap_or("-").to_owned()));
    }
    assert_eq!((code, report["clean"].as_bool()), (Some(i32::from(!found.is_empty())), Some(found.is_empty())), "{report:#}");
    found.sort();
    found
}

/// What the background shows now, by kind.
async fn shown(process: &Process) -> BTreeMap<String, usize> {
    let text = process.metrics().await;
    let gauges = text.lines().filter_map(|line| line.strip_prefix("coupon_audit_violations{kind=\"")?.split_once("\"} "));
    gauges.map(|(kind, count)| (kind.to_owned(), count.parse().unwrap())).filter(|(_, count)| *count > 0).collect()
}

async fn shows(process: &Process, expected: &Found, within: Duration) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (kind, _) in expected {
        *counts.entry(kind.clone()).or_default() += 1;
    }
    eventually(&format!("the metric shows {counts:?}"), within, async || (shown(process).await == counts).then_some(())).await;
}

fn error_lines(log: &str) -> Vec<Value> {
    let lines = log.lines().filter(|line| line.contains("the audit found a violation"));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn letter_of(deployment: &Deployment, user: &str) -> String {
    eventually("the refused row is a dead letter", Duration::from_secs(20), async || {
        let output = deployment.command(&["dlq", "list", "--json"]);
        let letters: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        letters.iter().find(|letter| letter["win"]["user_id"] == user).map(|letter| letter["id"].to_string())
    })
    .await
}

/// A coupon of 8 with `a-0` to `a-4` (1 to 5), an open dead letter (6), a replayed one (7), an abandoned one (8) and `late` (9).
async fn everything_there_is(deployment: &Deployment, service: &Process) -> String {
    deployment.poison().await;
    let coupon = deployment.create(&service.api, 8).await;
    for user in users("a", 5).iter().map(String::as_str).chain(["poison-open", "poison-replayed", "poison-gone"]) {
        assert_eq!(ask(&deployment.http, &service.api, &coupon, user).await.result, "ACCEPTED");
    }
    let (replayed, gone) = (letter_of(deployment, "poison-replayed").await, letter_of(deployment, "poison-gone").await);
    deployment.antidote().await;
    assert!(deployment.command(&["dlq", "replay", &replayed]).status.success());
    assert!(deployment.command(&["dlq", "abandon", &gone, "--yes"]).status.success());
    let late = eventually("the slot is free", Duration::from_secs(10), async || {
        Some(ask(&deployment.http, &service.api, &coupon, "late").await).filter(|answer| answer.result == "ACCEPTED")
    })
    .await;
    assert_eq!(late.body["sequence"], 9);
    deployment.settles(&coupon, 7).await;
    coupon
}

/// Name, statements, and what must be found: no more and no less.
type Plant = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const PLANTS: &[Plant] = &[
    ("a row missing", "DELETE FROM issued_coupons WHERE user_id = 'a-2'", &[("count_wrong", "-"), ("row_missing", "a-2")]),
    (
        "a row double",
        "INSERT INTO issued_coupons SELECT coupon_id, 50, user_id, issue_id, log_offset, 0, 0 FROM issued_coupons WHERE user_id = 'a-1'",
        &[("count_wrong", "-"), ("double_user", "a-1"), ("over_issue", "-")],
    ),
    (
        "two sequences swapped",
        "UPDATE issued_coupons SET sequence = CASE sequence WHEN 1 THEN 4 ELSE 1 END WHERE sequence IN (1, 4)",
        &[("sequence_wrong", "a-0"), ("sequence_wrong", "a-3")],
    ),
    ("a sequence replaced", "UPDATE issued_coupons SET sequence = 77 WHERE user_id = 'a-0'", &[("sequence_wrong", "a-0")]),
    (
        "a sequence given twice",
        "UPDATE issued_coupons SET sequence = 6 WHERE user_id = 'a-0'",
        &[("double_sequence", "poison-open"), ("sequence_wrong", "a-0")],
    ),
    ("another place in the log", "UPDATE issued_coupons SET log_offset = 0 WHERE user_id = 'a-3'", &[("offset_wrong", "a-3")]),
    ("a wrong count", "UPDATE coupons SET issued = issued - 1", &[("count_wrong", "-"), ("counters_differ", "-")]),
    (
        "one more than there was",
        "INSERT INTO issued_coupons SELECT coupon_id, 10, 'thief', issue_id, 0, 0, 0 FROM issued_coupons WHERE user_id = 'a-0'; \
         UPDATE coupons SET issued = issued + 1, next_sequence = next_sequence + 1",
        &[("counters_differ", "-"), ("over_issue", "-"), ("row_without_record", "thief")],
    ),
    (
        "an offset ahead of the rows",
        "UPDATE partition_offsets SET next_offset = next_offset + 1 WHERE next_offset > 0",
        &[("offset_ahead", "-")],
    ),
    (
        "an offset ahead that took the fingerprint along",
        "DELETE FROM issued_coupons WHERE user_id = 'late'; UPDATE coupons SET issued = issued - 1, next_sequence = next_sequence - 1",
        &[("counters_differ", "-"), ("row_missing", "late")],
    ),
    (
        "an offset behind the rows",
        "UPDATE partition_offsets SET next_offset = next_offset - 2 WHERE next_offset > 0",
        &[("offset_behind", "-")],
    ),
    ("an offset at the begin", "UPDATE partition_offsets SET next_offset = 0 WHERE next_offset > 0", &[("offset_behind", "-")]),
    ("another log", "UPDATE partition_offsets SET fingerprint = fingerprint / 2 WHERE next_offset > 0", &[("journal_replaced", "-")]),
    (
        "a row without a record",
        "UPDATE issued_coupons SET user_id = 'stranger' WHERE user_id = 'a-4'",
        &[("row_missing", "a-4"), ("row_without_record", "stranger")],
    ),
    ("other terms", "UPDATE coupons SET name = 'another'", &[("terms_differ", "-")]),
    ("a revocation missing", "DELETE FROM revocations", &[("revocation_missing", "poison-gone")]),
    (
        "a revocation without a record",
        "UPDATE revocations SET user_id = 'somebody'",
        &[("revocation_missing", "poison-gone"), ("revocation_without_record", "somebody")],
    ),
    (
        "a revoked user with a row",
        "INSERT INTO issued_coupons SELECT coupon_id, 8, user_id, '', 0, 0, 0 FROM revocations",
        &[("count_wrong", "-"), ("over_issue", "-"), ("revoked_holds", "poison-gone")],
    ),
    (
        "a dead letter replayed without a row",
        "UPDATE dead_letters SET state = 'replayed' WHERE state = 'open'",
        &[("count_wrong", "-"), ("dead_letter_without_row", "poison-open")],
    ),
    ("no coupon", "DELETE FROM coupons", &[("coupon_missing", "-"), ("row_without_coupon", "a-0")]),
];

async fn each_planted_corruption_is_named(parts: Parts) {
    let mut deployment = Deployment::new(parts).await;
    deployment.env.insert("COUPON__AUDIT__EVERY_MS".into(), "200".into());
    let service = deployment.start("all").await;
    let coupon = everything_there_is(&deployment, &service).await;
    deployment.unguard().await;
    assert_eq!(found(&deployment, &coupon), Found::new());
    for (name, statements, expected) in PLANTS {
        deployment.sql(&format!("BEGIN; {statements}; COMMIT")).await;
        let expected: Found = expected.iter().map(|(kind, user)| ((*kind).to_owned(), (*user).to_owned())).collect();
        assert_eq!(found(&deployment, &coupon), expected, "{name}");
        shows(&service, &expected, Duration::from_secs(20)).await;
        deployment.repair().await;
        shows(&service, &Found::new(), Duration::from_secs(20)).await;
    }
    assert_eq!(found(&deployment, &coupon), Found::new());
    for (kind, user) in PLANTS.iter().flat_map(|(_, _, expected)| *expected) {
        assert!(Kind::ALL.iter().any(|known| known.as_str() == *kind), "{kind} is not documented");
        let user = if *user == "-" { Value::Null } else { json!(user) };
        let is_it = |line: &Value| line["level"] == "ERROR" && line["audit.kind"] == *kind && line["user.id"] == user;
        service.logged(&format!("{kind} {user}"), SOON, |log| error_lines(log).iter().any(is_it).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_corruption_is_named_on_embedded() {
    each_planted_corruption_is_named(Parts::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_corruption_is_named_on_distributed() {
    each_planted_corruption_is_named(Parts::Distributed).await;
}

async fn kafka(deployment: &Deployment) -> Client {
    ClientBuilder::new(vec![deployment.env["COUPON__KAFKA__BROKERS"].clone()]).build().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_cut_short_is_named_and_one_cut_by_retention_is_not() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let api = deployment.start("api").await;
    let mut consumer = deployment.start("consumer").await;
    let coupon = deployment.create(&api.api, 20).await;
    for user in users("a", 5) {
        assert_eq!(ask(&deployment.http, &api.api, &coupon, &user).await.result, "ACCEPTED");
    }
    deployment.settles(&coupon, 5).await;
    consumer.signal("TERM");
    consumer.wait();
    let client = kafka(&deployment).await;
    let partition = partition_of(coupon.parse::<CouponId>().unwrap(), 6);
    let log = client.partition_client(&deployment.topic, partition, UnknownTopicHandling::Error).await.unwrap();
    log.delete_records(3, 5_000).await.unwrap();
    assert_eq!(found(&deployment, &coupon), Found::new(), "what the ledger read may go");
    deployment.sql("UPDATE issued_coupons SET sequence = sequence + 90 WHERE user_id = 'a-4'").await;
    assert_eq!(found(&deployment, &coupon), [("sequence_wrong".to_owned(), "a-4".to_owned())], "what is retained is still compared");
    deployment.sql("UPDATE issued_coupons SET sequence = sequence - 90 WHERE user_id = 'a-4'").await;

    for user in users("b", 3) {
        assert_eq!(ask(&deployment.http, &api.api, &coupon, &user).await.result, "ACCEPTED");
    }
    assert_eq!(found(&deployment, &coupon), Found::new(), "unread is not missing");
    let truncated = [("journal_truncated".to_owned(), "-".to_owned())];
    log.delete_records(8, 5_000).await.unwrap();
    assert_eq!(found(&deployment, &coupon), truncated, "what the ledger did not read is gone");

    drop(api);
    client.controller_client().unwrap().delete_topic(&deployment.topic, 5_000).await.unwrap();
    // The command makes the topic again, empty.
    let again = eventually("the topic is gone", Duration::from_secs(20), async || {
        let topics = client.list_topics().await.unwrap();
        topics.iter().all(|topic| topic.name != deployment.topic).then_some(())
    });
    again.await;
    assert_eq!(found(&deployment, &coupon), truncated, "the new topic is shorter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_the_embedded_journal_is_named() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let mut service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 20).await;
    for user in users("a", 5) {
        assert_eq!(ask(&deployment.http, &service.api, &coupon, &user).await.result, "ACCEPTED");
    }
    deployment.settles(&coupon, 5).await;
    service.signal("TERM");
    service.wait();
    deployment.journal_sql("DELETE FROM journal WHERE position > 4");
    assert_eq!(found(&deployment, &coupon), [("journal_damaged".to_owned(), "-".to_owned())]);
}

/// With the settings that are the default.
#[tokio::test(flavor = "multi_thread")]
async fn the_background_finds_a_swap_and_an_over_issue_within_a_minute_and_sees_the_repair() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let (api, consumer) = (deployment.start("api").await, deployment.start("consumer").await);
    let coupon = deployment.create(&api.api, 5).await;
    for user in users("a", 5) {
        assert_eq!(ask(&deployment.http, &api.api, &coupon, &user).await.result, "ACCEPTED");
    }
    deployment.settles(&coupon, 5).await;
    deployment.unguard().await;
    deployment
        .sql(
            "UPDATE issued_coupons SET sequence = CASE sequence WHEN 1 THEN 4 ELSE 1 END WHERE sequence IN (1, 4); \
             INSERT INTO issued_coupons SELECT coupon_id, 6, 'thief', issue_id, 0, 0, 0 FROM issued_coupons WHERE sequence = 2",
        )
        .await;
    let planted = ["count_wrong", "over_issue", "row_without_record", "sequence_wrong", "sequence_wrong"];
    let planted: Found = planted.into_iter().map(|kind| (kind.to_owned(), String::new())).collect();
    shows(&consumer, &planted, Duration::from_secs(60)).await;
    for user in ["a-0", "a-3", "thief"] {
        consumer.logs(&["the audit found a violation", user, &coupon], SOON).await;
    }
    deployment.repair().await;
    shows(&consumer, &Found::new(), Duration::from_secs(60)).await;
    deployment.settles(&coupon, 5).await;
}

/// Consumers commit, come, go and die, dead letters are made, replayed and abandoned: whatever the audit sees in between is true.
#[tokio::test(flavor = "multi_thread")]
async fn the_background_gives_no_false_alarm_while_everything_moves() {
    let mut deployment = Deployment::new(Parts::Distributed).await;
    deployment.env.insert("COUPON__AUDIT__EVERY_MS".into(), "20".into());
    let api = deployment.start("api").await;
    let mut one = deployment.start("consumer").await;
    let mut processes = vec![deployment.start("consumer").await];
    deployment.poison().await;
    let mut coupons = Vec::new();
    for _ in 0..4 {
        coupons.push(deployment.create(&api.api, 60).await);
    }
    for wave in 0..4 {
        let names = [users(&format!("w{wave}"), 30), users(&format!("poison-{wave}"), 2)].concat();
        let apis = std::slice::from_ref(&api.api);
        let asking = coupons.iter().map(|coupon| crate::support::crowd(&deployment.http, apis, coupon, &names, true));
        let settling = async {
            for (index, letter) in open_letters(&deployment).into_iter().enumerate() {
                let verb = if index % 2 == 0 { ["abandon", &letter, "--yes"].to_vec() } else { ["replay", &letter].to_vec() };
                // A replay is refused until the antidote: that is one of the things that move.
                deployment.command(&[vec!["dlq"], verb].concat());
            }
        };
        tokio::join!(futures_util::future::join_all(asking), settling);
        match wave {
            0 => one.kill(),
            1 => processes.push(deployment.start("consumer").await),
            2 => deployment.antidote().await,
            _ => {}
        }
    }
    for coupon in &coupons {
        let report = eventually("everything won is written", Duration::from_secs(40), async || {
            let report = audit(&deployment).1;
            let all = report["coupons"].as_array().unwrap();
            all.iter().all(|coupon| coupon["unwritten"] == 0).then_some(report)
        })
        .await;
        assert_eq!(report["clean"], true, "{coupon}: {report:#}");
    }
    processes.push(one);
    for process in &processes {
        assert_eq!(error_lines(&process.log_text()), Vec::<Value>::new());
    }
    for process in &processes[..2] {
        let text = process.metrics().await;
        assert!(text.lines().any(|line| line.starts_with("coupon_audit_last_timestamp_seconds 1")), "rounds were finished");
        assert_eq!(shown(process).await, BTreeMap::new());
    }
}

fn open_letters(deployment: &Deployment) -> Vec<String> {
    let output = deployment.command(&["dlq", "list", "--json", "--state", "open"]);
    let letters: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    letters.iter().map(|letter| letter["id"].to_string()).collect()
}
