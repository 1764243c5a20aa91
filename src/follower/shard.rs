//! One partition's rosters and those who wait for its records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

use super::user_key::{PrehashedState, UserHasher, UserKey};
use super::{CouponState, Seen, Standing, Stock, lock, seen_of};
use crate::domain::{Body, CouponId, Decision, Decoded, Offset, Partition, Record, Roster, UserState, decode};
use crate::journal::Fetched;
use crate::kill_point::kill_point;

pub type Holders = Roster<UserKey, PrehashedState>;

#[derive(Debug)]
pub struct Waiter {
    pub id: u64,
    pub sender: oneshot::Sender<Seen>,
}

/// One coupon here.
#[derive(Debug, Default)]
pub struct Entry {
    pub roster: Holders,
    /// Closed and fully written: the users are forgotten, the ledger knows them. Stays, so that a late copy of the first terms does not revive it.
    pub over: bool,
    pub waiters: HashMap<UserKey, Vec<Waiter>>,
    pub overflow: i64,
    pub changed: Arc<Notify>,
}

impl Entry {
    pub fn standing(&self, user: &UserKey) -> Standing {
        if self.over {
            return Standing::Over;
        }
        match self.roster.user(user) {
            Some(UserState::Holder(sequence)) => return Standing::Holder(sequence),
            Some(UserState::Revoked(_)) => return Standing::Revoked,
            None => {}
        }
        if let Some(refusal) = self.roster.refusal() {
            return Standing::No(refusal);
        }
        let Some(terms) = self.roster.terms() else { return Standing::Unknown };
        let stock = Stock { total: terms.total_quantity, issued: self.roster.issued() };
        Standing::Open { stock, opens_at: terms.opens_at, closes_at: terms.closes_at }
    }

    pub fn state(&self) -> Option<CouponState> {
        let terms = self.roster.terms()?.clone();
        Some(CouponState { terms, issued: self.roster.issued(), next_sequence: self.roster.next_sequence() })
    }
}

#[derive(Debug, Default)]
pub struct ShardState {
    pub next: Offset,
    pub high_watermark: Offset,
    /// When the fetch left whose high watermark was reached last.
    pub fresh_at: Option<Instant>,
    /// A high watermark not reached yet, and when its fetch left.
    pub pending: Option<(Offset, Instant)>,
    pub stopped: Option<String>,
    pub coupons: HashMap<CouponId, Entry>,
    pub change_waiters: HashMap<Uuid, oneshot::Sender<bool>>,
    pub next_waiter: u64,
}

#[derive(Debug)]
pub struct Shard {
    state: Mutex<ShardState>,
    /// First offset not applied; set after the state, so whoever sees it sees the rosters too.
    pub applied: watch::Sender<Offset>,
    /// The last look-up of the log's end: when it was sent, and its answer.
    pub log_end: tokio::sync::Mutex<Option<(Instant, Offset)>>,
}

impl Shard {
    pub fn new(state: ShardState) -> Self {
        let applied = watch::Sender::new(state.next);
        Self { state: Mutex::new(state), applied, log_end: tokio::sync::Mutex::new(None) }
    }

    pub fn lock(&self) -> MutexGuard<'_, ShardState> {
        lock(&self.state)
    }

    /// Applies the answer of one fetch and wakes who waited. `Err`: the reader must stop before the record it names.
    pub fn apply(&self, fetched: &Fetched, partition: Partition, partitions: Partition, hasher: &UserHasher) -> Result<(), String> {
        // Decoded before the lock: requests wait on it.
        let mut records = Vec::with_capacity(fetched.records.len());
        let mut stop = None;
        let mut next = None;
        for raw in &fetched.records {
            match decode(partition, partitions, &raw.key, &raw.value) {
                Ok(Decoded::Record(record)) => records.push(record),
                // Reported once, by the consumer, as a dead letter.
                Ok(Decoded::Skip(_)) => {}
                Err(reason) => {
                    stop = Some(format!("offset {}: {reason}", raw.offset));
                    break;
                }
            }
            next = Some(raw.offset + 1);
        }
        let mut state = self.lock();
        for record in &records {
            state.apply(record, hasher);
        }
        if let Some(next) = next {
            state.next = next;
        }
        state.high_watermark = fetched.high_watermark;
        if state.pending.is_none() || state.next >= fetched.high_watermark {
            state.pending = Some((fetched.high_watermark, fetched.sent_at));
        }
        if let Some((reached, sent_at)) = state.pending
            && state.next >= reached
        {
            state.fresh_at = Some(sent_at);
            state.pending = None;
        }
        let applied = state.next;
        drop(state);
        if !records.is_empty() {
            kill_point("follower.apply.after");
        }
        self.applied.send_replace(applied);
        stop.map_or(Ok(()), Err)
    }
}

impl ShardState {
    pub fn is_fresh(&self, within: Duration) -> bool {
        self.stopped.is_none() && self.fresh_at.is_some_and(|at| at.elapsed() <= within)
    }

    fn apply(&mut self, record: &Record, hasher: &UserHasher) {
        let entry = match &record.body {
            Body::Terms(_) => self.coupons.entry(record.coupon).or_default(),
            // Records of a coupon that was never created leave no trace, or anybody could fill the memory.
            Body::Issue { .. } | Body::Revoke { .. } => match self.coupons.get_mut(&record.coupon) {
                Some(entry) => entry,
                None => return,
            },
        };
        let before = entry.roster.refusal();
        let mut key = None;
        let decision = entry.roster.apply(&record.body, |user| *key.insert(hasher.key(user)));
        match &record.body {
            Body::Issue { .. } => {
                if !entry.waiters.is_empty()
                    && let (Some(seen), Some(key)) = (seen_of(decision), key)
                    && let Some(waiting) = entry.waiters.remove(&key)
                {
                    kill_point("follower.wake.before");
                    wake(waiting, seen);
                }
            }
            Body::Terms(terms) => {
                if let Some(waiter) = self.change_waiters.remove(&terms.change_id) {
                    let applied = decision == Decision::TermsApplied;
                    if waiter.send(applied).is_err() {
                        tracing::debug!(coupon.id = %record.coupon, applied, "nobody waits for this change any more");
                    }
                }
                if entry.roster.terms().is_none() {
                    self.coupons.remove(&record.coupon);
                    return;
                }
            }
            Body::Revoke { .. } => {}
        }
        if entry.roster.refusal() != before || matches!(decision, Decision::TermsApplied) {
            entry.changed.notify_waiters();
        }
    }
}

/// The first to wait won it; those who asked again meanwhile have it already.
fn wake(waiting: Vec<Waiter>, seen: Seen) {
    let mut seen_by_next = seen;
    for waiter in waiting {
        // A request that is gone needs no answer.
        let delivered = waiter.sender.send(seen_by_next).is_ok();
        if let (Seen::Won(sequence), true) = (seen_by_next, delivered) {
            seen_by_next = Seen::Holder(sequence);
        }
    }
}
