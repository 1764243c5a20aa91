//! The way into one partition: a bounded queue and workers that batch by taking what waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rskafka::chrono::{DateTime, Utc};
use rskafka::client::partition::{Compression, PartitionClient};
use rskafka::record::Record;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::JournalError;
use super::cluster::{Cluster, timed};
use super::lock;
use crate::domain::now_millis;
use crate::kill_point::kill_point;

/// Appends that may wait in one partition.
const QUEUE: usize = 65_536;
/// Connections of one partition, each with one request in flight.
const MAX_WORKERS: usize = 16;
/// A larger request is written in two parts, and the second waits 40 ms for the delayed acknowledgement of the first.
const REQUEST_BYTES: usize = 8_000;
/// Upper bound of a request's bytes besides records, client id and topic.
const REQUEST_OVERHEAD: usize = 128;
/// Upper bound of a record's bytes besides key and value: lengths, attributes, deltas, header count.
const RECORD_OVERHEAD: usize = 16;
/// How long what waits behind a request in flight waits for its answer before it goes by another connection.
const STALL: Duration = Duration::from_millis(50);
/// A worker besides the last ends after so long without work.
const IDLE: Duration = Duration::from_secs(30);

struct Item {
    key: Vec<u8>,
    value: Vec<u8>,
    queued: Instant,
    done: oneshot::Sender<Result<(), JournalError>>,
}

impl Item {
    fn bytes(&self) -> usize {
        RECORD_OVERHEAD + self.key.len() + self.value.len()
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Item>,
    /// Encoded bytes of the queue, by our own count.
    bytes: usize,
    workers: usize,
    /// Workers that wait for work.
    idle: usize,
    /// Workers that have not had a connection yet: one at a time.
    starting: usize,
    /// Requests without an answer yet.
    flying: usize,
    closed: bool,
}

impl State {
    /// Whether what waits may go. Less than a full request waits for the one in flight, so that a busy lane makes few large requests
    /// and an idle one sends at once.
    fn may_fly(&self, budget: usize) -> bool {
        self.flying == 0 || self.bytes >= budget || self.queue.front().is_some_and(|item| item.queued.elapsed() >= STALL)
    }

    /// Whether another worker is wanted; counts it if so.
    fn grow(&mut self, budget: usize) -> bool {
        let first = self.workers == 0 && !self.queue.is_empty();
        let more = self.bytes >= budget && self.idle == 0 && self.starting == 0 && self.workers < MAX_WORKERS;
        if first || more {
            self.workers += 1;
            self.starting += 1;
        }
        first || more
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.bytes -= item.bytes();
        Some(item)
    }
}

pub struct Lane {
    cluster: Arc<Cluster>,
    topic: Arc<str>,
    partition: i32,
    append_timeout: Duration,
    /// Encoded bytes of the records of one request.
    budget: usize,
    state: Mutex<State>,
    wake: Notify,
    tasks: TaskTracker,
    /// Where the workers run: on the runtime of the HTTP worker that appended first they would end with it.
    runtime: Handle,
    stop: CancellationToken,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("partition", &self.partition).finish_non_exhaustive()
    }
}

/// A worker's place in the count, given back also when it panics.
struct Seat {
    lane: Arc<Lane>,
    starting: bool,
    flying: bool,
    released: bool,
}

impl Seat {
    fn started(&mut self, state: &mut State) {
        if std::mem::take(&mut self.starting) {
            state.starting -= 1;
        }
    }

    fn landed(&mut self, state: &mut State) {
        if std::mem::take(&mut self.flying) {
            state.flying -= 1;
        }
    }

    fn release(&mut self, state: &mut State) {
        self.started(state);
        self.landed(state);
        state.workers -= 1;
        self.released = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.released {
            let lane = Arc::clone(&self.lane);
            self.release(&mut lock(&lane.state));
            lane.wake.notify_one();
        }
    }
}

impl Lane {
    pub fn new(
        cluster: Arc<Cluster>,
        topic: Arc<str>,
        partition: i32,
        client_id: &str,
        append_timeout: Duration,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let budget = REQUEST_BYTES.saturating_sub(REQUEST_OVERHEAD + client_id.len() + topic.len());
        Arc::new(Self {
            cluster,
            topic,
            partition,
            append_timeout,
            budget,
            state: Mutex::default(),
            wake: Notify::new(),
            tasks,
            runtime: Handle::current(),
            stop,
        })
    }

    /// Queues one record; the answer comes when its batch is acknowledged or failed.
    pub fn push(self: &Arc<Self>, key: Vec<u8>, value: Vec<u8>) -> Result<oneshot::Receiver<Result<(), JournalError>>, JournalError> {
        let (done, answer) = oneshot::channel();
        let item = Item { key, value, queued: Instant::now(), done };
        let (grow, wake) = {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(JournalError::Closed);
            }
            if state.queue.len() >= QUEUE {
                return Err(JournalError::Overloaded);
            }
            state.bytes += item.bytes();
            state.queue.push_back(item);
            // The first to wait behind a request in flight wakes a worker to see whether that one stalls.
            (state.grow(self.budget), state.queue.len() == 1 || state.may_fly(self.budget))
        };
        if grow {
            self.spawn();
        } else if wake {
            self.wake.notify_one();
        }
        Ok(answer)
    }

    /// Makes the first connection before the first record needs it.
    pub fn warm(self: &Arc<Self>) {
        {
            let mut state = lock(&self.state);
            if state.closed || state.workers > 0 {
                return;
            }
            state.workers += 1;
            state.starting += 1;
        }
        self.spawn();
    }

    /// Whether no worker is without its first connection.
    pub fn is_warm(&self) -> bool {
        lock(&self.state).starting == 0
    }

    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_waiters();
        // For a worker between its look at the queue and its wait.
        self.wake.notify_one();
    }

    fn spawn(self: &Arc<Self>) {
        let seat = Seat { lane: Arc::clone(self), starting: true, flying: false, released: false };
        let stop = self.stop.clone();
        let working = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work(seat) => {}
            }
        };
        self.tasks.spawn_on(working, &self.runtime);
    }

    /// The next batch; None when this worker is to end (its seat is then released).
    async fn next(self: &Arc<Self>, seat: &mut Seat) -> Option<Vec<Item>> {
        loop {
            let (batch, grow, left, patience) = {
                let mut state = lock(&self.state);
                seat.started(&mut state);
                let batch = self.take(&mut state);
                if !batch.is_empty() {
                    state.flying += 1;
                    seat.flying = true;
                }
                let grow = state.grow(self.budget);
                if batch.is_empty() {
                    if state.closed && state.queue.is_empty() {
                        seat.release(&mut state);
                        // One wake-up may have to go round all workers.
                        self.wake.notify_one();
                        return None;
                    }
                    state.idle += 1;
                }
                let left = !state.queue.is_empty() && state.idle > 0 && state.may_fly(self.budget);
                (batch, grow, left, if state.queue.is_empty() { IDLE } else { STALL })
            };
            if grow {
                self.spawn();
            } else if left {
                self.wake.notify_one();
            }
            if !batch.is_empty() {
                return Some(batch);
            }
            let woken = tokio::time::timeout(patience, self.wake.notified()).await;
            let mut state = lock(&self.state);
            state.idle -= 1;
            if woken.is_err() && patience == IDLE && state.queue.is_empty() && state.workers > 1 {
                seat.release(&mut state);
                return None;
            }
        }
    }

    /// Takes what waits and may go, up to one request's bytes (always one record); answers those whose deadline is over.
    fn take(&self, state: &mut State) -> Vec<Item> {
        let go = state.may_fly(self.budget);
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.queue.front() {
            let size = next.bytes();
            let expired = next.queued.elapsed() >= self.append_timeout;
            if !expired && (!go || (!batch.is_empty() && bytes + size > self.budget)) {
                break;
            }
            let Some(item) = state.pop() else { break };
            if expired {
                let _ignored = item.done.send(Err(JournalError::Unknown("waited too long for a connection".into())));
            } else {
                bytes += size;
                batch.push(item);
            }
        }
        batch
    }

    /// Answers all whose deadline is over; true when nothing more will come.
    fn expire(&self, error: &JournalError) -> bool {
        let mut state = lock(&self.state);
        while state.queue.front().is_some_and(|item| item.queued.elapsed() >= self.append_timeout) {
            if let Some(item) = state.pop() {
                let _ignored = item.done.send(Err(error.clone()));
            }
        }
        state.closed && state.queue.is_empty()
    }
}

/// An outage fails every batch of every worker: the first few, then ever fewer, are logged.
fn worth_a_line(failures: u32) -> bool {
    failures.is_power_of_two()
}

async fn work(mut seat: Seat) {
    let lane = Arc::clone(&seat.lane);
    let mut link: Option<PartitionClient> = None;
    let mut failures: u32 = 0;
    loop {
        if link.is_none() && failures > 0 {
            tokio::time::sleep(Duration::from_millis(20) * failures.min(50)).await;
        }
        let connected = match link.take() {
            Some(link) => link,
            None => match lane.cluster.partition(&lane.topic, lane.partition, failures).await {
                Ok(link) => link,
                Err(error) => {
                    failures += 1;
                    if worth_a_line(failures) {
                        tracing::warn!(%error, partition = lane.partition, failures, "no connection to append on");
                    }
                    if lane.expire(&error) {
                        return;
                    }
                    continue;
                }
            },
        };
        let Some(batch) = lane.next(&mut seat).await else { return };
        let at = DateTime::<Utc>::from_timestamp_millis(now_millis()).unwrap_or_default();
        let (records, waiting): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|item| (Record { key: Some(item.key), value: Some(item.value), headers: BTreeMap::new(), timestamp: at }, item.done))
            .unzip();
        kill_point("journal.append.before");
        let outcome = timed("append", lane.append_timeout, connected.produce(records, Compression::NoCompression)).await;
        kill_point("journal.append.after");
        seat.landed(&mut lock(&lane.state));
        match &outcome {
            Ok(_) => {
                failures = 0;
                link = Some(connected);
            }
            Err(error) => {
                failures += 1;
                if worth_a_line(failures) {
                    tracing::warn!(%error, partition = lane.partition, records = waiting.len(), failures, "append failed; it may have landed");
                }
                // What waits need not wait for this worker's new connection.
                lane.wake.notify_one();
            }
        }
        for done in waiting {
            let _ignored = done.send(outcome.as_ref().map(|_| ()).map_err(Clone::clone));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(queued: Instant) -> Item {
        Item { key: Vec::new(), value: vec![0; 84], queued, done: oneshot::channel().0 }
    }

    #[test]
    fn a_part_of_a_batch_waits_for_the_request_in_flight_unless_that_stalls() {
        let mut state = State { bytes: 100, ..State::default() };
        state.queue.push_back(item(Instant::now()));
        assert!(state.may_fly(1_000), "nothing is in flight");
        state.flying = 1;
        assert!(!state.may_fly(1_000));
        state.bytes = 1_000;
        assert!(state.may_fly(1_000), "a full one goes by another connection");
        state.bytes = 100;
        state.queue.clear();
        state.queue.push_back(item(Instant::now().checked_sub(STALL).unwrap()));
        assert!(state.may_fly(1_000), "it waited long enough");
    }

    #[test]
    fn a_worker_is_added_only_while_full_batches_wait() {
        let mut state = State { bytes: 100, ..State::default() };
        state.queue.push_back(item(Instant::now()));
        assert!(state.grow(1_000), "the first, for one record");
        state.starting = 0;
        assert!(!state.grow(1_000), "nothing full waits");
        state.bytes = 1_000;
        assert!(state.grow(1_000));
        assert!(!state.grow(1_000), "one starts at a time");
        state.starting = 0;
        state.idle = 1;
        assert!(!state.grow(1_000), "one is idle");
        state.idle = 0;
        state.workers = MAX_WORKERS;
        assert!(!state.grow(1_000));
    }
}
