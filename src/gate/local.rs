//! The gate of a process that is alone: the same rule as `gate.lua`, in memory.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use siphasher::sip128::{Hasher128, SipHasher24};
use uuid::Uuid;

use super::{Ask, Away, Gate, Verdict};
use crate::domain::{CouponId, UserId};

/// Keeps 16 bytes a user (a hash under a key of this process) until the coupon is forgotten. Never away.
pub struct LocalGate {
    hash_key: [u8; 16],
    members: Mutex<HashMap<CouponId, HashSet<u128>>>,
}

impl Default for LocalGate {
    fn default() -> Self {
        Self { hash_key: Uuid::new_v4().into_bytes(), members: Mutex::default() }
    }
}

impl std::fmt::Debug for LocalGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalGate").field("coupons", &self.lock().len()).finish_non_exhaustive()
    }
}

impl LocalGate {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No code that can panic runs under the lock, and a half-done admission would harm nobody.
    fn lock(&self) -> MutexGuard<'_, HashMap<CouponId, HashSet<u128>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, user: &UserId) -> u128 {
        use std::hash::Hasher as _;
        let mut hasher = SipHasher24::new_with_key(&self.hash_key);
        hasher.write(user.as_str().as_bytes());
        hasher.finish128().as_u128()
    }
}

#[async_trait]
impl Gate for LocalGate {
    async fn admit(&self, ask: Ask) -> Result<Verdict, Away> {
        let user = self.hash(&ask.user);
        let mut coupons = self.lock();
        let members = coupons.entry(ask.coupon).or_default();
        Ok(if members.contains(&user) {
            Verdict::Seen
        } else if count(members).max(ask.issued) >= ask.total {
            Verdict::Full
        } else {
            members.insert(user);
            Verdict::Pass
        })
    }

    async fn members(&self, coupon: CouponId) -> Result<i64, Away> {
        Ok(self.lock().get(&coupon).map_or(0, count))
    }

    async fn forget(&self, coupon: CouponId) -> Result<(), Away> {
        let forgotten = self.lock().remove(&coupon);
        // Freeing a large set takes a while: after the lock is given back.
        drop(forgotten);
        Ok(())
    }

    fn reachable(&self) -> bool {
        true
    }
}

fn count(members: &HashSet<u128>) -> i64 {
    i64::try_from(members.len()).unwrap_or(i64::MAX)
}
