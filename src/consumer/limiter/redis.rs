//! The bucket all consumers share, in Redis by `limiter.lua`; this process's share of it while Redis is away.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::local::{Bucket, burst};
use super::{Grant, Limiter, sane};
use crate::redis::{BadRedis, Redis, RedisOptions, Script, connect};

/// Where the shared bucket is and how fast it fills.
#[derive(Debug, Clone)]
pub struct RedisLimiterOptions {
    pub redis: RedisOptions,
    /// The bucket's key, the same for all consumers.
    pub key: String,
    /// Permits a second over all consumers, 0 = no limit. Consumers of different rates share a bucket that each fills at its own rate.
    pub rate: f64,
}

/// The shared bucket. Dropping it closes its connections.
#[derive(Debug)]
pub struct RedisLimiter {
    redis: Redis,
    script: Script,
    key: String,
    rate: f64,
    fallback: Mutex<Fallback>,
}

#[derive(Debug)]
struct Fallback {
    bucket: Bucket,
    consumers: u32,
}

impl RedisLimiter {
    /// Starts the connections. A Redis that is away is no error: the limiter goes on with this process's share of the rate.
    ///
    /// Needs a tokio runtime; returns within about half a second.
    ///
    /// # Errors
    /// The address can never work.
    pub async fn connect(options: RedisLimiterOptions) -> Result<Self, BadRedis> {
        let rate = sane(options.rate);
        Ok(Self {
            redis: connect(&options.redis).await?,
            script: Script::new(include_str!("limiter.lua")),
            key: options.key,
            rate,
            fallback: Mutex::new(Fallback { bucket: Bucket::new(rate, Instant::now()), consumers: 1 }),
        })
    }

    /// `None`: Redis is away.
    async fn take_shared(&self, wanted: u32) -> Option<Grant> {
        let lane = self.redis.lane().ok()?;
        let args = vec![self.rate.to_string(), burst(self.rate).to_string(), wanted.to_string()];
        let answer = lane.run(&self.script, vec![self.key.clone()], args).await.ok()?;
        let &[granted, wait] = answer.as_slice() else { return None };
        let permits = u32::try_from(granted).ok()?.min(wanted);
        Some(Grant { permits, wait: Duration::from_millis(u64::try_from(wait).ok()?) })
    }
}

#[async_trait]
impl Limiter for RedisLimiter {
    async fn take(&self, wanted: u32) -> Grant {
        if self.rate <= 0.0 || wanted == 0 {
            return Grant { permits: wanted, wait: Duration::ZERO };
        }
        if let Some(grant) = self.take_shared(wanted).await {
            return grant;
        }
        self.fallback.lock().unwrap_or_else(PoisonError::into_inner).bucket.take(wanted, Instant::now())
    }

    /// The rate over all consumers; while Redis is away each goes on with its share of it.
    fn rate(&self) -> f64 {
        self.rate
    }

    fn share_among(&self, consumers: u32) {
        let consumers = consumers.max(1);
        let mut fallback = self.fallback.lock().unwrap_or_else(PoisonError::into_inner);
        if fallback.consumers != consumers {
            fallback.consumers = consumers;
            fallback.bucket.set_rate(self.rate / f64::from(consumers), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use uuid::Uuid;

    fn options(url: &str, key: &str, rate: f64) -> RedisLimiterOptions {
        RedisLimiterOptions { redis: RedisOptions::new(url), key: key.to_owned(), rate }
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
            let grant = limiter.take(1_000).await;
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
        let first = one.take(1_000).await;
        assert_eq!(first.permits, 1, "the burst of 10 a second");
        assert!((Duration::from_millis(90)..=Duration::from_millis(100)).contains(&first.wait), "{:?}", first.wait);
        assert_eq!(two.take(1_000).await.permits, 0, "taken by the other");
        tokio::time::sleep(first.wait).await;
        assert_eq!(two.take(1).await, Grant { permits: 1, wait: Duration::ZERO });
    }

    #[tokio::test]
    async fn a_server_clock_that_was_set_back_takes_nothing_away_for_long() {
        let key = some_key();
        let limiter = shared(&key, 100.0).await;
        let lane = limiter.redis.lane().unwrap();
        let future = Script::new("redis.call('HSET', KEYS[1], 'tokens', '0', 'at', '9999999999000000') return {1}");
        lane.run(&future, vec![key.clone()], Vec::new()).await.unwrap();
        assert_eq!(limiter.take(10).await.permits, 0);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!((5..=10).contains(&limiter.take(10).await.permits));
    }

    #[tokio::test]
    async fn without_redis_each_goes_on_with_its_share() {
        let limiter = RedisLimiter::connect(options("redis://127.0.0.1:1", &some_key(), 1_000.0)).await.unwrap();
        limiter.share_among(4);
        assert!((limiter.rate() - 1_000.0).abs() < f64::EPSILON);
        let start = Instant::now();
        assert_eq!(limiter.take(1_000).await.permits, 25, "a tenth of a second of 250");
        let mut taken = 25;
        while start.elapsed() < Duration::from_millis(500) {
            let grant = limiter.take(1_000).await;
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
        assert_eq!(limiter.take(1).await.permits, 1);
        server.kill();
        let start = Instant::now();
        assert_eq!(limiter.take(1).await.permits, 1, "the fallback's own bucket");
        assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
        server.restart().await;
        let deadline = Instant::now() + Duration::from_secs(5);
        while !limiter.redis.reachable() {
            assert!(Instant::now() < deadline, "still away");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let other = RedisLimiter::connect(options(&server.url(), &key, 10.0)).await.unwrap();
        assert_eq!(limiter.take(1).await.permits, 1);
        assert_eq!(other.take(1).await.permits, 0, "the bucket is shared again");
    }

    #[tokio::test]
    async fn no_rate_is_no_limit() {
        let limiter = shared(&some_key(), 0.0).await;
        assert_eq!(limiter.take(5_000).await, Grant { permits: 5_000, wait: Duration::ZERO });
    }
}
