//! The drain of a full topic into MySQL, against a bare loop of the best multi-row inserts into the same table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_svc::domain::{CouponId, issue_id, now_millis};
use coupon_svc::ledger::{Ledger, MysqlLedger, MysqlOptions};
use mysql_async::prelude::Queryable;

use crate::client::Work;
use crate::crowd::coupon;
use crate::processes::cpu;
use crate::rows::Bench;
use crate::table::Row;
use crate::world::World;

/// Connections and rows a statement that are tried for the best bare loop.
const SHAPES: [(usize, usize); 6] = [(1, 500), (1, 1_000), (1, 2_000), (2, 500), (2, 1_000), (2, 2_000)];

/// Most turns of a crowd until everybody is accepted.
const FILLS: usize = 3;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Rows a second of plain inserts into an empty table.
fn bare(world: &World, rows: usize, (connections, chunk): (usize, usize)) -> f64 {
    let deployment = world.deployment();
    runtime().block_on(async {
        let options = MysqlOptions {
            url: deployment.url.as_str().into(),
            pool: 1,
            connect_timeout: Duration::from_secs(5),
            query_timeout: Duration::from_secs(30),
            tls_ca: None,
            require_tls: false,
        };
        MysqlLedger::connect(options).unwrap().migrate().await.unwrap();
        let id = CouponId::random();
        let now = now_millis();
        let row = |number: usize| {
            let user = format!("user-{number}").parse().unwrap();
            format!("('{id}',{number},'user-{number}','{}',{number},{now},{now})", issue_id(id, &user))
        };
        let statements: Vec<String> = (0..rows)
            .collect::<Vec<_>>()
            .chunks(chunk)
            .map(|numbers| {
                let values: Vec<_> = numbers.iter().map(|number| row(*number)).collect();
                let columns = "coupon_id,sequence,user_id,issue_id,log_offset,requested_at,issued_at";
                format!("INSERT INTO issued_coupons ({columns}) VALUES {}", values.join(","))
            })
            .collect();
        let statements = Arc::new(statements);
        let mut conns = Vec::new();
        for _ in 0..connections {
            conns.push(mysql_async::Conn::from_url(&deployment.url).await.unwrap());
        }
        let started = Instant::now();
        let loops: Vec<_> = conns
            .into_iter()
            .enumerate()
            .map(|(first, mut conn)| {
                let statements = Arc::clone(&statements);
                tokio::spawn(async move {
                    for statement in statements.iter().skip(first).step_by(connections) {
                        conn.query_drop(statement.as_str()).await.unwrap();
                    }
                    conn.disconnect().await.unwrap();
                })
            })
            .collect();
        for one in loops {
            one.await.unwrap();
        }
        rows as f64 / started.elapsed().as_secs_f64()
    })
}

/// Rows a second of so many consumers that find the topic full; and microseconds a row of each process.
pub fn ours(bench: &Bench<'_>, rows: usize, coupons: usize, consumers: usize) -> (f64, Vec<(String, f64)>) {
    let deployment = bench.world.deployment();
    let api = deployment.start("api");
    let ids: Vec<_> = (0..coupons).map(|_| coupon(&api.address, 100_000_000, &[])).collect();
    let work = Work { tokens: Arc::new(bench.tokens[..rows].to_vec()), lasts: Duration::from_secs(120), ..bench.work(&api.address, &ids) };
    let mut accepted = 0;
    for _ in 0..FILLS {
        accepted += crate::client::run(&work).of(202);
        // Who was told "try again" does.
        if accepted == rows as u64 {
            break;
        }
    }
    assert_eq!(accepted, rows as u64, "everybody is accepted");
    api.stop();
    let consumers: Vec<_> = (0..consumers).map(|_| deployment.start("consumer")).collect();
    let ours = consumers.iter().enumerate().map(|(number, consumer)| (format!("consumer-{}", number + 1), consumer.pid()));
    let watched: Vec<_> = ours.chain(bench.world.servers.iter().cloned()).collect();
    let written = || consumers.iter().map(|consumer| consumer.metric("coupon_ledger_rows_total")).sum::<f64>();
    let patience = Instant::now();
    let first = loop {
        let now = written();
        if now > 0.0 {
            break now;
        }
        assert!(patience.elapsed() < Duration::from_secs(60), "the consumers do not begin");
        std::thread::sleep(Duration::from_millis(5));
    };
    let started = Instant::now();
    let before: Vec<_> = watched.iter().map(|(_, pid)| cpu(*pid)).collect();
    while written() < rows as f64 {
        assert!(started.elapsed() < Duration::from_secs(300), "the consumers do not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let counted = rows as f64 - first;
    let rate = counted / started.elapsed().as_secs_f64();
    let each = |(name, pid): &(String, u32), before| (name.clone(), cpu(*pid).saturating_sub(before).as_secs_f64() * 1e6 / counted);
    let micros = watched.iter().zip(before).map(|(process, before)| each(process, before)).collect();
    consumers.into_iter().for_each(crate::processes::Process::stop);
    (rate, micros)
}

/// Of many coupons, which fill transactions of several workers, and of one, whose transactions follow one another: the ceiling of the one is
/// the best loop on any number of connections, of the other that on one connection.
const COUPONS: [(&str, usize, usize); 2] =
    [("drain of a full topic into MySQL", 60, usize::MAX), ("the same, one hot coupon, against one connection", 1, 1)];

/// The fastest shape of so many connections at most, and its rows a second.
fn best(tried: &[((usize, usize), f64)], connections: usize) -> ((usize, usize), f64) {
    tried.iter().copied().filter(|(shape, _)| shape.0 <= connections).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
}

pub fn rows(bench: &Bench<'_>, rounds: usize, rows: usize) -> Vec<Row> {
    let rows = rows.min(bench.tokens.len());
    let tried = SHAPES.map(|shape| {
        let rate = bare(bench.world, rows / 3, shape);
        println!("  bare inserts, {} connections, {:>5} rows a statement: {rate:>8.0} rows/s", shape.0, shape.1);
        (shape, rate)
    });
    let mut all = COUPONS.map(|(name, _, connections)| {
        let ((connections, chunk), _) = best(&tried, connections);
        Row { remark: format!("ceiling: {connections} connections, {chunk} rows a statement"), ..Row::new(name, "rows/s", 0.60) }
    });
    for _ in 0..rounds {
        for (row, (_, coupons, connections)) in all.iter_mut().zip(COUPONS) {
            let ceiling = || bare(bench.world, rows, best(&tried, connections).0);
            let before = ceiling();
            let (rate, micros) = ours(bench, rows, coupons, 1);
            let ceiling = f64::midpoint(before, ceiling());
            println!("  drain of {coupons} coupons {rate:.0} rows/s, bare {ceiling:.0} rows/s: {:.0} %", 100.0 * rate / ceiling);
            row.rounds.push((rate, ceiling));
            row.cpu = micros;
        }
    }
    all.into()
}
