//! The gate: a filter over all APIs that lets about `total` users through and turns the crowd away.
//!
//! It may be wrong and never harms: what it lets through twice or wrongly, the log refuses; whom it holds back wrongly, the issuer
//! brings to the log all the same. Port [`Gate`], two implementations (local, Redis), one contract suite.

mod local;
mod redis;
#[cfg(test)]
mod suite;

use async_trait::async_trait;
use thiserror::Error;

use crate::domain::{CouponId, UserId};

pub use local::LocalGate;
pub use redis::{RedisGate, RedisGateOptions};

/// One user at the gate.
#[derive(Debug, Clone)]
pub struct Ask {
    pub coupon: CouponId,
    pub user: UserId,
    /// Stock by the caller's roster.
    pub total: i64,
    /// Coupons held by the caller's roster; the gate counts at least these.
    pub issued: i64,
}

/// What the gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// New, and there is room: the user was added.
    Pass,
    /// This user passed before (or asked twice at once).
    Seen,
    /// No room: `max(members, issued) >= total`.
    Full,
}

/// The gate did not answer in time, or its queue is full: whether the user was added is not known.
#[derive(Debug, Clone, Error)]
#[error("the gate is away: {0}")]
pub struct Away(pub String);

/// The gate. Every method has its own deadline inside.
#[async_trait]
pub trait Gate: Send + Sync + std::fmt::Debug {
    /// Asks for one user.
    ///
    /// # Cancellation
    /// A dropped future may still have added the user.
    async fn admit(&self, ask: Ask) -> Result<Verdict, Away>;

    /// How many users the gate let through, for the audit (advisory); 0 for a coupon it does not know.
    async fn members(&self, coupon: CouponId) -> Result<i64, Away>;

    /// Drops what it knows of a coupon that is over.
    async fn forget(&self, coupon: CouponId) -> Result<(), Away>;

    /// Whether the last call was answered; for readiness and metrics.
    fn reachable(&self) -> bool;
}
