//! The rate limit over all consumers: a token bucket, permits taken for whole batches.

mod local;
mod redis;

use std::time::Duration;

use async_trait::async_trait;

pub use local::LocalLimiter;
pub use redis::{RedisLimiter, RedisLimiterOptions};

/// The answer to one request for permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Permits taken: from 0 to as many as asked for.
    pub permits: u32,
    /// When `permits` is less than asked for: how long until more can be had.
    pub wait: Duration,
}

/// A token bucket of `rate` permits a second (0: no limit). Never fails: without its server it goes on with this process's
/// share of the last known rate.
#[async_trait]
pub trait Limiter: Send + Sync + std::fmt::Debug {
    /// Takes up to `wanted` permits, at once.
    ///
    /// # Cancellation
    /// Permits taken by a dropped future are lost (a slower second, nothing else).
    async fn take(&self, wanted: u32) -> Grant;

    /// Permits a second this process sees in force now, 0 = none.
    fn rate(&self) -> f64;

    /// How many consumers share the rate, for the fallback.
    fn share_among(&self, consumers: u32);
}

/// What is not a rate (negative, not a number, infinite) limits nothing, like 0.
fn sane(rate: f64) -> f64 {
    if rate.is_finite() { rate.max(0.0) } else { 0.0 }
}
