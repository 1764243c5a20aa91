//! What may wait and fly, and what becomes of it.

use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use tokio_util::bytes::Bytes;

use super::super::KafkaOptions;
use super::super::access::Access;
use super::super::cluster::Leaders;
use super::*;

fn item(queued: Instant) -> Item {
    Item { partition: 0, record: (Bytes::new(), Bytes::from_static(&[0; 84])), queued, done: None }
}

/// Of a process that knows no broker.
fn lanes(append_timeout: Duration) -> Arc<Lanes> {
    let options = Arc::new(KafkaOptions { append_timeout, ..KafkaOptions::default() });
    let leaders = Leaders { partitions: vec![(NOBODY, 0), (2, 0)], ..Leaders::default() };
    let cluster = Cluster::new(Arc::clone(&options), Access::new(&options).unwrap(), leaders);
    Lanes::new(Arc::new(cluster), CancellationToken::new())
}

const AN_HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn what_may_wait_is_bounded_and_what_was_given_up_makes_room() {
    let push = |lanes: &Lanes| lanes.push(0, (Bytes::new(), Bytes::new())).map(drop);
    let patient = lanes(AN_HOUR);
    assert!((0..QUEUE).all(|_| push(&patient).is_ok()));
    assert!(matches!(push(&patient), Err(JournalError::Overloaded)));
    let impatient = lanes(Duration::ZERO);
    assert!((0..QUEUE + 10).all(|_| push(&impatient).is_ok()));
}

#[tokio::test]
async fn what_was_given_up_is_not_sent() {
    for (append_timeout, sent) in [(AN_HOUR, 1), (Duration::ZERO, 0)] {
        let lanes = lanes(append_timeout);
        let mut state = State::default();
        state.push(item(Instant::now()));
        lanes.waiting.store(1, Ordering::Relaxed);
        assert_eq!(take(&mut state, &lanes).len(), sent);
        assert_eq!((state.queue.len(), lanes.waiting.load(Ordering::Relaxed)), (0, 0));
    }
}

#[tokio::test]
async fn what_a_former_leader_refuses_goes_to_the_leader_and_all_else_is_answered() {
    const NOT_THE_LEADER: i16 = 6;
    const REFUSED: i16 = 87;
    let lanes = lanes(AN_HOUR);
    let (items, mut answers): (Vec<_>, Vec<_>) = (1..=4)
        .map(|partition| {
            let (done, answer) = oneshot::channel();
            (Item { partition, done: Some(done), ..item(Instant::now()) }, answer)
        })
        .unzip();
    let (_, parts) = produce::encode(items, "topic", AN_HOUR).unwrap();
    let told = |(index, code)| PartitionProduceResponse::default().with_index(index).with_error_code(code);
    // Of partition 4 the answer says nothing.
    let told = [(1, NOT_THE_LEADER), (2, 0), (3, REFUSED)].map(told).to_vec();
    let answer = ProduceResponse::default().with_responses(vec![TopicProduceResponse::default().with_partition_responses(told)]);
    assert!(produce::settle(&lanes, Ok(answer), parts).is_ok(), "something was taken");
    assert!(answers[0].try_recv().is_err(), "it waits on");
    assert_eq!(lanes.queued(2), 1);
    assert!(answers[1].try_recv().unwrap().is_ok());
    for answer in &mut answers[2..] {
        assert!(matches!(answer.try_recv(), Ok(Err(JournalError::Unknown(_)))));
    }
}

#[tokio::test]
async fn a_request_is_bounded() {
    let lanes = lanes(AN_HOUR);
    let mut state = State::default();
    let count = 2 * BUDGET / item(Instant::now()).bytes();
    (0..count).for_each(|_| state.push(item(Instant::now())));
    lanes.waiting.store(count, Ordering::Relaxed);
    let bytes = take(&mut state, &lanes).iter().map(Item::bytes).sum::<usize>();
    assert!((BUDGET - 200..=BUDGET).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn a_record_queued_while_the_leader_changes_is_not_left_behind() {
    let lanes = lanes(AN_HOUR);
    let partition_of = |broker| Leaders { partitions: vec![(broker, broker)], ..Leaders::default() };
    lanes.cluster.learn(partition_of(1));
    lanes.queue(item(Instant::now()));
    let former = lanes.lane(1);
    lanes.cluster.learn(partition_of(2));
    lanes.reroute();
    assert_eq!((lanes.queued(1), lanes.queued(2)), (0, 1));
    assert!(former.offer(item(Instant::now()), &lanes.cluster).is_err(), "found before the change, and asked after it");
    lanes.queue(item(Instant::now()));
    assert_eq!((lanes.queued(1), lanes.queued(2)), (0, 2));
}

fn long_ago() -> Instant {
    Instant::now().checked_sub(STALL).unwrap()
}

#[test]
fn a_part_of_a_batch_waits_for_the_request_in_flight_unless_that_stalls() {
    let mut state = State::default();
    state.push(item(Instant::now()));
    assert!(state.may_fly(), "nothing is in flight");
    state.staff.flying = 1;
    assert!(!state.may_fly());
    state.bytes = BUDGET;
    assert!(state.may_fly(), "a full one goes by another connection");
    state.bytes = 100;
    state.queue.clear();
    state.queue.push_back(item(long_ago()));
    assert!(state.may_fly(), "it waited long enough");
}

#[test]
fn a_part_of_a_batch_waits_a_moment_after_the_request_before_it() {
    let mut state = State { rests_until: Some(Instant::now() + AN_HOUR), ..State::default() };
    state.push(item(Instant::now()));
    assert!(!state.may_fly(), "a request has just gone");
    assert!(state.patience() >= PAUSE, "{:?}", state.patience());
    state.rests_until = Some(long_ago());
    assert!(state.may_fly(), "the pause is over");
    assert_eq!(state.patience(), Duration::ZERO);
    state.rests_until = Some(Instant::now() + AN_HOUR);
    while state.bytes < BUDGET {
        state.push(item(Instant::now()));
    }
    assert!(state.may_fly(), "a full request has nothing to gain");
    assert_eq!(rest_after(2), PAUSE + 2 * PAUSE_EACH);
}

#[test]
fn a_worker_is_added_only_while_full_or_stalled_batches_wait() {
    let mut state = State::default();
    state.push(item(Instant::now()));
    assert!(state.grow(), "the first, for one record");
    state.staff.starting = 0;
    assert!(!state.grow(), "nothing full waits");
    state.bytes = BUDGET;
    assert!(state.grow());
    assert!(!state.grow(), "one starts at a time");
    state.staff.starting = 0;
    state.idle = 1;
    assert!(!state.grow(), "one is idle");
    state.idle = 0;
    state.staff.workers = MAX_WORKERS;
    assert!(!state.grow());
    let mut state = State { staff: Staff { workers: 1, flying: 1, ..Staff::default() }, ..State::default() };
    state.push(item(long_ago()));
    assert!(state.grow(), "what stalls behind the only connection gets another");
}
