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
use crate::world::Deployment;

const STOCK: i64 = 100_000_000;
const CHUNK: i64 = 2_000;

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

/// Accepted a second, p50 and p99, and microseconds of each process.
fn cells(measured: &Measured) -> String {
    let answers = &measured.answers;
    let micros: Vec<_> = measured.micros(202).iter().map(|(name, micros)| format!("{name} {micros:.0}")).collect();
    format!("{:.0} | {:.1} | {:.1} | {}", answers.per_second(202), answers.percentile(0.5), answers.percentile(0.99), micros.join(", "))
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

fn issued_users(bench: &Bench<'_>, sizes: &[i64], report: &mut Report) {
    report.head(
        "Users who hold the coupon already (one API, 512 connections, one hot coupon)",
        &format!(
            "| holders | start of the API, s | {CELLS} API, bytes a holder | gate's set, bytes a holder | table and indexes, bytes a row |"
        ),
    );
    let mut empty = 0;
    for size in sizes {
        let deployment = bench.world.deployment();
        let (api, consumer) = (deployment.start("api"), deployment.start("consumer"));
        let id = coupon(&api.address, STOCK, &[]);
        wait_written(&deployment, &id);
        consumer.stop();
        api.stop();
        prefill(&deployment, &bench.world.redis, &id, *size);
        let started = Instant::now();
        let api = deployment.start("api");
        let start = started.elapsed();
        let memory = resident(api.pid());
        if empty == 0 {
            empty = memory;
        }
        let (set, table) = weights(&deployment, &bench.world.redis, &id);
        let measured = watch(&bench.work(&api.address, &[id]), &watched(bench, &[("api", &api)]));
        let each = |bytes: u64| bytes as f64 / *size as f64;
        report.line(&format!(
            "| {size} | {:.1} | {} | {:.0} | {:.0} | {:.0} |",
            start.as_secs_f64(),
            cells(&measured),
            each(memory.saturating_sub(empty)),
            each(set.unsigned_abs()),
            each(table.unsigned_abs())
        ));
        api.stop();
    }
}

fn coupons_at_once(bench: &Bench<'_>, report: &mut Report) {
    report.head("Coupons at once (one API)", &format!("| coupons | {CELLS}"));
    let deployment = bench.world.deployment();
    let api = deployment.start("api");
    for count in [1, 10, 100] {
        let ids: Vec<_> = (0..count).map(|_| coupon(&api.address, STOCK, &[])).collect();
        let measured = watch(&bench.work(&api.address, &ids), &watched(bench, &[("api", &api)]));
        report.line(&format!("| {count} | {} |", cells(&measured)));
    }
    api.stop();
}

fn apis(bench: &Bench<'_>, report: &mut Report) {
    report.head("APIs (one hot coupon, the connections shared among them)", &format!("| APIs | {CELLS}"));
    for count in [1, 2] {
        let deployment = bench.world.deployment();
        let apis: Vec<_> = (0..count).map(|_| deployment.start("api")).collect();
        let id = coupon(&apis[0].address, STOCK, &[]);
        let half = bench.tokens.len() / count;
        let mut lines = Vec::new();
        std::thread::scope(|scope| {
            let runs: Vec<_> = apis
                .iter()
                .enumerate()
                .map(|(number, api)| {
                    let tokens = Arc::new(bench.tokens[number * half..(number + 1) * half].to_vec());
                    let work = Work {
                        tokens,
                        connections: crate::rows::CONNECTIONS / count,
                        ..bench.work(&api.address, std::slice::from_ref(&id))
                    };
                    let pids = watched(bench, &[("api", api)]);
                    scope.spawn(move || watch(&work, &pids))
                })
                .collect();
            lines.extend(runs.into_iter().map(|run| run.join().unwrap()));
        });
        for (number, measured) in lines.iter().enumerate() {
            report.line(&format!("| {} of {count} | {} |", number + 1, cells(measured)));
        }
        apis.into_iter().for_each(Process::stop);
    }
}

fn neighbours(bench: &Bench<'_>, report: &mut Report) {
    report.head("A coupon beside a hot one (100 requests a second for it, one API)", "| hot coupon | p50 ms | p99 ms |");
    let deployment = bench.world.deployment();
    let api = deployment.start("api");
    let constant = bench.world.constant();
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
        measure(&format!("none, but {rate:.0} constant answers a second"), Some(loud(&constant.address, &other, rate)));
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
