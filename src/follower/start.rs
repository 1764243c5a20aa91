//! The start of a follower: one consistent ledger snapshot, checked against the log.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use thiserror::Error;

use super::shard::{Entry, Holders, Shard, ShardState};
use super::user_key::UserHasher;
use super::{Follower, Options, lock};
use crate::domain::{CouponId, Partition, UserState, fingerprint, partition_of};
use crate::journal::{Journal, JournalError};
use crate::kill_point::kill_point;
use crate::ledger::{CouponRow, Ledger, LedgerError, Position, SnapshotSink};
use crate::telemetry::Metrics;

/// Why a follower cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("failed to read the ledger's snapshot: {0}")]
    Ledger(#[from] LedgerError),
    #[error("failed to read the journal: {0}")]
    Journal(#[from] JournalError),
    /// The ledger was written from another log: going on would decide against what was promised.
    #[error(
        "partition {partition}: the journal is not the one the ledger was written from ({detail}); restore the journal, or start over with an empty ledger"
    )]
    OtherLog { partition: Partition, detail: String },
}

#[derive(Debug)]
struct Loading {
    partitions: Partition,
    hasher: UserHasher,
    states: Vec<ShardState>,
    positions: Vec<Position>,
}

struct Sink(Arc<Mutex<Loading>>);

impl SnapshotSink for Sink {
    fn position(&mut self, position: Position) {
        let mut loading = lock(&self.0);
        if let Some(state) = usize::try_from(position.partition).ok().and_then(|index| loading.states.get_mut(index)) {
            state.next = position.next;
            loading.positions.push(position);
        }
    }

    fn coupon(&mut self, row: CouponRow, over: bool) {
        let roster = Holders::restore(row.terms, row.issued, row.next_sequence);
        if let Some(state) = lock(&self.0).state_of(row.coupon) {
            state.coupons.insert(row.coupon, Entry { roster, over, ..Entry::default() });
        }
    }

    fn user(&mut self, coupon: CouponId, user: &str, state: UserState) {
        let mut loading = lock(&self.0);
        let key = loading.hasher.key_of(user);
        if let Some(entry) = loading.state_of(coupon).and_then(|shard| shard.coupons.get_mut(&coupon)) {
            entry.roster.remember(key, state);
        }
    }
}

impl Loading {
    fn state_of(&mut self, coupon: CouponId) -> Option<&mut ShardState> {
        let index = usize::try_from(partition_of(coupon, self.partitions)).ok()?;
        self.states.get_mut(index)
    }
}

impl Follower {
    /// Reads the snapshot and checks that the log is the one it was written from. Nothing is tailed yet: run [`Follower::tail`] for every partition.
    ///
    /// # Errors
    /// [`StartError`]; ledger and journal errors may be tried again.
    pub async fn start(
        journal: Arc<dyn Journal>,
        ledger: &dyn Ledger,
        options: Options,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, StartError> {
        let partitions = journal.partitions();
        let hasher = UserHasher::random();
        let states = (0..partitions).map(|_| ShardState::default()).collect();
        let loading = Arc::new(Mutex::new(Loading { partitions, hasher, states, positions: Vec::new() }));
        ledger.snapshot(Box::new(Sink(Arc::clone(&loading)))).await?;
        let (states, positions) = {
            let mut loading = lock(&loading);
            (std::mem::take(&mut loading.states), std::mem::take(&mut loading.positions))
        };
        stream::iter(positions)
            .map(|position| check_same_log(journal.as_ref(), position, options.end_regress))
            .buffer_unordered(8)
            .try_collect::<Vec<()>>()
            .await?;
        kill_point("follower.start.after");
        let shards = states.into_iter().map(Shard::new).collect();
        Ok(Arc::new(Self { journal, shards, hasher, options, metrics }))
    }

    /// Waits until every partition was applied up to the end it has now; one that stopped is not waited for.
    pub async fn caught_up(&self) {
        for partition in 0..self.journal.partitions() {
            let end = loop {
                match self.journal.bounds(partition).await {
                    Ok(bounds) => break bounds.end,
                    Err(error) => tracing::warn!(partition, %error, "waiting for the log's end"),
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            };
            let mut applied = self.applied_watch(partition);
            // The sender is a part of the shard: it does not go before this ends.
            let _there = applied.wait_for(|applied| *applied >= end || self.shard_at(partition).lock().stopped.is_some()).await;
        }
    }
}

/// Compares the record below the ledger's offset with the fingerprint the ledger kept of it. `patience`: how long the log's end may
/// lie below that offset, as it does for a moment at a new leader.
///
/// # Errors
/// [`StartError::OtherLog`], or the journal does not answer.
pub async fn check_same_log(journal: &dyn Journal, position: Position, patience: Duration) -> Result<(), StartError> {
    let Position { partition, next, fingerprint: kept } = position;
    if next == 0 {
        return Ok(());
    }
    let other = |detail: String| StartError::OtherLog { partition, detail };
    let started = Instant::now();
    let bounds = loop {
        let bounds = journal.bounds(partition).await?;
        // A new leader may lag for a moment.
        if bounds.end >= next || started.elapsed() > patience {
            break bounds;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    if bounds.end < next && patience.is_zero() {
        return Err(JournalError::Unknown(format!("the log ends at {} below the next offset {next}", bounds.end)).into());
    }
    if bounds.end < next {
        return Err(other(format!("it ends at {}, the ledger read up to {next}", bounds.end)));
    }
    if bounds.begin > next {
        return Err(other(format!("it begins at {}, the ledger read up to {next} only", bounds.begin)));
    }
    if bounds.begin == next {
        return Ok(());
    }
    let fetched = journal.fetch(partition, next - 1, 1, Duration::from_millis(500)).await?;
    match fetched.records.first() {
        Some(record) if fingerprint(&record.key, &record.value) == kept => Ok(()),
        Some(_) => Err(other(format!("the record at offset {} is another one", next - 1))),
        None => Err(StartError::Journal(JournalError::Unknown(format!("no record at offset {}", next - 1)))),
    }
}
