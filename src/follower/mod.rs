//! The follower: reads the log, keeps the rosters, wakes the requests that wait for their own record.
//!
//! One a process with role api. It starts from one consistent ledger snapshot and tails every partition from there. A "yes" comes only from a
//! record it saw in the log; a "no" only while it is fresh: caught up with a high watermark fetched at most a second ago.

mod barrier;
mod gauges;
#[cfg(test)]
mod patience_tests;
mod shard;
mod start;
#[cfg(test)]
mod tests;
mod unload;
mod user_key;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::{CouponId, Decision, EpochMillis, Offset, Partition, Refusal, Sequence, Terms, UserId, partition_of};
use crate::journal::{Journal, JournalError};
use crate::kill_point::kill_point;
use crate::telemetry::Metrics;

pub use barrier::BarrierFailed;
use shard::{Shard, Waiter};
pub use start::{StartError, check_same_log};
use user_key::{UserHasher, UserKey};

/// Settings of a follower.
#[derive(Debug, Clone)]
pub struct Options {
    /// Oldest caught-up fetch on which a "no" may rest.
    pub fresh: Duration,
    /// How long a fetch waits for a first record; well below `fresh`.
    pub fetch_wait: Duration,
    pub fetch_bytes: usize,
    /// How long the log's end may lie below what was applied (a new leader may lag) before that is an alarm.
    pub end_regress: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(1),
            fetch_wait: Duration::from_millis(300),
            fetch_bytes: 1 << 20,
            end_regress: Duration::from_secs(30),
        }
    }
}

/// What the rosters say of a user's request, before any clock or gate is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No such coupon up to here.
    Unknown,
    Holder(Sequence),
    Revoked,
    /// Closed and unloaded: the ledger knows its holders.
    Over,
    No(Refusal),
    Open {
        stock: Stock,
        opens_at: Option<EpochMillis>,
        closes_at: Option<EpochMillis>,
    },
}

/// What one look at the rosters shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub standing: Standing,
    /// As [`Follower::fresh`].
    pub fresh: bool,
}

/// A coupon's stock and how much of it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    pub total: i64,
    pub issued: i64,
}

/// What the log decided about a waiting user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Won while this request waited, and it was the first to wait.
    Won(Sequence),
    Holder(Sequence),
    Refused(Refusal),
}

/// A coupon's terms and count as this process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponState {
    pub terms: Terms,
    pub issued: i64,
    pub next_sequence: Sequence,
}

/// See the module.
#[derive(Debug)]
pub struct Follower {
    journal: Arc<dyn Journal>,
    shards: Vec<Shard>,
    hasher: UserHasher,
    options: Options,
    metrics: Arc<Metrics>,
}

impl Follower {
    /// The partition of a coupon.
    #[must_use]
    pub fn partition_of(&self, coupon: CouponId) -> Partition {
        partition_of(coupon, self.journal.partitions())
    }

    fn shard(&self, coupon: CouponId) -> &Shard {
        self.shard_at(self.partition_of(coupon))
    }

    fn shard_at(&self, partition: Partition) -> &Shard {
        let index = usize::try_from(partition).unwrap_or(0) % self.shards.len();
        &self.shards[index]
    }

    /// What the rosters say of this user now. "No" and "unknown" are only good while [`Follower::fresh`].
    #[must_use]
    pub fn standing(&self, coupon: CouponId, user: &UserId) -> Standing {
        self.look(coupon, user).standing
    }

    /// [`Follower::standing`] and [`Follower::fresh`] at one look.
    #[must_use]
    pub fn look(&self, coupon: CouponId, user: &UserId) -> Look {
        let key = self.hasher.key(user);
        let shard = self.shard(coupon).lock();
        let standing = shard.coupons.get(&coupon).map_or(Standing::Unknown, |entry| entry.standing(&key));
        Look { standing, fresh: shard.is_fresh(self.options.fresh) }
    }

    /// Whether a "no" about this coupon may be given from memory.
    #[must_use]
    pub fn fresh(&self, coupon: CouponId) -> bool {
        self.shard(coupon).lock().is_fresh(self.options.fresh)
    }

    /// Terms and counts of a coupon.
    #[must_use]
    pub fn coupon(&self, coupon: CouponId) -> Option<CouponState> {
        self.shard(coupon).lock().coupons.get(&coupon).and_then(shard::Entry::state)
    }

    /// Every coupon known here, in no order.
    #[must_use]
    pub fn coupons(&self) -> Vec<(CouponId, CouponState)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            all.extend(shard.coupons.iter().filter_map(|(coupon, entry)| Some((*coupon, entry.state()?))));
        }
        all
    }

    /// Registers a wait for what the log decides about this user; register before the append.
    ///
    /// # Errors
    /// Nobody waits where the roster has an answer: no wait without [`Standing::Open`].
    pub fn wait_for_user(self: &Arc<Self>, coupon: CouponId, user: &UserId) -> Result<(UserWait, Stock), Look> {
        let key = self.hasher.key(user);
        let mut shard = self.shard(coupon).lock();
        let (id, fresh) = (shard.next_waiter, shard.is_fresh(self.options.fresh));
        shard.next_waiter += 1;
        let entry = shard.coupons.get_mut(&coupon).ok_or(Look { standing: Standing::Unknown, fresh })?;
        let stock = match entry.standing(&key) {
            Standing::Open { stock, .. } => stock,
            standing => return Err(Look { standing, fresh }),
        };
        let (sender, receiver) = oneshot::channel();
        let waiting = entry.waiters.entry(key).or_default();
        let first = waiting.is_empty();
        waiting.push(Waiter { id, sender });
        let wait = UserWait { follower: Arc::clone(self), coupon, key, id, first, told: false, receiver };
        Ok((wait, stock))
    }

    /// Registers a wait for what becomes of a change; true when it applied. Register before the append.
    #[must_use]
    pub fn wait_for_change(self: &Arc<Self>, coupon: CouponId, change_id: Uuid) -> ChangeWait {
        let (sender, receiver) = oneshot::channel();
        self.shard(coupon).lock().change_waiters.insert(change_id, sender);
        ChangeWait { follower: Arc::clone(self), coupon, change_id, receiver }
    }

    /// Notified when the answer to new users of this coupon changes (sold out, terms, a slot given back).
    #[must_use]
    pub fn changes_of(&self, coupon: CouponId) -> Option<Arc<Notify>> {
        self.shard(coupon).lock().coupons.get(&coupon).map(|entry| Arc::clone(&entry.changed))
    }

    /// A permit to append past a gate that says full: at most as many at a time as the roster has left.
    #[must_use]
    pub fn overflow_permit(self: &Arc<Self>, coupon: CouponId) -> Option<OverflowPermit> {
        let mut shard = self.shard(coupon).lock();
        let entry = shard.coupons.get_mut(&coupon)?;
        if entry.overflow >= entry.roster.remaining() {
            return None;
        }
        entry.overflow += 1;
        drop(shard);
        Some(OverflowPermit { follower: Arc::clone(self), coupon })
    }

    /// Waits until everything acknowledged before this call is applied. See [`barrier`].
    ///
    /// # Errors
    /// The log did not answer, or the reader did not get there in time.
    pub async fn barrier(&self, coupon: CouponId, deadline: tokio::time::Instant) -> Result<(), BarrierFailed> {
        let partition = self.partition_of(coupon);
        barrier::pass(self.journal.as_ref(), partition, self.shard_at(partition), deadline).await
    }

    /// First offset this process has not applied.
    #[must_use]
    pub fn applied(&self, partition: Partition) -> Offset {
        *self.shard_at(partition).applied.borrow()
    }

    /// Waits until the reader of the coupon's partition passed `offset`.
    #[must_use]
    pub fn applied_watch(&self, partition: Partition) -> watch::Receiver<Offset> {
        self.shard_at(partition).applied.subscribe()
    }

    /// Partitions whose reader stopped for good, with the reason.
    #[must_use]
    pub fn stopped(&self) -> Vec<(Partition, String)> {
        (0..self.journal.partitions()).filter_map(|partition| Some((partition, self.shard_at(partition).lock().stopped.clone()?))).collect()
    }

    /// Whether any partition is fresh: this process hears from the log.
    #[must_use]
    pub fn hears(&self) -> bool {
        self.shards.iter().any(|shard| shard.lock().fresh_at.is_some_and(|at| at.elapsed() <= self.options.fresh))
    }

    /// Age of the stalest partition's last caught-up fetch; `None` while one never caught up.
    #[must_use]
    pub fn freshness(&self) -> Option<Duration> {
        self.shards
            .iter()
            .map(|shard| shard.lock().fresh_at.map(|at| at.elapsed()))
            .try_fold(Duration::ZERO, |oldest, age| Some(oldest.max(age?)))
    }

    /// Tails one partition until cancelled. A reader that must not go on stops here with an alarm and waits for the end.
    pub async fn tail(self: Arc<Self>, partition: Partition, cancel: CancellationToken) {
        let mut regressed_since: Option<Instant> = None;
        loop {
            let next = self.applied(partition);
            // Who has not heard from the log (lately) wants to know at once whether there is nothing more.
            let is_fresh = self.shard_at(partition).lock().is_fresh(self.options.fresh);
            let wait = if is_fresh { self.options.fetch_wait } else { Duration::ZERO };
            let fetched = tokio::select! {
                () = cancel.cancelled() => return,
                fetched = self.journal.fetch(partition, next, self.options.fetch_bytes, wait) => fetched,
            };
            let stop = match fetched {
                Ok(fetched) => {
                    regressed_since = None;
                    if !fetched.records.is_empty() {
                        kill_point("follower.apply.before");
                    }
                    self.shard_at(partition).apply(&fetched, partition, self.journal.partitions(), &self.hasher).err()
                }
                Err(JournalError::OffsetOutOfRange { bounds, .. }) => match bounds {
                    Some(bounds) if bounds.end < next => {
                        let since = *regressed_since.get_or_insert_with(Instant::now);
                        (since.elapsed() > self.options.end_regress)
                            .then(|| format!("the log ends at {} below the applied offset {next}: records were lost", bounds.end))
                    }
                    Some(bounds) if bounds.begin > next => {
                        Some(format!("the log begins at {} above the applied offset {next}: records were deleted unread", bounds.begin))
                    }
                    _ => {
                        regressed_since = None;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        None
                    }
                },
                Err(JournalError::Damaged(what)) => Some(what),
                Err(JournalError::Unknown(_) | JournalError::Overloaded) => {
                    regressed_since = None;
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_millis(50)) => None,
                    }
                }
            };
            if let Some(reason) = stop {
                tracing::error!(partition, %reason, "follower stopped this partition");
                self.metrics.reader_stopped.with_label_values(&["follower", &partition.to_string()]).set(1);
                self.shard_at(partition).lock().stopped = Some(reason);
                // Whoever waits for it to catch up waits in vain.
                self.shard_at(partition).applied.send_modify(|_| {});
                cancel.cancelled().await;
                return;
            }
            if regressed_since.is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A registered wait of one request; dropping it takes it back.
#[derive(Debug)]
pub struct UserWait {
    follower: Arc<Follower>,
    coupon: CouponId,
    key: UserKey,
    id: u64,
    first: bool,
    /// The log has decided: nothing is registered any more.
    told: bool,
    receiver: oneshot::Receiver<Seen>,
}

impl UserWait {
    /// Whether no other request of this user waits in this process: the first one appends, the others only wait.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.first
    }

    /// What the log decided; `None` when the first to wait gave up. To be asked once.
    pub async fn seen(&mut self) -> Option<Seen> {
        let seen = (&mut self.receiver).await.ok();
        self.told = seen.is_some();
        seen
    }
}

impl Drop for UserWait {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let mut shard = self.follower.shard(self.coupon).lock();
        let Some(entry) = shard.coupons.get_mut(&self.coupon) else { return };
        if let Some(waiting) = entry.waiters.get_mut(&self.key) {
            // The first to wait makes the append: when it gives up, the others must begin anew, one of them as the first.
            if self.first && waiting.iter().any(|waiter| waiter.id == self.id) {
                entry.waiters.remove(&self.key);
                return;
            }
            waiting.retain(|waiter| waiter.id != self.id);
            if waiting.is_empty() {
                entry.waiters.remove(&self.key);
            }
        }
    }
}

/// A registered wait for an admin change; dropping it takes it back.
#[derive(Debug)]
pub struct ChangeWait {
    follower: Arc<Follower>,
    coupon: CouponId,
    change_id: Uuid,
    receiver: oneshot::Receiver<bool>,
}

impl ChangeWait {
    /// Whether the change applied; `None` when the follower ended.
    pub async fn applied(&mut self) -> Option<bool> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for ChangeWait {
    fn drop(&mut self) {
        self.follower.shard(self.coupon).lock().change_waiters.remove(&self.change_id);
    }
}

/// See [`Follower::overflow_permit`]; given back when dropped.
#[derive(Debug)]
pub struct OverflowPermit {
    follower: Arc<Follower>,
    coupon: CouponId,
}

impl Drop for OverflowPermit {
    fn drop(&mut self) {
        if let Some(entry) = self.follower.shard(self.coupon).lock().coupons.get_mut(&self.coupon) {
            entry.overflow -= 1;
        }
    }
}

/// A poisoned lock only means that another request panicked: the state under it is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a decision means to those who wait for this user.
const fn seen_of(decision: Decision) -> Option<Seen> {
    match decision {
        Decision::Won(sequence) => Some(Seen::Won(sequence)),
        Decision::Already(sequence) => Some(Seen::Holder(sequence)),
        Decision::Refused(refusal) => Some(Seen::Refused(refusal)),
        Decision::TermsApplied | Decision::TermsIgnored | Decision::RevokeApplied | Decision::RevokeIgnored => None,
    }
}
