//! A cluster of three brokers by `scripts/stack.sh`, whose processes can be killed, stopped and started again.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

pub const BROKERS: [&str; 3] = ["kafka", "kafka-2", "kafka-3"];

/// Ports that are free and differ from one another.
fn free_ports() -> impl Iterator<Item = u16> {
    // All taken before the first is given back, or one could come twice.
    let taken: Vec<_> = (0..16).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = taken.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    ports.into_iter()
}

pub fn signal(pid: u32, signal: &str) {
    let done = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
    assert!(done.success(), "no process {pid} for a {signal}");
}

/// Three brokers, and MySQL if wanted, on ports and in a folder of their own; stopped and deleted when dropped.
#[derive(Debug, Clone)]
pub struct Stack(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    env: BTreeMap<String, String>,
    /// Of each broker: its plain port, the port behind a proxy, the port of that proxy, which it tells clients.
    brokers: Vec<(u16, u16, u16)>,
}

impl Stack {
    /// Starts `parts`; takes about half a minute.
    pub async fn start(dir: &Path, parts: &[&str]) -> Self {
        let state = dir.join(".stack");
        std::fs::create_dir_all(&state).unwrap();
        let mut env = BTreeMap::from([
            ("STACK_STATE".to_owned(), state.display().to_string()),
            ("STACK_MODE".to_owned(), "native".to_owned()),
            ("KAFKA_BROKERS".to_owned(), "3".to_owned()),
            ("DB".to_owned(), "mysql".to_owned()),
            // On a machine that does much else a broker was seen to need more than the usual minute and a half.
            ("STACK_WAIT_SECONDS".to_owned(), "300".to_owned()),
        ]);
        let mut free = free_ports();
        let mut free_port = || free.next().unwrap();
        env.insert("STACK_MYSQL_PORT".to_owned(), free_port().to_string());
        let mut brokers = Vec::new();
        for infix in ["", "2_", "3_"] {
            let ports = [free_port(), free_port(), free_port(), free_port(), free_port()];
            for (kind, port) in ["", "PROXIED_", "PROXY_", "CONTROLLER_", "SECURED_"].iter().zip(ports) {
                env.insert(format!("STACK_KAFKA_{infix}{kind}PORT"), port.to_string());
            }
            brokers.push((ports[0], ports[1], ports[2]));
        }
        let stack = Self(Arc::new(Inner { env, brokers }));
        stack.up(parts).await;
        stack
    }

    pub fn brokers(&self) -> &[(u16, u16, u16)] {
        &self.0.brokers
    }

    /// A setting of the stack's script, such as `STACK_MYSQL_PORT`.
    pub fn setting(&self, name: &str) -> &str {
        self.0.env.get(name).map_or("", String::as_str)
    }

    /// Where the service finds the brokers.
    pub fn bootstrap(&self) -> String {
        self.brokers().iter().map(|(plain, _, _)| format!("127.0.0.1:{plain}")).collect::<Vec<_>>().join(",")
    }

    /// Starts those of `parts` that do not run, and returns when all of them answer.
    pub async fn up(&self, parts: &[&str]) {
        let mut command = Self::script(&self.0.env);
        command.arg("up").args(parts);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the stack does not start:\n{text}");
    }

    fn script(env: &BTreeMap<String, String>) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/stack.sh"));
        command.envs(env).stdin(Stdio::null());
        command
    }

    pub fn signal(&self, part: &str, name: &str) {
        signal(self.pid(part), name);
    }

    pub fn pid(&self, part: &str) -> u32 {
        let file = Path::new(self.setting("STACK_STATE")).join(format!("run/{part}.pid"));
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().parse().unwrap()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let output = Stack::script(&self.env).arg("wipe").output();
        if output.as_ref().is_ok_and(|output| !output.status.success()) {
            eprintln!("the stack did not stop: {output:?}");
        }
    }
}
