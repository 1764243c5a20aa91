//! Coupons whose whole state a worker has in its hands.
//!
//! A coupon that nobody has won has no holders, and every record since was decided here. Offsets move by compare-and-set: while this
//! worker's writes go through, nobody else decided any. Such a coupon costs no query for the users of a batch, which would be most of
//! what a batch costs besides its rows.

use std::collections::HashMap;

use crate::domain::{CouponId, Offset, Partition, Roster, UserId};

/// Most users of all rosters together before all are forgotten: about 100 bytes each.
const USERS: i64 = 500_000;
/// A roster without users weighs as much as so many.
const ROSTER: i64 = 10;

#[derive(Debug, Default)]
pub struct Known {
    rosters: HashMap<CouponId, Roster<UserId>>,
    /// By partition, the offset behind the last record that was decided here.
    decided: HashMap<Partition, Offset>,
    weight: i64,
}

impl Known {
    /// More of a partition is to be decided. If that is not what follows, what was decided here is not what the ledger has: a write
    /// failed, or somebody else had the partition.
    pub fn goes_on(&mut self, partition: Partition, from: Offset) {
        if self.decided.get(&partition).is_some_and(|decided| *decided != from) {
            self.forget();
        }
    }

    pub fn has(&self, coupon: CouponId) -> bool {
        self.rosters.contains_key(&coupon)
    }

    /// Takes a roster out, to decide more of its records.
    pub fn take(&mut self, coupon: CouponId) -> Option<Roster<UserId>> {
        let roster = self.rosters.remove(&coupon)?;
        self.weight -= weight(&roster);
        Some(roster)
    }

    pub fn put(&mut self, coupon: CouponId, roster: Roster<UserId>) {
        self.weight += weight(&roster);
        self.rosters.insert(coupon, roster);
        if self.weight > USERS {
            self.forget();
        }
    }

    /// Every roster of the partition is as it is at this offset.
    pub fn decided(&mut self, partition: Partition, to: Offset) {
        self.decided.insert(partition, to);
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

fn weight(roster: &Roster<UserId>) -> i64 {
    roster.next_sequence() - 1 + ROSTER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Status;
    use crate::domain::testing::terms;

    #[test]
    fn too_many_users_are_forgotten() {
        let mut known = Known::default();
        let (large, small) = (CouponId::random(), CouponId::random());
        let winners = USERS - ROSTER;
        known.put(large, Roster::restore(terms(1, USERS, Status::Open), winners, winners + 1));
        for _ in 0..3 {
            let roster = known.take(large).expect("it is not too large");
            known.put(large, roster);
        }
        known.put(small, Roster::default());
        assert!(!known.has(large) && !known.has(small));
    }
}
