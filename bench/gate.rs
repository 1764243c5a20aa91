//! The gate, against the same script calls made bare.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_svc::domain::CouponId;
use coupon_svc::gate::{Ask, Gate, RedisGate, RedisGateOptions, Verdict};
use coupon_svc::redis::RedisOptions;
use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::Builder;
use fred::types::config::Config;
use fred::types::scripts::Script;

use crate::table::Row;

const BATCH: usize = 50;
/// Batches on the way at once, and eight times as many users in all who wait.
const AT_ONCE: usize = 8;
const TOTAL: i64 = 1_000_000_000;

fn options(url: &str) -> RedisOptions {
    RedisOptions { connections: 1, command_timeout: Duration::from_secs(5), ..RedisOptions::new(url) }
}

async fn bare(url: &str, users: usize) -> f64 {
    let client: Client = Builder::from_config(Config::from_url(url).unwrap()).build().unwrap();
    let _task = client.init().await.unwrap();
    let script = Script::from_lua(include_str!("../src/gate/gate.lua"));
    script.load(&client).await.unwrap();
    let key = format!("bench:{}:members", CouponId::random());
    let started = Instant::now();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|lane| {
            let (client, script, key) = (client.clone(), script.clone(), key.clone());
            tokio::spawn(async move {
                for batch in (lane..users / BATCH).step_by(AT_ONCE) {
                    let mut args = vec![TOTAL.to_string(), "0".to_owned(), BATCH.to_string()];
                    args.extend((0..BATCH).map(|number| format!("user-{}", batch * BATCH + number)));
                    let codes: Vec<i64> = script.evalsha(&client, vec![key.as_str()], args).await.unwrap();
                    assert!(codes.iter().all(|code| *code == 0));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = users as f64 / started.elapsed().as_secs_f64();
    let _left: Result<i64, _> = fred::interfaces::KeysInterface::unlink(&client, key).await;
    client.quit().await.unwrap();
    rate
}

async fn ours(url: &str, users: usize) -> f64 {
    let gate = RedisGate::connect(RedisGateOptions { batch: BATCH, ..RedisGateOptions::new(options(url)) }).await.unwrap();
    let gate = Arc::new(gate);
    let coupon = CouponId::random();
    let waiting = BATCH * AT_ONCE * 2;
    let started = Instant::now();
    let tasks: Vec<_> = (0..waiting)
        .map(|lane| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                for number in (lane..users).step_by(waiting) {
                    let user = format!("user-{number}").parse().unwrap();
                    let verdict = gate.admit(Ask { coupon, user, total: TOTAL, issued: 0 }).await.unwrap();
                    assert_eq!(verdict, Verdict::Pass);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = users as f64 / started.elapsed().as_secs_f64();
    gate.forget(coupon).await.unwrap();
    rate
}

pub fn row(url: &str, rounds: usize, users: usize) -> Row {
    let mut row = Row::new("gate", "users/s", 0.60);
    row.remark = format!("{BATCH} users a call, one connection, {AT_ONCE} calls on the way");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for _ in 0..rounds {
        let ceiling = runtime.block_on(bare(url, users));
        let rate = runtime.block_on(ours(url, users));
        println!("  gate {rate:.0} users/s, bare {ceiling:.0} users/s: {:.0} %", 100.0 * rate / ceiling);
        row.rounds.push((rate, ceiling));
    }
    row
}
