//! What every gate promises, and what the one in Redis does when Redis does not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use uuid::Uuid;

use super::{Ask, Away, Gate, LocalGate, RedisGate, RedisGateOptions, Verdict};
use crate::domain::CouponId;
use crate::redis::testing::{DEFAULT_URL, Server, free_port, url};
use crate::redis::{RedisOptions, Script, connect};

fn ask(coupon: CouponId, user: &str, total: i64, issued: i64) -> Ask {
    Ask { coupon, user: user.parse().unwrap(), total, issued }
}

async fn admit(gate: &dyn Gate, coupon: CouponId, user: &str, total: i64) -> Verdict {
    gate.admit(ask(coupon, user, total, 0)).await.unwrap()
}

fn tally(verdicts: &[Verdict]) -> [usize; 3] {
    [Verdict::Pass, Verdict::Seen, Verdict::Full].map(|kind| verdicts.iter().filter(|verdict| **verdict == kind).count())
}

/// All at once, from tasks of their own.
async fn crowd(gate: &Arc<dyn Gate>, asks: impl IntoIterator<Item = Ask>) -> Vec<Verdict> {
    let tasks = asks.into_iter().map(|ask| {
        let gate = Arc::clone(gate);
        tokio::spawn(async move { gate.admit(ask).await.unwrap() })
    });
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

fn redis_options(url: &str) -> RedisGateOptions {
    RedisGateOptions { key_prefix: format!("test:{}:", Uuid::new_v4()), ..RedisGateOptions::new(RedisOptions::new(url)) }
}

async fn redis_gate(mut options: RedisGateOptions) -> RedisGate {
    // The machine that runs the tests may be slow; how fast a gate gives up is not asked here.
    options.redis.command_timeout = Duration::from_secs(2);
    let gate = RedisGate::connect(options).await.unwrap();
    assert!(gate.reachable(), "needs a redis at COUPON_TEST_REDIS (default {DEFAULT_URL})");
    gate
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod local {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(std::sync::Arc::new(super::LocalGate::new())).await;
            })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(std::sync::Arc::new(super::redis_gate(super::redis_options(&super::url())).await)).await;
            })*
        }
    };
}

contract! {
    passes_once_then_has_seen
    is_full_at_the_total
    counts_at_least_what_is_issued
    passes_again_after_a_restock
    lets_one_of_a_crowd_through
    lets_as_many_of_a_crowd_through_as_there_is_stock
    keeps_coupons_apart
    counts_each_coupon_of_a_crowd
    passes_a_user_who_asks_many_times_at_once_only_once
    forgets
    is_reachable
    takes_users_byte_by_byte
}

async fn counts_each_coupon_of_a_crowd(gate: Arc<dyn Gate>) {
    let coupons: Vec<_> = (1..=7).map(|number| (CouponId::random(), number * 10)).collect();
    let asks = (0..100).flat_map(|user| coupons.iter().map(move |(coupon, total)| ask(*coupon, &format!("user-{user}"), *total, 0)));
    let verdicts = crowd(&gate, asks).await;
    for (index, (coupon, total)) in coupons.iter().enumerate() {
        let of_coupon: Vec<_> = verdicts.iter().skip(index).step_by(coupons.len()).copied().collect();
        let stock = usize::try_from(*total).unwrap();
        assert_eq!(tally(&of_coupon), [stock, 0, 100 - stock], "coupon {index}");
        assert_eq!(gate.members(*coupon).await.unwrap(), *total);
    }
}

async fn passes_once_then_has_seen(gate: Arc<dyn Gate>) {
    let coupon = CouponId::random();
    assert_eq!(admit(&*gate, coupon, "alice", 2).await, Verdict::Pass);
    assert_eq!(admit(&*gate, coupon, "alice", 2).await, Verdict::Seen);
    assert_eq!(admit(&*gate, coupon, "bob", 2).await, Verdict::Pass);
    assert_eq!(gate.members(coupon).await.unwrap(), 2);
}

async fn is_full_at_the_total(gate: Arc<dyn Gate>) {
    let coupon = CouponId::random();
    assert_eq!(admit(&*gate, coupon, "alice", 1).await, Verdict::Pass);
    assert_eq!(admit(&*gate, coupon, "bob", 1).await, Verdict::Full);
    assert_eq!(admit(&*gate, coupon, "alice", 1).await, Verdict::Seen, "also when full");
    assert_eq!(gate.members(coupon).await.unwrap(), 1, "who was turned away is not kept");
    assert_eq!(admit(&*gate, CouponId::random(), "alice", 0).await, Verdict::Full);
}

async fn counts_at_least_what_is_issued(gate: Arc<dyn Gate>) {
    let coupon = CouponId::random();
    assert_eq!(gate.admit(ask(coupon, "alice", 10, 10)).await.unwrap(), Verdict::Full);
    assert_eq!(gate.admit(ask(coupon, "alice", 10, 9)).await.unwrap(), Verdict::Pass);
    assert_eq!(gate.admit(ask(coupon, "bob", 10, 10)).await.unwrap(), Verdict::Full);
    assert_eq!(gate.members(coupon).await.unwrap(), 1);
}

async fn passes_again_after_a_restock(gate: Arc<dyn Gate>) {
    let coupon = CouponId::random();
    assert_eq!(admit(&*gate, coupon, "alice", 1).await, Verdict::Pass);
    assert_eq!(admit(&*gate, coupon, "bob", 1).await, Verdict::Full);
    assert_eq!(admit(&*gate, coupon, "bob", 2).await, Verdict::Pass);
    assert_eq!(admit(&*gate, coupon, "carol", 1).await, Verdict::Full, "and a lowered stock holds too");
}

async fn lets_one_of_a_crowd_through(gate: Arc<dyn Gate>) {
    let coupon = CouponId::random();
    let verdicts = crowd(&gate, (0..64).map(|user| ask(coupon, &format!("user-{user}"), 1, 0))).await;
    assert_eq!(tally(&verdicts), [1, 0, 63]);
}

async fn lets_as_many_of_a_crowd_through_as_there_is_stock(gate: Arc<dyn Gate>) {
    let coupon = CouponId::random();
    let verdicts = crowd(&gate, (0..1_000).map(|user| ask(coupon, &format!("user-{user}"), 300, 0))).await;
    assert_eq!(tally(&verdicts), [300, 0, 700]);
    assert_eq!(gate.members(coupon).await.unwrap(), 300);
}

async fn keeps_coupons_apart(gate: Arc<dyn Gate>) {
    let coupons = [(); 7].map(|()| CouponId::random());
    let asks = (0..20).flat_map(|user| coupons.map(|coupon| ask(coupon, &format!("user-{user}"), 5, 0)));
    let verdicts = crowd(&gate, asks).await;
    assert_eq!(tally(&verdicts), [35, 0, 105]);
    for coupon in coupons {
        assert_eq!(gate.members(coupon).await.unwrap(), 5);
    }
}

async fn passes_a_user_who_asks_many_times_at_once_only_once(gate: Arc<dyn Gate>) {
    let coupon = CouponId::random();
    let verdicts = crowd(&gate, (0..64).map(|_| ask(coupon, "alice", 100, 0))).await;
    assert_eq!(tally(&verdicts), [1, 63, 0]);
}

async fn forgets(gate: Arc<dyn Gate>) {
    let (coupon, other) = (CouponId::random(), CouponId::random());
    gate.forget(coupon).await.unwrap();
    assert_eq!(gate.members(coupon).await.unwrap(), 0);
    admit(&*gate, coupon, "alice", 1).await;
    admit(&*gate, other, "alice", 1).await;
    gate.forget(coupon).await.unwrap();
    assert_eq!(gate.members(coupon).await.unwrap(), 0);
    assert_eq!(gate.members(other).await.unwrap(), 1);
    assert_eq!(admit(&*gate, coupon, "alice", 1).await, Verdict::Pass);
}

async fn is_reachable(gate: Arc<dyn Gate>) {
    admit(&*gate, CouponId::random(), "alice", 1).await;
    assert!(gate.reachable());
}

async fn takes_users_byte_by_byte(gate: Arc<dyn Gate>) {
    let coupon = CouponId::random();
    for user in ["alice", "Alice", "1", "01", "a:b", "-"] {
        assert_eq!(admit(&*gate, coupon, user, 100).await, Verdict::Pass, "{user}");
    }
}

/// Asks until the gate answers again; fails after five seconds.
async fn recovered(gate: &RedisGate, mut next: impl FnMut() -> Ask) -> Verdict {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match gate.admit(next()).await {
            Ok(verdict) => return verdict,
            Err(Away(why)) => assert!(Instant::now() < deadline, "still away: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_away_at_once(gate: &RedisGate, coupon: CouponId) {
    for _ in 0..100 {
        let start = Instant::now();
        assert!(gate.admit(ask(coupon, "bob", 10, 0)).await.is_err());
        assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
    }
    assert!(!gate.reachable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_never_there_is_away_at_once() {
    let start = Instant::now();
    let gate = RedisGate::connect(redis_options(&format!("redis://127.0.0.1:{}", free_port()))).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(!gate.reachable());
    let (coupon, start) = (CouponId::random(), Instant::now());
    assert!(gate.admit(ask(coupon, "alice", 1, 0)).await.is_err());
    assert!(gate.members(coupon).await.is_err());
    assert!(gate.forget(coupon).await.is_err());
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_swallows_connections_holds_up_nobody() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = Instant::now();
    let gate = RedisGate::connect(redis_options(&format!("redis://127.0.0.1:{port}"))).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
    is_away_at_once(&gate, CouponId::random()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_cannot_be_right_is_an_error() {
    assert!(RedisGate::connect(redis_options("http//redis")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovers_by_itself_from_a_redis_that_is_killed_and_comes_back_empty() {
    let mut server = Server::start().await;
    let gate = RedisGate::connect(redis_options(&server.url())).await.unwrap();
    let coupon = CouponId::random();
    assert_eq!(gate.admit(ask(coupon, "alice", 10, 0)).await.unwrap(), Verdict::Pass);
    for round in 1..=2 {
        server.kill();
        let start = Instant::now();
        let crowd = join_all((0..200).map(|user| gate.admit(ask(coupon, &format!("user-{user}"), 10, 0)))).await;
        assert!(crowd.iter().all(Result::is_err));
        assert!(start.elapsed() < Duration::from_millis(400), "round {round}: {:?}", start.elapsed());
        is_away_at_once(&gate, coupon).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        is_away_at_once(&gate, coupon).await;
        server.restart().await;
        let verdict = recovered(&gate, || ask(coupon, "alice", 10, 0)).await;
        assert_eq!(verdict, Verdict::Pass, "the set was lost, and the dead redis was sent nothing twice");
        assert!(gate.reachable());
        assert_eq!(gate.admit(ask(coupon, "bob", 10, 10)).await.unwrap(), Verdict::Full, "the roster's count still holds");
        assert_eq!(gate.members(coupon).await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_reachable_again_without_being_asked() {
    let mut server = Server::start().await;
    let gate = RedisGate::connect(redis_options(&server.url())).await.unwrap();
    server.kill();
    assert!(gate.admit(ask(CouponId::random(), "alice", 10, 0)).await.is_err());
    assert!(!gate.reachable());
    server.restart().await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while !gate.reachable() {
        assert!(Instant::now() < deadline, "still away");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comes_in_when_redis_starts_after_the_service() {
    let mut server = Server::start().await;
    server.kill();
    let gate = RedisGate::connect(redis_options(&server.url())).await.unwrap();
    assert!(!gate.reachable());
    server.restart().await;
    assert_eq!(recovered(&gate, || ask(CouponId::random(), "alice", 10, 0)).await, Verdict::Pass);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stalls_costs_each_caller_the_deadline_at_most() {
    let server = Server::start().await;
    let gate = RedisGate::connect(redis_options(&server.url())).await.unwrap();
    let coupon = CouponId::random();
    assert_eq!(gate.admit(ask(coupon, "alice", 1_000, 0)).await.unwrap(), Verdict::Pass);
    server.signal("-STOP");
    let start = Instant::now();
    let crowd = join_all((0..500).map(|user| gate.admit(ask(coupon, &format!("user-{user}"), 1_000, 0)))).await;
    let elapsed = start.elapsed();
    is_away_at_once(&gate, coupon).await;
    server.signal("-CONT");
    assert!(crowd.iter().all(Result::is_err));
    assert!(elapsed < Duration::from_millis(400), "{elapsed:?}");
    assert_eq!(recovered(&gate, || ask(coupon, "alice", 1_000, 0)).await, Verdict::Seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_the_loss_of_its_script_and_of_its_keys() {
    let server = Server::start().await;
    let gate = redis_gate(redis_options(&server.url())).await;
    let admin = connect(&RedisOptions::new(server.url())).await.unwrap();
    let flush_all = Script::new("redis.call('FLUSHALL') return {1}");
    let coupon = CouponId::random();
    assert_eq!(admit(&gate, coupon, "alice", 1).await, Verdict::Pass);
    admin.lane().unwrap().run(&flush_all, vec!["any".to_owned()], Vec::new()).await.unwrap();
    assert_eq!(admit(&gate, coupon, "alice", 1).await, Verdict::Pass, "flushed: passes again");

    server.cli(&["SCRIPT", "FLUSH", "SYNC"]);
    let gate: Arc<dyn Gate> = Arc::new(gate);
    let verdicts = crowd(&gate, (0..300).map(|user| ask(coupon, &format!("user-{user}"), 101, 0))).await;
    assert_eq!(tally(&verdicts), [100, 0, 200]);
    assert!(gate.reachable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_carry_the_prefix_and_never_expire() {
    let server = Server::start().await;
    let options = RedisGateOptions { key_prefix: "coupon:".to_owned(), ..redis_options(&server.url()) };
    let gate = redis_gate(options).await;
    let coupon = CouponId::random();
    admit(&gate, coupon, "alice", 1).await;
    let key = format!("coupon:{coupon}:members");
    assert_eq!(server.cli(&["KEYS", "*"]).trim(), key);
    assert_eq!(server.cli(&["TTL", &key]).trim(), "-1");
    gate.forget(coupon).await.unwrap();
    assert_eq!(server.cli(&["DBSIZE"]).trim(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_away_at_once_and_does_not_make_redis_unreachable() {
    let server = Server::start().await;
    let mut options = redis_options(&server.url());
    options.queue = 4;
    let gate = redis_gate(options).await;
    let coupon = CouponId::random();
    admit(&gate, coupon, "alice", 1_000).await;
    server.signal("-STOP");
    let (fast, answers) = {
        let start = Instant::now();
        let crowd = join_all((0..2_000).map(|user| {
            let answer = gate.admit(ask(coupon, &format!("user-{user}"), 10_000, 0));
            async move {
                let answer = answer.await;
                (start.elapsed() < Duration::from_millis(500), answer)
            }
        }));
        let resume = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            server.signal("-CONT");
        };
        let (crowd, ()) = tokio::join!(crowd, resume);
        crowd.into_iter().partition::<Vec<_>, _>(|(fast, _)| *fast)
    };
    assert!(!fast.is_empty() && fast.iter().all(|(_, answer)| answer.as_ref().is_err_and(|away| away.0.contains("wait"))));
    assert!(answers.iter().all(|(_, answer)| matches!(answer, Ok(Verdict::Pass))), "who was in the queue got an answer");
    assert!(gate.reachable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_form_by_themselves_and_stay_below_their_limit() {
    let sizes = prometheus::Histogram::with_opts(prometheus::HistogramOpts::new("sizes", "users a call").buckets(vec![1.0, 20.0])).unwrap();
    let mut options = redis_options(&url());
    (options.batch, options.batch_size) = (20, Some(sizes.clone()));
    let gate = redis_gate(options).await;
    let coupon = CouponId::random();
    let verdicts = join_all((0..2_000).map(|user| gate.admit(ask(coupon, &format!("user-{user}"), 1_500, 0)))).await;
    let verdicts: Vec<Verdict> = verdicts.into_iter().map(Result::unwrap).collect();
    assert_eq!(tally(&verdicts), [1_500, 0, 500]);
    let seen = sizes.get_sample_count();
    assert!((100..=400).contains(&seen), "{seen} calls for 2,000 users");
    assert!((sizes.get_sample_sum() - 2_000.0).abs() < 0.5);
    gate.forget(coupon).await.unwrap();
}
