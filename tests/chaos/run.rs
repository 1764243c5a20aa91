//! One run from the start of the servers to the verdict.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::admin::{Admin, Change};
use crate::books::{self, Message, Tables};
use crate::crowd::{Crowd, Kind};
use crate::faults::{Window, strike};
use crate::plan::{Fault, Part, Plan, Stroke};
use crate::promise::{Evidence, check};
use crate::report::{Findings, Strike, table};
use crate::servers::resident_kib;
use crate::world::World;

/// How long the service may take to serve new users again once the part is back.
const BACK: Duration = Duration::from_secs(60);
/// How long the books may take to be complete at the end.
const SETTLE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Settings {
    pub seed: u64,
    pub lasts: Duration,
    pub short: bool,
    /// Logs and data of this run; logs and report stay.
    pub dir: PathBuf,
    pub program: PathBuf,
    pub toxiproxy: PathBuf,
}

/// Whether the promise held.
pub async fn run(settings: Settings) -> bool {
    let started = Instant::now();
    println!("chaos: seed {}, {} s of faults; logs in {}", settings.seed, settings.lasts.as_secs(), settings.dir.display());
    let findings = Findings::default();
    let world = Arc::new(World::start(&settings.dir, &settings.program, &settings.toxiproxy, findings.clone()).await);
    println!(
        "[{:>4} s] two APIs, three consumers, an embedded service, three brokers, mysql and redis are up",
        started.elapsed().as_secs()
    );
    let watch = world.watch();
    let crowd = Crowd::new(world.apis.clone(), world.embedded_api.clone(), findings.clone());
    let mut admin = Admin::new(Arc::clone(&crowd), settings.seed);
    admin.open().await;
    let mut users = crowd.start(settings.seed);
    let admin = tokio::spawn(admin.work());

    let strikes = strike_all(&settings, &world, &crowd, &findings, started).await;

    println!(
        "[{:>4} s] no more faults: {} users still ask, the books are completed",
        started.elapsed().as_secs(),
        crowd.waiting.load(Ordering::Relaxed)
    );
    crowd.stop.store(true, Ordering::Relaxed);
    let mut admin = admin.await.unwrap();
    admin.resume_all().await;
    if timeout(Duration::from_secs(310), async { while users.join_next().await.is_some() {} }).await.is_err() {
        findings.violation("P6", "users still had no final answer 310 s after the last fault");
    }
    fill(&crowd).await;
    settle(&world, &findings).await;
    watch.abort();
    memory(&world, &findings).await;
    stop(&world, &findings).await;
    prove(&world, &crowd, &admin.changes, &findings).await;
    say(&settings, &strikes, &crowd, &findings)
}

/// Works through the plan until the time is over.
async fn strike_all(settings: &Settings, world: &Arc<World>, crowd: &Arc<Crowd>, findings: &Findings, started: Instant) -> Vec<Strike> {
    let (mut strikes, begun) = (Vec::new(), Instant::now());
    sleep(Duration::from_secs(3)).await;
    for stroke in Plan::new(settings.seed, settings.short) {
        if begun.elapsed() >= settings.lasts {
            break;
        }
        let (count, known) = (crowd.count(), findings.violations().len());
        let mut found = vec![(stroke.fault, stroke.clone())];
        let doubled = &stroke.with;
        let windows = match doubled {
            None => vec![strike(world, &stroke).await],
            Some(second) => {
                found.push((second.fault, (**second).clone()));
                let both = async {
                    sleep(stroke.hold / 3).await;
                    strike(world, second).await
                };
                let (first, second) = tokio::join!(strike(world, &stroke), both);
                vec![first, second]
            }
        };
        for ((fault, stroke), window) in found.into_iter().zip(windows) {
            let back = back(crowd, fault, window).await;
            if back.is_none() {
                findings.violation("P6", &format!("{}: new users were not served within {} s of its end", fault.name(), BACK.as_secs()));
            }
            let violations = findings.violations().len() - known;
            say_strike(started, &stroke, crowd, count, window, back);
            strikes.push(Strike { fault, doubled: doubled.is_some(), window, back, violations });
        }
        sleep(Duration::from_secs(if settings.short { 1 } else { 2 })).await;
    }
    strikes
}

/// When all APIs that the fault concerns answered new users again.
async fn back(crowd: &Crowd, fault: Fault, window: Window) -> Option<Instant> {
    let apis = if fault.part() == Part::Embedded { crowd.apis.len()..crowd.apis.len() + 1 } else { 0..crowd.apis.len() };
    let mut last = window.healed;
    for api in apis {
        last = last.max(loop {
            if let Some(at) = crowd.served_since(api, window.healed) {
                break at;
            }
            if window.healed.elapsed() > BACK {
                return None;
            }
            sleep(Duration::from_millis(50)).await;
        });
    }
    Some(last)
}

fn say_strike(started: Instant, stroke: &Stroke, crowd: &Crowd, count: usize, window: Window, back: Option<Instant>) {
    let answers = crowd.answers.lock().unwrap();
    let since = &answers[count..];
    let of = |kinds: &[Kind]| since.iter().filter(|answer| kinds.contains(&answer.kind)).count();
    println!(
        "[{:>4} s] {:<42} {:>5.1} s  {:>6} requests  {:>5} 202  {:>6} 200/409  {:>5} 503  {:>4} none  back after {}",
        started.elapsed().as_secs(),
        stroke.fault.name(),
        (window.healed - window.from).as_secs_f64(),
        since.len(),
        of(&[Kind::Accepted]),
        of(&[Kind::Already, Kind::SoldOut, Kind::Closed, Kind::Paused]),
        of(&[Kind::Unavailable]),
        of(&[Kind::NoAnswer]),
        back.map_or_else(|| "never".to_owned(), |at| format!("{:.1} s", (at - window.healed).as_secs_f64())),
    );
}

/// More users than there is stock ask for every coupon that is still open.
async fn fill(crowd: &Arc<Crowd>) {
    let count = crowd.coupons.read().unwrap().len();
    for index in 0..count {
        if crowd.coupon(index).closed.load(Ordering::Relaxed) {
            continue;
        }
        let (mut refused, mut serial) = (0, 0);
        while refused < 3 {
            let batch = (0..16).map(|number| {
                let user: Arc<str> = Arc::from(format!("last.{index}.{serial}.{number}"));
                async move { crowd.insist(index, &user, number, false, Duration::from_secs(60)).await }
            });
            let found = futures_util::future::join_all(batch).await;
            refused += found.iter().filter(|kind| **kind != Some(Kind::Accepted) && **kind != Some(Kind::Already)).count();
            serial += 1;
        }
    }
}

/// Waits until everything in the log is in the tables.
async fn settle(world: &World, findings: &Findings) {
    let brokers = world.stack.bootstrap();
    let data = world.disk.0.join("data");
    let started = Instant::now();
    loop {
        let (ends, next) = (books::ends_of_kafka(&brokers).await, books::next_of_mysql(world.mysql_port()).await);
        let embedded_end = books::log_of_sqlite(&data).last().map_or(0, |message| message.offset + 1);
        let embedded_next = books::tables_of_sqlite(&data).next.get(&0).copied().unwrap_or(0);
        if ends == next && embedded_end == embedded_next {
            return;
        }
        if started.elapsed() > SETTLE {
            findings.violation(
                "P3",
                &format!(
                    "the tables never caught up with the log: {ends:?} against {next:?}; embedded {embedded_end} against {embedded_next}"
                ),
            );
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn memory(world: &World, findings: &Findings) {
    for process in world.processes.iter().chain([&world.embedded]) {
        let process = process.lock().await;
        findings.note(&format!("{} holds {} MiB at the end", process.name, resident_kib(process.pid()) / 1024));
    }
}

/// Everybody stops when asked to, and nobody panicked on the way.
async fn stop(world: &World, findings: &Findings) {
    for process in world.processes.iter().chain([&world.embedded]) {
        let mut process = process.lock().await;
        match process.terminate(Duration::from_secs(30)).await {
            Some(0) => {}
            code => findings.violation("P6", &format!("{} ended with {code:?} when asked to stop at the end", process.name)),
        }
        for line in process.log_text().lines().filter(|line| line.contains("panicked at")) {
            findings.violation("P6", &format!("{} panicked: {line}", process.name));
        }
    }
}

async fn prove(world: &World, crowd: &Crowd, changes: &[Change], findings: &Findings) {
    let brokers = world.stack.bootstrap();
    let data = world.disk.0.join("data");
    let distributed = (books::log_of_kafka(&brokers).await, books::tables_of_mysql(world.mysql_port()).await);
    let embedded = (books::log_of_sqlite(&data), books::tables_of_sqlite(&data));
    compare(false, &distributed.0, distributed.1, crowd, changes, findings);
    compare(true, &embedded.0, embedded.1, crowd, changes, findings);
    for is_embedded in [false, true] {
        let output = world.command(is_embedded, &["audit", "--json"]).await;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            findings.violation(
                "P3",
                &format!(
                    "the service's own audit (embedded: {is_embedded}) is not clean: {}",
                    text.chars().take(2_000).collect::<String>()
                ),
            );
        }
    }
}

fn compare(is_embedded: bool, log: &[Message], tables: Tables, crowd: &Crowd, changes: &[Change], findings: &Findings) {
    let coupons = crowd.coupons.read().unwrap();
    let answers = crowd.answers.lock().unwrap();
    let ours = |index: usize| coupons[index].embedded == is_embedded;
    let (stories, unreadable) = books::tell(log);
    let side = if is_embedded { "embedded" } else { "distributed" };
    println!("{side}: {} records in the log, {} rows, {} unreadable", log.len(), tables.rows.len(), unreadable.len());
    let evidence = Evidence {
        coupons: coupons.iter().enumerate().filter(|(index, _)| ours(*index)).map(|(index, coupon)| (index, &**coupon)).collect(),
        answers: answers.iter().filter(|answer| ours(answer.coupon)).collect(),
        changes: changes.iter().filter(|change| ours(change.coupon)).collect(),
        stories,
        unreadable,
        tables,
    };
    check(&evidence, findings);
}

/// The table and the verdict, also into the folder of the run.
fn say(settings: &Settings, strikes: &[Strike], crowd: &Crowd, findings: &Findings) -> bool {
    let answers = crowd.answers.lock().unwrap();
    let violations = findings.violations();
    let coupons = crowd.coupons.read().unwrap().len();
    let text = format!(
        "seed {}, {} s, {} faults of {} kinds, {} requests, {coupons} coupons\n\n{}\n{}violations: {}\n",
        settings.seed,
        settings.lasts.as_secs(),
        strikes.len(),
        strikes.iter().map(|strike| strike.fault).collect::<std::collections::HashSet<_>>().len(),
        answers.len(),
        table(strikes, &answers, crowd.apis.len()),
        findings.notes().iter().map(|note| format!("- {note}\n")).collect::<String>(),
        violations.len(),
    );
    println!("\n{text}");
    for violation in violations.iter().take(50) {
        println!("VIOLATION {violation}");
    }
    std::fs::write(settings.dir.join("report.md"), text + &violations.join("\n")).unwrap();
    violations.is_empty()
}
