//! The journal in a Kafka topic.
//!
//! The protocol's messages are a library's, what is sent when is ours: a process appends to and reads from every partition all the time,
//! and a request carries what there is for all that a broker leads. Every call runs under a timeout, and what timed out is taken to be
//! *unknown*, never failed. Appending, fetching and single calls each have their own connections.

mod access;
mod cluster;
mod lane;
#[cfg(test)]
mod network_tests;
mod poll;
mod produce;
mod records;
mod seat;
#[cfg(test)]
mod tests;
mod topics;
mod wire;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use secrecy::SecretString;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::access::Access;
use self::cluster::{Cluster, timed};
use self::lane::Lanes;
use self::poll::Polls;
use self::topics::{TopicSettings, Topics};
use self::wire::{Request, Wire, check, topic_name};
use super::{Bounds, Fetched, Journal, JournalError};
use crate::domain::{CouponId, Offset, Partition, now_millis};

/// How to reach the cluster, and which topics to use.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `host:port` of some of the brokers.
    pub brokers: Vec<String>,
    /// The topic that decides. Created where it is missing.
    pub topic: String,
    /// The topic for copies of dead letters. Created where it is missing, with one partition.
    pub dead_letter_topic: String,
    /// The consumer group whose offsets show operators' tools the progress.
    pub group: String,
    /// Partitions of a topic that is created; one that exists keeps its own.
    pub partitions: i32,
    /// Replicas of a topic that is created.
    pub replication_factor: i16,
    /// Name shown in the brokers' logs.
    pub client_id: String,
    /// Deadline of an append, queueing included.
    pub append_timeout: Duration,
    /// Deadline of every other call, and of making a connection.
    pub call_timeout: Duration,
    /// None: plain text.
    pub tls: Option<KafkaTls>,
    /// None: no authentication.
    pub sasl: Option<KafkaSasl>,
    /// Takes the seconds from an append's queueing to its acknowledgement.
    pub append_seconds: Option<prometheus::Histogram>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".into()],
            topic: "coupon-issue".into(),
            dead_letter_topic: "coupon-issue-dlq".into(),
            group: "coupon-consumer".into(),
            partitions: 60,
            replication_factor: 1,
            client_id: "coupon-svc".into(),
            append_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(5),
            tls: None,
            sasl: None,
            append_seconds: None,
        }
    }
}

/// Encryption to the brokers.
#[derive(Debug, Clone, Default)]
pub struct KafkaTls {
    /// PEM file of the authorities that vouch for the brokers; None: the system's.
    pub ca_file: Option<PathBuf>,
}

/// Authentication at the brokers.
#[derive(Debug, Clone)]
pub struct KafkaSasl {
    pub mechanism: KafkaSaslMechanism,
    pub username: String,
    pub password: SecretString,
}

/// How the password is shown to the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaSaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// A journal in a Kafka topic.
///
/// Dropping it ends its workers, and with them what is queued: nobody was told that it landed.
#[derive(Debug)]
pub struct KafkaJournal {
    options: Arc<KafkaOptions>,
    cluster: Arc<Cluster>,
    partitions: Partition,
    lanes: Arc<Lanes>,
    polls: Arc<Polls>,
    coordinator: tokio::sync::Mutex<Option<Wire>>,
    _stop: DropGuard,
}

impl Request for ListOffsetsRequest {
    const KEY: i16 = 2;
    type Response = ListOffsetsResponse;
}

/// Kafka's number of the offset behind the last record.
const LATEST: i64 = -1;
/// Kafka's number of the first offset there is.
const EARLIEST: i64 = -2;

/// A call was sent to a broker that does not lead the partition (any more).
const fn is_of_the_past(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::NotLeaderOrFollower
            | ResponseError::LeaderNotAvailable
            | ResponseError::UnknownTopicOrPartition
            | ResponseError::FencedLeaderEpoch
    )
}

/// An outage makes every call fail: the first few, then ever fewer, are logged.
const fn worth_a_line(failures: u32) -> bool {
    failures.is_power_of_two()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unknown(what: &str, error: &dyn std::fmt::Display) -> JournalError {
    JournalError::Unknown(format!("{what}: {error}"))
}

/// What an error says, to be told as a part of another.
fn reason(error: JournalError) -> String {
    match error {
        JournalError::Unknown(text) => text,
        other => other.to_string(),
    }
}

impl KafkaJournal {
    /// Connects, creates the topics where they are missing, and logs a warning for each dangerous setting of the topic.
    ///
    /// Connections to partitions are made when they are first needed; see [`KafkaJournal::warm`].
    ///
    /// # Errors
    /// [`JournalError::Unknown`]: no broker let us in within `call_timeout` (the error says why), a topic could not be created, or the
    /// certificate authorities cannot be read.
    pub async fn connect(options: KafkaOptions) -> Result<Self, JournalError> {
        let options = Arc::new(options);
        let access = Access::new(&options)?;
        let opening = async || {
            let mut wire = Wire::connect(&options.brokers, &access).await?;
            let partitions = topics::create(&mut wire, &access, &options, &options.topic, options.partitions).await?;
            topics::create(&mut wire, &access, &options, &options.dead_letter_topic, 1).await?;
            let leaders = Topics::of(&options).leaders(&mut wire).await?;
            Ok((wire, partitions, leaders))
        };
        let (wire, partitions, leaders) = persist("connecting to kafka", options.call_timeout, opening).await?;
        let cluster = Arc::new(Cluster::new(Arc::clone(&options), access, leaders));
        let stop = CancellationToken::new();
        let lanes = Lanes::new(Arc::clone(&cluster), stop.clone());
        let polls = Polls::new(Arc::clone(&cluster), stop.clone());
        let (keeping, routing) = (Arc::clone(&cluster).keep(), reroute(Arc::clone(&lanes), cluster.watch()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move { tokio::join!(keeping, routing) }));
        let coordinator = tokio::sync::Mutex::new(None);
        check_settings(wire, &options).await;
        Ok(Self { options, cluster, partitions, lanes, polls, coordinator, _stop: stop.drop_guard() })
    }

    fn check_partition(&self, partition: Partition) -> Result<(), JournalError> {
        match (0..self.partitions).contains(&partition) {
            true => Ok(()),
            false => Err(JournalError::Damaged(format!("there is no partition {partition}, only {}", self.partitions))),
        }
    }

    async fn offset(&self, partition: Partition, which: i64) -> Result<Offset, JournalError> {
        let wanted = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(which);
        let topic = ListOffsetsTopic::default().with_name(topic_name(&self.options.topic)).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let leader = self.cluster.leaders().of(partition);
        let answer = self.cluster.at(leader, "offsets", self.options.call_timeout, async |wire| wire.call(&request, 4).await).await?;
        let told = answer.topics.iter().flat_map(|topic| &topic.partitions).next().ok_or_else(|| unknown("offsets", &"none was told"))?;
        check("offsets", told.error_code).inspect_err(|_| self.cluster.doubt())?;
        Ok(told.offset)
    }
}

/// Takes what waits for a leader of the past to the new one, at every change.
async fn reroute(lanes: Arc<Lanes>, mut leaders: tokio::sync::watch::Receiver<Arc<cluster::Leaders>>) {
    while leaders.changed().await.is_ok() {
        lanes.reroute();
    }
}

async fn check_settings(mut wire: Wire, options: &KafkaOptions) {
    match timed("describing the topic", options.call_timeout, TopicSettings::read(&mut wire, &options.topic)).await {
        Ok(settings) => {
            for danger in settings.dangers() {
                tracing::warn!(topic = %options.topic, "{danger}");
            }
        }
        Err(error) => tracing::warn!(%error, topic = %options.topic, "the topic's settings could not be checked"),
    }
}

/// Tries until it works or `limit` is over; the error is then that of the last try.
async fn persist<T, F>(what: &str, limit: Duration, attempt: impl Fn() -> F) -> Result<T, JournalError>
where
    F: Future<Output = Result<T, JournalError>>,
{
    let mut last = JournalError::Unknown(format!("no answer within {limit:?}"));
    let tries = async {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let outcome = tokio::time::timeout(limit, tries).await;
    outcome.map_err(|_| unknown(what, &reason(last)))
}

fn fetched(answer: poll::Answer, from: Offset) -> Result<Fetched, JournalError> {
    let poll::Answer { batches, high_watermark, sent_at } = answer;
    let records = records::decode(batches, from)?;
    if records.is_empty() && high_watermark > from {
        // Nothing of ours writes what a reader never sees (control records), but an empty answer must mean caught up.
        return Err(JournalError::Unknown(format!("no record at offset {from} below the high watermark {high_watermark}")));
    }
    // The broker notes the high watermark before it reads: it may be older than the records.
    let high_watermark = records.last().map_or(high_watermark, |last| high_watermark.max(last.offset + 1));
    Ok(Fetched { records, high_watermark, sent_at })
}

#[async_trait]
impl Journal for KafkaJournal {
    fn partitions(&self) -> Partition {
        self.partitions
    }

    fn send(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError> {
        self.check_partition(partition)?;
        self.lanes.send(partition, (coupon.to_string().into(), value.into()))
    }

    async fn append(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError> {
        self.check_partition(partition)?;
        let answer = self.lanes.push(partition, (coupon.to_string().into(), value.into()))?;
        let limit = self.options.append_timeout;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(JournalError::Unknown("the worker ended".into())),
            Err(_) => Err(JournalError::Unknown(format!("append: no answer within {limit:?}"))),
        }
    }

    async fn fetch(&self, partition: Partition, from: Offset, max_bytes: usize, max_wait: Duration) -> Result<Fetched, JournalError> {
        self.check_partition(partition)?;
        let limit = max_wait + self.options.call_timeout;
        let bytes = i32::try_from(max_bytes).unwrap_or(i32::MAX);
        let answer = self.polls.ask(partition, from, bytes, max_wait);
        let answer = timed("fetch", limit, async { answer.await.unwrap_or_else(|_| Err(unknown("fetch", &"the worker ended"))) }).await;
        match answer {
            Err(JournalError::OffsetOutOfRange { partition, asked, .. }) => {
                Err(JournalError::OffsetOutOfRange { partition, asked, bounds: self.bounds(partition).await.ok() })
            }
            answer => fetched(answer?, from),
        }
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, JournalError> {
        self.check_partition(partition)?;
        // A leader takes a moment to be one.
        persist("offsets", self.options.call_timeout, async || {
            Ok(Bounds { begin: self.offset(partition, EARLIEST).await?, end: self.offset(partition, LATEST).await? })
        })
        .await
    }

    async fn report_progress(&self, next: &[(Partition, Offset)]) -> Result<(), JournalError> {
        if next.is_empty() {
            return Ok(());
        }
        let KafkaOptions { brokers, group, topic, call_timeout, .. } = &*self.options;
        // A new cluster's coordinator takes a moment to be made.
        persist("reporting progress", *call_timeout, || async {
            let mut kept = self.coordinator.lock().await;
            // Taken out for the call: a call that is cut off leaves no half-used connection behind.
            let mut wire = match kept.take() {
                Some(wire) => wire,
                None => Wire::coordinator(brokers, self.cluster.access(), group).await?,
            };
            wire.commit(group, topic, next).await?;
            *kept = Some(wire);
            Ok(())
        })
        .await
    }

    async fn copy_dead_letter(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), JournalError> {
        let batch = records::encode(&[(key.into(), value.into())], now_millis())?;
        let data = PartitionProduceData::default().with_index(0).with_records(Some(batch));
        let topic = TopicProduceData::default().with_name(topic_name(&self.options.dead_letter_topic)).with_partition_data(vec![data]);
        let limit = self.options.append_timeout;
        let request = produce::request(vec![topic], limit);
        let leader = self.cluster.leaders().dead_letters;
        let answer =
            self.cluster.at(leader, "copying a dead letter", limit, async |wire| wire.call(&request, produce::VERSION).await).await?;
        answer
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses)
            .try_for_each(|told| check("copying a dead letter", told.error_code))
    }

    /// Makes the first append connection to every leader, so that the first records do not wait for it (up to a second each).
    /// Returns when all are made or after `call_timeout`; those still missing are made in the background.
    async fn warm(&self) {
        self.lanes.warm();
        let all = async {
            while !self.lanes.are_warm() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(self.options.call_timeout, all).await.is_err() {
            tracing::warn!("not all connections to kafka could be made in time");
        }
    }
}
