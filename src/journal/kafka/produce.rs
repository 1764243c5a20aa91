//! A request that appends, over any partitions of one broker, and what its answer means to those who wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use tokio::sync::oneshot;

use super::super::JournalError;
use super::lane::Lanes;
use super::wire::{Request, topic_name};
use super::{is_of_the_past, records, unknown};
use crate::domain::{Partition, now_millis};

pub const VERSION: i16 = 8;
/// Kafka's number of "all replicas in sync".
const ALL: i16 = -1;

impl Request for ProduceRequest {
    const KEY: i16 = 0;
    type Response = ProduceResponse;
}

pub type Done = oneshot::Sender<Result<(), JournalError>>;
/// When it was queued, and who waits for its answer.
pub type Waiting = (Instant, Option<Done>);

/// A record that waits.
pub struct Item {
    pub partition: Partition,
    pub record: records::KeyValue,
    pub queued: Instant,
    /// None: nobody waits.
    pub done: Option<Done>,
}

impl Item {
    pub fn bytes(&self) -> usize {
        records::OVERHEAD + self.record.0.len() + self.record.1.len()
    }
}

/// The records of one partition in a request.
pub struct Part {
    records: Vec<records::KeyValue>,
    waiting: Vec<Waiting>,
}

/// A request whose records are acknowledged once every replica in sync has them.
pub fn request(topics: Vec<TopicProduceData>, limit: Duration) -> ProduceRequest {
    // One slow partition holds up the answer for all: the broker is to give up before we do.
    let patience = limit / 2;
    ProduceRequest::default()
        .with_acks(ALL)
        .with_timeout_ms(i32::try_from(patience.as_millis()).unwrap_or(i32::MAX))
        .with_topic_data(topics)
}

pub fn encode(batch: Vec<Item>, topic: &str, limit: Duration) -> Result<(ProduceRequest, BTreeMap<Partition, Part>), JournalError> {
    let mut parts: BTreeMap<Partition, Part> = BTreeMap::new();
    for item in batch {
        let part = parts.entry(item.partition).or_insert_with(|| Part { records: Vec::new(), waiting: Vec::new() });
        part.records.push(item.record);
        part.waiting.push((item.queued, item.done));
    }
    let at = now_millis();
    let mut data = Vec::with_capacity(parts.len());
    for (partition, part) in &parts {
        let batch = records::encode(&part.records, at)?;
        data.push(PartitionProduceData::default().with_index(*partition).with_records(Some(batch)));
    }
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(data);
    Ok((request(vec![topic], limit), parts))
}

/// Answers those who wait. What a broker refused because it is not the leader goes on to the one that is. An error, one of theirs, when
/// nothing was taken: one bad partition must not hold up the others of its broker.
pub fn settle(
    lanes: &Lanes,
    answer: Result<ProduceResponse, JournalError>,
    mut parts: BTreeMap<Partition, Part>,
) -> Result<(), JournalError> {
    let mut outcome = Ok(());
    let mut taken = false;
    let mut tell = |waiting: Vec<Waiting>, told: &Result<(), JournalError>| {
        match told {
            Ok(()) => {
                taken = true;
                lanes.observe(&waiting);
            }
            Err(_) => outcome.clone_from(told),
        }
        for done in waiting.into_iter().filter_map(|(_, done)| done) {
            let _ignored = done.send(told.clone());
        }
    };
    let missing = match answer {
        Ok(answer) => {
            for told in answer.responses.into_iter().flat_map(|topic| topic.partition_responses) {
                let Some(part) = parts.remove(&told.index) else { continue };
                match ResponseError::try_from_code(told.error_code) {
                    None => tell(part.waiting, &Ok(())),
                    Some(error) if is_of_the_past(error) => {
                        let error = unknown(&format!("append to partition {}", told.index), &error);
                        for (record, (queued, done)) in part.records.into_iter().zip(part.waiting) {
                            lanes.again(Item { partition: told.index, record, queued, done });
                        }
                        tell(Vec::new(), &Err(error));
                    }
                    Some(error) => tell(part.waiting, &Err(unknown(&format!("append to partition {}", told.index), &error))),
                }
            }
            unknown("append", &"the broker did not say what became of it")
        }
        Err(error) => error,
    };
    for (_, part) in parts {
        tell(part.waiting, &Err(missing.clone()));
    }
    if let (true, Err(error)) = (taken, &outcome) {
        tracing::debug!(%error, "a part of an append failed");
        lanes.doubt();
        return Ok(());
    }
    outcome
}
