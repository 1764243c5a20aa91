//! Connections that end, brokers that fall silent, leaders of the past.

use std::collections::HashMap;

use tokio_util::task::AbortOnDropHandle;

use crate::domain::CouponId;

#[path = "../../../tests/it/support/cluster.rs"]
#[expect(dead_code, reason = "shared with the tests of the whole service")]
mod brokers;
#[path = "../../../tests/it/support/proxy.rs"]
#[expect(dead_code, reason = "shared with the tests of the whole service")]
mod proxy;

use self::brokers::{BROKERS, Stack};
use self::proxy::Proxy;
use super::cluster::{Broker, Leaders, NOBODY};
use super::tests::{connect, delete_topics, options};
use super::*;

/// A fault is noticed in much less, and nothing else would notice it sooner.
const HALF_A_MINUTE: Duration = Duration::from_secs(30);

/// What a process that reaches the brokers at these addresses knows; it looks up nothing.
fn cluster(options: &KafkaOptions, leaders: Leaders) -> Arc<Cluster> {
    Arc::new(Cluster::new(Arc::new(options.clone()), Access::new(options).unwrap(), leaders))
}

fn leaders(journal: &KafkaJournal) -> Leaders {
    (*journal.cluster.leaders()).clone()
}

/// All brokers are where the proxy is.
fn behind(proxy: &Proxy, leaders: Leaders) -> Leaders {
    let addresses = leaders.addresses.keys().map(|broker| (*broker, format!("127.0.0.1:{}", proxy.port))).collect();
    Leaders { addresses, ..leaders }
}

fn record() -> records::KeyValue {
    (CouponId::random().to_string().into(), "value".into())
}

async fn append(lanes: &Lanes, partition: Partition) -> Result<(), JournalError> {
    tokio::time::timeout(HALF_A_MINUTE, lanes.push(partition, record()).unwrap()).await.expect("an answer").expect("a worker")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ended_while_nothing_was_asked_fails_no_call() {
    let options = options(1);
    let journal = connect(&options).await;
    let proxy = Proxy::start(options.brokers[0].clone()).await;
    let cluster = cluster(&options, behind(&proxy, leaders(&journal)));
    let lanes = Lanes::new(Arc::clone(&cluster), CancellationToken::new());
    let leader = cluster.leaders().of(0);
    let look = async |wire: &mut Wire| Topics::of(&options).leaders(wire).await;
    for round in 0..2 {
        append(&lanes, 0).await.unwrap_or_else(|error| panic!("append {round}: {error}"));
        cluster.at(leader, "looking", HALF_A_MINUTE, look).await.unwrap_or_else(|error| panic!("call {round}: {error}"));
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.restore();
    }
    delete_topics(&options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_leaves_a_silent_broker_when_another_leads() {
    let options = KafkaOptions { call_timeout: HALF_A_MINUTE * 10, ..options(2) };
    let journal = connect(&options).await;
    let proxy = Proxy::start(options.brokers[0].clone()).await;
    let known = behind(&proxy, leaders(&journal));
    let cluster = cluster(&options, known.clone());
    let polls = Polls::new(Arc::clone(&cluster), CancellationToken::new());
    let read = polls.ask(0, 0, 1_000, Duration::ZERO);
    assert_eq!(read.await.unwrap().unwrap().high_watermark, 0, "the way is open");
    proxy.stall();
    let (mut moves, mut stays) = (polls.ask(0, 0, 1_000, HALF_A_MINUTE), polls.ask(1, 0, 1_000, Duration::ZERO));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut moved = known.clone();
    moved.partitions[0] = (known.partitions[0].0 + 1, known.partitions[0].1 + 1);
    cluster.learn(moved);
    let told = tokio::time::timeout(HALF_A_MINUTE, &mut moves).await.expect("it leaves").unwrap();
    assert!(matches!(told, Err(JournalError::Unknown(_))), "{told:?}");
    assert!(stays.try_recv().is_err(), "it still has its leader");
    proxy.restore();
    tokio::time::timeout(HALF_A_MINUTE, stays).await.expect("it is asked again").unwrap().unwrap();
    delete_topics(&options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_leader_goes_to_the_first_there_is() {
    let options = options(1);
    let journal = connect(&options).await;
    let cluster = cluster(&options, Leaders { partitions: vec![(NOBODY, 0)], ..leaders(&journal) });
    let lanes = Lanes::new(Arc::clone(&cluster), CancellationToken::new());
    let _routing = AbortOnDropHandle::new(tokio::spawn(reroute(Arc::clone(&lanes), cluster.watch())));
    let waiting = lanes.push(0, record()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.learn(leaders(&journal));
    tokio::time::timeout(HALF_A_MINUTE, waiting).await.expect("an answer").unwrap().unwrap();
    delete_topics(&options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_partition_is_told_once_somebody_leads_it() {
    let options = options(1);
    let journal = Arc::new(connect(&options).await);
    let truth = leaders(&journal);
    let (leader, epoch) = truth.partitions[0];
    let led_by = |broker, terms| Leaders { partitions: vec![(broker, epoch + terms)], ..truth.clone() };
    journal.cluster.learn(led_by(NOBODY, 1));
    let asking = AbortOnDropHandle::new(tokio::spawn({
        let journal = Arc::clone(&journal);
        async move { journal.bounds(0).await }
    }));
    tokio::time::sleep(Duration::from_millis(300)).await;
    journal.cluster.learn(led_by(leader, 2));
    assert_eq!(asking.await.unwrap().unwrap(), Bounds { begin: 0, end: 0 });
    delete_topics(&options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_reached_keeps_nothing_and_nobody_busy() {
    let options = KafkaOptions { append_timeout: Duration::from_millis(200), ..KafkaOptions::default() };
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let leaders = Leaders { partitions: vec![(1, 1)], addresses: HashMap::from([(1, nowhere)]), ..Leaders::default() };
    let lanes = Lanes::new(cluster(&options, leaders), CancellationToken::new());
    let _gives_up = lanes.push(0, record()).unwrap();
    let ends = async {
        while lanes.queued(1) + lanes.workers() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HALF_A_MINUTE, ends).await.expect("it is forgotten");
}

/// What a call says of the numbers that come instead of an answer, given the call's own.
async fn told_of(answer: impl FnOnce(i32) -> Vec<i32> + Send + 'static) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (mut far, _) = far.unwrap();
    let answering = tokio::spawn(async move {
        let length = far.read_i32().await.unwrap();
        let mut request = vec![0; usize::try_from(length).unwrap()];
        far.read_exact(&mut request).await.unwrap();
        for number in answer(i32::from_be_bytes(request[4..8].try_into().unwrap())) {
            far.write_i32(number).await.unwrap();
        }
    });
    let request = ListOffsetsRequest::default().with_replica_id((-1).into());
    let told = Wire::new(Box::new(near.unwrap()), "test").call(&request, 4).await.unwrap_err().to_string();
    answering.await.unwrap();
    told
}

#[tokio::test]
async fn an_answer_to_another_request_is_an_error() {
    // Its length, the correlation, how long we are held back, no topics.
    let told = told_of(|correlation| vec![12, correlation + 1, 0, 0]).await;
    assert!(told.contains("another request"), "{told}");
}

#[tokio::test]
async fn an_answer_of_any_length_is_not_waited_for() {
    let told = told_of(|_| vec![i32::MAX]).await;
    assert!(told.contains("not an answer of kafka"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_lead_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::start(dir.path(), &BROKERS).await;
    let brokers = stack.bootstrap().split(',').map(str::to_owned).collect();
    let options = KafkaOptions { brokers, replication_factor: 3, ..options(3) };
    let journal = connect(&options).await;
    for partition in 0..3 {
        journal.append(partition, CouponId::random(), vec![7]).await.unwrap();
    }
    let truth = leaders(&journal);
    let another = |broker: Broker| *truth.addresses.keys().find(|other| **other != broker).unwrap();
    let wrong =
        Leaders { partitions: truth.partitions.iter().map(|(led_by, epoch)| (another(*led_by), *epoch)).collect(), ..truth.clone() };
    let cluster = cluster(&options, wrong);
    let polls = Polls::new(Arc::clone(&cluster), CancellationToken::new());
    let lanes = Lanes::new(Arc::clone(&cluster), CancellationToken::new());
    // A replica has the record and the same high watermark, for now.
    let asked: HashMap<_, _> = (0..3).map(|partition| (partition, polls.ask(partition, 0, 1_000, Duration::ZERO))).collect();
    for (partition, answer) in asked {
        let told = answer.await.unwrap();
        assert!(matches!(&told, Err(JournalError::Unknown(why)) if why.contains("Leader")), "partition {partition}: {told:?}");
    }
    // It waits while the wrong one refuses it, and lands once the leader is known.
    let mut waiting = lanes.push(0, record()).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(waiting.try_recv().is_err(), "nobody took it");
    let _keeping = AbortOnDropHandle::new(tokio::spawn(reroute(Arc::clone(&lanes), cluster.watch())));
    cluster.learn(truth);
    tokio::time::timeout(HALF_A_MINUTE, waiting).await.expect("an answer").unwrap().unwrap();
    let read = journal.fetch(0, 0, 10_000, Duration::ZERO).await.unwrap();
    assert_eq!(read.records.len(), 2, "once");
    append(&lanes, 1).await.unwrap();
}
