//! Coupons that are over give their memory back.

use super::Follower;
use crate::domain::{CouponId, Status};
use crate::kill_point::kill_point;
use crate::ledger::{Ledger, LedgerError};

impl Follower {
    /// Unloads every coupon that is closed, fully written and without unsettled dead letters; returns those.
    ///
    /// # Errors
    /// The ledger does not answer; what was unloaded before stays so.
    pub async fn unload(&self, ledger: &dyn Ledger) -> Result<Vec<CouponId>, LedgerError> {
        let mut unloaded = Vec::new();
        for coupon in self.closed_coupons() {
            let Some(row) = ledger.coupon(coupon).await? else { continue };
            if row.terms.status != Status::Closed || ledger.unsettled(coupon).await? > 0 {
                continue;
            }
            let mut shard = self.shard(coupon).lock();
            let Some(entry) = shard.coupons.get_mut(&coupon) else { continue };
            // After CLOSED only a revoke can change a roster: equal counts mean the ledger has all of it.
            if entry.roster.issued() == row.issued && entry.roster.next_sequence() == row.next_sequence && entry.waiters.is_empty() {
                kill_point("unload.before");
                entry.roster.forget_users();
                entry.over = true;
                unloaded.push(coupon);
            }
        }
        Ok(unloaded)
    }

    fn closed_coupons(&self) -> Vec<CouponId> {
        let mut closed = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let over = shard.coupons.iter().filter(|(_, entry)| !entry.over);
            closed.extend(over.filter(|(_, entry)| entry.roster.terms().is_some_and(|t| t.status == Status::Closed)).map(|(id, _)| *id));
        }
        closed
    }
}
