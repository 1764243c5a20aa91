//! The bucket of a process that is alone, and of one whose Redis is away.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Grant, Limiter, sane};

/// A token bucket in memory, full at first.
#[derive(Debug)]
pub struct LocalLimiter {
    bucket: Mutex<Bucket>,
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
    /// A bucket of `rate` permits a second. 0 grants everything; so does what is not a rate (negative, not a number, infinite).
    #[must_use]
    pub fn new(rate: f64) -> Self {
        Self { bucket: Mutex::new(Bucket::new(sane(rate), Instant::now())) }
    }
}

#[async_trait]
impl Limiter for LocalLimiter {
    async fn take(&self, wanted: u32) -> Grant {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(wanted, Instant::now())
    }

    fn rate(&self) -> f64 {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).rate
    }

    /// Does nothing: this bucket is one process's own.
    fn share_among(&self, _consumers: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let limiter = LocalLimiter::new(none);
            assert_eq!(limiter.take(u32::MAX).await, Grant { permits: u32::MAX, wait: Duration::ZERO });
            assert!(limiter.rate().abs() < f64::EPSILON);
        }
    }
}
