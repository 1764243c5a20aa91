//! The service in an operator's hands: dead letters, a newer build's records, migrations, signals, systemd, unloading, the rate limit.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use coupon_svc::domain::{CouponId, partition_of};
use diesel_async::{AsyncConnection, AsyncMysqlConnection, RunQueryDsl};
use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;
use serde_json::{Value, json};

use crate::support::{Deployment, Parts, Process, SOON, ask, crowd, eventually, users};

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

/// How many rows there are of `table` (and what it is filtered by).
pub async fn count(deployment: &Deployment, table: &str) -> i64 {
    let mut connection = AsyncMysqlConnection::establish(&deployment.env["COUPON__MYSQL__URL"]).await.unwrap();
    let query = diesel::sql_query(format!("SELECT COUNT(*) AS number FROM {table}"));
    query.get_result::<Number>(&mut connection).await.unwrap().number
}

/// Issued rows over all coupons.
pub async fn rows(deployment: &Deployment) -> i64 {
    count(deployment, "issued_coupons").await
}

/// Exit code, standard output, standard error.
fn run(deployment: &Deployment, args: &[&str]) -> (Option<i32>, String, String) {
    let output = deployment.command(args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn letters(deployment: &Deployment, state: &str) -> Vec<Value> {
    let (code, out, err) = run(deployment, &["dlq", "list", "--json", "--state", state]);
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

/// The one open dead letter, as soon as it is there.
async fn open_letter(deployment: &Deployment) -> Value {
    eventually("one dead letter is open", Duration::from_secs(20), async || letters(deployment, "open").pop()).await
}

async fn settle_letter(deployment: &Deployment, service: &Process, id: &str, how: &str) -> (u16, Value) {
    let url = format!("{}/api/v1/admin/dead-letters/{id}/{how}", service.api);
    let answer = deployment.http.post(url).header("X-User-Id", "root").header("X-Admin", "true").send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn result_of(deployment: &Deployment, service: &Process, coupon: &str, user: &str) -> Value {
    deployment.get(&service.api, &format!("/api/v1/coupons/{coupon}/issue"), user).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_keeps_its_slot_and_is_written_by_a_replay() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let service = deployment.start("all").await;
    deployment.poison().await;
    let coupon = deployment.create(&service.api, 10).await;
    let everybody = [users("a", 5), vec!["poison".to_owned()], users("b", 4)].concat();
    let tally = crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &everybody, false).await;
    assert_eq!(tally.counts().get("ACCEPTED"), Some(&10), "{:?}", tally.counts());
    let kept = tally.answers.iter().find(|answer| answer.user == "poison").unwrap().body["sequence"].clone();
    let letter = open_letter(&deployment).await;
    let id = letter["id"].to_string();
    assert_eq!(
        (&letter["win"]["user_id"], &letter["win"]["coupon_id"], &letter["win"]["sequence"]),
        (&json!("poison"), &json!(coupon), &kept),
        "{letter}"
    );
    assert!(letter["error"].as_str().unwrap().contains("poisoned_by_the_test"), "{letter}");

    // Neighbours have their rows, the slot is taken, the holder is a holder.
    deployment.settles(&coupon, 9).await;
    assert_eq!(deployment.audit()["coupons"][0]["dead_letters"], 1);
    let again = ask(&deployment.http, &service.api, &coupon, "poison").await;
    assert_eq!((again.status, again.result.as_str(), &again.body["sequence"]), (200, "ALREADY_ISSUED", &kept), "{again:?}");
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "late").await.result, "SOLD_OUT");
    assert_eq!(result_of(&deployment, &service, &coupon, "poison").await["result"], "PENDING");
    assert_eq!(result_of(&deployment, &service, &coupon, "a-0").await["result"], "ISSUED");
    let (code, shown, _) = run(&deployment, &["dlq", "show", &id, "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &shown["win"]["sequence"], &shown["state"]), (Some(0), &kept, &json!("open")), "{shown}");
    assert_eq!(run(&deployment, &["dlq", "show", "999999"]).0, Some(1));

    let (code, _, err) = run(&deployment, &["dlq", "replay", &id]);
    assert_eq!(code, Some(1), "the database still refuses it");
    assert!(err.contains("stays open"), "{err}");
    assert_eq!(letters(&deployment, "open").len(), 1);
    deployment.settles(&coupon, 9).await;

    deployment.antidote().await;
    let (code, out, err) = run(&deployment, &["dlq", "replay", &id]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("replayed"), "{out}");
    let written = result_of(&deployment, &service, &coupon, "poison").await;
    assert_eq!((&written["result"], &written["sequence"]), (&json!("ISSUED"), &kept), "{written}");
    let (code, _, err) = run(&deployment, &["dlq", "replay", &id]);
    assert_eq!(code, Some(1));
    assert!(err.contains("nothing was done"), "{err}");
    let (status, body) = settle_letter(&deployment, &service, &id, "replay").await;
    assert_eq!((status, body["state"].as_str()), (200, Some("replayed")), "{body}");
    assert_eq!(settle_letter(&deployment, &service, &id, "abandon").await.0, 409, "what is written is not given back");
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "poison").await.body["sequence"], kept);
    deployment.settles(&coupon, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_letter_gives_its_slot_to_somebody_else() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let service = deployment.start("all").await;
    deployment.poison().await;
    for by in ["http", "command"] {
        let poison = format!("poison-{by}");
        let coupon = deployment.create(&service.api, 3).await;
        for user in ["a", &poison, "b"] {
            assert_eq!(ask(&deployment.http, &service.api, &coupon, user).await.result, "ACCEPTED");
        }
        assert_eq!(ask(&deployment.http, &service.api, &coupon, "late").await.result, "SOLD_OUT");
        let id = open_letter(&deployment).await["id"].to_string();
        if by == "http" {
            let (status, body) = settle_letter(&deployment, &service, &id, "abandon").await;
            assert!(matches!((status, body["state"].as_str()), (200, Some("abandoned")) | (202, Some("abandoning"))), "{status} {body}");
        } else {
            assert_eq!(run(&deployment, &["dlq", "abandon", &id]).0, Some(64), "not without --yes");
            let (code, out, err) = run(&deployment, &["dlq", "abandon", &id, "--yes", "--reason", "the user left"]);
            assert_eq!(code, Some(0), "{err}");
            assert!(out.contains("abandoned"), "{out}");
        }
        eventually("the letter is abandoned", Duration::from_secs(20), async || {
            let (_, letter) = deployment.get(&service.api, &format!("/api/v1/admin/dead-letters/{id}"), "root").await;
            (letter["state"] == "abandoned").then_some(())
        })
        .await;
        let gone = ask(&deployment.http, &service.api, &coupon, &poison).await;
        assert_eq!((gone.status, gone.result.as_str()), (409, "REVOKED"), "{gone:?}");
        assert_eq!(result_of(&deployment, &service, &coupon, &poison).await["result"], "REVOKED");
        let late = eventually("the slot is free", Duration::from_secs(10), async || {
            Some(ask(&deployment.http, &service.api, &coupon, "late").await).filter(|answer| answer.result == "ACCEPTED")
        })
        .await;
        assert_eq!(late.body["sequence"], 4, "a number is never used twice");
        assert_eq!(ask(&deployment.http, &service.api, &coupon, "later").await.result, "SOLD_OUT");
        deployment.settles(&coupon, 3).await;

        // Both again: nothing more happens.
        let (status, body) = settle_letter(&deployment, &service, &id, "abandon").await;
        assert_eq!((status, body["state"].as_str()), (200, Some("abandoned")), "{body}");
        assert_eq!(settle_letter(&deployment, &service, &id, "replay").await.0, 409);
        deployment.settles(&coupon, 3).await;
    }
}

/// P7: what is not written can be seen: in the log, with its message, and as a copy for operators' tools.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_is_logged_copied_and_kept_with_its_message() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let service = deployment.start("all").await;
    deployment.poison().await;
    let coupon = deployment.create(&service.api, 3).await;
    for user in ["a", "poison"] {
        assert_eq!(ask(&deployment.http, &service.api, &coupon, user).await.result, "ACCEPTED");
    }
    let letter = open_letter(&deployment).await;
    let mut missing = Vec::new();
    if !letter["value"].as_str().unwrap().contains("\"poison\"") {
        missing.push(format!("the message is not in the dead letter: {letter}"));
    }
    let dlq = deployment.env["COUPON__KAFKA__DEAD_LETTER_TOPIC"].clone();
    let client = kafka(&deployment).await;
    let copied = Instant::now();
    let mut copies = 0;
    while copies == 0 && copied.elapsed() < Duration::from_secs(5) {
        copies = 0;
        for partition in client
            .list_topics()
            .await
            .unwrap()
            .into_iter()
            .find(|topic| topic.name == dlq)
            .map(|topic| topic.partitions)
            .unwrap_or_default()
        {
            let partition = client.partition_client(&dlq, partition, UnknownTopicHandling::Error).await.unwrap();
            copies += partition.get_offset(OffsetAt::Latest).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    if copies != 1 {
        missing.push(format!("{copies} copies in the dead letter topic"));
    }
    service.logs(&["dead letter", "trace-poison"], SOON).await;
    if service.log_text().lines().any(|line| line.contains("\"issued\"") && line.contains("trace-poison")) {
        missing.push("the log says that the refused row was issued".to_owned());
    }
    assert!(missing.is_empty(), "{missing:#?}");
    deployment.settles(&coupon, 1).await;
}

async fn kafka(deployment: &Deployment) -> Client {
    ClientBuilder::new(vec![deployment.env["COUPON__KAFKA__BROKERS"].clone()]).build().await.unwrap()
}

fn partition(coupon: &str) -> i32 {
    partition_of(coupon.parse::<CouponId>().unwrap(), 6)
}

/// What `/readyz` says of a partition that is not read any more. One partition alone does not make a process useless: the status is not judged.
async fn stopped_reader(process: &Process, partition: i32) -> Option<String> {
    let report: Value = reqwest::get(format!("{}/readyz", process.ops)).await.ok()?.json().await.ok()?;
    let checks = report["checks"].as_array()?;
    let stopped = checks.iter().filter(|check| check["ok"] == false).filter_map(|check| check["detail"].as_str());
    stopped.map(str::to_owned).find(|detail| detail.contains(&format!("partition {partition} ")))
}

async fn not_ready(ops: &str) -> Option<String> {
    let answer = reqwest::get(format!("{ops}/readyz")).await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    (status == 503).then_some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_build_stops_its_partition_and_nothing_else() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let mut api = deployment.start("api").await;
    let mut consumer = deployment.start("consumer").await;
    let coupon = deployment.create(&api.api, 10).await;
    let stopped = partition(&coupon);
    let other = loop {
        let other = deployment.create(&api.api, 10).await;
        if partition(&other) != stopped {
            break other;
        }
    };
    let first = crowd(&deployment.http, std::slice::from_ref(&api.api), &coupon, &users("a", 4), true).await;
    assert_eq!(first.counts()["ACCEPTED"], 4);
    deployment.settles(&coupon, 4).await;

    let newer = Record {
        key: Some(coupon.as_bytes().to_vec()),
        value: Some(br#"{"v":2,"type":"issue","user_id":"future","at":1767225600000,"lane":7}"#.to_vec()),
        headers: BTreeMap::new(),
        timestamp: rskafka::chrono::DateTime::from_timestamp_millis(1_767_225_600_000).unwrap(),
    };
    let client = kafka(&deployment).await.partition_client(&deployment.topic, stopped, UnknownTopicHandling::Error).await.unwrap();
    client.produce(vec![newer], Compression::NoCompression).await.unwrap();
    for (reader, process) in [("api", &api), ("consumer", &consumer)] {
        let report = eventually("the reader stops", Duration::from_secs(10), async || stopped_reader(process, stopped).await).await;
        assert!(report.contains("version 2"), "{reader}: {report}");
        assert_eq!(
            reqwest::get(format!("{}/livez", process.ops)).await.unwrap().status(),
            200,
            "{reader} is alive: a restart mends nothing"
        );
    }

    // What is known is answered, what is not is not.
    let answer = ask(&deployment.http, &api.api, &coupon, "a-0").await;
    assert_eq!(answer.result, "ALREADY_ISSUED", "{answer:?}");
    let answer = ask(&deployment.http, &api.api, &coupon, "new").await;
    assert_eq!((answer.status, answer.result.as_str()), (503, "UNAVAILABLE"), "{answer:?}");
    let tally = crowd(&deployment.http, std::slice::from_ref(&api.api), &other, &users("b", 20), true).await;
    assert_eq!((tally.counts()["ACCEPTED"], tally.counts()["SOLD_OUT"]), (10, 10), "{:?}", tally.counts());
    eventually("the other coupon's rows are written", Duration::from_secs(20), async || (rows(&deployment).await == 14).then_some(()))
        .await;
    let (code, out, err) = run(&deployment, &["audit", "--json", "--coupon", &other]);
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = run(&deployment, &["audit"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(err.contains(&format!("partition {stopped}")) && err.contains("version 2"), "{err}");
    assert_eq!(run(&deployment, &["dlq", "list", "--json"]).1.trim(), "[]", "not passed over");

    // A restart of the old build stops at the same place and forgets nobody.
    for process in [&mut api, &mut consumer] {
        process.signal("TERM");
        assert_eq!(process.ends(Duration::from_secs(10)).await, Some(0));
    }
    let api = deployment.spawn("api", &[]);
    let consumer = deployment.spawn("consumer", &[]);
    for (reader, process) in [("api", &api), ("consumer", &consumer)] {
        let report = eventually("the reader stops again", Duration::from_secs(30), async || stopped_reader(process, stopped).await).await;
        assert!(report.contains("version 2"), "{reader}: {report}");
    }
    for answer in first.with("ACCEPTED") {
        let again = ask(&deployment.http, &api.api, &coupon, &answer.user).await;
        assert_eq!((again.result.as_str(), &again.body["sequence"]), ("ALREADY_ISSUED", &answer.body["sequence"]));
    }
    let nobody = crowd(&deployment.http, std::slice::from_ref(&api.api), &other, &["nobody".to_owned()], true).await;
    assert_eq!(nobody.counts().get("SOLD_OUT"), Some(&1), "{nobody:?}");
    assert_eq!(rows(&deployment).await, 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_by_the_command_and_missing_ones_are_named() {
    let mut deployment = Deployment::new(Parts::Distributed).await;
    deployment.env.insert("COUPON__MYSQL__MIGRATE_AT_START".into(), "false".into());
    for role in ["api", "consumer"] {
        let mut early = deployment.spawn(role, &[]);
        assert_eq!(early.ends(Duration::from_secs(20)).await, Some(1), "{role}");
        let log = early.log_text();
        assert!(log.contains("coupon-svc migrate"), "{role} says what to do: {log}");
    }
    let (code, out, err) = run(&deployment, &["migrate"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("migrated ") && out.contains("up to date"), "{out}");
    let (code, out, err) = run(&deployment, &["migrate"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(!out.contains("migrated ") && out.contains("up to date"), "{out}");
    let service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 1).await;
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "alice").await.result, "ACCEPTED");
    deployment.settles(&coupon, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_that_run_at_once_run_once() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let env = deployment.env.clone();
    let migrate = || Command::new(env!("CARGO_BIN_EXE_coupon-svc")).arg("migrate").envs(&env).output().unwrap();
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..3).map(|_| scope.spawn(migrate)).collect();
        running.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let outputs: Vec<_> = outputs.iter().map(|output| (output.status.code(), String::from_utf8_lossy(&output.stdout))).collect();
    assert!(outputs.iter().all(|(code, _)| *code == Some(0)), "{outputs:?}");
    assert_eq!(outputs.iter().filter(|(_, out)| out.contains("migrated ")).count(), 1, "{outputs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_every_role_within_ten_seconds() {
    let deployment = Deployment::new(Parts::Distributed).await;
    for (role, signal) in [("all", "TERM"), ("api", "INT"), ("consumer", "TERM")] {
        let mut process = deployment.start(role).await;
        process.signal(signal);
        assert_eq!(process.ends(Duration::from_secs(10)).await, Some(0), "{role}");
    }
}

/// A client that sends the head of a request and then nothing: the shutdown waits for it.
fn half_a_request(service: &Process) -> TcpStream {
    let mut stream = TcpStream::connect(service.api.trim_start_matches("http://")).unwrap();
    let head = "POST /api/v1/coupons HTTP/1.1\r\nHost: x\r\nX-User-Id: root\r\nX-Admin: true\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let mut service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 5).await;
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "alice").await.result, "ACCEPTED");
    let _client = half_a_request(&service);
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.signal("TERM");
    service.logs(&["\"stopping\""], Duration::from_secs(5)).await;
    service.signal("INT");
    // The runtime is given a second for blocking calls.
    let code = service.ends(Duration::from_secs(3)).await;
    let text = service.log_text();
    assert!(text.contains("second signal"), "{text}");
    assert_eq!(code, Some(1), "{text}");
    let service = deployment.start("all").await;
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "alice").await.result, "ALREADY_ISSUED");
    deployment.settles(&coupon, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_finishes_does_not_hold_up_the_shutdown() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let mut service = deployment.start("all").await;
    let _client = half_a_request(&service);
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.signal("TERM");
    assert_eq!(service.ends(Duration::from_secs(10)).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_when_it_is_ready_and_when_it_stops() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let path = deployment.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let heard = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut service = deployment.spawn("all", &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let first = heard();
    assert!(first.lines().any(|line| line == "READY=1"), "{first}");
    assert!(not_ready(&service.ops).await.is_none(), "READY=1 before it is");
    service.signal("TERM");
    let second = heard();
    assert!(second.lines().any(|line| line == "STOPPING=1"), "{second}");
    assert_eq!(service.ends(Duration::from_secs(10)).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed() {
    let deployment = Deployment::new(Parts::Embedded).await;
    let path = deployment.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _service = deployment.spawn("all", &[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "400000")]);
    let mut heard = String::new();
    while heard.matches("WATCHDOG=1").count() < 3 {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_serves_probes_and_metrics_and_no_api() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let consumer = deployment.start("consumer").await;
    let get = async |url: String| {
        let answer = deployment.http.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get(format!("{}/livez", consumer.ops)).await.0, 200);
    let (status, report) = get(format!("{}/readyz", consumer.ops)).await;
    assert_eq!(status, 200, "{report}");
    assert!(report.contains("\"consumer\""), "{report}");
    let (status, metrics) = get(format!("{}/metrics", consumer.ops)).await;
    assert_eq!(status, 200);
    for name in ["coupon_ledger_rows_total", "coupon_limiter_rate", "process_resident_memory_bytes"] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    assert_eq!(get(format!("{}/api/v1/coupons", consumer.ops)).await.0, 404);
    assert!(deployment.http.get(format!("{}/api/v1/coupons", consumer.api)).send().await.unwrap_err().is_connect());
}

async fn an_unloaded_coupon_is_answered_from_the_ledger(parts: Parts) {
    let deployment = Deployment::new(parts).await;
    let service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 10).await;
    let open = deployment.create(&service.api, 10).await;
    let won = crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 7), false).await;
    assert_eq!(ask(&deployment.http, &service.api, &open, "u-0").await.result, "ACCEPTED");
    deployment.patch(&service.api, &coupon, json!({"status": "CLOSED"})).await;
    deployment.settles(&coupon, 7).await;
    service.logs(&["unloaded a coupon that is over", &coupon], Duration::from_secs(40)).await;
    let check = async |service: &Process| {
        for answer in won.with("ACCEPTED") {
            let again = ask(&deployment.http, &service.api, &coupon, &answer.user).await;
            assert_eq!((again.status, again.result.as_str()), (200, "ALREADY_ISSUED"), "{again:?}");
            assert_eq!((&again.body["issue_id"], &again.body["sequence"]), (&answer.body["issue_id"], &answer.body["sequence"]));
        }
        let other = ask(&deployment.http, &service.api, &coupon, "stranger").await;
        assert_eq!((other.status, other.result.as_str()), (409, "CLOSED"), "{other:?}");
        let (status, shown) = deployment.get(&service.api, &format!("/api/v1/coupons/{coupon}"), "u-0").await;
        assert_eq!((status, &shown["status"], &shown["issued"]), (200, &json!("CLOSED"), &json!(7)), "{shown}");
        assert_eq!(result_of(&deployment, service, &coupon, "u-0").await["result"], "ISSUED");
        assert_eq!(result_of(&deployment, service, &coupon, "stranger").await["code"], "NOT_REQUESTED");
        assert_eq!(ask(&deployment.http, &service.api, &open, "u-0").await.result, "ALREADY_ISSUED", "an open coupon stays");
    };
    check(&service).await;
    let text = service.log_text();
    assert!(!text.lines().any(|line| line.contains("unloaded a coupon") && line.contains(&open)));
    deployment.settles(&coupon, 7).await;
    drop(service);
    check(&deployment.start("all").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unloaded_coupon_is_answered_from_the_ledger_on_embedded_parts() {
    an_unloaded_coupon_is_answered_from_the_ledger(Parts::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unloaded_coupon_is_answered_from_the_ledger_on_distributed_parts() {
    an_unloaded_coupon_is_answered_from_the_ledger(Parts::Distributed).await;
}
