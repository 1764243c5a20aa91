//! A crowd that never stops, at twice what the service can do, while one server after another is away: is every call answered in time,
//! and does memory stay flat?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cluster::BROKERS;
use crate::report::Findings;
use crate::run::Settings;
use crate::servers::resident_kib;
use crate::world::{World, broker_proxy};

/// Requests of this program in flight at most: open files are limited.
const IN_FLIGHT: usize = 12_000;
/// What closes the loop when the capacity is measured.
const CLOSED_LOOP: usize = 256;
/// The bound of an answer, in seconds, as the metrics have it.
const ANSWER: &str = "2";

/// Memory that a holder may take, and what else a process may grow by while it is overrun, in KiB.
const HOLDER_BYTES: u64 = 100;
const SLACK_KIB: u64 = 48 * 1024;

struct Load {
    http: reqwest::Client,
    urls: Vec<String>,
    room: Arc<Semaphore>,
    users: AtomicU64,
    in_flight: AtomicUsize,
}

type Counts = BTreeMap<String, u64>;

impl Load {
    async fn ask(&self) -> String {
        let number = self.users.fetch_add(1, Ordering::Relaxed);
        let url = &self.urls[usize::try_from(number).unwrap_or(0) % self.urls.len()];
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let answer = self.http.post(url).header("X-User-Id", format!("u{number}")).send().await;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        answer.map_or_else(|_| "no answer".to_owned(), |answer| answer.status().as_u16().to_string())
    }

    /// Answers of `status` a second that a closed loop gets.
    async fn capacity(self: &Arc<Self>) -> f64 {
        let (begun, lasts) = (Instant::now(), Duration::from_secs(8));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..CLOSED_LOOP {
            let load = Arc::clone(self);
            asking.spawn(async move {
                let mut accepted = 0_u32;
                while begun.elapsed() < lasts {
                    accepted += u32::from(load.ask().await == "202");
                }
                accepted
            });
        }
        f64::from(asking.join_all().await.into_iter().sum::<u32>()) / lasts.as_secs_f64()
    }

    /// So many new users a second, whether or not those before were answered. Also how many could not be sent.
    async fn open_loop(self: &Arc<Self>, rate: f64, lasts: Duration) -> (Counts, u64) {
        let counts: Arc<std::sync::Mutex<Counts>> = Arc::default();
        let (mut unsent, mut owed) = (0, 0.0);
        let begun = Instant::now();
        let mut ticks = interval(Duration::from_millis(10));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while begun.elapsed() < lasts {
            ticks.tick().await;
            owed += rate / 100.0;
            while owed >= 1.0 {
                owed -= 1.0;
                let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
                    unsent += 1;
                    continue;
                };
                let (load, counts) = (Arc::clone(self), Arc::clone(&counts));
                tokio::spawn(async move {
                    let answer = load.ask().await;
                    *counts.lock().unwrap().entry(answer).or_default() += 1;
                    drop(permit);
                });
            }
        }
        let counts = counts.lock().unwrap().clone();
        (counts, unsent)
    }
}

/// (answers so far, answers within [`ANSWER`]) by the API's own clock.
async fn measured(http: &reqwest::Client, ops: &str) -> (u64, u64) {
    let text = match http.get(format!("{ops}/metrics")).send().await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(_) => String::new(),
    };
    let value = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix)?.trim().parse().ok()).unwrap_or(0);
    (value("coupon_issue_seconds_count"), value(&format!("coupon_issue_seconds_bucket{{le=\"{ANSWER}\"}}")))
}

/// Runs all phases; whether nothing was found.
pub async fn run(settings: &Settings) -> bool {
    let findings = Findings::default();
    let world = Arc::new(World::start(&settings.dir, &settings.program, &settings.toxiproxy, findings.clone()).await);
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).pool_max_idle_per_host(IN_FLIGHT).build().unwrap();
    let coupon = uuid::Uuid::new_v4();
    let body = json!({"coupon_id": coupon, "name": "overload", "kind": "FIRST_COME", "discount": {"type": "FIXED", "value": 1}, "total_quantity": 100_000_000});
    let create = http.post(format!("{}/api/v1/coupons", world.apis[0])).header("X-User-Id", "root").header("X-Admin", "true").json(&body);
    // New topics may take a moment on a busy machine: asked again until it is there.
    while !create.try_clone().unwrap().send().await.is_ok_and(|answer| answer.status().is_success()) {
        sleep(Duration::from_millis(200)).await;
    }
    let load = Arc::new(Load {
        http: http.clone(),
        urls: world.apis.iter().map(|api| format!("{api}/api/v1/coupons/{coupon}/issue")).collect(),
        room: Arc::new(Semaphore::new(IN_FLIGHT)),
        users: AtomicU64::new(0),
        in_flight: AtomicUsize::new(0),
    });
    let capacity = load.capacity().await;
    println!("capacity: {capacity:.0} accepted a second with {CLOSED_LOOP} at a time; now {:.0} new users a second", capacity * 2.0);
    let phases = ["all there", "redis away", "kafka away", "mysql away", "all there again"];
    let each = settings.lasts / u32::try_from(phases.len()).unwrap();
    let mut text = String::from(
        "| phase | asked | 202 | 503 | 429 | other | no answer | not sent | within 2 s | in flight at the end | back after, s | memory of the APIs, MiB | of the consumers, MiB |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut first: Option<(u64, u64)> = None;
    for phase in phases {
        let proxies = match phase {
            "redis away" => world.proxies("redis", None),
            "mysql away" => world.proxies("mysql", None),
            "kafka away" => (0..BROKERS.len()).map(broker_proxy).collect(),
            _ => Vec::new(),
        };
        for proxy in &proxies {
            world.toxiproxy.enable(proxy, false).await;
        }
        let before = total(&http, &world).await;
        let (counts, unsent) = load.open_loop(capacity * 2.0, each).await;
        let in_flight = load.in_flight.load(Ordering::Relaxed);
        let memory = memory(&world).await;
        for proxy in &proxies {
            world.toxiproxy.enable(proxy, true).await;
        }
        let healed = Instant::now();
        while load.ask().await != "202" {
            if healed.elapsed() > Duration::from_secs(60) {
                findings.violation("P6", &format!("{phase}: nobody was served within a minute"));
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let back = healed.elapsed();
        // Those in flight get their answers before anything is counted.
        while load.in_flight.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(50)).await;
        }
        let after = total(&http, &world).await;
        let (answered, in_time) = (after.0 - before.0, after.1 - before.1);
        if answered > in_time {
            findings.violation("P6", &format!("{phase}: {} of {answered} answers took longer than {ANSWER} s", answered - in_time));
        }
        let count = |key: &str| counts.get(key).copied().unwrap_or(0);
        let known = ["202", "503", "429", "no answer"];
        let other: u64 = counts.iter().filter(|(key, _)| !known.contains(&key.as_str())).map(|(_, count)| count).sum();
        let line = format!(
            "| {phase} | {} | {} | {} | {} | {other} | {} | {unsent} | {} % | {in_flight} | {:.1} | {} | {} |",
            counts.values().sum::<u64>(),
            count("202"),
            count("503"),
            count("429"),
            count("no answer"),
            100 * in_time / answered.max(1),
            back.as_secs_f64(),
            memory.0 / 1024,
            memory.1 / 1024,
        );
        println!("{line}");
        text.push_str(&format!("{line}\n"));
        let holders = load.users.load(Ordering::Relaxed) * HOLDER_BYTES * 2 / 1024;
        let start = *first.get_or_insert((memory.0, holders));
        let allowed = start.0 + (holders - start.1) + SLACK_KIB;
        if memory.0 > allowed {
            findings.violation("P6", &format!("{phase}: the APIs hold {} KiB, more than the {allowed} that holders explain", memory.0));
        }
    }
    std::fs::write(settings.dir.join("overload.md"), &text).unwrap();
    println!("\n{text}\nviolations: {}", findings.violations().len());
    findings.violations().is_empty()
}

async fn total(http: &reqwest::Client, world: &World) -> (u64, u64) {
    let mut total = (0, 0);
    for ops in &world.ops {
        let (count, in_time) = measured(http, ops).await;
        total = (total.0 + count, total.1 + in_time);
    }
    total
}

/// Of all APIs and of all consumers together, in KiB.
async fn memory(world: &World) -> (u64, u64) {
    let mut sums = (0, 0);
    for (number, process) in world.processes.iter().enumerate() {
        let kib = resident_kib(process.lock().await.pid());
        if number < world.apis.len() { sums.0 += kib } else { sums.1 += kib }
    }
    sums
}
