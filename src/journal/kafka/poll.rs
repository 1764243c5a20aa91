//! The ways out: fetches of many partitions share one long poll to their leader.
//!
//! A process reads every partition all the time. One request for each would cost both sides most of what reading costs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tokio::sync::{Notify, oneshot};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::super::JournalError;
use super::cluster::{Broker, Cluster, Leaders, timed};
use super::seat::{Desk, Seat, Staff};
use super::wire::{Request, Wire, topic_name};
use super::{is_of_the_past, lock, unknown, worth_a_line};
use crate::domain::{Offset, Partition};

/// Connections to one broker, each with one request in flight: a partition asked for while a poll is on its way goes by another.
const MAX_WORKERS: usize = 4;
/// How long a poll waits for a first record.
const POLL: Duration = Duration::from_millis(150);
/// How long it waits when others are on their way already. So one connection at most is taken for long, and a partition asked for again
/// is not kept waiting for a free one.
const BESIDE_OTHERS: Duration = Duration::from_millis(10);
/// How long a poll waits for those to ask again whom the one before answered.
const GATHER: Duration = Duration::from_millis(1);
/// An answer that would be due so soon is given now.
const SOON: Duration = Duration::from_millis(5);
/// A worker besides the last ends after so long without work.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of one answer, about: a partition that finds no room in it waits for the next.
const ANSWER_BYTES: i32 = 4 << 20;
/// From 11 on a replica that does not lead answers too, with a high watermark that may lag: an empty answer would not mean caught up.
const VERSION: i16 = 10;

impl Request for FetchRequest {
    const KEY: i16 = 1;
    type Response = FetchResponse;
}

/// What a broker has from an offset on.
#[derive(Debug)]
pub struct Answer {
    /// Batches as they lie in the log; the first may begin before the offset.
    pub batches: Bytes,
    pub high_watermark: Offset,
    /// When the request left.
    pub sent_at: Instant,
}

type Done = oneshot::Sender<Result<Answer, JournalError>>;

struct Ask {
    partition: Partition,
    from: Offset,
    max_bytes: i32,
    until: Instant,
    done: Done,
}

#[derive(Default)]
struct State {
    asks: VecDeque<Ask>,
    staff: Staff,
}

impl AsMut<Staff> for State {
    fn as_mut(&mut self) -> &mut Staff {
        &mut self.staff
    }
}

impl State {
    /// Whether another worker is wanted; hires it if so.
    fn grow(&mut self) -> bool {
        let Staff { workers, flying, .. } = self.staff;
        let more = !self.asks.is_empty() && workers == flying && workers < MAX_WORKERS;
        if more {
            self.staff.hire();
        }
        more
    }

    /// What one request can ask for: a partition once.
    fn take(&mut self) -> Vec<Ask> {
        let mut seen = HashSet::new();
        let (now, later) = std::mem::take(&mut self.asks)
            .into_iter()
            .filter(|ask| !ask.done.is_closed())
            .partition::<Vec<_>, _>(|ask| seen.insert(ask.partition));
        self.asks = later.into();
        now
    }
}

/// The polls of a process.
pub struct Polls {
    cluster: Arc<Cluster>,
    by_broker: Mutex<HashMap<Broker, Arc<Poll>>>,
    stop: CancellationToken,
    this: Weak<Self>,
}

impl std::fmt::Debug for Polls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Polls").finish_non_exhaustive()
    }
}

impl Polls {
    /// The workers end with `stop`.
    pub fn new(cluster: Arc<Cluster>, stop: CancellationToken) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { cluster, by_broker: Mutex::default(), stop, this: Weak::clone(this) })
    }

    /// Asks for what lies in a partition from an offset on. The answer comes when there is anything, or up to [`POLL`] after `wait`.
    pub fn ask(
        &self,
        partition: Partition,
        from: Offset,
        max_bytes: i32,
        wait: Duration,
    ) -> oneshot::Receiver<Result<Answer, JournalError>> {
        let (done, answer) = oneshot::channel();
        let broker = self.cluster.leaders().of(partition);
        let make = || Arc::new(Poll { polls: Weak::clone(&self.this), broker, state: Mutex::default(), wake: Notify::new() });
        let poll = Arc::clone(lock(&self.by_broker).entry(broker).or_insert_with(make));
        poll.state().asks.push_back(Ask { partition, from, max_bytes, until: Instant::now() + wait, done });
        poll.attend();
        answer
    }
}

/// The polls to one broker.
struct Poll {
    polls: Weak<Polls>,
    broker: Broker,
    state: Mutex<State>,
    wake: Notify,
}

impl Desk for Poll {
    type State = State;

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn attend(self: &Arc<Self>) {
        let grow = self.state().grow();
        if grow {
            self.spawn();
        } else {
            self.wake.notify_one();
        }
    }
}

impl Poll {
    fn spawn(self: &Arc<Self>) {
        let Some(polls) = self.polls.upgrade() else { return };
        let seat = Seat::new(Arc::clone(self));
        let (cluster, stop) = (Arc::clone(&polls.cluster), polls.stop.clone());
        polls.cluster.runtime().spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work(cluster, seat) => {}
            }
        });
    }

    /// What to ask for next and how long the broker may take, once those who were answered had time to ask again. None: this worker ends.
    async fn next(self: &Arc<Self>, seat: &mut Seat<Self>, last: Last) -> Option<(Vec<Ask>, Duration)> {
        let (expected, gather) = {
            let state = self.state();
            match last {
                // Quiet partitions are not to be spread over many polls: the next to come back takes these along.
                Last::Nothing if state.staff.flying > 0 => (state.asks.len() + 1, BESIDE_OTHERS),
                Last::Nothing => (0, GATHER),
                Last::Answered(asks) => (asks, GATHER),
            }
        };
        let gathered = Instant::now() + gather;
        loop {
            let patience = {
                let mut state = self.state();
                let now = Instant::now();
                if !state.asks.is_empty() && (state.asks.len() >= expected || now >= gathered) {
                    let group = state.take();
                    if !group.is_empty() {
                        let longest = if state.staff.flying == 0 { POLL } else { BESIDE_OTHERS };
                        seat.took_off(&mut state);
                        let grow = state.grow();
                        drop(state);
                        if grow {
                            self.spawn();
                        }
                        return Some((group, longest));
                    }
                }
                if state.asks.is_empty() { IDLE } else { gathered.saturating_duration_since(now) }
            };
            let woken = tokio::time::timeout(patience, self.wake.notified()).await;
            if woken.is_err() && patience == IDLE {
                let mut state = self.state();
                if state.asks.is_empty() {
                    seat.release(&mut state);
                    return None;
                }
            }
        }
    }
}

/// What became of a worker's last poll.
#[derive(Clone, Copy)]
enum Last {
    /// There was no record, or no poll.
    Nothing,
    /// So many were asked for, and some of them have their answer and will ask again.
    Answered(usize),
}

async fn work(cluster: Arc<Cluster>, mut seat: Seat<Poll>) {
    let poll = Arc::clone(&seat.desk);
    let mut link: Option<Wire> = None;
    let mut failures: u32 = 0;
    let mut last = Last::Nothing;
    let mut leaders = cluster.watch();
    loop {
        let Some((group, longest)) = poll.next(&mut seat, last).await else { return };
        let mut sent_at = Instant::now();
        let lost = |leaders: &Arc<Leaders>| group.iter().any(|ask| leaders.of(ask.partition) != poll.broker);
        let exchange = async {
            let mut wire = match link.take() {
                Some(wire) => wire,
                None => cluster.connect(poll.broker).await?,
            };
            sent_at = Instant::now();
            let patience = |ask: &Ask| ask.until.saturating_duration_since(sent_at);
            // Who wants to know at once makes the others look at once.
            let wait = match group.iter().any(|ask| patience(ask).is_zero()) {
                true => Duration::ZERO,
                false => group.iter().map(patience).max().unwrap_or_default().min(longest),
            };
            let request = request(&group, &cluster.options().topic, wait);
            let answer = timed("fetch", wait + cluster.options().call_timeout, wire.call(&request, VERSION)).await?;
            link = Some(wire);
            Ok::<_, JournalError>(answer)
        };
        let outcome = tokio::select! {
            outcome = exchange => Some(outcome),
            // A broker that went silent must not keep anybody from the new leader.
            _ = leaders.wait_for(lost) => None,
        };
        seat.landed(&mut poll.state());
        match outcome {
            Some(Ok(answer)) => {
                failures = 0;
                let asked = group.len();
                let waiting = deliver(&cluster, group, answer, sent_at);
                last = if waiting.len() == asked { Last::Nothing } else { Last::Answered(asked) };
                let mut state = poll.state();
                for ask in waiting.into_iter().rev() {
                    state.asks.push_front(ask);
                }
            }
            None => {
                let known = cluster.leaders();
                for ask in group.into_iter().rev() {
                    if known.of(ask.partition) == poll.broker {
                        poll.state().asks.push_front(ask);
                    } else {
                        let moved = unknown("fetch", &"the partition has another leader");
                        let _gone = ask.done.send(Err(moved));
                    }
                }
                last = Last::Nothing;
            }
            Some(Err(error)) => {
                failures += 1;
                if worth_a_line(failures) {
                    tracing::debug!(%error, broker = poll.broker, failures, "poll failed");
                }
                cluster.doubt();
                for ask in group {
                    let _gone = ask.done.send(Err(error.clone()));
                }
                last = Last::Nothing;
            }
        }
    }
}

fn request(group: &[Ask], topic: &str, wait: Duration) -> FetchRequest {
    let partition = |ask: &Ask| {
        FetchPartition::default().with_partition(ask.partition).with_fetch_offset(ask.from).with_partition_max_bytes(ask.max_bytes)
    };
    FetchRequest::default()
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_max_bytes(ANSWER_BYTES)
        .with_topics(vec![FetchTopic::default().with_topic(topic_name(topic)).with_partitions(group.iter().map(partition).collect())])
}

/// Answers who has one; returns those who wait on.
fn deliver(cluster: &Cluster, group: Vec<Ask>, answer: FetchResponse, sent_at: Instant) -> Vec<Ask> {
    let whole = ResponseError::try_from_code(answer.error_code);
    let told = answer.responses.into_iter().flat_map(|topic| topic.partitions);
    let mut told: HashMap<Partition, PartitionData> = told.map(|data| (data.partition_index, data)).collect();
    let due = Instant::now() + SOON;
    let (mut starved, mut kept) = (Vec::new(), Vec::new());
    for ask in group {
        let outcome = match (whole, told.remove(&ask.partition)) {
            (Some(error), _) => Err(unknown("fetch", &error)),
            (None, None) => Err(unknown("fetch", &"the broker did not speak of the partition")),
            (None, Some(data)) => match ResponseError::try_from_code(data.error_code) {
                Some(ResponseError::OffsetOutOfRange) => {
                    Err(JournalError::OffsetOutOfRange { partition: ask.partition, asked: ask.from, bounds: None })
                }
                Some(error) => {
                    if is_of_the_past(error) {
                        cluster.doubt();
                    }
                    Err(unknown(&format!("fetch of partition {}", ask.partition), &error))
                }
                None => {
                    let batches = data.records.unwrap_or_default();
                    let no_room = data.high_watermark > ask.from;
                    if batches.is_empty() && (no_room || ask.until > due) {
                        // The answer was full before its turn came: first in the next.
                        let list = if no_room { &mut starved } else { &mut kept };
                        list.push(ask);
                        continue;
                    }
                    Ok(Answer { batches, high_watermark: data.high_watermark, sent_at })
                }
            },
        };
        let _gone = ask.done.send(outcome);
    }
    starved.extend(kept);
    starved
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use kafka_protocol::messages::fetch_response::FetchableTopicResponse;

    use super::super::KafkaOptions;
    use super::super::access::Access;
    use super::*;

    type Answered = oneshot::Receiver<Result<Answer, JournalError>>;

    fn ask(partition: Partition, wait: Duration) -> (Ask, Answered) {
        let (done, answer) = oneshot::channel();
        (Ask { partition, from: 10, max_bytes: 1, until: Instant::now() + wait, done }, answer)
    }

    #[test]
    fn a_request_has_a_partition_once_and_nobody_who_is_gone() {
        let (asks, mut answers): (VecDeque<_>, Vec<_>) = [1, 2, 1, 3].map(|partition| ask(partition, POLL)).into_iter().unzip();
        let mut state = State { asks, ..State::default() };
        drop(answers.pop());
        let partitions = |asks: &[Ask]| asks.iter().map(|ask| ask.partition).collect::<Vec<_>>();
        assert_eq!(partitions(&state.take()), [1, 2]);
        assert_eq!(partitions(&state.take()), [1]);
    }

    #[test]
    fn another_poll_is_started_only_when_all_are_on_their_way() {
        let mut state = State { asks: [ask(1, POLL).0].into(), ..State::default() };
        assert!(state.grow(), "the first");
        assert!(!state.grow(), "it has not left yet");
        state.staff.flying = 1;
        assert!(state.grow());
        (state.staff.workers, state.staff.flying) = (MAX_WORKERS, MAX_WORKERS);
        assert!(!state.grow());
    }

    /// A poll with these asks waiting and so many others on their way; the callers.
    fn desk(asks: &[Partition], flying: usize) -> (Arc<Poll>, Seat<Poll>, Vec<Answered>) {
        let options = Arc::new(KafkaOptions::default());
        let cluster = Arc::new(Cluster::new(Arc::clone(&options), Access::new(&options).unwrap(), Leaders::default()));
        let polls = Polls::new(cluster, CancellationToken::new());
        let poll = Arc::new(Poll { polls: Arc::downgrade(&polls), broker: 1, state: Mutex::default(), wake: Notify::new() });
        let (asks, callers): (VecDeque<_>, Vec<_>) = asks.iter().map(|partition| ask(*partition, POLL)).unzip();
        let mut state = poll.state();
        state.asks = asks;
        state.staff.hire();
        (state.staff.workers, state.staff.flying) = (flying + 1, flying);
        drop(state);
        (Arc::clone(&poll), Seat::new(poll), callers)
    }

    #[tokio::test]
    async fn one_poll_at_most_is_on_its_way_for_long() {
        for (flying, longest) in [(0, POLL), (1, BESIDE_OTHERS), (3, BESIDE_OTHERS)] {
            let (poll, mut seat, _callers) = desk(&[1, 2], flying);
            let (group, wait) = poll.next(&mut seat, Last::Answered(2)).await.unwrap();
            assert_eq!((group.len(), wait), (2, longest), "{flying} on their way");
        }
    }

    #[tokio::test]
    async fn quiet_partitions_are_taken_along_by_the_next_to_come_back() {
        let (poll, mut seat, _callers) = desk(&[1, 2], 1);
        let (third, _caller) = ask(3, POLL);
        let bring_another = async {
            tokio::time::sleep(BESIDE_OTHERS / 4).await;
            poll.state().asks.push_back(third);
            poll.wake.notify_one();
        };
        let (taken, ()) = tokio::join!(poll.next(&mut seat, Last::Nothing), bring_another);
        assert_eq!(taken.unwrap().0.len(), 3);
        let (poll, mut seat, _callers) = desk(&[1, 2], 0);
        let taken = poll.next(&mut seat, Last::Nothing).now_or_never();
        assert_eq!(taken.flatten().unwrap().0.len(), 2, "nobody is on the way whom to wait for");
    }

    #[tokio::test]
    async fn who_has_no_answer_yet_waits_on_and_who_found_no_room_comes_first() {
        let options = Arc::new(KafkaOptions::default());
        let cluster = Cluster::new(Arc::clone(&options), Access::new(&options).unwrap(), Leaders::default());
        let data = |partition, high_watermark, records: &'static [u8], code| {
            let data = PartitionData::default().with_partition_index(partition).with_error_code(code);
            data.with_high_watermark(high_watermark).with_records(Some(Bytes::from_static(records)))
        };
        let told = vec![data(0, 10, b"", 0), data(1, 12, b"", 0), data(2, 10, b"", 0), data(3, 12, b"records", 0), data(4, -1, b"", 1)];
        let answer = FetchResponse::default().with_responses(vec![FetchableTopicResponse::default().with_partitions(told)]);
        let waits = [POLL * 100, Duration::ZERO, Duration::ZERO, POLL * 100, POLL * 100, POLL * 100];
        let (group, mut answers): (Vec<_>, Vec<_>) = (0..).zip(waits).map(|(partition, wait)| ask(partition, wait)).unzip();
        let kept: Vec<_> = deliver(&cluster, group, answer, Instant::now()).iter().map(|ask| ask.partition).collect();
        assert_eq!(kept, [1, 0]);
        let mut told = |index: usize| answers[index].try_recv().unwrap();
        assert!(matches!(told(2), Ok(Answer { batches, high_watermark: 10, .. }) if batches.is_empty()));
        assert!(matches!(told(3), Ok(Answer { batches, high_watermark: 12, .. }) if batches == b"records"[..]));
        assert!(matches!(told(4), Err(JournalError::OffsetOutOfRange { partition: 4, asked: 10, .. })));
        assert!(matches!(told(5), Err(JournalError::Unknown(_))));
    }
}
