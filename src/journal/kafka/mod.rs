//! The journal in a Kafka topic.
//!
//! The client crate has no deadlines and retries without end: every call runs under a timeout here, and what timed out is taken
//! to be *unknown*, never failed. Appending, fetching and offset look-ups each have their own connections.

mod access;
mod cluster;
mod lane;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::error::{Error as KafkaError, ProtocolError};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient};
use rskafka::record::{Record, RecordAndOffset};
use secrecy::SecretString;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::access::Access;
use self::cluster::{Cluster, Links, timed};
use self::lane::Lane;
use self::wire::Wire;
use super::{Bounds, Fetched, Journal, JournalError, RawRecord};
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
    /// Name shown in the brokers' logs. Must have no quota: the client crate repeats what was throttled.
    pub client_id: String,
    /// Deadline of an append, queueing included; also of [`Journal::close`].
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

/// The connections for reading one partition.
#[derive(Debug)]
struct Reading {
    fetch: Links,
    offsets: Links,
}

/// A journal in a Kafka topic.
///
/// Dropping it ends its workers; [`Journal::close`] lets them send what is queued first.
#[derive(Debug)]
pub struct KafkaJournal {
    options: Arc<KafkaOptions>,
    cluster: Arc<Cluster>,
    partitions: Partition,
    lanes: Vec<Arc<Lane>>,
    reading: Vec<Reading>,
    dead_letters: Links,
    coordinator: tokio::sync::Mutex<Option<Wire>>,
    tasks: TaskTracker,
    _stop: DropGuard,
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
        // Of our own first: the client crate tries again without end and never says why.
        let wire = persist("connecting to kafka", options.call_timeout, || Wire::connect(&options.brokers, &access)).await?;
        let cluster = Arc::new(Cluster::connect(Arc::clone(&options), access).await?);
        let partitions = topic(&cluster, &options, &options.topic, options.partitions).await?;
        topic(&cluster, &options, &options.dead_letter_topic, 1).await?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let name: Arc<str> = options.topic.as_str().into();
        let lane = |partition| {
            Lane::new(
                Arc::clone(&cluster),
                Arc::clone(&name),
                partition,
                &options.client_id,
                options.append_timeout,
                tasks.clone(),
                stop.clone(),
            )
        };
        let reading = |partition| Reading { fetch: Links::new(&name, partition), offsets: Links::new(&name, partition) };
        let journal = Self {
            partitions,
            lanes: (0..partitions).map(lane).collect(),
            reading: (0..partitions).map(reading).collect(),
            dead_letters: Links::new(&options.dead_letter_topic, 0),
            coordinator: tokio::sync::Mutex::new(None),
            tasks,
            _stop: stop.drop_guard(),
            cluster,
            options,
        };
        check_settings(wire, &journal.options).await;
        Ok(journal)
    }

    fn reading(&self, partition: Partition) -> Result<&Reading, JournalError> {
        usize::try_from(partition).ok().and_then(|index| self.reading.get(index)).ok_or_else(|| self.no_partition(partition))
    }

    fn no_partition(&self, partition: Partition) -> JournalError {
        JournalError::Damaged(format!("there is no partition {partition}, only {}", self.partitions))
    }

    /// Runs one call on a connection taken from `links`, which gets it back unless the call failed. `limit` bounds both together.
    async fn on<T, E, F>(&self, links: &Links, what: &str, limit: Duration, call: F) -> Result<T, JournalError>
    where
        E: std::fmt::Display,
        F: AsyncFnOnce(&PartitionClient) -> Result<T, E>,
    {
        let attempt = async {
            let link = links.take(&self.cluster).await?;
            let answer = call(&link).await.map_err(|error| unknown(what, &error))?;
            links.give(link);
            Ok(answer)
        };
        let outcome = tokio::time::timeout(limit, attempt).await;
        let outcome = outcome.unwrap_or_else(|_| Err(JournalError::Unknown(format!("{what}: no answer within {limit:?}"))));
        if outcome.is_err() {
            links.failed();
        }
        outcome
    }
}

async fn check_settings(mut wire: Wire, options: &KafkaOptions) {
    match timed("describing the topic", options.call_timeout, wire.settings(&options.topic)).await {
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

/// The number of partitions of the topic, which is created where it is missing.
async fn topic(cluster: &Cluster, options: &KafkaOptions, name: &str, partitions: i32) -> Result<Partition, JournalError> {
    let client = cluster.client();
    let look = async || -> Result<Option<Partition>, JournalError> {
        let topics = cluster.timed("metadata", client.list_topics()).await?;
        let found = topics.iter().find(|topic| topic.name == name && !topic.partitions.is_empty());
        found.map(|topic| i32::try_from(topic.partitions.len()).map_err(|error| unknown("metadata", &error))).transpose()
    };
    if let Some(partitions) = look().await? {
        return Ok(partitions);
    }
    let controller = client.controller_client().map_err(|error| unknown("metadata", &error))?;
    let limit = i32::try_from(options.call_timeout.as_millis()).unwrap_or(i32::MAX);
    let create = async {
        match controller.create_topic(name, partitions, options.replication_factor, limit).await {
            // Another process was faster.
            Err(KafkaError::ServerError { protocol_error: ProtocolError::TopicAlreadyExists, .. }) => Ok(false),
            outcome => outcome.map(|()| true),
        }
    };
    if cluster.timed(&format!("creating topic {name}"), create).await? {
        tracing::info!(topic = name, partitions, replication_factor = options.replication_factor, "created topic");
    }
    let started = Instant::now();
    while started.elapsed() < options.call_timeout {
        if let Some(partitions) = look().await? {
            return Ok(partitions);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(JournalError::Unknown(format!("topic {name} was created but is not seen")))
}

/// A fetch's records, checked: they begin at `from` and have no gap.
fn checked(records: Vec<RecordAndOffset>, from: Offset) -> Result<Vec<RawRecord>, JournalError> {
    let mut checked = Vec::with_capacity(records.len());
    // The broker answers whole batches: the first may begin before what was asked for.
    for (next, RecordAndOffset { record, offset }) in (from..).zip(records.into_iter().filter(|record| record.offset >= from)) {
        if offset != next {
            return Err(JournalError::Damaged(format!("offset {offset} follows where {next} was expected")));
        }
        checked.push(RawRecord {
            offset,
            key: record.key.unwrap_or_default(),
            value: record.value.unwrap_or_default(),
            at: record.timestamp.timestamp_millis(),
        });
    }
    Ok(checked)
}

#[async_trait]
impl Journal for KafkaJournal {
    fn partitions(&self) -> Partition {
        self.partitions
    }

    async fn append(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError> {
        let lane = usize::try_from(partition).ok().and_then(|index| self.lanes.get(index)).ok_or_else(|| self.no_partition(partition))?;
        let started = Instant::now();
        let answer = lane.push(coupon.to_string().into_bytes(), value)?;
        let limit = self.options.append_timeout;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(outcome)) => {
                if let (Ok(()), Some(histogram)) = (&outcome, &self.options.append_seconds) {
                    histogram.observe(started.elapsed().as_secs_f64());
                }
                outcome
            }
            Ok(Err(_)) => Err(JournalError::Unknown("the worker ended".into())),
            Err(_) => Err(JournalError::Unknown(format!("append: no answer within {limit:?}"))),
        }
    }

    async fn fetch(&self, partition: Partition, from: Offset, max_bytes: usize, max_wait: Duration) -> Result<Fetched, JournalError> {
        let links = &self.reading(partition)?.fetch;
        let bytes = 1..i32::try_from(max_bytes).unwrap_or(i32::MAX).clamp(2, i32::MAX);
        let wait = i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX);
        let mut sent_at = Instant::now();
        let answer = self.on(links, "fetch", max_wait + self.options.call_timeout, async |link: &PartitionClient| {
            sent_at = Instant::now();
            match link.fetch_records(from, bytes, wait).await {
                Err(KafkaError::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. }) => Ok(None),
                outcome => outcome.map(Some),
            }
        });
        let Some((records, high_watermark)) = answer.await? else {
            let bounds = self.bounds(partition).await.ok();
            return Err(JournalError::OffsetOutOfRange { partition, asked: from, bounds });
        };
        let records = checked(records, from)?;
        if records.is_empty() && high_watermark > from {
            // Nothing of ours writes what a reader never sees (control records), but an empty answer must mean caught up.
            return Err(JournalError::Unknown(format!("no record at offset {from} below the high watermark {high_watermark}")));
        }
        // The broker notes the high watermark before it reads: it may be older than the records.
        let high_watermark = records.last().map_or(high_watermark, |last| high_watermark.max(last.offset + 1));
        Ok(Fetched { records, high_watermark, sent_at })
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, JournalError> {
        let links = &self.reading(partition)?.offsets;
        self.on(links, "offsets", self.options.call_timeout, async |link: &PartitionClient| {
            let begin = link.get_offset(OffsetAt::Earliest).await?;
            let end = link.get_offset(OffsetAt::Latest).await?;
            Ok::<_, KafkaError>(Bounds { begin, end })
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
        let timestamp = DateTime::<Utc>::from_timestamp_millis(now_millis()).unwrap_or_default();
        let record = Record { key: Some(key), value: Some(value), headers: BTreeMap::new(), timestamp };
        self.on(&self.dead_letters, "copying a dead letter", self.options.append_timeout, async |link: &PartitionClient| {
            link.produce(vec![record], Compression::NoCompression).await
        })
        .await
        .map(drop)
    }

    /// Makes the first append connection of every partition, so that the first records do not wait for it (up to a second each).
    /// Returns when all are made or after `call_timeout`; those still missing are made in the background.
    async fn warm(&self) {
        self.lanes.iter().for_each(Lane::warm);
        let all = async {
            while !self.lanes.iter().all(|lane| lane.is_warm()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(self.options.call_timeout, all).await.is_err() {
            tracing::warn!("not all connections to kafka could be made in time");
        }
    }

    async fn close(&self) {
        self.lanes.iter().for_each(|lane| lane.close());
        self.tasks.close();
        if tokio::time::timeout(self.options.append_timeout, self.tasks.wait()).await.is_err() {
            tracing::warn!("journal closed with appends still waiting");
        }
    }
}
