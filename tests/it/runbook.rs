//! Each page of `docs/runbook.md`, carried out as it is written, under a crowd where there is one in real life.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::identity::{created, in_seconds, issue_with, key_file, signed};
use crate::support::{Deployment, Parts, Process, Tally, ask, crowd, eventually, free_port, users};

/// Users that come without a pause until told to stop; each insists on a final answer at one of the APIs.
struct Stream {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Tally>>,
}

impl Stream {
    fn start(deployment: &Deployment, apis: &[String], coupon: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, http, apis, coupon) = (Arc::clone(&stop), deployment.http.clone(), apis.to_vec(), coupon.to_owned());
        let task = tokio::spawn(async move {
            let mut tallies = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                tallies.push(crowd(&http, &apis, &coupon, &users(&format!("s{}", tallies.len()), 20), true).await);
            }
            tallies
        });
        Self { stop, task }
    }

    /// How many have the coupon; everybody else must have been told that it is sold out.
    async fn end(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut yes = 0;
        for tally in self.task.await.unwrap() {
            for answer in &tally.answers {
                assert!(["ACCEPTED", "ALREADY_ISSUED", "SOLD_OUT"].contains(&answer.result.as_str()), "{answer:?}");
                yes += i64::from(answer.result != "SOLD_OUT");
            }
        }
        yes
    }
}

/// Asks a process to stop and starts its successor, with the same addresses.
async fn replace(deployment: &Deployment, role: &str, old: &mut Process) -> Process {
    old.signal("TERM");
    assert_eq!(old.ends(Duration::from_secs(25)).await, Some(0));
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let (api, ops) = (address(&old.api), address(&old.ops));
    let mut process = deployment.spawn(role, &[("COUPON__API__LISTEN", &api), ("COUPON__OPS__LISTEN", &ops)]);
    (process.api, process.ops) = (old.api.clone(), old.ops.clone());
    process.ready().await;
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_upgrade() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let mut apis = [deployment.start("api").await, deployment.start("api").await];
    let mut consumers = [deployment.start("consumer").await, deployment.start("consumer").await];
    let coupon = deployment.create(&apis[0].api, 1_000_000).await;
    let stream = Stream::start(&deployment, &[apis[0].api.clone(), apis[1].api.clone()], &coupon);
    for consumer in &mut consumers {
        *consumer = replace(&deployment, "consumer", consumer).await;
    }
    for api in &mut apis {
        *api = replace(&deployment, "api", api).await;
    }
    let issued = stream.end().await;
    assert!(issued > 0);
    deployment.settles(&coupon, issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_redis_url() {
    let mut deployment = Deployment::new(Parts::Distributed).await;
    let mut apis = [deployment.start("api").await, deployment.start("api").await];
    let _consumer = deployment.start("consumer").await;
    let coupon = deployment.create(&apis[0].api, 3_000).await;
    let stream = Stream::start(&deployment, &[apis[0].api.clone(), apis[1].api.clone()], &coupon);
    let port = free_port();
    let mut redis = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server must be installed: make stack-up");
    deployment.env.insert("COUPON__REDIS__URL".into(), format!("redis://127.0.0.1:{port}"));
    for api in &mut apis {
        *api = replace(&deployment, "api", api).await;
    }
    let mut issued = stream.end().await;
    // The rest of the stock, through a gate that began empty.
    let tally = crowd(&deployment.http, &[apis[0].api.clone(), apis[1].api.clone()], &coupon, &users("late", 3_500), true).await;
    issued += i64::try_from(tally.answers.iter().filter(|answer| answer.result != "SOLD_OUT").count()).unwrap();
    assert_eq!(issued, 3_000);
    deployment.settles(&coupon, 3_000).await;
    redis.kill().unwrap();
    redis.wait().unwrap();
}

fn mysql(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/mysql.sh"));
    command.arg(program).args(args);
    command
}

fn database(deployment: &Deployment) -> String {
    deployment.env["COUPON__MYSQL__URL"].rsplit('/').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn restoring_a_database_backup_older_than_the_journal() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let api = deployment.start("api").await;
    let mut consumer = deployment.start("consumer").await;
    let (name, backup) = (database(&deployment), deployment.dir.path().join("backup.sql"));
    let coupon = deployment.create(&api.api, 1_000).await;
    crowd(&deployment.http, std::slice::from_ref(&api.api), &coupon, &users("before", 100), true).await;
    deployment.settles(&coupon, 100).await;
    let dumped = mysql("mysqldump", &["--single-transaction", "--no-tablespaces", "--set-gtid-purged=OFF", &name])
        .stdout(File::create(&backup).unwrap())
        .status()
        .unwrap();
    assert!(dumped.success());
    crowd(&deployment.http, std::slice::from_ref(&api.api), &coupon, &users("after", 200), true).await;
    deployment.patch(&api.api, &coupon, serde_json::json!({"total_quantity": 400})).await;
    deployment.settles(&coupon, 300).await;

    consumer.signal("TERM");
    assert_eq!(consumer.ends(Duration::from_secs(25)).await, Some(0));
    assert!(mysql("mysql", &[&name]).stdin(File::open(&backup).unwrap()).status().unwrap().success());
    let _consumer = deployment.start("consumer").await;
    deployment.settles(&coupon, 300).await;
    // An API that starts from the restored tables knows everybody too.
    let second = deployment.start("api").await;
    let tally =
        crowd(&deployment.http, std::slice::from_ref(&second.api), &coupon, &[users("after", 200), users("new", 150)].concat(), true).await;
    assert_eq!((tally.counts()["ALREADY_ISSUED"], tally.counts()["ACCEPTED"], tally.counts()["SOLD_OUT"]), (200, 100, 50));
    deployment.settles(&coupon, 400).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_older_than_the_ledger() {
    let mut deployment = Deployment::new(Parts::Distributed).await;
    let mut service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 10).await;
    crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 10), true).await;
    deployment.settles(&coupon, 10).await;
    service.signal("TERM");
    assert_eq!(service.ends(Duration::from_secs(25)).await, Some(0));

    // A new topic of the same name: the journal is gone.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka.sh");
    let deleted = Command::new(script).args(["topics", "--delete", "--topic", &deployment.topic]).status().unwrap();
    assert!(deleted.success());
    let mut refused = deployment.spawn("all", &[]);
    assert_eq!(refused.ends(Duration::from_secs(90)).await, Some(1));
    let log = refused.log_text();
    assert!(log.contains("the journal is not the one the ledger was written from") && log.contains("empty ledger"), "{log}");

    // The way out: a new topic and an empty ledger; the old ledger is kept aside.
    let (old, fresh) = (database(&deployment), format!("{}_new", database(&deployment)));
    let url = deployment.env["COUPON__MYSQL__URL"].clone();
    let mut connection = AsyncMysqlConnection::establish(&url).await.unwrap();
    connection.batch_execute(&format!("CREATE DATABASE {fresh}")).await.unwrap();
    deployment.env.insert("COUPON__MYSQL__URL".into(), url.replace(&old, &fresh));
    deployment.env.insert("COUPON__KAFKA__TOPIC".into(), format!("{}-2", deployment.topic));
    let service = deployment.start("all").await;
    let next = deployment.create(&service.api, 5).await;
    let tally = crowd(&deployment.http, std::slice::from_ref(&service.api), &next, &users("u", 8), true).await;
    assert_eq!((tally.counts()["ACCEPTED"], tally.counts()["SOLD_OUT"]), (5, 3));
    deployment.settles(&next, 5).await;
    drop(service);
    connection.batch_execute(&format!("DROP DATABASE {fresh}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn erasing_a_user() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let mut service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 3).await;
    crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 3), true).await;
    deployment.patch(&service.api, &coupon, serde_json::json!({"status": "CLOSED"})).await;
    deployment.settles(&coupon, 3).await;

    // 1. The log up to where the ledger read it.
    let mut connection = AsyncMysqlConnection::establish(&deployment.env["COUPON__MYSQL__URL"]).await.unwrap();
    let offsets = mysql(
        "mysql",
        &["--batch", "--skip-column-names", "--execute", "SELECT part, next_offset FROM partition_offsets", &database(&deployment)],
    )
    .output()
    .unwrap();
    let partitions: Vec<_> = String::from_utf8(offsets.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(part, next)| serde_json::json!({"topic": deployment.topic, "partition": part.parse::<i32>().unwrap(), "offset": next.parse::<i64>().unwrap()}))
        .collect();
    let file = deployment.dir.path().join("offsets.json");
    std::fs::write(&file, serde_json::json!({"version": 1, "partitions": partitions}).to_string()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka.sh");
    let deleted = Command::new(script).args(["delete-records", "--offset-json-file"]).arg(&file).stdout(Stdio::null()).status().unwrap();
    assert!(deleted.success());
    // 2. The tables, in one statement each.
    connection
        .batch_execute(&format!(
            "UPDATE issued_coupons SET user_id = 'erased-1', issue_id = '' WHERE user_id = 'u-1'; \
             UPDATE revocations SET user_id = 'erased-1' WHERE user_id = 'u-1' AND coupon_id = '{coupon}'"
        ))
        .await
        .unwrap();
    // 3. The gate's set of a coupon that is over goes by itself; a restart forgets what memory holds.
    service.signal("TERM");
    assert_eq!(service.ends(Duration::from_secs(25)).await, Some(0));
    let service = deployment.start("all").await;
    deployment.settles(&coupon, 3).await;
    let gone = eventually("the erased user is nobody", Duration::from_secs(10), async || {
        Some(deployment.get(&service.api, &format!("/api/v1/coupons/{coupon}/issue"), "u-1").await.1)
    })
    .await;
    assert_eq!(gone["code"], "NOT_REQUESTED", "{gone}");
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "u-1").await.result, "CLOSED");
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "u-2").await.result, "ALREADY_ISSUED");
}

/// The first answer that is not "try again".
async fn finally(deployment: &Deployment, api: &Process, coupon: &str, token: &str) -> (u16, String) {
    loop {
        let answer = issue_with(deployment, api, coupon, token).await;
        if answer.0 != 503 {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotating_the_jwt_key() {
    let (old, new) = (key_file("rs256.pub.pem"), key_file("es256.pub.pem"));
    let private = |name: &str| std::fs::read(key_file(name)).unwrap();
    let rsa = EncodingKey::from_rsa_pem(&private("rs256.key.pem")).unwrap();
    let elliptic = EncodingKey::from_ec_pem(&private("es256.key.pem")).unwrap();
    let claims = |sub: &str| json!({"sub": sub, "admin": sub == "root", "exp": in_seconds(300)});
    let old_token = |sub: &str| signed(Algorithm::RS256, &rsa, None, &claims(sub));
    let new_token = |sub: &str| signed(Algorithm::ES256, &elliptic, None, &claims(sub));

    let mut deployment = Deployment::new(Parts::Distributed).await;
    // A connection that is kept would lead to the process that is gone.
    deployment.http = reqwest::Client::builder().timeout(Duration::from_secs(10)).pool_max_idle_per_host(0).build().unwrap();
    let believe = |deployment: &mut Deployment, keys: &[&std::path::Path]| {
        let keys: Vec<_> = keys.iter().map(|key| key.display().to_string()).collect();
        deployment.env.insert("COUPON__JWT__PUBLIC_KEYS".into(), keys.join(","));
    };
    deployment.env.insert("COUPON__API__IDENTITY".into(), "jwt".into());
    believe(&mut deployment, &[&old]);
    let mut apis = [deployment.start("api").await, deployment.start("api").await];
    let _consumer = deployment.start("consumer").await;
    let coupon = created(&deployment, &apis[0], &old_token("root")).await;
    // After "try again" the first answer may have won it already.
    let is_yes = |answer: &(u16, String)| matches!(answer.0, 200 | 202);
    assert_eq!(finally(&deployment, &apis[0], &coupon, &new_token("early")).await.0, 401);

    believe(&mut deployment, &[&old, &new]);
    for number in 0..apis.len() {
        apis[number] = replace(&deployment, "api", &mut apis[number]).await;
        for (other, api) in apis.iter().enumerate() {
            let answer = finally(&deployment, api, &coupon, &old_token(&format!("old-{number}-{other}"))).await;
            assert!(is_yes(&answer), "nobody is logged out: {answer:?}");
        }
    }
    for api in &apis {
        let answer = finally(&deployment, api, &coupon, &new_token("both")).await;
        assert!(is_yes(&answer), "the new key is believed: {answer:?}");
    }

    believe(&mut deployment, &[&new]);
    for number in 0..apis.len() {
        apis[number] = replace(&deployment, "api", &mut apis[number]).await;
        for api in &apis {
            assert_eq!(finally(&deployment, api, &coupon, &new_token("both")).await, (200, "ALREADY_ISSUED".to_owned()));
        }
        assert_eq!(finally(&deployment, &apis[number], &coupon, &old_token("late")).await.0, 401, "the old key is gone");
    }
    deployment.settles(&coupon, 5).await;
}
