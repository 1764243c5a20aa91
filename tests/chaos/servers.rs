//! A Redis and processes of the service, to be killed, stopped and started again.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::signal;

/// Seconds enough for a background save of what a run holds to end.
const SAVE_WITHIN: Duration = Duration::from_secs(20);

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Resident memory of a process in KiB; 0 when it is gone.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// One `redis-server`; killed when dropped.
#[derive(Debug)]
pub struct Redis {
    pub port: u16,
    dir: PathBuf,
    child: Child,
}

impl Redis {
    pub async fn start(dir: PathBuf) -> Self {
        let port = free_port();
        std::fs::create_dir_all(&dir).unwrap();
        let child = Self::launch(port, &dir, &["--appendonly", "yes"]);
        let redis = Self { port, dir, child };
        redis.answers().await;
        redis
    }

    fn launch(port: u16, dir: &Path, more: &[&str]) -> Child {
        let log = File::options().create(true).append(true).open(dir.join("redis.log")).unwrap();
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(dir)
            .args(more)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("redis-server is installed by scripts/chaos.sh")
    }

    async fn answers(&self) {
        let started = Instant::now();
        while self.cli(&["PING"]) != "PONG" {
            assert!(started.elapsed() < Duration::from_secs(20), "redis does not answer, see {}", self.dir.display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What `redis-cli` prints.
    pub fn cli(&self, args: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After [`Redis::kill`], with what it had written down.
    pub async fn start_again(&mut self) {
        self.child = Self::launch(self.port, &self.dir, &["--appendonly", "yes"]);
        self.answers().await;
    }

    /// After [`Redis::kill`], with nothing.
    pub async fn start_empty(&mut self) {
        drop(std::fs::remove_dir_all(self.dir.join("appendonlydir")));
        drop(std::fs::remove_file(self.dir.join("dump.rdb")));
        self.start_again().await;
    }

    /// Keeps what it holds now for [`Redis::start_from_snapshot`].
    pub async fn snapshot(&self) {
        drop(std::fs::remove_file(self.dir.join("dump.rdb")));
        // It refuses while it saves in the background, for a replica that was just attached or by its own schedule.
        let deadline = Instant::now() + SAVE_WITHIN;
        loop {
            match self.cli(&["SAVE"]).as_str() {
                "OK" => return,
                refused => assert!(Instant::now() < deadline, "Redis does not save: {refused}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// After [`Redis::kill`], with what the last [`Redis::snapshot`] kept.
    pub async fn start_from_snapshot(&mut self) {
        drop(std::fs::remove_dir_all(self.dir.join("appendonlydir")));
        self.child = Self::launch(self.port, &self.dir, &["--appendonly", "no"]);
        self.answers().await;
        assert_eq!(self.cli(&["CONFIG", "SET", "appendonly", "yes"]), "OK");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A process of the service.
#[derive(Debug)]
pub struct Process {
    pub name: String,
    program: PathBuf,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    log: PathBuf,
    child: Option<Child>,
    /// Whether a fault holds it down, so that its end is no surprise.
    pub down: bool,
}

impl Process {
    pub fn start(name: &str, program: &Path, args: &[&str], env: BTreeMap<String, String>, dir: &Path) -> Self {
        let mut process = Self {
            name: name.to_owned(),
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env,
            log: dir.join(format!("{name}.log")),
            child: None,
            down: false,
        };
        process.start_again();
        process
    }

    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(&self.program)
            .args(&self.args)
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        self.child = Some(child);
        self.down = false;
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn signal(&self, name: &str) {
        if self.pid() > 0 {
            signal(self.pid(), name);
        }
    }

    pub fn kill(&mut self) {
        self.down = true;
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks it to stop and gives the exit code; `None` when it had to be killed after `patience`.
    pub async fn terminate(&mut self, patience: Duration) -> Option<i32> {
        self.down = true;
        self.signal("TERM");
        let started = Instant::now();
        while started.elapsed() < patience {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                self.child = None;
                return Some(status.code().unwrap_or(-1));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.kill();
        None
    }

    /// Whether it ended although no fault holds it down; gives its exit code then.
    pub fn ended_by_itself(&mut self) -> Option<i32> {
        if self.down {
            return None;
        }
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status.code().unwrap_or(-1))
    }

    pub fn log_text(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
