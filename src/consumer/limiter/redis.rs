//! The bucket all consumers share, in Redis by `limiter.lua`; this process's share of it while Redis is away.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;

use super::law;
use super::local::Own;
use super::{Ask, Grant, Limit, Limiter, sane};
use crate::redis::{BadRedis, Redis, RedisOptions, Script, connect};

/// Where the shared bucket is and how fast it fills.
#[derive(Debug, Clone)]
pub struct RedisLimiterOptions {
    pub redis: RedisOptions,
    /// The bucket's key, the same for all consumers.
    pub key: String,
    /// Over all consumers. Those of different limits share a bucket that each fills at its own rate.
    pub limit: Limit,
}

/// The shared bucket. Dropping it closes its connections.
#[derive(Debug)]
pub struct RedisLimiter {
    redis: Redis,
    script: Script,
    key: String,
    limit: Limit,
    /// In front of the number of a worker: theirs are the same in every process.
    name: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What is measured here; and the bucket while Redis is away.
    own: Own,
    /// Rate and sum measured as the script said last; `None` while Redis is away.
    shared: Option<(f64, f64)>,
}

impl RedisLimiter {
    /// Starts the connections. A Redis that is away is no error: the limiter goes on with this process's share of the rate.
    ///
    /// Needs a tokio runtime; returns within about half a second.
    ///
    /// # Errors
    /// The address can never work.
    pub async fn connect(options: RedisLimiterOptions) -> Result<Self, BadRedis> {
        Ok(Self {
            redis: connect(&options.redis).await?,
            script: Script::new(&law::script()),
            key: options.key,
            limit: options.limit,
            name: Uuid::new_v4().simple().to_string(),
            state: Mutex::new(State { own: Own::new(options.limit, Instant::now()), shared: None }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: Redis is away.
    async fn take_shared(&self, ask: Ask) -> Option<Grant> {
        let lane = self.redis.lane().ok()?;
        let mut keys = vec![self.key.clone()];
        let mut args = vec![ask.wanted.to_string()];
        match self.limit {
            Limit::Fixed(rate) => args.extend([sane(rate).to_string(), "0".to_owned()]),
            Limit::Adaptive(range) => {
                let word = self.state().own.word(ask);
                keys.push(format!("{}:workers", self.key));
                args.extend([range.ceiling.to_string(), range.floor.to_string(), format!("{}:{}", self.name, ask.worker)]);
                args.extend([word.rows_per_second.to_string(), word.waiting.to_string()]);
            }
        }
        let answer = lane.run(&self.script, keys, args).await.ok()?;
        let &[granted, wait, rate, measured] = answer.as_slice() else { return None };
        let permits = u32::try_from(granted).ok()?.min(ask.wanted);
        let wait = Duration::from_millis(u64::try_from(wait).ok()?);
        if let Limit::Adaptive(_) = self.limit {
            self.state().shared = Some((from_thousandths(rate), from_thousandths(measured)));
        }
        Some(Grant { permits, wait })
    }

    fn take_own(&self, ask: Ask) -> Grant {
        let now = Instant::now();
        let mut state = self.state();
        if let Some((rate, _)) = state.shared.take() {
            state.own.part_of(rate, now);
        }
        state.own.take(ask, now)
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52 thousandths")]
fn from_thousandths(number: i64) -> f64 {
    number as f64 / 1_000.0
}

#[async_trait]
impl Limiter for RedisLimiter {
    async fn take(&self, ask: Ask) -> Grant {
        let is_free = matches!(self.limit, Limit::Fixed(rate) if sane(rate) <= 0.0);
        if is_free || ask.wanted == 0 {
            return Grant { permits: ask.wanted, wait: Duration::ZERO };
        }
        match self.take_shared(ask).await {
            Some(grant) => grant,
            None => self.take_own(ask),
        }
    }

    fn wrote(&self, worker: usize, rows: usize, took: Duration) {
        self.state().own.wrote(worker, rows, took, Instant::now());
    }

    fn batch(&self, worker: usize, most: usize) -> usize {
        self.state().own.batch(worker, most)
    }

    /// The rate over all consumers; while Redis is away each goes on with its share of it.
    fn rate(&self) -> f64 {
        let state = self.state();
        state.shared.map_or_else(|| state.own.rate(), |(rate, _)| rate)
    }

    fn measured(&self) -> f64 {
        let state = self.state();
        state.shared.map_or_else(|| state.own.measured(), |(_, measured)| measured)
    }

    fn share_among(&self, consumers: u32) {
        self.state().own.share_among(consumers, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::limiter::law::Range;
    use crate::consumer::limiter::local::burst;
    use std::sync::Arc;

    fn options(url: &str, key: &str, rate: f64) -> RedisLimiterOptions {
        RedisLimiterOptions { redis: RedisOptions::new(url), key: key.to_owned(), limit: Limit::Fixed(rate) }
    }

    fn ask(wanted: u32) -> Ask {
        Ask { wanted, worker: 0, waiting: Duration::ZERO }
    }

    async fn shared(key: &str, rate: f64) -> RedisLimiter {
        let limiter = RedisLimiter::connect(options(&crate::redis::testing::url(), key, rate)).await.unwrap();
        assert!(limiter.redis.reachable(), "needs a redis at COUPON_TEST_REDIS (default {})", crate::redis::testing::DEFAULT_URL);
        limiter
    }

    fn some_key() -> String {
        format!("test:{}:limiter", Uuid::new_v4())
    }

    /// Takes batches as a consumer does until the time is over.
    async fn drain(limiter: Arc<RedisLimiter>, until: Instant) -> u32 {
        let mut taken = 0;
        while Instant::now() < until {
            let grant = limiter.take(ask(1_000)).await;
            taken += grant.permits;
            tokio::time::sleep(grant.wait.min(until.saturating_duration_since(Instant::now()))).await;
        }
        taken
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_limiters_share_one_rate() {
        let (key, rate) = (some_key(), 2_000.0);
        let one = Arc::new(shared(&key, rate).await);
        let two = Arc::new(shared(&key, rate).await);
        let start = Instant::now();
        let until = start + Duration::from_millis(1_200);
        let (first, second) = tokio::join!(drain(Arc::clone(&one), until), drain(Arc::clone(&two), until));
        assert!(one.redis.reachable() && two.redis.reachable(), "the shared bucket was in use all the time");
        let elapsed = start.elapsed().as_secs_f64();
        let taken = f64::from(first + second);
        let most = elapsed.mul_add(rate, burst(rate)) + 1.0;
        assert!(taken <= most, "{taken} permits in {elapsed} s are more than {most}");
        assert!(taken >= rate * 0.5, "only {taken} permits in {elapsed} s");
    }

    #[tokio::test]
    async fn a_batch_is_granted_in_part_and_the_bucket_is_one() {
        let key = some_key();
        let one = shared(&key, 10.0).await;
        let two = shared(&key, 10.0).await;
        let first = one.take(ask(1_000)).await;
        assert_eq!(first.permits, 1, "the burst of 10 a second");
        assert!((Duration::from_millis(90)..=Duration::from_millis(100)).contains(&first.wait), "{:?}", first.wait);
        assert_eq!(two.take(ask(1_000)).await.permits, 0, "taken by the other");
        tokio::time::sleep(first.wait).await;
        assert_eq!(two.take(ask(1)).await, Grant { permits: 1, wait: Duration::ZERO });
    }

    #[tokio::test]
    async fn a_server_clock_that_was_set_back_takes_nothing_away_for_long() {
        let key = some_key();
        let limiter = shared(&key, 100.0).await;
        let lane = limiter.redis.lane().unwrap();
        let future = Script::new("redis.call('HSET', KEYS[1], 'tokens', '0', 'at', '9999999999000000') return {1}");
        lane.run(&future, vec![key.clone()], Vec::new()).await.unwrap();
        assert_eq!(limiter.take(ask(10)).await.permits, 0);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!((5..=10).contains(&limiter.take(ask(10)).await.permits));
    }

    #[tokio::test]
    async fn without_redis_each_goes_on_with_its_share() {
        let limiter = RedisLimiter::connect(options("redis://127.0.0.1:1", &some_key(), 1_000.0)).await.unwrap();
        limiter.share_among(4);
        assert!((limiter.rate() - 1_000.0).abs() < f64::EPSILON);
        let start = Instant::now();
        assert_eq!(limiter.take(ask(1_000)).await.permits, 25, "a tenth of a second of 250");
        let mut taken = 25;
        while start.elapsed() < Duration::from_millis(500) {
            let grant = limiter.take(ask(1_000)).await;
            taken += grant.permits;
            tokio::time::sleep(grant.wait).await;
        }
        let most = start.elapsed().as_secs_f64().mul_add(250.0, 25.0) + 1.0;
        assert!((60.0..=most).contains(&f64::from(taken)), "{taken}, at most {most}");
    }

    #[tokio::test]
    async fn falls_back_when_redis_dies_and_returns_to_it() {
        let mut server = crate::redis::testing::Server::start().await;
        let key = some_key();
        let limiter = RedisLimiter::connect(options(&server.url(), &key, 10.0)).await.unwrap();
        assert_eq!(limiter.take(ask(1)).await.permits, 1);
        server.kill();
        let start = Instant::now();
        assert_eq!(limiter.take(ask(1)).await.permits, 1, "the fallback's own bucket");
        assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
        server.restart().await;
        let deadline = Instant::now() + Duration::from_secs(5);
        while !limiter.redis.reachable() {
            assert!(Instant::now() < deadline, "still away");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let other = RedisLimiter::connect(options(&server.url(), &key, 10.0)).await.unwrap();
        assert_eq!(limiter.take(ask(1)).await.permits, 1);
        assert_eq!(other.take(ask(1)).await.permits, 0, "the bucket is shared again");
    }

    #[tokio::test]
    async fn no_rate_is_no_limit() {
        let limiter = shared(&some_key(), 0.0).await;
        assert_eq!(limiter.take(ask(5_000)).await, Grant { permits: 5_000, wait: Duration::ZERO });
    }

    async fn adaptive(url: &str, key: &str, floor: f64) -> RedisLimiter {
        let limit = Limit::Adaptive(Range { floor, ceiling: 5_000.0 });
        RedisLimiter::connect(RedisLimiterOptions { limit, ..options(url, key, 0.0) }).await.unwrap()
    }

    /// Asks in turn, as workers that wait for permits do.
    async fn agree(limiters: &[&RedisLimiter], waiting: Duration) {
        for _ in 0..60 {
            for limiter in limiters {
                limiter.take(Ask { wanted: 10, worker: 0, waiting }).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn is_about(number: f64, wanted: f64) {
        assert!((number - wanted).abs() <= wanted * 0.02, "{number} is not {wanted}");
    }

    #[tokio::test]
    async fn adaptive_limiters_agree_on_one_rate_by_what_all_of_them_measured() {
        let (url, key) = (crate::redis::testing::url(), some_key());
        let (one, two) = (adaptive(&url, &key, 100.0).await, adaptive(&url, &key, 100.0).await);
        one.take(ask(1)).await;
        is_about(one.rate(), 100.0);
        one.wrote(0, 1_000, Duration::from_millis(500));
        two.wrote(0, 1_000, Duration::from_millis(1_000));
        agree(&[&one, &two], Duration::ZERO).await;
        for limiter in [&one, &two] {
            is_about(limiter.measured(), 3_000.0);
            is_about(limiter.rate(), 1_500.0);
        }
        // The oldest record of either puts both in a hurry.
        two.take(Ask { wanted: 10, worker: 1, waiting: Duration::from_secs(60) }).await;
        for _ in 0..60 {
            one.take(ask(10)).await;
            two.take(Ask { wanted: 10, worker: 0, waiting: Duration::from_secs(60) }).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        is_about(one.rate(), 2_850.0);
        is_about(two.rate(), 2_850.0);
        // A second worker that is fast: the ceiling holds. One that is gone counts no more.
        one.wrote(1, 1_000, Duration::from_millis(100));
        for _ in 0..110 {
            one.take(Ask { wanted: 10, worker: 1, waiting: Duration::from_secs(60) }).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        is_about(one.rate(), 5_000.0);
        is_about(one.measured(), 10_000.0);
        assert!(one.redis.reachable() && two.redis.reachable(), "the script answered all the time");
    }

    #[tokio::test]
    async fn an_adaptive_limiter_without_redis_goes_on_with_its_share_of_what_was_agreed() {
        let mut server = crate::redis::testing::Server::start().await;
        let limiter = adaptive(&server.url(), &some_key(), 100.0).await;
        limiter.share_among(4);
        limiter.wrote(0, 1_000, Duration::from_millis(500));
        limiter.take(ask(1)).await;
        is_about(limiter.rate(), 1_000.0);
        server.kill();
        limiter.take(ask(1)).await;
        // Its own share of the rate at first, then by what it measures itself; for all four it says four times that.
        is_about(limiter.rate(), 1_000.0);
        limiter.wrote(0, 1_000, Duration::from_millis(500));
        for _ in 0..80 {
            limiter.take(ask(10)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        is_about(limiter.measured(), 8_000.0);
        is_about(limiter.rate(), 4_000.0);
        server.restart().await;
    }
}
