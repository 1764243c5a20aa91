//! What every test needs: a deployment of real processes, a crowd, the audit.

mod cluster;
pub mod crowd;
mod deployment;
mod proxy;
mod raw;
mod tables;

pub use cluster::{BROKERS, Stack};
pub use crowd::{Tally, ask, crowd, users};
pub use deployment::{Deployment, Parts, Process};
pub use proxy::Proxy;
pub use raw::Raw;

use std::time::{Duration, Instant};

/// How long a line may take to the log.
pub const SOON: Duration = Duration::from_secs(5);

/// Polls until `check` gives a value; panics with `what` when `within` has passed.
pub async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, within: Duration, mut check: F) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
