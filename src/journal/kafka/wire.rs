//! The few requests the client crate does not have: group offsets without a group, topic configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use futures_util::future::select_ok;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId, MetadataRequest,
    MetadataResponse, OffsetCommitRequest, OffsetCommitResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::JournalError;
use super::access::{Access, Stream};
use super::unknown;
use crate::domain::{Offset, Partition};

const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Kafka's number of the resource type "topic".
const TOPIC_RESOURCE: i8 = 2;

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

impl Request for DescribeConfigsRequest {
    const KEY: i16 = 32;
    type Response = DescribeConfigsResponse;
}

/// One connection to one broker. No call has a deadline of its own; one that was cut off leaves the connection unusable.
pub struct Wire {
    stream: Box<dyn Stream>,
    client_id: StrBytes,
    correlation: i32,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("correlation", &self.correlation).finish_non_exhaustive()
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

fn check(what: &str, code: i16) -> Result<(), JournalError> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(unknown(what, &error)),
    }
}

/// What is wrong with a topic's settings is judged from these.
#[derive(Debug, Default)]
pub struct TopicSettings {
    pub values: BTreeMap<String, String>,
    /// The smallest number of replicas of any partition.
    pub replicas: usize,
}

impl TopicSettings {
    /// What an operator has to know, one sentence each.
    pub fn dangers(&self) -> Vec<String> {
        let value = |name: &str| self.values.get(name).map_or("", String::as_str);
        let mut dangers = Vec::new();
        if value("cleanup.policy").contains("compact") {
            dangers.push("cleanup.policy is compact: records will vanish from the middle of the log".to_owned());
        }
        if value("cleanup.policy").contains("delete") {
            for name in ["retention.ms", "retention.bytes"] {
                if !matches!(value(name), "" | "-1") {
                    dangers.push(format!("{name} is {}: records are deleted that nobody may have read", value(name)));
                }
            }
        }
        if self.replicas > 1 && value("min.insync.replicas") == "1" {
            dangers.push("min.insync.replicas is 1: an acknowledged record may be on one broker only".to_owned());
        }
        if self.replicas > 1 && value("unclean.leader.election.enable") == "true" {
            dangers.push(
                "unclean.leader.election.enable is true: a lagging replica may become leader and acknowledged records vanish".to_owned(),
            );
        }
        dangers
    }
}

impl Wire {
    pub fn new(stream: Box<dyn Stream>, client_id: &str) -> Self {
        Self { stream, client_id: text(client_id), correlation: 0 }
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
        let mut frame = vec![0; 4];
        header.encode(&mut frame, R::header_version(version)).map_err(|error| failed(&error))?;
        request.encode(&mut frame, version).map_err(|error| failed(&error))?;
        let length = i32::try_from(frame.len() - 4).map_err(|error| failed(&error))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await.map_err(cut)?;
        self.stream.flush().await.map_err(cut)?;
        let length = self.stream.read_i32().await.map_err(cut)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_ANSWER);
        let length = length.ok_or_else(|| failed(&"not an answer of kafka: does this listener want tls?"))?;
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await.map_err(cut)?;
        let mut answer = tokio_util::bytes::Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version)).map_err(|error| failed(&error))?;
        if header.correlation_id != self.correlation {
            return Err(failed(&"the answer belongs to another request"));
        }
        R::Response::decode(&mut answer, version).map_err(|error| failed(&error))
    }

    /// A connection to the group's coordinator, found through any broker.
    pub async fn coordinator(brokers: &[String], access: &Access, group: &str) -> Result<Self, JournalError> {
        let mut any = Self::connect(brokers, access).await?;
        let request = FindCoordinatorRequest::default().with_key(text(group)).with_key_type(0);
        let answer = any.call(&request, 3).await?;
        check("finding the group's coordinator", answer.error_code)?;
        access.enter(&format!("{}:{}", answer.host.as_str(), answer.port)).await
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

    /// The topic's effective settings and replicas.
    pub async fn settings(&mut self, topic: &str) -> Result<TopicSettings, JournalError> {
        let resource = DescribeConfigsResource::default().with_resource_type(TOPIC_RESOURCE).with_resource_name(text(topic));
        let answer = self.call(&DescribeConfigsRequest::default().with_resources(vec![resource.with_configuration_keys(None)]), 1).await?;
        let mut settings = TopicSettings::default();
        for result in answer.results {
            check("describing the topic", result.error_code)?;
            for entry in result.configs {
                let value = entry.value.map(|value| value.as_str().to_owned()).unwrap_or_default();
                settings.values.insert(entry.name.as_str().to_owned(), value);
            }
        }
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
        let answer = self.call(&request, 5).await?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        settings.replicas = partitions.map(|partition| partition.replica_nodes.len()).min().unwrap_or_default();
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(replicas: usize, values: &[(&str, &str)]) -> TopicSettings {
        TopicSettings { values: values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(), replicas }
    }

    #[test]
    fn only_dangerous_settings_are_complained_about() {
        let good = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1"), ("min.insync.replicas", "2")];
        assert!(settings(3, &good).dangers().is_empty());
        assert!(settings(1, &[("min.insync.replicas", "1")]).dangers().is_empty());
        let bad = [
            ("cleanup.policy", "compact,delete"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "1"),
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "true"),
        ];
        assert_eq!(settings(3, &bad).dangers().len(), 5);
    }
}
