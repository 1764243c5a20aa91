//! Against a real broker: `COUPON_TEST_KAFKA`, by default 127.0.0.1:19092.

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use tokio::sync::oneshot::error::TryRecvError;

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::{RawRecord, suite};
use super::*;

impl wire::Request for OffsetFetchRequest {
    const KEY: i16 = 9;
    type Response = OffsetFetchResponse;
}

const TEN_SECONDS: Duration = Duration::from_secs(10);

pub fn options(partitions: i32) -> KafkaOptions {
    let name = format!("test-journal-{}", uuid::Uuid::new_v4());
    KafkaOptions {
        brokers: vec![std::env::var("COUPON_TEST_KAFKA").unwrap_or_else(|_| "127.0.0.1:19092".into())],
        dead_letter_topic: format!("{name}-dlq"),
        group: format!("{name}-group"),
        topic: name,
        partitions,
        client_id: "coupon-test".into(),
        // A test machine does much else at the same time.
        append_timeout: TEN_SECONDS,
        ..KafkaOptions::default()
    }
}

pub async fn connect(options: &KafkaOptions) -> KafkaJournal {
    KafkaJournal::connect(options.clone()).await.expect("a broker at COUPON_TEST_KAFKA or 127.0.0.1:19092")
}

/// The offsets that the group shows, of the first two partitions.
async fn committed(journal: &KafkaJournal) -> Vec<(Partition, Offset)> {
    let options = &journal.options;
    let mut wire = Wire::coordinator(&options.brokers, journal.cluster.access(), &options.group).await.unwrap();
    let topic = TopicName(StrBytes::from_string(options.topic.clone()));
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(options.group.clone())))
        .with_topics(Some(vec![OffsetFetchRequestTopic::default().with_name(topic).with_partition_indexes(vec![0, 1])]));
    let answer = wire.call(&request, 5).await.unwrap();
    let mut seen: Vec<_> =
        answer.topics[0].partitions.iter().map(|partition| (partition.partition_index, partition.committed_offset)).collect();
    seen.sort_unstable();
    seen
}

async fn settings_of(journal: &KafkaJournal) -> TopicSettings {
    let mut wire = Wire::connect(&journal.options.brokers, journal.cluster.access()).await.unwrap();
    TopicSettings::read(&mut wire, &journal.options.topic).await.unwrap()
}

pub async fn delete_topics(options: &KafkaOptions) {
    let client = ClientBuilder::new(options.brokers.clone()).build().await.unwrap();
    let controller = client.controller_client().unwrap();
    for name in [&options.topic, &options.dead_letter_topic] {
        tokio::time::timeout(TEN_SECONDS, controller.delete_topic(name, 5_000)).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_contract() {
    let options = options(3);
    suite::run(&connect(&options).await).await;
    delete_topics(&options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_the_topic_and_keeps_the_partitions_of_one_that_exists() {
    let mut options = options(5);
    assert_eq!(connect(&options).await.partitions(), 5);
    options.partitions = 9;
    assert_eq!(connect(&options).await.partitions(), 5);
    delete_topics(&options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_what_others_wrote() {
    let options = options(2);
    let journal = connect(&options).await;
    let client = ClientBuilder::new(options.brokers.clone()).build().await.unwrap();
    let partition = client.partition_client(&options.topic, 1, UnknownTopicHandling::Retry).await.unwrap();
    let timestamp = DateTime::<Utc>::from_timestamp_millis(1_700_000_000_123).unwrap();
    let record = |key, value| Record { key, value, headers: BTreeMap::new(), timestamp };
    let records = vec![record(Some(b"k".to_vec()), Some(b"v".to_vec())), record(None, None)];
    partition.produce(records, Compression::NoCompression).await.unwrap();
    let read = suite::read(&journal, 1, 0, 2).await;
    assert_eq!(read[0], RawRecord { offset: 0, key: "k".into(), value: "v".into(), at: 1_700_000_000_123 });
    assert_eq!(read[1], RawRecord { offset: 1, key: "".into(), value: "".into(), at: 1_700_000_000_123 });
    // Deleted from the front: the range moves, and what is gone is never skipped.
    partition.delete_records(1, 5_000).await.unwrap();
    assert_eq!(journal.bounds(1).await.unwrap(), Bounds { begin: 1, end: 2 });
    assert!(matches!(journal.fetch(1, 0, 1_000, Duration::ZERO).await, Err(JournalError::OffsetOutOfRange { .. })));
    delete_topics(&options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_seen_in_the_group_and_a_dead_letter_in_its_topic() {
    let options = options(2);
    let journal = connect(&options).await;
    let coupon = CouponId::random();
    for number in 0..3 {
        journal.append(1, coupon, vec![number]).await.unwrap();
    }
    journal.report_progress(&[(0, 0), (1, 2)]).await.unwrap();
    journal.report_progress(&[(1, 3)]).await.unwrap();
    assert_eq!(committed(&journal).await, [(0, 0), (1, 3)]);

    journal.copy_dead_letter(b"key".to_vec(), b"letter".to_vec()).await.unwrap();
    let client = ClientBuilder::new(options.brokers.clone()).build().await.unwrap();
    let partition = client.partition_client(&options.dead_letter_topic, 0, UnknownTopicHandling::Retry).await.unwrap();
    let (records, _) = partition.fetch_records(0, 1..1_000, 1_000).await.unwrap();
    assert_eq!(records[0].record.value.as_deref(), Some(&b"letter"[..]));
    delete_topics(&options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_read() {
    let options = options(2);
    let journal = connect(&options).await;
    let settings = settings_of(&journal).await;
    assert_eq!(settings.replicas, 1);
    assert!(settings.values.contains_key("min.insync.replicas"), "{settings:?}");
    delete_topics(&options).await;
}

const PASSWORD: &str = "coupon";
const WRONG_PASSWORD: &str = "hunter2";

/// The listener with TLS and SASL: `COUPON_TEST_KAFKA_SECURED`, by default 127.0.0.1:19097.
fn secured(mechanism: KafkaSaslMechanism, password: &str) -> KafkaOptions {
    KafkaOptions {
        brokers: vec![std::env::var("COUPON_TEST_KAFKA_SECURED").unwrap_or_else(|_| "127.0.0.1:19097".into())],
        tls: Some(KafkaTls { ca_file: Some(crate::tls::testing::authority()) }),
        sasl: Some(KafkaSasl { mechanism, username: "coupon".into(), password: password.into() }),
        ..options(2)
    }
}

const MECHANISMS: [KafkaSaslMechanism; 3] = [KafkaSaslMechanism::Plain, KafkaSaslMechanism::ScramSha256, KafkaSaslMechanism::ScramSha512];

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_over_tls_appends_reports_progress_and_reads_settings() {
    for mechanism in MECHANISMS {
        let options = secured(mechanism, PASSWORD);
        let journal = KafkaJournal::connect(options.clone()).await.unwrap();
        journal.append(1, CouponId::random(), vec![7]).await.unwrap();
        assert_eq!(suite::read(&journal, 1, 0, 1).await[0].value[..], [7]);
        journal.report_progress(&[(0, 0), (1, 1)]).await.unwrap();
        assert_eq!(committed(&journal).await, [(0, 0), (1, 1)], "{mechanism:?}");
        let settings = settings_of(&journal).await;
        assert!(settings.values.contains_key("retention.ms"), "{mechanism:?}: {settings:?}");
        delete_topics(&KafkaOptions { brokers: self::options(2).brokers, ..options }).await;
    }
}

/// What keeps us out, said within the call timeout.
async fn kept_out(options: KafkaOptions) -> String {
    let options = KafkaOptions { call_timeout: Duration::from_secs(3), ..options };
    let (limit, started) = (options.call_timeout + Duration::from_millis(500), Instant::now());
    let error = KafkaJournal::connect(options).await.unwrap_err().to_string();
    assert!(started.elapsed() < limit, "{:?}: {error}", started.elapsed());
    assert!(!error.contains(WRONG_PASSWORD), "{error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_to_be_one_and_not_shown() {
    for mechanism in MECHANISMS {
        let options = secured(mechanism, WRONG_PASSWORD);
        let error = kept_out(options.clone()).await;
        for part in [options.brokers[0].as_str(), mechanism.name(), "user \"coupon\"", "uthentication failed"] {
            assert!(error.contains(part), "{part} is missing: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_nobody_vouches_for_is_refused_and_named() {
    let stranger = Some(KafkaTls { ca_file: Some(crate::tls::testing::stranger()) });
    let options = KafkaOptions { tls: stranger, ..secured(KafkaSaslMechanism::ScramSha512, PASSWORD) };
    let error = kept_out(options.clone()).await;
    assert!(error.contains(&options.brokers[0]) && error.contains("invalid peer certificate: UnknownIssuer"), "{error}");
    let missing = Some(KafkaTls { ca_file: Some("/nowhere/ca.pem".into()) });
    let error = kept_out(KafkaOptions { tls: missing, ..options }).await;
    assert!(error.contains("kafka.ca_file") && error.contains("/nowhere/ca.pem"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_another_kind_is_an_error_in_time() {
    let good = secured(KafkaSaslMechanism::Plain, PASSWORD);
    for (what, options, why) in [
        ("tls to a plain listener", KafkaOptions { brokers: options(1).brokers, ..good.clone() }, "tls: "),
        ("plain to a listener with tls", KafkaOptions { tls: None, ..good.clone() }, "does this listener want tls"),
        ("tls without sasl", KafkaOptions { sasl: None, ..good.clone() }, "does this listener want tls or sasl"),
        ("neither to a listener with both", KafkaOptions { tls: None, sasl: None, ..good.clone() }, "does this listener want tls"),
        ("sasl to a listener without", KafkaOptions { brokers: options(1).brokers, tls: None, ..good.clone() }, "PLAIN as user"),
    ] {
        let error = kept_out(options).await;
        assert!(error.contains(why), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_makes_every_connection() {
    let options = options(12);
    let journal = connect(&options).await;
    journal.warm().await;
    assert!(journal.lanes.are_warm());
    assert_eq!(journal.lanes.workers(), 1, "one broker leads all");
    delete_topics(&options).await;
}

/// Nobody was told what became of them, and nobody sends them any more: a worker's place is not taken by another, and another.
#[test]
fn a_process_ends_with_an_append_and_a_fetch_that_were_not_sent() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for is_dropped_first in [true, false] {
        let options = options(1);
        let running = runtime();
        let journal = running.block_on(async {
            let journal = connect(&options).await;
            journal.warm().await;
            journal
        });
        let mut answer = journal.lanes.push(0, ("key".into(), "value".into())).unwrap();
        let mut read = journal.polls.ask(0, 0, 1_000, Duration::ZERO);
        let kept = (!is_dropped_first).then_some(journal);
        drop(running);
        drop(kept);
        assert!(matches!(answer.try_recv(), Err(TryRecvError::Closed)));
        assert!(read.try_recv().is_err());
        runtime().block_on(delete_topics(&options));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_an_error_in_time() {
    // Accepts and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = KafkaOptions {
        brokers: vec![silent.local_addr().unwrap().to_string()],
        call_timeout: Duration::from_millis(300),
        ..KafkaOptions::default()
    };
    let started = Instant::now();
    assert!(matches!(KafkaJournal::connect(options).await, Err(JournalError::Unknown(_))));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn nothing_read_below_the_high_watermark_is_not_taken_for_the_end() {
    let answer = |high_watermark| poll::Answer { batches: Default::default(), high_watermark, sent_at: Instant::now() };
    assert_eq!(fetched(answer(5), 5).unwrap().high_watermark, 5);
    assert!(matches!(fetched(answer(6), 5), Err(JournalError::Unknown(_))));
    let batches = records::encode(&[("key".into(), "value".into())], 0).unwrap();
    let records = fetched(poll::Answer { batches, ..answer(0) }, 0).unwrap();
    assert_eq!(records.high_watermark, 1, "the record is committed, whatever was noted before it was read");
}
