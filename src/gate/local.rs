//! The gate in this process's memory: the gate of embedded parts, and the stand-in while Redis is away.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Ask, Away, Gate, Verdict};
use crate::domain::{CouponId, UserId};

/// The same sets the script keeps in Redis, for this process alone.
#[derive(Debug, Default)]
pub struct LocalGate {
    members: Mutex<HashMap<CouponId, HashSet<UserId>>>,
}

impl LocalGate {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CouponId, HashSet<UserId>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Gate for LocalGate {
    async fn admit(&self, ask: Ask) -> Result<Verdict, Away> {
        let mut coupons = self.lock();
        let members = coupons.entry(ask.coupon).or_default();
        if members.contains(&ask.user) {
            return Ok(Verdict::Seen);
        }
        let counted = i64::try_from(members.len()).unwrap_or(i64::MAX).max(ask.issued);
        if counted >= ask.total {
            return Ok(Verdict::Full);
        }
        members.insert(ask.user);
        Ok(Verdict::Pass)
    }

    async fn members(&self, coupon: CouponId) -> Result<i64, Away> {
        Ok(self.lock().get(&coupon).map_or(0, |members| i64::try_from(members.len()).unwrap_or(i64::MAX)))
    }

    async fn forget(&self, coupon: CouponId) -> Result<(), Away> {
        self.lock().remove(&coupon);
        Ok(())
    }

    fn reachable(&self) -> bool {
        true
    }
}
