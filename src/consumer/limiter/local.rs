//! A token bucket in this process: the limiter of embedded parts, and the stand-in while Redis is away.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Grant, Limiter};

/// Tokens gathered while nobody asks: a tenth of a second's worth, at least one.
pub(super) fn burst_of(rate: f64) -> f64 {
    (rate / 10.0).max(1.0)
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct LocalLimiter {
    rate: f64,
    bucket: Mutex<Bucket>,
}

impl LocalLimiter {
    /// `rate` permits a second; 0: no limit.
    #[must_use]
    pub fn new(rate: f64) -> Self {
        Self { rate, bucket: Mutex::new(Bucket { tokens: burst_of(rate), at: Instant::now() }) }
    }

    /// Takes permits at `share` of the rate.
    pub(super) fn take_share(&self, wanted: u32, share: f64) -> Grant {
        let rate = self.rate * share;
        if rate <= 0.0 {
            return Grant { permits: wanted, wait: Duration::ZERO };
        }
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * rate;
        bucket.tokens = (bucket.tokens + gained).min(burst_of(rate));
        bucket.at = now;
        let mut permits = 0;
        while permits < wanted && bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            permits += 1;
        }
        // Until the next token, but not a wait for every single one.
        let missing = (1.0 - bucket.tokens).max(0.0) / rate;
        Grant { permits, wait: Duration::from_secs_f64(missing.clamp(0.005, 1.0)) }
    }
}

#[async_trait]
impl Limiter for LocalLimiter {
    async fn take(&self, wanted: u32) -> Grant {
        self.take_share(wanted, 1.0)
    }

    fn rate(&self) -> f64 {
        self.rate
    }

    fn share_among(&self, _consumers: u32) {}
}
