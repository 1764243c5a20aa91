//! Toxiproxy between the service and each server: <https://github.com/Shopify/toxiproxy>, driven over its HTTP API.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::servers::free_port;

/// The proxies' process; killed when dropped.
#[derive(Debug)]
pub struct Toxiproxy {
    child: Child,
    url: String,
    http: reqwest::Client,
}

impl Toxiproxy {
    pub async fn start(program: &Path, log: std::fs::File) -> Self {
        let port = free_port();
        let child = Command::new(program)
            .args(["-host", "127.0.0.1", "-port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: scripts/chaos.sh installs toxiproxy", program.display()));
        let toxiproxy = Self { child, url: format!("http://127.0.0.1:{port}"), http: reqwest::Client::new() };
        while toxiproxy.http.get(format!("{}/version", toxiproxy.url)).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        toxiproxy
    }

    async fn post(&self, path: &str, body: &Value) {
        let answer = self.http.post(format!("{}{path}", self.url)).json(body).send().await.expect("toxiproxy answers");
        assert!(answer.status().is_success(), "toxiproxy: {path} {body}: {}", answer.text().await.unwrap_or_default());
    }

    /// A proxy on `listen` (both are loopback ports).
    pub async fn add(&self, name: &str, listen: u16, upstream: u16) {
        let body =
            json!({"name": name, "listen": format!("127.0.0.1:{listen}"), "upstream": format!("127.0.0.1:{upstream}"), "enabled": true});
        self.post("/proxies", &body).await;
    }

    /// Ends every connection and lets nobody in, or lets them in again.
    pub async fn enable(&self, name: &str, enabled: bool) {
        self.post(&format!("/proxies/{name}"), &json!({"enabled": enabled})).await;
    }

    /// Where new connections go; those there are end.
    pub async fn redirect(&self, name: &str, upstream: u16) {
        self.post(&format!("/proxies/{name}"), &json!({"upstream": format!("127.0.0.1:{upstream}"), "enabled": true})).await;
    }

    /// Delays what goes either way by half of `round_trip`.
    pub async fn slow(&self, name: &str, round_trip: Duration) {
        let latency = round_trip.as_millis() / 2;
        for stream in ["upstream", "downstream"] {
            let body = json!({"name": stream, "type": "latency", "stream": stream,
                "attributes": {"latency": latency, "jitter": latency / 4}});
            self.post(&format!("/proxies/{name}/toxics"), &body).await;
        }
    }

    /// Connections stay open and nothing passes any more, in both directions.
    pub async fn half_open(&self, name: &str) {
        for stream in ["upstream", "downstream"] {
            let body = json!({"name": stream, "type": "timeout", "stream": stream, "attributes": {"timeout": 0}});
            self.post(&format!("/proxies/{name}/toxics"), &body).await;
        }
    }

    pub async fn cure(&self, name: &str) {
        for stream in ["upstream", "downstream"] {
            let url = format!("{}/proxies/{name}/toxics/{stream}", self.url);
            let answer = self.http.delete(url).send().await.expect("toxiproxy answers");
            assert!(answer.status().is_success(), "toxiproxy: no toxic {stream} at {name}");
        }
    }
}

impl Drop for Toxiproxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
