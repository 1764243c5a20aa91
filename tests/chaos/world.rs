//! Everything a run stands on: servers, the proxies between, and the service's processes.
//!
//! ```text
//! crowd -> api-1, api-2 --+-- redis-api-1 ... -> redis (primary, replica)      each process has its own proxies to
//!                         +-- mysql-api-1 ... -> mysql                         redis and mysql; the brokers have one each
//! consumer-1, -2, -3 -----+-- kafka-1, -2, -3 -> three brokers
//!          embedded: a service on SQLite in a small file system of its own
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::cluster::{BROKERS, Stack};
use crate::report::Findings;
use crate::servers::{Process, Redis, free_port};
use crate::toxiproxy::Toxiproxy;

pub const TOPIC: &str = "coupon-issue";
pub const PARTITIONS: i32 = 12;
const APIS: usize = 2;
const CONSUMERS: usize = 3;
/// Enough for an hour of this crowd's records.
const EMBEDDED_DISK: &str = "96m";

/// The two Redis servers; the service talks to `active`, the other one replicates it.
#[derive(Debug)]
pub struct RedisPair {
    pub servers: [Redis; 2],
    pub active: usize,
}

impl RedisPair {
    pub fn primary(&mut self) -> &mut Redis {
        &mut self.servers[self.active]
    }
}

/// A small file system, unmounted when dropped.
#[derive(Debug)]
pub struct Disk(pub PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={EMBEDDED_DISK}"), "tmpfs"]).arg(&path).status().unwrap();
        assert!(done.success(), "a small file system is needed to fill it: run as root");
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[derive(Debug)]
pub struct World {
    pub dir: PathBuf,
    pub toxiproxy: Toxiproxy,
    pub redis: Mutex<RedisPair>,
    pub stack: Stack,
    /// APIs, then consumers.
    pub processes: Vec<Arc<Mutex<Process>>>,
    pub embedded: Arc<Mutex<Process>>,
    pub apis: Vec<String>,
    /// Where the APIs show their metrics.
    pub ops: Vec<String>,
    pub embedded_api: String,
    pub disk: Disk,
    program: PathBuf,
    env: BTreeMap<String, String>,
    embedded_env: BTreeMap<String, String>,
    pub findings: Findings,
}

impl World {
    pub async fn start(dir: &Path, program: &Path, toxiproxy: &Path, findings: Findings) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let log = std::fs::File::create(dir.join("toxiproxy.log")).unwrap();
        let parts = [&BROKERS[..], &["mysql"]].concat();
        let (toxiproxy, stack) = tokio::join!(Toxiproxy::start(toxiproxy, log), Stack::start(dir, &parts));
        let servers = [Redis::start(dir.join("redis-1")).await, Redis::start(dir.join("redis-2")).await];
        let redis = RedisPair { servers, active: 0 };
        assert_eq!(redis.servers[1].cli(&["REPLICAOF", "127.0.0.1", &redis.servers[0].port.to_string()]), "OK");
        for (number, (_, upstream, advertised)) in stack.brokers().iter().enumerate() {
            toxiproxy.add(&broker_proxy(number), *advertised, *upstream).await;
        }
        let advertised: Vec<_> = stack.brokers().iter().map(|(_, _, advertised)| format!("127.0.0.1:{advertised}")).collect();
        let env = settings(&[
            ("COUPON__PARTS", "distributed"),
            ("COUPON__MYSQL__MIGRATE_AT_START", "true"),
            ("COUPON__KAFKA__BROKERS", &advertised.join(",")),
            ("COUPON__KAFKA__TOPIC", TOPIC),
            ("COUPON__KAFKA__PARTITIONS", &PARTITIONS.to_string()),
            ("COUPON__KAFKA__REPLICATION_FACTOR", "3"),
            ("COUPON__LIMITER__RATE", "5000"),
        ]);
        let disk = Disk::mount(dir.join("disk"));
        let embedded_env =
            settings(&[("COUPON__PARTS", "embedded"), ("COUPON__EMBEDDED__DATA_DIR", &disk.0.join("data").display().to_string())]);
        let mut world = Self {
            dir: dir.to_owned(),
            toxiproxy,
            redis: Mutex::new(redis),
            stack,
            processes: Vec::new(),
            embedded: Arc::new(Mutex::new(Process::start("embedded", Path::new("/bin/true"), &[], BTreeMap::new(), dir))),
            apis: Vec::new(),
            ops: Vec::new(),
            embedded_api: String::new(),
            disk,
            program: program.to_owned(),
            env,
            embedded_env,
            findings,
        };
        world.start_service().await;
        world
    }

    async fn start_service(&mut self) {
        for number in 1..=APIS {
            let (process, api, ops) = self.add("api", number).await;
            self.processes.push(process);
            self.apis.push(api);
            self.ops.push(ops);
        }
        for number in 1..=CONSUMERS {
            let (process, ..) = self.add("consumer", number).await;
            self.processes.push(process);
        }
        let mut env = self.embedded_env.clone();
        self.embedded_api = listen(&mut env).0;
        self.embedded = Arc::new(Mutex::new(Process::start("embedded", &self.program, &[], env, &self.dir)));
        let http = reqwest::Client::new();
        for api in self.apis.iter().chain([&self.embedded_api]) {
            let url = format!("{api}/api/v1/coupons?limit=1");
            while http.get(&url).header("X-User-Id", "chaos").send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// A process with proxies of its own to Redis and MySQL, and a clock that can be stepped if it is the last of its role.
    async fn add(&self, role: &str, number: usize) -> (Arc<Mutex<Process>>, String, String) {
        let name = format!("{role}-{number}");
        let (redis, mysql) = (free_port(), free_port());
        let upstream = self.redis.lock().await.primary().port;
        self.toxiproxy.add(&format!("redis-{name}"), redis, upstream).await;
        self.toxiproxy.add(&format!("mysql-{name}"), mysql, self.mysql_port()).await;
        let mut env = self.env.clone();
        env.insert("COUPON__REDIS__URL".into(), format!("redis://127.0.0.1:{redis}"));
        env.insert("COUPON__MYSQL__URL".into(), format!("mysql://coupon:coupon@127.0.0.1:{mysql}/coupon"));
        let (api, ops) = listen(&mut env);
        if has_own_clock(&name) {
            set_clock(&self.dir, &name, "+0");
            env.insert("LD_PRELOAD".into(), libfaketime().display().to_string());
            env.insert("FAKETIME_TIMESTAMP_FILE".into(), clock_file(&self.dir, &name).display().to_string());
            env.insert("FAKETIME_CACHE_DURATION".into(), "1".into());
            env.insert("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into());
            env.insert("NO_FAKE_STAT".into(), "1".into());
        }
        let process = Process::start(&name, &self.program, &["--role", role], env, &self.dir);
        (Arc::new(Mutex::new(process)), api, ops)
    }

    pub fn mysql_port(&self) -> u16 {
        self.stack.setting("STACK_MYSQL_PORT").parse().unwrap()
    }

    pub fn api(&self, target: usize) -> &Arc<Mutex<Process>> {
        &self.processes[target % APIS]
    }

    pub fn consumer(&self, target: usize) -> &Arc<Mutex<Process>> {
        &self.processes[APIS + target % CONSUMERS]
    }

    pub fn consumers(&self) -> &[Arc<Mutex<Process>>] {
        &self.processes[APIS..]
    }

    /// The proxies of every process to `server` (redis or mysql), or of one of them.
    pub fn proxies(&self, server: &str, only: Option<usize>) -> Vec<String> {
        let names = (1..=APIS).map(|n| format!("api-{n}")).chain((1..=CONSUMERS).map(|n| format!("consumer-{n}")));
        let all: Vec<_> = names.map(|name| format!("{server}-{name}")).collect();
        match only {
            Some(target) => vec![all[target % all.len()].clone()],
            None => all,
        }
    }

    /// Lets the service's settings be used by its commands, straight to the servers.
    pub async fn command(&self, embedded: bool, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(&self.program);
        command.args(args);
        if embedded {
            command.envs(&self.embedded_env);
        } else {
            command.envs(&self.env);
            command.env("COUPON__KAFKA__BROKERS", self.stack.bootstrap());
            command.env("COUPON__REDIS__URL", format!("redis://127.0.0.1:{}", self.redis.lock().await.primary().port));
            command.env("COUPON__MYSQL__URL", format!("mysql://coupon:coupon@127.0.0.1:{}/coupon", self.mysql_port()));
        }
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Starts again what ended although no fault holds it down, as a service manager does.
    pub fn watch(self: &Arc<Self>) -> JoinHandle<()> {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                for process in world.processes.iter().chain([&world.embedded]) {
                    // Locked only while a fault works on it.
                    let Ok(mut process) = process.try_lock() else { continue };
                    if let Some(code) = process.ended_by_itself() {
                        world.findings.note(&format!("{} ended by itself with exit code {code} and was started again", process.name));
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        process.start_again();
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    }
}

fn listen(env: &mut BTreeMap<String, String>) -> (String, String) {
    let (api, ops) = (free_port(), free_port());
    env.insert("COUPON__API__LISTEN".into(), format!("127.0.0.1:{api}"));
    env.insert("COUPON__OPS__LISTEN".into(), format!("127.0.0.1:{ops}"));
    (format!("http://127.0.0.1:{api}"), format!("http://127.0.0.1:{ops}"))
}

fn settings(more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let common = [("COUPON__API__IDENTITY", "header"), ("COUPON__LOG__FORMAT", "json"), ("COUPON__LOG__FILTER", "info,fred=warn")];
    common.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub fn broker_proxy(number: usize) -> String {
    format!("kafka-{}", number + 1)
}

fn has_own_clock(name: &str) -> bool {
    [format!("api-{APIS}"), format!("consumer-{CONSUMERS}")].contains(&name.to_owned())
}

fn clock_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.clock"))
}

/// Steps the clock of a process, as libfaketime understands it: `+3600` or `-3600`, in seconds.
pub fn set_clock(dir: &Path, name: &str, offset: &str) {
    std::fs::write(clock_file(dir, name), format!("{offset}\n")).unwrap();
}

fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok).map(|entry| entry.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.exists());
    found.expect("libfaketime is installed by scripts/chaos.sh")
}
