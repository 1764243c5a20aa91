//! A worker: drains its part of the claimed partitions, one transaction a batch.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Consumer;
use super::commit::{Decided, Written, put};
use super::feed::{Feed, Parcel};
use super::fold::{Run, fold, overlay};
use super::known::Known;
use super::limiter::Ask;
use crate::domain::{EpochMillis, Offset, Partition, StopReason, now_millis};
use crate::follower::{StartError, check_same_log};
use crate::journal::RawRecord;
use crate::kill_point::kill_point;
use crate::ledger::{Batch, LedgerError, Loaded};

const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(2);

/// What became of a batch.
enum Outcome {
    Written,
    /// Somebody else moved these partitions: read them again from where the ledger stands.
    Reset,
    /// A guard fired: nothing was written.
    Guard(String),
    Cancelled,
}

/// Records of a batch on their way, read but not decided.
struct Taken {
    runs: Vec<Run>,
    /// Records this build must not pass, each behind the run of its partition.
    stops: Vec<(Partition, (Offset, StopReason))>,
    /// When the log took the first of each partition.
    oldest: Vec<(Partition, EpochMillis)>,
}

pub(super) struct Worker {
    consumer: Arc<Consumer>,
    index: usize,
    feeds: HashMap<Partition, Feed>,
    waiting: BTreeMap<Partition, VecDeque<RawRecord>>,
    /// Partitions to go first in the next batch, so that none starves behind a busy one.
    turn: Partition,
    epoch: u64,
    known: Known,
    last_batch: Option<Instant>,
    parcels: (mpsc::Sender<Parcel>, mpsc::Receiver<Parcel>),
    cancel: CancellationToken,
}

impl Consumer {
    /// Runs worker `index` of [`super::Options::workers`] until cancelled; an open batch is finished or left to its transaction.
    pub async fn work(self: Arc<Self>, index: usize, cancel: CancellationToken) {
        let owned = self.owned.subscribe();
        let worker = Worker {
            consumer: self,
            index,
            feeds: HashMap::new(),
            waiting: BTreeMap::new(),
            turn: 0,
            epoch: 0,
            known: Known::default(),
            last_batch: None,
            parcels: mpsc::channel(16),
            cancel,
        };
        worker.run(owned).await;
    }
}

impl Worker {
    async fn run(mut self, mut owned: watch::Receiver<Vec<Partition>>) {
        let cancel = self.cancel.clone();
        owned.mark_changed();
        loop {
            if owned.has_changed().unwrap_or(false) || !self.fed(&owned.borrow()) {
                let mine = self.share_of(&owned.borrow_and_update());
                self.adopt(&mine).await;
            }
            if self.waiting.is_empty() {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    changed = owned.changed() => match changed {
                        Ok(()) => { owned.mark_changed(); continue }
                        Err(_) => return,
                    },
                    Some(parcel) = self.parcels.1.recv() => self.take_in(parcel),
                    () = tokio::time::sleep(Duration::from_secs(1)) => continue,
                }
            }
            if cancel.is_cancelled() {
                return;
            }
            self.drain(&owned).await;
        }
    }

    fn share_of(&self, owned: &[Partition]) -> Vec<Partition> {
        let workers = self.consumer.options.workers.max(1);
        let is_mine = |partition: &&Partition| usize::try_from(**partition).unwrap_or(0) % workers == self.index;
        owned.iter().filter(is_mine).copied().filter(|partition| !self.consumer.is_stopped(*partition)).collect()
    }

    /// Whether every partition of this worker has a feed.
    fn fed(&self, owned: &[Partition]) -> bool {
        self.share_of(owned).iter().all(|partition| self.feeds.get(partition).is_some_and(Feed::is_running))
    }

    /// Starts feeds of partitions that are new and ends those of partitions that are gone.
    async fn adopt(&mut self, mine: &[Partition]) {
        self.feeds.retain(|partition, feed| mine.contains(partition) && feed.is_running());
        let feeds = &self.feeds;
        self.waiting.retain(|partition, _| feeds.contains_key(partition));
        let new: Vec<_> = mine.iter().filter(|partition| !self.feeds.contains_key(partition)).copied().collect();
        if new.is_empty() {
            return;
        }
        let positions = match self.consumer.ledger.positions().await {
            Ok(positions) => positions,
            Err(error) => {
                tracing::warn!(%error, "cannot read the next offsets");
                tokio::time::sleep(FIRST_BACK_OFF * 4).await;
                return;
            }
        };
        for position in positions.into_iter().filter(|position| new.contains(&position.partition)) {
            match check_same_log(self.consumer.journal.as_ref(), position, Duration::ZERO).await {
                Ok(()) => {}
                Err(error @ StartError::OtherLog { .. }) => {
                    self.consumer.stop_partition(position.partition, &error.to_string());
                    continue;
                }
                Err(error) => {
                    tracing::warn!(partition = position.partition, %error, "cannot compare the log with the ledger: trying again");
                    tokio::time::sleep(FIRST_BACK_OFF).await;
                    continue;
                }
            }
            self.epoch += 1;
            kill_point("consumer.feed.before");
            let feed = Feed::start(Arc::clone(&self.consumer), position.partition, position.next, self.epoch, self.parcels.0.clone());
            self.consumer.note_progress(position.partition, |progress| progress.next = position.next);
            self.feeds.insert(position.partition, feed);
        }
    }

    fn backlog(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    fn take_in(&mut self, parcel: Parcel) {
        let current = self.feeds.get(&parcel.partition).is_some_and(|feed| feed.epoch == parcel.epoch);
        if current {
            self.waiting.entry(parcel.partition).or_default().extend(parcel.records);
        }
    }

    /// What is to be decided next; `None` while nothing waits.
    fn take(&mut self) -> Option<Taken> {
        // Up to a few batches wait here; behind that the full channel holds the feeds back.
        while self.backlog() < self.consumer.options.batch_rows * 4
            && let Ok(parcel) = self.parcels.1.try_recv()
        {
            self.take_in(parcel);
        }
        let records = self.next_batch();
        if records.is_empty() {
            return None;
        }
        if let Some(last) = self.last_batch.replace(Instant::now()) {
            self.consumer.metrics.consumer_poll_interval_seconds.observe(last.elapsed().as_secs_f64());
        }
        let oldest = records.iter().map(|(partition, records)| (*partition, records.first().map_or(0, |record| record.at))).collect();
        let partitions = self.consumer.journal.partitions();
        let runs: Vec<_> = records.into_iter().filter_map(|(partition, records)| Run::read(partition, partitions, records)).collect();
        let stops: Vec<_> = runs.iter().filter_map(|run| run.stop.as_ref().map(|stop| (run.partition, stop.clone()))).collect();
        for (partition, _) in &stops {
            // Nothing behind such a record is decided by this build.
            self.forget(*partition);
        }
        let runs = runs.into_iter().filter(|run| !run.is_empty()).collect();
        Some(Taken { runs, stops, oldest })
    }

    /// Takes records of all partitions in turn, up to the row limit and what the rate limit makes of it.
    fn next_batch(&mut self) -> Vec<(Partition, Vec<RawRecord>)> {
        let mut room = self.consumer.limiter.batch(self.index, self.consumer.options.batch_rows);
        let turn = self.turn;
        let order: Vec<_> = self.waiting.range(turn..).chain(self.waiting.range(..turn)).map(|(partition, _)| *partition).collect();
        let mut batch = Vec::new();
        for partition in order {
            if room == 0 {
                break;
            }
            let Some(records) = self.waiting.get_mut(&partition) else {
                continue;
            };
            let taken: Vec<_> = records.drain(..records.len().min(room)).collect();
            room -= taken.len();
            self.turn = partition + 1;
            batch.push((partition, taken));
        }
        self.waiting.retain(|_, records| !records.is_empty());
        batch
    }

    /// Writes batch after batch while there are any. While one is written, the one before it is told of and the next one decided.
    async fn drain(&mut self, owned: &watch::Receiver<Vec<Partition>>) {
        let mut next = self.take();
        let mut decided = None;
        let mut untold: Option<Written> = None;
        while let Some(taken) = next.take() {
            for (partition, at) in &taken.oldest {
                self.consumer.note_progress(*partition, |progress| progress.oldest_at = *at);
            }
            let started = Instant::now();
            let ready = match decided.take() {
                Some(ready) => Ok(ready),
                None => self.decide(&taken.runs, None).await,
            };
            let outcome = match ready {
                Ok(ready) => {
                    let ready = Arc::new(ready);
                    // On a thread of its own: what is done meanwhile does not hold up its next statement.
                    let writing = AbortOnDropHandle::new(tokio::spawn(put(Arc::clone(&self.consumer), self.index, Arc::clone(&ready))));
                    if let Some(written) = untold.take() {
                        written.tell(&self.consumer).await;
                    }
                    (next, decided) = self.look_ahead(&ready.batch, owned).await;
                    match writing.await.unwrap_or_else(|error| Err(LedgerError::Down(format!("the write ended: {error}")))) {
                        Ok(committed) => {
                            self.consumer.metrics.consumer_batch_seconds.observe(started.elapsed().as_secs_f64());
                            untold = Some(Written { decided: ready, committed });
                            Outcome::Written
                        }
                        Err(error) => {
                            decided = None;
                            self.write(&taken.runs, Some(error)).await
                        }
                    }
                }
                Err(error) => self.write(&taken.runs, Some(error)).await,
            };
            if !self.settle(taken, outcome).await {
                // What was decided on top of it must not be written.
                decided = None;
                for run in next.take().into_iter().flat_map(|next| next.runs) {
                    self.forget(run.partition);
                }
            }
        }
        if let Some(written) = untold {
            written.tell(&self.consumer).await;
        }
    }

    /// Takes what comes after `batch`, which is being written, and decides it as if that were done.
    async fn look_ahead(&mut self, batch: &Batch, owned: &watch::Receiver<Vec<Partition>>) -> (Option<Taken>, Option<Decided>) {
        // What needs the outer loop must not wait until nothing is left to write.
        if self.cancel.is_cancelled() || owned.has_changed().unwrap_or(true) || !self.fed(&owned.borrow()) {
            return (None, None);
        }
        let Some(taken) = self.take() else { return (None, None) };
        let decided = self.decide(&taken.runs, Some(batch)).await;
        // Whatever stood in the way is met again when it is this batch's turn.
        (Some(taken), decided.ok())
    }

    /// Draws the conclusions; whether everything taken was written.
    async fn settle(&mut self, taken: Taken, outcome: Outcome) -> bool {
        let mut all_written = true;
        match outcome {
            Outcome::Written => {}
            Outcome::Cancelled => return false,
            Outcome::Reset => {
                for run in &taken.runs {
                    self.forget(run.partition);
                }
                return false;
            }
            // Which partition it was shows when each is written alone.
            Outcome::Guard(reason) => {
                all_written = false;
                for run in &taken.runs {
                    match self.write(std::slice::from_ref(run), None).await {
                        Outcome::Written => {}
                        Outcome::Guard(reason) => {
                            self.consumer.stop_partition(run.partition, &reason);
                            self.forget(run.partition);
                        }
                        Outcome::Reset | Outcome::Cancelled => self.forget(run.partition),
                    }
                }
                tracing::error!(%reason, "a guard fired");
            }
        }
        for (partition, (offset, reason)) in taken.stops {
            self.consumer.stop_partition(partition, &format!("offset {offset}: {reason}"));
            self.forget(partition);
        }
        all_written
    }

    fn forget(&mut self, partition: Partition) {
        self.feeds.remove(&partition);
        self.waiting.remove(&partition);
    }

    /// Writes runs until that is done or somebody else did; waits out a ledger that is away. `failed` is what a first try ended with.
    async fn write(&mut self, runs: &[Run], mut failed: Option<LedgerError>) -> Outcome {
        if runs.is_empty() {
            return Outcome::Written;
        }
        let started = Instant::now();
        let mut back_off = FIRST_BACK_OFF;
        loop {
            let result = match failed.take() {
                Some(error) => Err(error),
                None => self.try_write(runs).await,
            };
            let error = match result {
                Ok(()) => {
                    self.consumer.metrics.consumer_batch_seconds.observe(started.elapsed().as_secs_f64());
                    return Outcome::Written;
                }
                Err(LedgerError::Fenced(partition)) => {
                    tracing::info!(partition, "another consumer moved this partition");
                    return Outcome::Reset;
                }
                Err(LedgerError::Guard(reason)) => return Outcome::Guard(reason),
                Err(error @ (LedgerError::Retry(_) | LedgerError::Down(_) | LedgerError::Schema(_))) => error,
            };
            tracing::warn!(%error, retry_in_ms = back_off.as_millis(), "batch not written: trying again");
            tokio::select! {
                () = self.cancel.cancelled() => return Outcome::Cancelled,
                () = tokio::time::sleep(back_off) => {}
            }
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    async fn try_write(&mut self, runs: &[Run]) -> Result<(), LedgerError> {
        let decided = Arc::new(self.decide(runs, None).await?);
        let committed = put(Arc::clone(&self.consumer), self.index, Arc::clone(&decided)).await?;
        Written { decided, committed }.tell(&self.consumer).await;
        Ok(())
    }

    /// Decides runs on the ledger's state, or on what that will be once the batch `after` is written, and takes the permits for their rows.
    async fn decide(&mut self, runs: &[Run], after: Option<&Batch>) -> Result<Decided, LedgerError> {
        if runs.is_empty() {
            return Ok(Decided { batch: Batch::default(), traces: Vec::new() });
        }
        let mut wanted = HashMap::new();
        for run in runs {
            self.known.goes_on(run.partition, run.from);
        }
        for run in runs {
            run.wants(&self.known, &mut wanted);
        }
        let mut loaded = Loaded::default();
        // All known: the offsets say at the commit whether it is still so.
        if !wanted.is_empty() {
            let partitions: Vec<_> = runs.iter().map(|run| run.partition).collect();
            kill_point("consumer.load.before");
            loaded = self.consumer.ledger.load(&partitions, &wanted).await?;
            if let Some(batch) = after {
                overlay(&mut loaded, batch);
            }
            check_positions(runs, &loaded)?;
        }
        let (batch, traces) = fold(runs, &mut loaded, &mut self.known);
        kill_point("consumer.fold.after");
        let oldest_at = runs.iter().map(|run| run.oldest_at).min().unwrap_or(0);
        self.take_permits(batch.issued.len(), oldest_at).await;
        Ok(Decided { batch, traces })
    }

    async fn take_permits(&self, rows: usize, oldest_at: EpochMillis) {
        let mut missing = u32::try_from(rows).unwrap_or(u32::MAX);
        let started = Instant::now();
        while missing > 0 && !self.cancel.is_cancelled() {
            let waiting = Duration::from_millis(u64::try_from(now_millis() - oldest_at).unwrap_or(0));
            let grant = self.consumer.limiter.take(Ask { wanted: missing, worker: self.index, waiting }).await;
            missing -= grant.permits.min(missing);
            if missing > 0 {
                tokio::select! {
                    () = self.cancel.cancelled() => {}
                    () = tokio::time::sleep(grant.wait.clamp(Duration::from_millis(1), Duration::from_secs(1))) => {}
                }
            }
        }
        self.consumer.metrics.limiter_wait_seconds_total.inc_by(started.elapsed().as_secs_f64());
    }
}

/// State read at another offset than the runs start from is not theirs.
fn check_positions(runs: &[Run], loaded: &Loaded) -> Result<(), LedgerError> {
    for run in runs {
        if loaded.positions.get(&run.partition).is_none_or(|position| position.next != run.from) {
            return Err(LedgerError::Fenced(run.partition));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Position;

    /// The compare-and-set would not refuse it where somebody moves the offset up to the run's start in between.
    #[test]
    fn nothing_is_decided_on_the_state_of_another_offset() {
        let record = RawRecord { offset: 5, key: "key".into(), value: "value".into(), at: 0 };
        let run = Run::read(0, 1, vec![record]).unwrap();
        let at = |next| Loaded { positions: HashMap::from([(0, Position { partition: 0, next, fingerprint: 0 })]), ..Loaded::default() };
        assert!(check_positions(std::slice::from_ref(&run), &at(5)).is_ok());
        for loaded in [at(4), at(6), Loaded::default()] {
            assert!(matches!(check_positions(std::slice::from_ref(&run), &loaded), Err(LedgerError::Fenced(0))));
        }
    }
}
