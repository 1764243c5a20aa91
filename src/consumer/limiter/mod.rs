//! The rate limit over all consumers: a token bucket, permits taken for whole batches. The rate is fixed, or follows the database.

mod law;
#[cfg(test)]
mod law_tests;
mod local;
mod redis;

use std::time::Duration;

use async_trait::async_trait;

pub use law::Range;
pub use local::LocalLimiter;
pub use redis::{RedisLimiter, RedisLimiterOptions};

/// How fast the bucket fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Permits a second, 0 = no limit. What is not a rate (negative, not a number, infinite) limits nothing, like 0.
    Fixed(f64),
    /// As fast as the database manages, within a range.
    Adaptive(Range),
}

/// One request for permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    pub wanted: u32,
    /// Which worker of this process asks.
    pub worker: usize,
    /// Age of the oldest record among those the permits are for.
    pub waiting: Duration,
}

/// The answer to one request for permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Permits taken: from 0 to as many as asked for.
    pub permits: u32,
    /// When `permits` is less than asked for: how long until more can be had.
    pub wait: Duration,
}

/// A token bucket over all consumers. Never fails: without its server it goes on with this process's share of the last known rate.
#[async_trait]
pub trait Limiter: Send + Sync + std::fmt::Debug {
    /// Takes up to as many permits as wanted, at once.
    ///
    /// # Cancellation
    /// Permits taken by a dropped future are lost (a slower second, nothing else).
    async fn take(&self, ask: Ask) -> Grant;

    /// Hears that a worker's transaction of so many rows was open for so long.
    fn wrote(&self, _worker: usize, _rows: usize, _took: Duration) {}

    /// Most records of a worker's next batch, at most `most`: permits for all its rows can be had in a moment.
    fn batch(&self, _worker: usize, most: usize) -> usize {
        fifth_of_a_second(self.rate(), most)
    }

    /// Permits a second over all consumers, as this process sees it in force now; 0 = none.
    fn rate(&self) -> f64;

    /// Rows a second that the database manages for all workers, as this process sees it; 0: not known, or nobody asked.
    fn measured(&self) -> f64 {
        0.0
    }

    /// How many consumers share the rate, for the fallback.
    fn share_among(&self, consumers: u32);
}

fn fifth_of_a_second(rate: f64, most: usize) -> usize {
    if rate <= 0.0 {
        return most;
    }
    (1..most).find(|rows| u32::try_from(*rows).is_ok_and(|rows| f64::from(rows) >= rate / 5.0)).unwrap_or(most)
}

/// What is not a rate (negative, not a number, infinite) limits nothing, like 0.
fn sane(rate: f64) -> f64 {
    if rate.is_finite() { rate.max(0.0) } else { 0.0 }
}
