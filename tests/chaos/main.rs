//! The promise under faults: a seeded schedule of them against two APIs, three consumers and an embedded service on real servers, while
//! a crowd keeps asking; then the recorded answers, the tables and the log are compared.
//!
//! Nothing here uses the service's own code: what it checks, it reads and decides by itself.
//!
//! `CHAOS_SEED` names the schedule (the same faults in the same order, not the same interleaving), `CHAOS_MINUTES` how long it goes on. As part
//! of `cargo test` it is short. `CHAOS_OVERLOAD=1` is another run: twice the load the service can take, see [`overload`]. Exit code 1 on a violation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that tells what it does")]
#![allow(clippy::disallowed_methods, clippy::large_futures, reason = "it waits and kills")]

mod admin;
mod books;
#[path = "../it/support/cluster.rs"]
mod cluster;
mod crowd;
mod faults;
mod overload;
mod plan;
mod promise;
mod report;
mod run;
mod servers;
mod toxiproxy;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What `cargo test` runs.
const SHORT: Duration = Duration::from_secs(75);

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if std::env::args().any(|argument| argument == "--list") {
        println!("chaos: test");
        return ExitCode::SUCCESS;
    }
    // As every test program: a name that is asked for and not ours is not for us.
    if !filters.is_empty() && !filters.iter().any(|filter| "chaos".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    let seed = variable("CHAOS_SEED").map_or(1, |text| text.parse().expect("CHAOS_SEED is a number"));
    let minutes: Option<f64> = variable("CHAOS_MINUTES").map(|text| text.parse().expect("CHAOS_MINUTES is a number"));
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let home = PathBuf::from(variable("HOME").unwrap_or_default());
    let settings = run::Settings {
        seed,
        lasts: minutes.map_or(SHORT, |minutes| Duration::from_secs_f64(minutes * 60.0)),
        short: minutes.is_none_or(|minutes| minutes < 5.0),
        dir: root.join(format!(".chaos/seed-{seed}-{}", std::process::id())),
        program: variable("COUPON_SVC").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_coupon-svc")), PathBuf::from),
        toxiproxy: variable("TOXIPROXY").map_or_else(|| home.join(".cache/coupon-stack/toxiproxy-server"), PathBuf::from),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let held = if variable("CHAOS_OVERLOAD").is_some() {
        runtime.block_on(overload::run(&settings))
    } else {
        runtime.block_on(run::run(settings))
    };
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
