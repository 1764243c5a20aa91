//! One factor at a time: what does a request cost, and what does a coupon weigh, as everything grows?

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_svc::domain::{CouponId, issue_id, now_millis};
use fred::clients::Client;
use fred::interfaces::{ClientLike, LuaInterface, SetsInterface};
use fred::types::Builder;
use fred::types::config::Config;
use mysql_async::prelude::Queryable;

use crate::client::{Pace, Work};
use crate::crowd::coupon;
use crate::processes::{Process, resident};
use crate::rows::{Bench, Measured, watch};
use crate::table::{median, sorted};
use crate::world::Deployment;

const STOCK: i64 = 100_000_000;
const CHUNK: i64 = 2_000;
/// So often each is measured, in turns: two runs of the same differ by a third on a small machine.
const ROUNDS: usize = 3;

/// Lines of the report, printed as they come.
#[derive(Default)]
struct Report(String);

impl Report {
    fn line(&mut self, line: &str) {
        println!("{line}");
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn head(&mut self, title: &str, columns: &str) {
        self.line(&format!("\n{title}\n"));
        self.line(columns);
        self.line(&format!("|{}", "---|".repeat(columns.matches('|').count() - 1)));
    }
}

/// Accepted a second, p50 and p99, and microseconds of each process: medians of the rounds, and of the first process the least and the most.
fn cells(rounds: &[Measured]) -> String {
    let of = |what: &dyn Fn(&Measured) -> f64| sorted(rounds.iter().map(what).collect());
    let micros: Vec<_> = (0..rounds[0].cpu.len())
        .map(|index| {
            let each = of(&|measured| measured.micros(202)[index].1);
            let spread =
                if index == 0 && each.len() > 1 { format!(" ({:.0}-{:.0})", each[0], each[each.len() - 1]) } else { String::new() };
            format!("{} {:.0}{spread}", rounds[0].cpu[index].0, median(each))
        })
        .collect();
    format!(
        "{:.0} | {:.1} | {:.1} | {}",
        median(of(&|measured| measured.answers.per_second(202))),
        median(of(&|measured| measured.answers.percentile(0.5))),
        median(of(&|measured| measured.answers.percentile(0.99))),
        micros.join(", ")
    )
}

const CELLS: &str = "accepted/s | p50 ms | p99 ms | CPU us each |";

/// Gives `count` users the coupon behind the service's back: rows, counters and the gate's set, as they would be.
fn prefill(deployment: &Deployment<'_>, redis: &str, id: &str, count: i64) {
    let coupon: CouponId = id.parse().unwrap();
    let now = now_millis();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let rows = async {
            let mut conn = mysql_async::Conn::from_url(&deployment.url).await.unwrap();
            for first in (1..=count).step_by(CHUNK as usize) {
                let values: Vec<_> = (first..(first + CHUNK).min(count + 1))
                    .map(|number| {
                        let user = format!("held-{number}");
                        format!("('{id}',{number},'{user}','{}',{number},{now},{now})", issue_id(coupon, &user.parse().unwrap()))
                    })
                    .collect();
                let columns = "coupon_id,sequence,user_id,issue_id,log_offset,requested_at,issued_at";
                conn.query_drop(format!("INSERT INTO issued_coupons ({columns}) VALUES {}", values.join(","))).await.unwrap();
            }
            conn.query_drop(format!("UPDATE coupons SET issued = {count}, next_sequence = {} WHERE coupon_id = '{id}'", count + 1))
                .await
                .unwrap();
            conn.disconnect().await.unwrap();
        };
        let members = async {
            let client = connected(redis).await;
            for first in (1..=count).step_by(CHUNK as usize) {
                let users: Vec<_> = (first..(first + CHUNK).min(count + 1)).map(|number| format!("held-{number}")).collect();
                let _added: i64 = client.sadd(format!("coupon:{id}:members"), users).await.unwrap();
            }
            client.quit().await.unwrap();
        };
        tokio::join!(rows, members);
    });
}

/// Until the consumer has written the coupon: holders without it would not be looked at.
fn wait_written(deployment: &Deployment<'_>, id: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut conn = mysql_async::Conn::from_url(&deployment.url).await.unwrap();
        let started = Instant::now();
        while conn.query_first::<i64, _>(format!("SELECT 1 FROM coupons WHERE coupon_id = '{id}'")).await.unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(60), "the consumer does not write the coupon");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        conn.disconnect().await.unwrap();
    });
}

async fn connected(redis: &str) -> Client {
    let client = Builder::from_config(Config::from_url(redis).unwrap()).build().unwrap();
    client.init().await.unwrap();
    client
}

/// Bytes of the gate's set, and of the table with its indexes.
fn weights(deployment: &Deployment<'_>, redis: &str, id: &str) -> (i64, i64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = connected(redis).await;
        let set: Option<i64> = client
            .eval("return redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 100)", vec![format!("coupon:{id}:members")], Vec::<String>::new())
            .await
            .unwrap();
        client.quit().await.unwrap();
        let mut conn = mysql_async::Conn::from_url(&deployment.url).await.unwrap();
        conn.query_drop("ANALYZE TABLE issued_coupons").await.unwrap();
        let table: Option<i64> = conn
            .query_first(
                "SELECT CAST(data_length + index_length AS SIGNED) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'issued_coupons'",
            )
            .await
            .unwrap();
        conn.disconnect().await.unwrap();
        (set.unwrap_or(0), table.unwrap_or(0))
    })
}

fn watched(bench: &Bench<'_>, ours: &[(&str, &Process)]) -> Vec<(String, u32)> {
    let ours = ours.iter().map(|(name, process)| ((*name).to_owned(), process.pid()));
    ours.chain(bench.world.servers.iter().cloned()).collect()
}

/// A coupon with its holders, at an API that has just loaded it.
struct Held<'a> {
    size: i64,
    api: Process,
    /// One for each round: what a round adds would be many times what a small one began with.
    ids: Vec<String>,
    start: Duration,
    memory: u64,
    set: i64,
    table: i64,
    rounds: Vec<Measured>,
    _deployment: Deployment<'a>,
}

fn hold<'a>(bench: &Bench<'_>, deployment: Deployment<'a>, size: i64) -> Held<'a> {
    let coupons = if size < 1_000_000 { ROUNDS } else { 1 };
    let (api, consumer) = (deployment.start("api"), deployment.start("consumer"));
    let ids: Vec<_> = (0..coupons).map(|_| coupon(&api.address, STOCK, &[])).collect();
    for id in &ids {
        wait_written(&deployment, id);
    }
    consumer.stop();
    let empty = resident(api.pid());
    api.stop();
    for id in &ids {
        prefill(&deployment, &bench.world.redis, id, size);
    }
    let started = Instant::now();
    let api = deployment.start("api");
    let start = started.elapsed();
    let memory = resident(api.pid()).saturating_sub(empty);
    let (set, table) = weights(&deployment, &bench.world.redis, &ids[0]);
    Held { size, api, ids, start, memory, set, table, rounds: Vec::new(), _deployment: deployment }
}

fn issued_users(bench: &Bench<'_>, sizes: &[i64], report: &mut Report) {
    report.head(
        &format!("Users who hold the coupon already (one API, 512 connections, one hot coupon; {ROUNDS} rounds over all sizes)"),
        &format!(
            "| holders | start of the API, s | {CELLS} API, bytes a holder | gate's set, bytes a holder | table and indexes, bytes a row |"
        ),
    );
    // A deployment that is made empties the gate: all of them first.
    let deployments: Vec<_> = sizes.iter().map(|_| bench.world.deployment()).collect();
    let mut all: Vec<_> = sizes.iter().zip(deployments).map(|(size, deployment)| hold(bench, deployment, *size)).collect();
    for round in 0..ROUNDS {
        for held in &mut all {
            let id = held.ids[round % held.ids.len()].clone();
            let work = Work { tokens: part(bench, round, ROUNDS), ..bench.work(&held.api.address, &[id]) };
            held.rounds.push(watch(&work, &watched(bench, &[("api", &held.api)])));
        }
    }
    for held in all {
        let holders = held.size as f64 * held.ids.len() as f64;
        report.line(&format!(
            "| {} | {:.1} | {} | {:.0} | {:.0} | {:.0} |",
            held.size,
            held.start.as_secs_f64(),
            cells(&held.rounds),
            held.memory as f64 / holders,
            held.set as f64 / held.size as f64,
            held.table as f64 / holders
        ));
        held.api.stop();
    }
}

/// One of `count` equal parts of the users.
fn part(bench: &Bench<'_>, number: usize, count: usize) -> Arc<Vec<String>> {
    let share = bench.tokens.len() / count;
    Arc::new(bench.tokens[number * share..(number + 1) * share].to_vec())
}

fn coupons_at_once(bench: &Bench<'_>, report: &mut Report) {
    report.head("Coupons at once (one API)", &format!("| coupons | {CELLS}"));
    let deployment = bench.world.deployment();
    let api = deployment.start("api");
    for count in [1, 10, 100] {
        let ids: Vec<_> = (0..count).map(|_| coupon(&api.address, STOCK, &[])).collect();
        let measured = watch(&bench.work(&api.address, &ids), &watched(bench, &[("api", &api)]));
        report.line(&format!("| {count} | {} |", cells(&[measured])));
    }
    api.stop();
}

fn apis(bench: &Bench<'_>, report: &mut Report) {
    report.head(
        &format!("APIs (one hot coupon, the connections shared among them; {ROUNDS} rounds, each with one and with two)"),
        &format!("| APIs | {CELLS}"),
    );
    let deployments = [bench.world.deployment(), bench.world.deployment()];
    let alone = vec![deployments[0].start("api")];
    let both = vec![deployments[1].start("api"), deployments[1].start("api")];
    let mut lines: [Vec<Measured>; 3] = Default::default();
    for round in 0..ROUNDS {
        let tokens = part(bench, round, ROUNDS);
        for (apis, first_line) in [(&alone, 0), (&both, 1)] {
            let id = coupon(&apis[0].address, STOCK, &[]);
            std::thread::scope(|scope| {
                let share = tokens.len() / apis.len();
                let runs: Vec<_> = apis
                    .iter()
                    .zip(tokens.chunks(share))
                    .map(|(api, tokens)| {
                        let work = Work {
                            tokens: Arc::new(tokens.to_vec()),
                            connections: crate::rows::CONNECTIONS / apis.len(),
                            ..bench.work(&api.address, std::slice::from_ref(&id))
                        };
                        let pids = watched(bench, &[("api", api)]);
                        scope.spawn(move || watch(&work, &pids))
                    })
                    .collect();
                for (number, run) in runs.into_iter().enumerate() {
                    lines[first_line + number].push(run.join().unwrap());
                }
            });
        }
    }
    for (name, rounds) in ["1 of 1", "1 of 2", "2 of 2"].iter().zip(&lines) {
        report.line(&format!("| {name} | {} |", cells(rounds)));
    }
    alone.into_iter().chain(both).for_each(Process::stop);
}

fn neighbours(bench: &Bench<'_>, report: &mut Report) {
    report.head("A coupon beside a hot one (100 requests a second for it, one API)", "| hot coupon | p50 ms | p99 ms |");
    let deployment = bench.world.deployment();
    let api = deployment.start("api");
    let quiet_tokens = Arc::new(bench.tokens[..bench.tokens.len() / 4].to_vec());
    let loud_tokens = Arc::new(bench.tokens[bench.tokens.len() / 4..].to_vec());
    let seconds = bench.lasts * 2;
    let mut measure = |name: &str, loud: Option<Work>| {
        let id = coupon(&api.address, STOCK, &[]);
        let quiet = Work {
            tokens: Arc::clone(&quiet_tokens),
            connections: 32,
            pace: Pace::PerSecond(100.0),
            lasts: seconds,
            ..bench.work(&api.address, &[id])
        };
        let answers = std::thread::scope(|scope| {
            let noise = loud.map(|work| scope.spawn(move || crate::client::run(&work)));
            std::thread::sleep(Duration::from_millis(200));
            let answers = crate::client::run(&quiet);
            if let Some(noise) = noise {
                let _answers = noise.join().unwrap();
            }
            answers
        });
        report.line(&format!("| {name} | {:.1} | {:.1} |", answers.percentile(0.5), answers.percentile(0.99)));
    };
    measure("none", None);
    let loud = |address: &str, id: &str, rate: f64| Work {
        tokens: Arc::clone(&loud_tokens),
        pace: Pace::PerSecond(rate),
        lasts: seconds + Duration::from_millis(500),
        ..bench.work(address, &[id.to_owned()])
    };
    for rate in [1_000.0, 4_000.0] {
        let other = uuid::Uuid::new_v4().to_string();
        measure(&format!("none, but {rate:.0} constant answers a second"), Some(loud(&bench.constant.address, &other, rate)));
        let hot = coupon(&api.address, STOCK, &[]);
        measure(&format!("{rate:.0} accepted a second"), Some(loud(&api.address, &hot, rate)));
    }
    api.stop();
}

fn consumers(bench: &Bench<'_>, rows: usize, report: &mut Report) {
    report.head("Consumers (60 coupons, a full topic)", "| consumers | rows/s | CPU us a row |");
    let rows = rows.min(bench.tokens.len());
    for count in [1, 2, 4] {
        let (rate, micros) = crate::drain::ours(bench, rows, 60, count);
        let micros: Vec<_> = micros.iter().map(|(name, micros)| format!("{name} {micros:.0}")).collect();
        report.line(&format!("| {count} | {rate:.0} | {} |", micros.join(", ")));
    }
}

pub fn run(bench: &Bench<'_>, sizes: &[i64], rows: usize, machine: &str, file: &Path) {
    let mut report = Report::default();
    issued_users(bench, sizes, &mut report);
    coupons_at_once(bench, &mut report);
    apis(bench, &mut report);
    neighbours(bench, &mut report);
    consumers(bench, rows, &mut report);
    report.line(&format!("\n{machine}"));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, report.0).unwrap();
    println!("written to {}", file.display());
}
