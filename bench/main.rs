//! How fast, as ratios: every figure stands beside a ceiling measured in the same run, in turn, over several rounds.
//!
//! `make bench` starts the servers and this. Variables: `ROUNDS` (5), `ROUND_SECONDS` (4, for one measurement), `DRAIN_SECONDS` (60),
//! `WARM_UP_SECONDS` (15, of the broker before anything counts), `ROWS` (200,000 to drain), `ONLY` (`embedded`, `distributed`, `drained`, `drain`, `gate`; comma separated). Writes `target/bench/latest.json` and `latest.md`. Exit code 1 when a goal is missed.
//! `ONLY=growth` (`make growth`) varies one factor at a time instead; `SIZES` are the holders tried. Writes `target/bench/growth.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a program for measuring fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that tells what it does")]
#![allow(clippy::disallowed_methods, reason = "it waits")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures for people")]

mod client;
mod constant;
mod crowd;
mod drain;
mod gate;
mod growth;
mod http;
mod processes;
mod rows;
mod table;
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Signs every token of a run.
pub const SECRET: &str = "a secret of thirty-two bytes or more";
/// Holders of a coupon in the growth table.
const GROWTH: [i64; 4] = [1_000, 100_000, 1_000_000, 5_000_000];
const USERS: usize = 600_000;
/// No pace that is held for long was above this, requests a second: so many users are there for each second of the row `drained`.
const FASTEST: usize = 40_000;

fn variable(name: &str, default: usize) -> usize {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map_or(default, |text| text.parse().expect("a number"))
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()));
    let memory = read("/proc/meminfo").lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores ({}), {} GiB, Linux {}", model.unwrap_or_default(), memory >> 20, kernel.trim())
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--constant") {
        let secret = std::env::var("JWT_SECRET").unwrap_or_else(|_| SECRET.to_owned());
        constant::serve(args[at + 1].parse().unwrap(), &secret);
        return ExitCode::SUCCESS;
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|one| one == part);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("target/bench").join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let rounds = variable("ROUNDS", 5);
    let world = world::World::new(&dir);
    let drain_seconds = variable("DRAIN_SECONDS", 60);
    let users = if wanted("drained") { USERS.max(FASTEST * drain_seconds) } else { USERS };
    println!("{}; {rounds} rounds; {users} tokens are signed", machine());
    let mut bench = rows::Bench::new(&world, crowd::tokens(users), Duration::from_secs(variable("ROUND_SECONDS", 4) as u64));
    let warm_up = Duration::from_secs(variable("WARM_UP_SECONDS", 15) as u64);
    if ["distributed", "drained", "drain", "growth"].iter().any(|part| wanted(part)) && !warm_up.is_zero() {
        bench.warm_up(warm_up);
    }
    if wanted("embedded") || wanted("distributed") {
        for round in 1..=rounds {
            println!("round {round} of {rounds}");
            bench.round(wanted("embedded"), wanted("distributed"));
        }
    }
    if wanted("drained") {
        bench.drained(Duration::from_secs(drain_seconds as u64));
    }
    let mut rows: Vec<_> = bench.rows.values().filter(|row| !row.rounds.is_empty()).cloned().collect();
    if wanted("drain") {
        rows.extend(drain::rows(&bench, rounds, variable("ROWS", 200_000)));
    }
    if wanted("gate") {
        rows.push(gate::row(&world.redis, rounds, 400_000));
    }
    if rows.is_empty() {
        let sizes: Vec<i64> =
            std::env::var("SIZES").map_or_else(|_| GROWTH.to_vec(), |text| text.split(',').map(|size| size.parse().unwrap()).collect());
        growth::run(&bench, &sizes, variable("ROWS", 200_000), &machine(), &root.join("target/bench/growth.md"));
        let _left = std::fs::remove_dir_all(&dir);
        return ExitCode::SUCCESS;
    }
    let reached = table::publish(&rows, &machine(), &root.join("target/bench/latest.json"));
    let _left = std::fs::remove_dir_all(&dir);
    if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
