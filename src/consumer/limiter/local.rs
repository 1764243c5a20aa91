//! The bucket of a process that is alone, and of one whose Redis is away.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::law::{Law, Speed, Word};
use super::{Ask, Grant, Limit, Limiter, fifth_of_a_second, sane};

/// A token bucket in memory, full at first.
#[derive(Debug)]
pub struct LocalLimiter {
    own: Mutex<Own>,
}

/// What a process does by itself: a bucket at its part of the limit.
#[derive(Debug)]
pub(super) struct Own {
    limit: Limit,
    consumers: u32,
    bucket: Bucket,
    law: Law,
    speeds: HashMap<usize, Speed>,
}

impl Own {
    pub(super) fn new(limit: Limit, now: Instant) -> Self {
        let rate = match limit {
            Limit::Fixed(rate) => sane(rate),
            Limit::Adaptive(range) => range.floor,
        };
        Self { limit, consumers: 1, bucket: Bucket::new(rate, now), law: Law::new(now), speeds: HashMap::new() }
    }

    pub(super) fn take(&mut self, ask: Ask, now: Instant) -> Grant {
        if let Limit::Adaptive(range) = self.limit {
            let rate = self.law.hear(ask.worker, self.word(ask), range.among(self.consumers), now);
            self.bucket.set_rate(rate, now);
        }
        self.bucket.take(ask.wanted, now)
    }

    /// What there is to tell of the worker that asks.
    pub(super) fn word(&self, ask: Ask) -> Word {
        Word { rows_per_second: self.speeds.get(&ask.worker).map_or(0.0, Speed::rows_per_second), waiting: ask.waiting.as_secs_f64() }
    }

    pub(super) fn wrote(&mut self, worker: usize, rows: usize, took: Duration, now: Instant) {
        // A transaction that only moved offsets says nothing of rows.
        if rows > 0 {
            self.speeds.entry(worker).or_insert_with(|| Speed::new(now)).wrote(rows, took, now);
        }
    }

    pub(super) fn batch(&self, worker: usize, most: usize) -> usize {
        match self.limit {
            Limit::Fixed(rate) => fifth_of_a_second(sane(rate), most),
            Limit::Adaptive(_) => {
                self.speeds.get(&worker).map_or_else(|| Speed::new(Instant::now()).batch(most), |speed| speed.batch(most))
            }
        }
    }

    /// This process's part of a rate that all consumers share is where it goes on from by itself.
    pub(super) fn part_of(&mut self, rate: f64, now: Instant) {
        let part = rate / f64::from(self.consumers);
        self.law.start_at(part, now);
        self.bucket.set_rate(part, now);
    }

    pub(super) fn share_among(&mut self, consumers: u32, now: Instant) {
        let consumers = consumers.max(1);
        if self.consumers != consumers {
            self.consumers = consumers;
            if let Limit::Fixed(rate) = self.limit {
                self.bucket.set_rate(sane(rate) / f64::from(consumers), now);
            }
        }
    }

    /// Over all consumers, if the others are as this one.
    pub(super) fn rate(&self) -> f64 {
        self.bucket.rate * f64::from(self.consumers)
    }

    /// Over all consumers, if the others are as this one.
    pub(super) fn measured(&self) -> f64 {
        self.law.measured() * f64::from(self.consumers)
    }
}

#[derive(Debug)]
pub(super) struct Bucket {
    rate: f64,
    tokens: f64,
    at: Instant,
}

/// Most permits a bucket holds: a tenth of a second's worth, at least one.
pub(super) fn burst(rate: f64) -> f64 {
    (rate * 0.1).max(1.0)
}

impl Bucket {
    pub(super) fn new(rate: f64, now: Instant) -> Self {
        Self { rate, tokens: burst(rate), at: now }
    }

    /// Goes on at another rate; what was saved up stays, as far as it fits.
    pub(super) fn set_rate(&mut self, rate: f64, now: Instant) {
        self.refill(now);
        self.rate = rate;
        self.tokens = self.tokens.min(burst(rate));
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = elapsed.mul_add(self.rate, self.tokens).min(burst(self.rate));
        self.at = self.at.max(now);
    }

    /// The same steps as `limiter.lua`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= permits <= wanted, a u32")]
    pub(super) fn take(&mut self, wanted: u32, now: Instant) -> Grant {
        if self.rate <= 0.0 {
            return Grant { permits: wanted, wait: Duration::ZERO };
        }
        self.refill(now);
        let granted = self.tokens.floor().min(f64::from(wanted));
        self.tokens -= granted;
        let permits = granted as u32;
        if permits == wanted {
            return Grant { permits, wait: Duration::ZERO };
        }
        // Half a bucket at a time: fewer would be many small batches, more would spill while the caller is on its way back.
        let target = (f64::from(wanted) - granted).min((burst(self.rate) / 2.0).floor()).max(1.0);
        let wait = Duration::try_from_secs_f64((target - self.tokens) / self.rate).unwrap_or(Duration::MAX);
        Grant { permits, wait: wait.max(Duration::from_millis(1)) }
    }
}

impl LocalLimiter {
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        Self { own: Mutex::new(Own::new(limit, Instant::now())) }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Limiter for LocalLimiter {
    async fn take(&self, ask: Ask) -> Grant {
        self.own().take(ask, Instant::now())
    }

    fn wrote(&self, worker: usize, rows: usize, took: Duration) {
        self.own().wrote(worker, rows, took, Instant::now());
    }

    fn batch(&self, worker: usize, most: usize) -> usize {
        self.own().batch(worker, most)
    }

    fn rate(&self) -> f64 {
        self.own().rate()
    }

    fn measured(&self) -> f64 {
        self.own().measured()
    }

    /// Does nothing: this bucket is one process's own.
    fn share_among(&self, _consumers: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::limiter::Range;

    #[test]
    fn grants_in_part_and_says_when_to_come_back() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(1_000.0, now);
        let first = bucket.take(1_000, now);
        assert_eq!(first, Grant { permits: 100, wait: Duration::from_millis(50) }, "the burst, then half of it");
        now += first.wait;
        assert_eq!(bucket.take(1_000, now).permits, 50);
        now += Duration::from_secs(3600);
        assert_eq!(bucket.take(1_000, now).permits, 100, "never more than the burst");
        now += Duration::from_millis(10);
        assert_eq!(bucket.take(4, now), Grant { permits: 4, wait: Duration::ZERO });
    }

    #[test]
    fn whoever_waits_as_told_gets_the_whole_rate_and_never_more() {
        for rate in [0.5, 7.0, 100.0, 12_345.0] {
            let start = Instant::now();
            let mut bucket = Bucket::new(rate, start);
            let (mut elapsed, mut taken) = (Duration::ZERO, 0.0);
            while elapsed < Duration::from_secs(20) {
                let grant = bucket.take(1_000, start + elapsed);
                taken += f64::from(grant.permits);
                let most = elapsed.as_secs_f64().mul_add(rate, burst(rate));
                assert!(taken <= most + 1e-6, "rate {rate}: {taken} > {most}");
                // A little late, as a timer is.
                elapsed += grant.wait + Duration::from_micros(300);
            }
            assert!(taken >= 20.0 * rate * 0.9, "rate {rate}: {taken}");
        }
    }

    #[test]
    fn another_rate_keeps_what_fits() {
        let now = Instant::now();
        let mut bucket = Bucket::new(1_000.0, now);
        bucket.set_rate(100.0, now);
        assert_eq!(bucket.take(1_000, now).permits, 10);
        bucket.set_rate(1_000.0, now);
        assert_eq!(bucket.take(1_000, now).permits, 0);
    }

    #[tokio::test]
    async fn no_rate_is_no_limit() {
        for none in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let limiter = LocalLimiter::new(Limit::Fixed(none));
            let ask = Ask { wanted: u32::MAX, worker: 0, waiting: Duration::ZERO };
            assert_eq!(limiter.take(ask).await, Grant { permits: u32::MAX, wait: Duration::ZERO });
            assert!(limiter.rate().abs() < f64::EPSILON);
        }
    }

    #[tokio::test]
    async fn an_adaptive_limit_starts_at_its_floor_and_follows_what_was_written() {
        let limiter = LocalLimiter::new(Limit::Adaptive(Range { floor: 50.0, ceiling: 0.0 }));
        let ask = Ask { wanted: 1_000, worker: 0, waiting: Duration::ZERO };
        assert_eq!(limiter.take(ask).await.permits, 5, "a tenth of a second of the floor");
        assert_eq!((limiter.batch(0, 1_000), limiter.measured()), (100, 0.0));
        limiter.wrote(0, 0, Duration::from_secs(1));
        limiter.wrote(0, 400, Duration::from_secs(1));
        limiter.take(ask).await;
        assert!((limiter.measured() - 400.0).abs() < 1.0 && (limiter.rate() - 200.0).abs() < 1.0, "half of what it manages: {limiter:?}");
        assert_eq!((limiter.batch(0, 1_000), limiter.batch(0, 3_000)), (1_000, 1_200), "three seconds of commits");
    }
}
