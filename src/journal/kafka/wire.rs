//! One connection to one broker: requests and answers, and the group's offsets.

use std::fmt;
use std::io;

use futures_util::future::{FutureExt, select_ok};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_util::bytes::BytesMut;

use super::super::JournalError;
use super::access::{Access, Stream};
use super::unknown;
use crate::domain::{Offset, Partition};

const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A request, the number of its kind and its answer (the crate has this only together with its broker half).
pub trait Request: Encodable + HeaderVersion {
    const KEY: i16;
    type Response: Decodable + HeaderVersion;
}

impl Request for MetadataRequest {
    const KEY: i16 = 3;
    type Response = MetadataResponse;
}

impl Request for OffsetCommitRequest {
    const KEY: i16 = 8;
    type Response = OffsetCommitResponse;
}

impl Request for FindCoordinatorRequest {
    const KEY: i16 = 10;
    type Response = FindCoordinatorResponse;
}

/// One connection to one broker. No call has a deadline of its own; one that was cut off leaves the connection unusable.
pub struct Wire {
    stream: BufReader<Box<dyn Stream>>,
    client_id: StrBytes,
    correlation: i32,
    /// Kept from call to call: the allocator tidies up whenever so large a piece is given back.
    frame: Vec<u8>,
    answer: BytesMut,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("correlation", &self.correlation).finish_non_exhaustive()
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// `host:port`, as a connection wants it.
pub fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub fn topic_name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

pub fn check(what: &str, code: i16) -> Result<(), JournalError> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(unknown(what, &error)),
    }
}

impl Wire {
    pub fn new(stream: Box<dyn Stream>, client_id: &str) -> Self {
        Self { stream: BufReader::new(stream), client_id: text(client_id), correlation: 0, frame: Vec::new(), answer: BytesMut::new() }
    }

    /// A connection to the first broker that lets us in: all are tried at once, for one that is silent must not keep the others waiting.
    pub async fn connect(brokers: &[String], access: &Access) -> Result<Self, JournalError> {
        if brokers.is_empty() {
            return Err(JournalError::Unknown("no broker is named".into()));
        }
        select_ok(brokers.iter().map(|broker| Box::pin(access.enter(broker)))).await.map(|(wire, _)| wire)
    }

    pub async fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, JournalError> {
        let failed = |error: &dyn fmt::Display| unknown("kafka request", error);
        let cut = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => failed(&"the broker hung up: does this listener want tls or sasl?"),
            _ => failed(&error),
        };
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(self.client_id.clone()));
        self.frame.clear();
        self.frame.extend([0; 4]);
        header.encode(&mut self.frame, R::header_version(version)).map_err(|error| failed(&error))?;
        request.encode(&mut self.frame, version).map_err(|error| failed(&error))?;
        let length = i32::try_from(self.frame.len() - 4).map_err(|error| failed(&error))?;
        self.frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&self.frame).await.map_err(cut)?;
        self.stream.flush().await.map_err(cut)?;
        let length = self.stream.read_i32().await.map_err(cut)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_ANSWER);
        let length = length.ok_or_else(|| failed(&"not an answer of kafka: does this listener want tls?"))?;
        self.answer.clear();
        self.answer.reserve(length);
        while self.answer.len() < length {
            let missing = length - self.answer.len();
            if (&mut self.stream).take(missing as u64).read_buf(&mut self.answer).await.map_err(cut)? == 0 {
                return Err(cut(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let mut answer = self.answer.split().freeze();
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version)).map_err(|error| failed(&error))?;
        if header.correlation_id != self.correlation {
            return Err(failed(&"the answer belongs to another request"));
        }
        R::Response::decode(&mut answer, version).map_err(|error| failed(&error))
    }

    /// Whether the broker hung up while nothing was asked, as it does when nothing is for ten minutes.
    pub fn is_gone(&mut self) -> bool {
        // Nothing is on its way: whatever comes is the end, or not ours.
        self.stream.fill_buf().now_or_never().is_some()
    }

    /// A connection to the group's coordinator, found through any broker.
    pub async fn coordinator(brokers: &[String], access: &Access, group: &str) -> Result<Self, JournalError> {
        let mut any = Self::connect(brokers, access).await?;
        let request = FindCoordinatorRequest::default().with_key(text(group)).with_key_type(0);
        let answer = any.call(&request, 3).await?;
        check("finding the group's coordinator", answer.error_code)?;
        access.enter(&address(answer.host.as_str(), answer.port)).await
    }

    /// Stores offsets for a group that has no members.
    pub async fn commit(&mut self, group: &str, topic: &str, next: &[(Partition, Offset)]) -> Result<(), JournalError> {
        let partitions = next
            .iter()
            .map(|(partition, offset)| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(*partition)
                    .with_committed_offset(*offset)
                    .with_committed_leader_epoch(-1)
                    .with_committed_metadata(Some(StrBytes::new()))
            })
            .collect();
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions)]);
        let answer = self.call(&request, 7).await?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            check("committing group offsets", partition.error_code)?;
        }
        Ok(())
    }
}
