//! Processes of the real binary with their own data folder, topic, database and ports.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{eventually, free_port};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    Embedded,
    Distributed,
}

/// One running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub api: String,
    pub ops: String,
    pub log: PathBuf,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory it holds, in KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status().unwrap();
        assert!(done.success());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end and gives the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// How it ended; `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// As [`Process::wait`], but fails the test when it does not end `within`.
    pub async fn ends(&mut self, within: Duration) -> Option<i32> {
        eventually("the process ends", within, async || self.status()).await.code()
    }

    pub async fn ready(&self) {
        let url = format!("{}/readyz", self.ops);
        let log = self.log.clone();
        let is_ready = async || reqwest::get(&url).await.ok().filter(|answer| answer.status() == 200).map(drop);
        let started = std::time::Instant::now();
        while is_ready().await.is_none() {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(60), "not ready in time; its log:\n{text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The lines that it has logged so far, whole ones.
    pub fn log_text(&self) -> String {
        let mut text = std::fs::read_to_string(&self.log).unwrap();
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    /// What `find` sees in its log. Waits: a thread of their own writes the lines, shortly after what they tell of.
    pub async fn logged<T>(&self, what: &str, within: Duration, find: impl Fn(&str) -> Option<T>) -> T {
        eventually(&format!("{what}, in the log"), within, async || find(&self.log_text())).await
    }

    /// Waits until a line of its log has all the words.
    pub async fn logs(&self, words: &[&str], within: Duration) {
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        self.logged(&format!("{words:?}"), within, |log| log.lines().any(has_all).then_some(())).await;
    }

    pub async fn metrics(&self) -> String {
        reqwest::get(format!("{}/metrics", self.ops)).await.unwrap().text().await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<_> = text.lines().rev().filter(|line| !line.contains("issued")).take(15).collect();
            eprintln!("--- {}:", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Settings that its processes share.
#[derive(Debug)]
pub struct Deployment {
    pub env: BTreeMap<String, String>,
    pub dir: tempfile::TempDir,
    pub http: reqwest::Client,
    pub topic: String,
    database: Option<String>,
    started: std::cell::Cell<u32>,
}

pub fn server(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

/// The certificate authority of the local stack: in the folder `COUPON_TEST_TLS_DIR`, or where the stack's script says.
fn authority() -> String {
    let folder = std::env::var("COUPON_TEST_TLS_DIR").unwrap_or_else(|_| {
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/stack.sh")).arg("tls-dir").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    });
    format!("{folder}/ca.pem")
}

impl Deployment {
    pub async fn new(parts: Parts) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let unique = Uuid::new_v4().simple().to_string();
        let topic = format!("it-{unique}");
        let mut env = BTreeMap::from([
            ("COUPON__API__IDENTITY".to_owned(), "header".to_owned()),
            ("COUPON__LOG__FORMAT".to_owned(), "json".to_owned()),
            ("COUPON__LIMITER__RATE".to_owned(), "0".to_owned()),
        ]);
        let mut database = None;
        match parts {
            Parts::Embedded => {
                env.insert("COUPON__PARTS".into(), "embedded".into());
                env.insert("COUPON__EMBEDDED__DATA_DIR".into(), dir.path().join("data").display().to_string());
            }
            Parts::Distributed => {
                let name = format!("coupon_test_{unique}");
                let base = server("COUPON_TEST_MYSQL", "mysql://coupon:coupon@127.0.0.1:13306/coupon");
                let mut connection = AsyncMysqlConnection::establish(&base).await.expect("MySQL must run: make stack-up");
                connection.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
                let url = base.rsplit_once('/').map(|(server, _)| format!("{server}/{name}")).unwrap();
                env.extend([
                    ("COUPON__PARTS".to_owned(), "distributed".to_owned()),
                    ("COUPON__MYSQL__URL".to_owned(), url),
                    ("COUPON__MYSQL__MIGRATE_AT_START".to_owned(), "true".to_owned()),
                    ("COUPON__REDIS__URL".to_owned(), server("COUPON_TEST_REDIS", "redis://127.0.0.1:16379")),
                    ("COUPON__KAFKA__BROKERS".to_owned(), server("COUPON_TEST_KAFKA", "127.0.0.1:19092")),
                    ("COUPON__KAFKA__TOPIC".to_owned(), topic.clone()),
                    ("COUPON__KAFKA__DEAD_LETTER_TOPIC".to_owned(), format!("{topic}-dlq")),
                    ("COUPON__KAFKA__GROUP".to_owned(), topic.clone()),
                    ("COUPON__KAFKA__PARTITIONS".to_owned(), "6".to_owned()),
                ]);
                database = Some(name);
            }
        }
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).pool_max_idle_per_host(2_000).build().unwrap();
        Self { env, dir, http, topic, database, started: std::cell::Cell::new(0) }
    }

    /// Starts one process and waits until it is ready.
    pub async fn start(&self, role: &str) -> Process {
        let process = self.spawn(role, &[]);
        process.ready().await;
        process
    }

    pub fn spawn(&self, role: &str, more: &[(&str, &str)]) -> Process {
        let number = self.started.get();
        self.started.set(number + 1);
        let (api, ops) = (free_port(), free_port());
        let log = self.dir.path().join(format!("{role}-{number}.log"));
        let out = std::fs::File::create(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_coupon-svc"))
            .args(["--role", role])
            .envs(&self.env)
            .env("COUPON__API__LISTEN", format!("127.0.0.1:{api}"))
            .env("COUPON__OPS__LISTEN", format!("127.0.0.1:{ops}"))
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Process { child, api: format!("http://127.0.0.1:{api}"), ops: format!("http://127.0.0.1:{ops}"), log }
    }

    /// Every server over TLS, kafka with a password too; the authority is the stack's.
    pub fn secure(&mut self) {
        let authority = authority();
        let brokers = server("COUPON_TEST_KAFKA_SECURED", "127.0.0.1:19097");
        let redis = server("COUPON_TEST_REDIS_TLS", "rediss://127.0.0.1:16380");
        for (key, value) in [
            ("REDIS__URL", redis.as_str()),
            ("REDIS__CA_FILE", &authority),
            ("KAFKA__BROKERS", &brokers),
            ("KAFKA__TLS", "true"),
            ("KAFKA__CA_FILE", &authority),
            ("KAFKA__SASL_MECHANISM", "scram-sha-512"),
            ("KAFKA__SASL_USERNAME", "coupon"),
            ("KAFKA__SASL_PASSWORD", "coupon"),
            ("MYSQL__TLS", "true"),
            ("MYSQL__CA_FILE", &authority),
        ] {
            self.env.insert(format!("COUPON__{key}"), value.to_owned());
        }
    }

    pub fn command(&self, args: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_coupon-svc")).args(args).envs(&self.env).output().unwrap()
    }

    pub async fn create(&self, api: &str, total: i64) -> String {
        let body = json!({"name": "launch", "kind": "FIRST_COME", "discount": {"type": "FIXED", "value": 5000}, "total_quantity": total});
        let answer = self
            .http
            .post(format!("{api}/api/v1/coupons"))
            .header("X-User-Id", "root")
            .header("X-Admin", "true")
            .json(&body)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let coupon: Value = answer.json().await.unwrap();
        assert_eq!(status, 201, "{coupon}");
        coupon["coupon_id"].as_str().unwrap().to_owned()
    }

    pub async fn patch(&self, api: &str, coupon: &str, body: Value) -> Value {
        let url = format!("{api}/api/v1/coupons/{coupon}");
        let answer = self.http.patch(url).header("X-User-Id", "root").header("X-Admin", "true").json(&body).send().await.unwrap();
        let status = answer.status();
        let value: Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{value}");
        value
    }

    pub async fn get(&self, api: &str, path: &str, user: &str) -> (u16, Value) {
        let answer = self.http.get(format!("{api}{path}")).header("X-User-Id", user).header("X-Admin", "true").send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub fn audit(&self) -> Value {
        let output = self.command(&["audit", "--json"]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("audit: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    /// Waits until everything won is written, then the audit must be clean and the coupon's rows exactly `issued`.
    pub async fn settles(&self, coupon: &str, issued: i64) {
        let report = eventually("everything won is written", Duration::from_secs(30), async || {
            let report = self.audit();
            let all_written = report["coupons"].as_array().unwrap().iter().all(|coupon| coupon["unwritten"] == 0);
            let known = report["coupons"].as_array().unwrap().iter().any(|row| row["coupon_id"] == coupon);
            (all_written && known).then_some(report)
        })
        .await;
        assert_eq!(report["clean"], true, "{report:#}");
        let row = report["coupons"].as_array().unwrap().iter().find(|row| row["coupon_id"] == coupon).unwrap().clone();
        assert_eq!(row["issued"], issued, "{row}");
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let Some(name) = self.database.take() else { return };
        let base = server("COUPON_TEST_MYSQL", "mysql://coupon:coupon@127.0.0.1:13306/coupon");
        // On a thread of its own: a runtime may be running here.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let mut connection = AsyncMysqlConnection::establish(&base).await.unwrap();
                connection.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).await.unwrap();
            });
        });
        drop(dropped.join());
    }
}
