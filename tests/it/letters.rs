//! Dead letters as a tool, on the command line and over HTTP: nothing happens twice, nothing is left unmarked, every answer says what happened,
//! and the log says who did it.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use coupon_svc::domain::{CouponId, partition_of};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use serde_json::{Value, json};

use crate::support::{Deployment, Parts, Process, SOON, ask, crowd, eventually, users};

const BYTES: [u8; 2] = [0xff, 0x00];

macro_rules! on_both_parts {
    ($($name:ident),+ $(,)?) => {
        mod on_embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(super::Parts::Embedded).await; })+
        }
        mod on_distributed {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(super::Parts::Distributed).await; })+
        }
    };
}

on_both_parts!(each_letter_is_settled_once_whoever_asks, an_unreadable_message_can_only_be_abandoned);

/// An admin at both surfaces.
struct Admin<'a> {
    deployment: &'a Deployment,
    service: &'a Process,
}

impl Admin<'_> {
    async fn http(&self, id: &str, verb: &str) -> (u16, Value) {
        let url = format!("{}/api/v1/admin/dead-letters/{id}/{verb}", self.service.api);
        let request = self.deployment.http.post(url).header("X-User-Id", "root").header("X-Admin", "true");
        let answer = request.header("X-Trace-Id", format!("trace-{verb}-{id}")).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// The command `dlq VERB IDS`, beside whatever else runs.
    async fn command<const N: usize>(&self, verb: &str, ids: [&str; N]) -> Output {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_coupon-svc"));
        command.args(["dlq", verb]).args(ids).args((verb == "abandon").then_some("--yes")).envs(&self.deployment.env);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn shown(&self, id: &str) -> Value {
        let (status, by_http) = self.deployment.get(&self.service.api, &format!("/api/v1/admin/dead-letters/{id}"), "root").await;
        assert_eq!(status, 200, "{by_http}");
        by_http
    }

    async fn is(&self, id: &str, state: &str) {
        eventually(&format!("letter {id} is {state}"), Duration::from_secs(20), async || {
            (self.shown(id).await["state"] == state).then_some(())
        })
        .await;
    }

    /// The open letters, by user (empty: of nobody).
    async fn open(&self, count: usize) -> BTreeMap<String, String> {
        eventually(&format!("{count} letters are open"), Duration::from_secs(20), async || {
            let (_, page) = self.deployment.get(&self.service.api, "/api/v1/admin/dead-letters?state=open", "root").await;
            let letters = page["items"].as_array().unwrap();
            let by_user = letters.iter().map(|l| (l["win"]["user_id"].as_str().unwrap_or_default().to_owned(), l["id"].to_string()));
            (letters.len() == count).then(|| by_user.collect())
        })
        .await
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Admin lines among log lines: action, who, outcome, target.
fn admin_lines(log: &str) -> Vec<Value> {
    log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(|line| line["admin.action"].is_string()).collect()
}

fn outcomes(lines: &[Value], action: &str, id: &str) -> Vec<String> {
    let of_letter = lines.iter().filter(|line| line["admin.action"] == action && line["dead_letter.id"].as_i64() == id.parse().ok());
    of_letter.map(|line| line["admin.outcome"].as_str().unwrap().to_owned()).collect()
}

async fn each_letter_is_settled_once_whoever_asks(parts: Parts) {
    let deployment = Deployment::new(parts).await;
    let service = deployment.start("all").await;
    let admin = Admin { deployment: &deployment, service: &service };
    deployment.poison().await;
    let coupon = deployment.create(&service.api, 6).await;
    let other = deployment.create(&service.api, 200).await;
    let everybody = ["a-0", "a-1", "poison-replayed", "poison-abandoned", "poison-raced", "poison-last"];
    for user in everybody {
        assert_eq!(ask(&deployment.http, &service.api, &coupon, user).await.result, "ACCEPTED");
    }
    let letters = admin.open(4).await;
    let [replayed, abandoned, raced, last] =
        ["poison-replayed", "poison-abandoned", "poison-raced", "poison-last"].map(|user| letters[user].as_str());

    // One shape, whoever shows it.
    let by_command = deployment.command(&["dlq", "show", replayed]);
    assert_eq!(serde_json::from_slice::<Value>(&by_command.stdout).unwrap(), admin.shown(replayed).await);
    let list: Vec<Value> = serde_json::from_slice(&deployment.command(&["dlq", "list", "--json"]).stdout).unwrap();
    let (_, page) = deployment.get(&service.api, "/api/v1/admin/dead-letters", "root").await;
    assert_eq!(json!(list), page["items"]);

    // Still refused: said so, and left open.
    let (status, body) = admin.http(replayed, "replay").await;
    assert_eq!((status, &body["code"]), (409, &json!("STILL_REFUSED")), "{body}");
    assert!(body["error"].as_str().unwrap().contains("poisoned_by_the_test"), "{body}");
    assert_eq!(admin.shown(replayed).await["state"], "open");
    deployment.antidote().await;

    // Both at once, while others are served.
    let names = users("crowd", 300);
    let apis = [service.api.clone()];
    let crowding = crowd(&deployment.http, &apis, &other, &names, true);
    let settling = async {
        let ((status, body), command) = tokio::join!(admin.http(replayed, "replay"), admin.command("replay", [replayed]));
        assert_eq!((status, &body["state"]), (200, &json!("replayed")), "{body}");
        let said = text(&command.stdout) + &text(&command.stderr);
        assert!(said.contains("replayed") && (command.status.success() || said.contains("nothing was done")), "{said}");
        let ((status, body), command) = tokio::join!(admin.http(abandoned, "abandon"), admin.command("abandon", [abandoned]));
        assert!(matches!((status, body["state"].as_str()), (200, Some("abandoned")) | (202, Some("abandoning"))), "{body}");
        assert!(command.status.success() && text(&command.stdout).contains("abandoned"), "{command:?}");
        tokio::join!(admin.http(raced, "abandon"), admin.command("replay", [raced]))
    };
    let (tally, ((raced_status, raced_body), raced_command)) = tokio::join!(crowding, settling);
    assert_eq!(tally.counts()["ACCEPTED"], 200);
    admin.is(abandoned, "abandoned").await;

    // Of abandon and replay one wins, and both answers say which.
    let replay_won = raced_command.status.success();
    assert_eq!(raced_status == 409, replay_won, "{raced_body} {raced_command:?}");
    admin.is(raced, if replay_won { "replayed" } else { "abandoned" }).await;
    assert_eq!(replay_won, !text(&raced_command.stderr).contains("nothing was done"), "{raced_command:?}");

    // Again: nothing more happens.
    assert_eq!(admin.http(replayed, "replay").await.0, 200);
    let (status, body) = admin.http(replayed, "abandon").await;
    assert_eq!((status, &body["code"], &body["state"]), (409, &json!("STATE"), &json!("replayed")), "{body}");
    let command = admin.command("abandon", [replayed]).await;
    assert!(command.status.code() == Some(1) && text(&command.stderr).contains("is replayed, not open: nothing was done"), "{command:?}");
    assert_eq!(admin.http(abandoned, "abandon").await.0, 200);
    assert!(admin.command("abandon", [abandoned]).await.status.success());
    let (status, body) = admin.http(abandoned, "replay").await;
    assert_eq!((status, &body["state"]), (409, &json!("abandoned")), "{body}");
    let command = admin.command("replay", [abandoned]).await;
    assert!(command.status.code() == Some(1) && text(&command.stderr).contains("is abandoned, not open"), "{command:?}");

    // One that fails does not keep the others.
    let command = admin.command("replay", ["999999", last, abandoned]).await;
    assert_eq!(command.status.code(), Some(1));
    let (out, err) = (text(&command.stdout), text(&command.stderr));
    assert_eq!(out, format!("dead letter {last}: replayed\n"));
    assert!(err.contains("there is no dead letter 999999") && err.contains(&format!("dead letter {abandoned} is abandoned")), "{err}");

    // The slot is the next asker's, not the user's who lost it.
    let gone = ask(&deployment.http, &service.api, &coupon, "poison-abandoned").await;
    assert_eq!((gone.status, gone.result.as_str()), (409, "REVOKED"), "{gone:?}");
    let free = if replay_won { 1 } else { 2 };
    for number in 0..free {
        let late = eventually("the slot is free", Duration::from_secs(10), async || {
            Some(ask(&deployment.http, &service.api, &coupon, &format!("late-{number}")).await).filter(|answer| answer.result == "ACCEPTED")
        });
        assert_eq!(late.await.body["sequence"], 7 + number);
    }
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "later").await.result, "SOLD_OUT");
    deployment.settles(&coupon, 6).await;
    deployment.settles(&other, 200).await;

    // Who did it.
    let has_last = |lines: &Vec<Value>| outcomes(lines, "dead_letter.replay", abandoned) == ["refused"];
    let lines = service.logged("the last admin action", SOON, |log| Some(admin_lines(log)).filter(has_last)).await;
    for line in &lines {
        assert_eq!((&line["admin.by"], &line["admin.via"]), (&json!("root"), &json!("http")), "{line}");
    }
    assert_eq!(lines.iter().filter(|line| line["admin.action"] == "coupon.create" && line["admin.outcome"] == "done").count(), 2);
    assert!(lines.iter().any(|line| line["coupon.id"] == coupon.as_str()), "{lines:#?}");
    assert_eq!(outcomes(&lines, "dead_letter.abandon", replayed), ["refused"]);
    let line = lines.iter().find(|line| line["admin.action"] == "dead_letter.replay").unwrap();
    assert_eq!(line["trace_id"], format!("trace-replay-{replayed}"), "{line}");
    let lines = admin_lines(&err);
    assert_eq!(lines.len(), 3, "{err}");
    assert!(
        lines.iter().all(|line| line["admin.via"] == "command" && line["admin.by"].as_str().unwrap().split_once('@').is_some()),
        "{err}"
    );
    assert_eq!(
        ["999999", last, abandoned].map(|id| outcomes(&lines, "dead_letter.replay", id).concat()),
        ["not_found", "done", "refused"],
        "{err}"
    );
    let changed = deployment.patch(&service.api, &coupon, json!({"status": "PAUSED"})).await;
    assert_eq!(changed["status"], "PAUSED");
    let is_change = |line: &Value| line["admin.action"] == "coupon.change";
    let line = service.logged("the change", SOON, |log| admin_lines(log).into_iter().find(is_change)).await;
    assert_eq!((&line["admin.outcome"], &line["coupon.id"], &line["admin.by"]), (&json!("done"), &json!(coupon), &json!("root")), "{line}");
    assert!(line["trace_id"].is_string() && line["admin.detail"].as_str().unwrap().contains("Paused"), "{line}");
}

async fn an_unreadable_message_can_only_be_abandoned(parts: Parts) {
    let deployment = Deployment::new(parts).await;
    let service = deployment.start("all").await;
    let admin = Admin { deployment: &deployment, service: &service };
    let coupon = deployment.create(&service.api, 5).await;
    match parts {
        Parts::Embedded => deployment.journal_sql(&format!("INSERT INTO journal (coupon_id, value, at) VALUES ('{coupon}', X'ff00', 0)")),
        Parts::Distributed => {
            let client = ClientBuilder::new(vec![deployment.env["COUPON__KAFKA__BROKERS"].clone()]).build().await.unwrap();
            let partition = partition_of(coupon.parse::<CouponId>().unwrap(), 6);
            let log = client.partition_client(&deployment.topic, partition, UnknownTopicHandling::Error).await.unwrap();
            let at = rskafka::chrono::DateTime::from_timestamp_millis(1_767_225_600_000).unwrap();
            let (key, value) = (Some(coupon.as_bytes().to_vec()), Some(BYTES.to_vec()));
            log.produce(vec![Record { key, value, headers: BTreeMap::new(), timestamp: at }], Compression::NoCompression).await.unwrap();
        }
    }
    let id = admin.open(1).await[""].clone();
    let shown = admin.shown(&id).await;
    assert_eq!((&shown["win"], &shown["value"], &shown["key"]), (&Value::Null, &json!("hex:ff00"), &json!(coupon)), "{shown}");
    let by_command = deployment.command(&["dlq", "show", &id]);
    assert_eq!(serde_json::from_slice::<Value>(&by_command.stdout).unwrap(), shown);

    let (status, body) = admin.http(&id, "replay").await;
    assert_eq!((status, &body["code"]), (409, &json!("NOT_A_WIN")), "{body}");
    let command = admin.command("replay", [id.as_str()]).await;
    assert!(command.status.code() == Some(1) && text(&command.stderr).contains("nothing to write"), "{command:?}");
    let ((status, body), command) = tokio::join!(admin.http(&id, "abandon"), admin.command("abandon", [id.as_str()]));
    assert_eq!((status, &body["state"]), (200, &json!("abandoned")), "{body}");
    assert!(command.status.success() && text(&command.stdout).contains(&format!("dead letter {id}: abandoned")), "{command:?}");
    assert_eq!(admin.http(&id, "abandon").await.0, 200);
    let (status, body) = admin.http(&id, "replay").await;
    assert_eq!((status, &body["code"], &body["state"]), (409, &json!("STATE"), &json!("abandoned")), "{body}");
    let command = admin.command("replay", [id.as_str()]).await;
    assert!(command.status.code() == Some(1) && text(&command.stderr).contains("is abandoned, not open"), "{command:?}");
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "a").await.result, "ACCEPTED", "its neighbours are served");
    deployment.settles(&coupon, 1).await;
}
