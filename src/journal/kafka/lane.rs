//! The ways in: a bounded queue to each broker, and workers that batch by taking what waits for any of its partitions.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::super::JournalError;
use super::cluster::{Broker, Cluster, NOBODY, timed};
use super::produce::{self, Done, Item, Waiting};
use super::seat::{Desk, Seat, Staff};
use super::wire::Wire;
use super::{lock, records, worth_a_line};
use crate::domain::Partition;
use crate::kill_point::kill_point;

/// Appends that may wait in a process.
const QUEUE: usize = 65_536;
/// Connections to one broker, each with one request in flight.
const MAX_WORKERS: usize = 16;
/// Bytes of the records of one request. A broker takes a megabyte for one partition.
const BUDGET: usize = 64 * 1024;
/// How soon after one request the next goes that is not full. What a request costs the broker, the followers and everybody it wakes is shared
/// by the records in it: a broker that is asked without a pause answers fewer records a second.
const PAUSE: Duration = Duration::from_millis(4);
/// And for each partition in it: a broker writes and serves every partition of a request apart.
const PAUSE_EACH: Duration = Duration::from_micros(50);
/// How long what waits behind a request in flight waits for its answer before it goes by another connection.
const STALL: Duration = Duration::from_millis(50);
/// A worker besides the last ends after so long without work.
const IDLE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct State {
    queue: VecDeque<Item>,
    /// Encoded bytes of the queue, by our own count.
    bytes: usize,
    staff: Staff,
    /// Workers that wait for work.
    idle: usize,
    /// Until when nothing goes that is not full.
    rests_until: Option<Instant>,
}

impl AsMut<Staff> for State {
    fn as_mut(&mut self) -> &mut Staff {
        &mut self.staff
    }
}

impl State {
    /// Whether what waits may go. Less than a full request waits for the one in flight and for the rest after it, so that a busy lane makes few large
    /// requests and an idle one sends at once.
    fn may_fly(&self) -> bool {
        (self.staff.flying == 0 && self.pause().is_zero())
            || self.bytes >= BUDGET
            || self.queue.front().is_some_and(|item| item.queued.elapsed() >= STALL)
    }

    /// What is left of the rest after the last request.
    fn pause(&self) -> Duration {
        self.rests_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// How long a worker without work sleeps, unless it is woken.
    fn patience(&self) -> Duration {
        match (self.queue.is_empty(), self.staff.flying) {
            (true, _) => IDLE,
            (false, 0) => self.pause(),
            (false, _) => STALL,
        }
    }

    /// Whether another worker is wanted, one at a time; hires it if so.
    fn grow(&mut self) -> bool {
        let Staff { workers, starting, .. } = self.staff;
        let first = workers == 0 && !self.queue.is_empty();
        let stalled = self.queue.front().is_some_and(|item| item.queued.elapsed() >= STALL);
        let more = (self.bytes >= BUDGET || stalled) && self.idle == 0 && starting == 0 && workers < MAX_WORKERS;
        if first || more {
            self.staff.hire();
        }
        first || more
    }

    fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.queue.push_back(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.bytes -= item.bytes();
        Some(item)
    }
}

/// All lanes of a process.
pub struct Lanes {
    cluster: Arc<Cluster>,
    by_broker: Mutex<HashMap<Broker, Arc<Lane>>>,
    /// Items in all queues.
    waiting: AtomicUsize,
    stop: CancellationToken,
    this: Weak<Self>,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Lanes {
    /// The workers end with `stop`.
    pub fn new(cluster: Arc<Cluster>, stop: CancellationToken) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { cluster, by_broker: Mutex::default(), waiting: AtomicUsize::new(0), stop, this: Weak::clone(this) })
    }

    /// Queues one record; the answer comes when its batch is acknowledged or failed.
    pub fn push(
        &self,
        partition: Partition,
        record: records::KeyValue,
    ) -> Result<oneshot::Receiver<Result<(), JournalError>>, JournalError> {
        let (done, answer) = oneshot::channel();
        self.put(partition, record, Some(done)).map(|()| answer)
    }

    /// Queues one record; nobody waits for an answer.
    pub fn send(&self, partition: Partition, record: records::KeyValue) -> Result<(), JournalError> {
        self.put(partition, record, None)
    }

    fn put(&self, partition: Partition, record: records::KeyValue, done: Option<Done>) -> Result<(), JournalError> {
        if self.waiting.load(Ordering::Relaxed) >= QUEUE {
            self.all().iter().for_each(|lane| lane.expire());
            if self.waiting.load(Ordering::Relaxed) >= QUEUE {
                return Err(JournalError::Overloaded);
            }
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue(Item { partition, record, queued: Instant::now(), done });
        Ok(())
    }

    /// Once more, to whoever leads the partition now.
    pub fn again(&self, item: Item) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue(item);
    }

    /// Puts a counted item on the way to its partition's leader.
    fn queue(&self, mut item: Item) {
        while let Err(refused) = self.lane(self.cluster.leaders().of(item.partition)).offer(item, &self.cluster) {
            item = refused;
        }
    }

    /// See [`Cluster::doubt`].
    pub fn doubt(&self) {
        self.cluster.doubt();
    }

    /// Takes the seconds from queueing to acknowledgement of these.
    pub fn observe(&self, waiting: &[Waiting]) {
        if let Some(histogram) = &self.cluster.options().append_seconds {
            let now = Instant::now();
            waiting.iter().for_each(|(queued, _)| histogram.observe(now.saturating_duration_since(*queued).as_secs_f64()));
        }
    }

    fn lane(&self, broker: Broker) -> Arc<Lane> {
        let make = || Arc::new(Lane { lanes: Weak::clone(&self.this), broker, state: Mutex::default(), wake: Notify::new() });
        Arc::clone(lock(&self.by_broker).entry(broker).or_insert_with(make))
    }

    fn all(&self) -> Vec<Arc<Lane>> {
        lock(&self.by_broker).values().cloned().collect()
    }

    /// Takes what waits for a broker that does not lead its partition (any more) to the one that does.
    pub fn reroute(&self) {
        let leaders = self.cluster.leaders();
        for lane in self.all() {
            let strays: VecDeque<Item> = {
                let mut state = lane.state();
                let (stays, strays) =
                    std::mem::take(&mut state.queue).into_iter().partition(|item| leaders.of(item.partition) == lane.broker);
                state.queue = stays;
                state.bytes = state.queue.iter().map(Item::bytes).sum();
                strays
            };
            for item in strays {
                self.queue(item);
            }
        }
    }

    /// Makes the first connection to every leader before the first record needs it.
    pub fn warm(&self) {
        let mut brokers: Vec<Broker> = self.cluster.leaders().partitions.iter().map(|leader| leader.0).collect();
        brokers.sort_unstable();
        brokers.dedup();
        for lane in brokers.into_iter().filter(|broker| *broker != NOBODY).map(|broker| self.lane(broker)) {
            {
                let mut state = lane.state();
                if state.staff.workers > 0 {
                    continue;
                }
                state.staff.hire();
            }
            lane.spawn();
        }
    }

    /// Whether no worker is without its first connection.
    pub fn are_warm(&self) -> bool {
        self.all().iter().all(|lane| lane.state().staff.starting == 0)
    }

    #[cfg(test)]
    pub fn workers(&self) -> usize {
        self.all().iter().map(|lane| lane.state().staff.workers).sum()
    }

    #[cfg(test)]
    pub fn queued(&self, broker: Broker) -> usize {
        self.lane(broker).state().queue.len()
    }
}

/// The way to one broker.
struct Lane {
    lanes: Weak<Lanes>,
    broker: Broker,
    state: Mutex<State>,
    wake: Notify,
}

impl Desk for Lane {
    type State = State;

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn attend(self: &Arc<Self>) {
        let grow = self.broker != NOBODY && self.state().grow();
        if grow {
            self.spawn();
        } else {
            self.wake.notify_one();
        }
    }
}

impl Lane {
    /// Takes an item, or gives it back when this broker does not lead its partition (any more).
    fn offer(self: &Arc<Self>, item: Item, cluster: &Cluster) -> Result<(), Item> {
        let worth_a_look = {
            let mut state = self.state();
            // Under the lock: after a change of leaders somebody goes through the queue, and must find what came before.
            if cluster.leaders().of(item.partition) != self.broker {
                return Err(item);
            }
            state.push(item);
            // The first to wait behind a request in flight has a worker see whether that one stalls.
            state.queue.len() == 1 || state.may_fly()
        };
        if worth_a_look {
            self.attend();
        }
        Ok(())
    }

    fn spawn(self: &Arc<Self>) {
        let seat = Seat::new(Arc::clone(self));
        let Some(lanes) = self.lanes.upgrade() else { return };
        let runtime = lanes.cluster.runtime().clone();
        let stop = lanes.stop.clone();
        let working = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work(lanes, seat) => {}
            }
        };
        runtime.spawn(working);
    }

    /// The next batch; None when this worker is to end (its seat is then released).
    async fn next(self: &Arc<Self>, lanes: &Lanes, seat: &mut Seat<Self>) -> Option<Vec<Item>> {
        loop {
            let (batch, grow, left, patience) = {
                let mut state = self.state();
                seat.has_started(&mut state);
                let batch = take(&mut state, lanes);
                if !batch.is_empty() {
                    seat.took_off(&mut state);
                }
                let grow = state.grow();
                if batch.is_empty() {
                    state.idle += 1;
                }
                let left = !state.queue.is_empty() && state.idle > 0 && state.may_fly();
                (batch, grow, left, state.patience())
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
            let mut state = self.state();
            state.idle -= 1;
            if woken.is_err() && patience == IDLE && state.queue.is_empty() && state.staff.workers > 1 {
                seat.release(&mut state);
                return None;
            }
        }
    }

    /// Forgets those whose callers have given up.
    fn expire(&self) {
        let Some(lanes) = self.lanes.upgrade() else { return };
        let limit = lanes.cluster.options().append_timeout;
        let mut state = self.state();
        while state.queue.front().is_some_and(|item| item.queued.elapsed() >= limit) {
            let _expired = state.pop();
            lanes.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Takes what waits and may go, up to one request's bytes (always one record); drops those whose callers have given up.
fn take(state: &mut State, lanes: &Lanes) -> Vec<Item> {
    let go = state.may_fly();
    let mut batch = Vec::new();
    let mut bytes = 0;
    while let Some(next) = state.queue.front() {
        let size = next.bytes();
        let expired = next.queued.elapsed() >= lanes.cluster.options().append_timeout;
        if !expired && (!go || (!batch.is_empty() && bytes + size > BUDGET)) {
            break;
        }
        let Some(item) = state.pop() else { break };
        lanes.waiting.fetch_sub(1, Ordering::Relaxed);
        if !expired {
            bytes += size;
            batch.push(item);
        }
    }
    batch
}

/// How long the next request that is not full waits after one of so many partitions.
fn rest_after(partitions: usize) -> Duration {
    PAUSE + PAUSE_EACH * u32::try_from(partitions).unwrap_or(0)
}

async fn work(lanes: Arc<Lanes>, mut seat: Seat<Lane>) {
    let lane = Arc::clone(&seat.desk);
    let cluster = &lanes.cluster;
    let limit = cluster.options().append_timeout;
    let mut link: Option<Wire> = None;
    // An outage fails every batch of every worker: the first few, then ever fewer, are logged.
    let mut failures: u32 = 0;
    loop {
        if failures > 0 {
            tokio::time::sleep(Duration::from_millis(20) * failures.min(50)).await;
        }
        let mut connected = match link.take() {
            Some(link) => link,
            None => match cluster.connect(lane.broker).await {
                Ok(link) => link,
                Err(error) => {
                    failures += 1;
                    if worth_a_line(failures) {
                        tracing::warn!(%error, broker = lane.broker, failures, "no connection to append on");
                    }
                    cluster.doubt();
                    lane.expire();
                    let mut state = lane.state();
                    if state.queue.is_empty() {
                        seat.release(&mut state);
                        return;
                    }
                    continue;
                }
            },
        };
        let Some(batch) = lane.next(&lanes, &mut seat).await else { return };
        kill_point("journal.append.before");
        let outcome = match produce::encode(batch, &cluster.options().topic, limit) {
            Ok((request, parts)) => {
                lane.state().rests_until = Some(Instant::now() + rest_after(parts.len()));
                let there = match connected.is_gone() {
                    true => cluster.connect(lane.broker).await.map(|link| connected = link),
                    false => Ok(()),
                };
                let answer = match there {
                    Ok(()) => timed("append", limit, connected.call(&request, produce::VERSION)).await,
                    Err(error) => Err(error),
                };
                kill_point("journal.append.after");
                seat.landed(&mut lane.state());
                if answer.is_ok() {
                    link = Some(connected);
                }
                produce::settle(&lanes, answer, parts)
            }
            Err(error) => {
                seat.landed(&mut lane.state());
                link = Some(connected);
                Err(error)
            }
        };
        match outcome {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                if worth_a_line(failures) {
                    tracing::warn!(%error, broker = lane.broker, failures, "append failed; it may have landed");
                }
                cluster.doubt();
                // What waits need not wait for this worker's new connection.
                lane.wake.notify_one();
            }
        }
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
