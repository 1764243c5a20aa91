//! Processes under test, and the CPU time of any process.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::SECRET;

const READY_WITHIN: Duration = Duration::from_secs(90);

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// User and system time of a process so far; zero when it is gone.
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in the second field may hold spaces; the times are fields 14 and 15, in ticks of 10 ms.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks: u64 = after.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum();
    Duration::from_millis(ticks * 10)
}

/// Resident memory in bytes.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

/// One process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub address: String,
    pub ops: String,
    log: PathBuf,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The constant answer.
    pub fn constant(dir: &Path) -> Self {
        let port = free_port();
        let log = dir.join("constant.log");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--constant", &port.to_string()])
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        let started = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(started.elapsed() < READY_WITHIN, "the constant server does not start: see {}", log.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, address, ops: String::new(), log }
    }

    /// A process of the service, once it is ready.
    pub fn service(program: &Path, role: &str, env: &BTreeMap<String, String>, dir: &Path) -> Self {
        let (api, ops) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let log = dir.join(format!("{role}-{}.log", ops.rsplit_once(':').unwrap().1));
        let out = File::create(&log).unwrap();
        let child = Command::new(program)
            .args(["--role", role])
            .env("COUPON__API__IDENTITY", "jwt")
            .env("COUPON__JWT__HS256_SECRET", SECRET)
            .env("COUPON__LOG__FORMAT", "json")
            .env("COUPON__API__LISTEN", &api)
            .env("COUPON__OPS__LISTEN", &ops)
            .envs(env)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let process = Self { child, address: api, ops, log };
        let started = Instant::now();
        while crate::http::get(&process.ops, "/readyz").is_none_or(|(status, _)| status != 200) {
            assert!(started.elapsed() < READY_WITHIN, "a process does not get ready: see {}", process.log.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }

    /// The sum of a metric over its labels, 0 when it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = crate::http::get(&self.ops, "/metrics").unwrap_or_default();
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let value = if rest.starts_with('{') { rest.rsplit_once("} ")?.1 } else { rest.strip_prefix(' ')? };
            value.trim().parse::<f64>().ok()
        };
        text.lines().filter_map(value).sum()
    }

    /// As a supervisor would: SIGTERM, then patience.
    pub fn stop(mut self) {
        let _sent = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
