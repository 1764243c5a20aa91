//! The two topics: made where they are missing, their leaders, their settings.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse, MetadataRequest, MetadataResponse,
};

use super::super::JournalError;
use super::access::Access;
use super::cluster::{Leaders, NOBODY};
use super::wire::{Request, Wire, address, check, text, topic_name};
use super::{KafkaOptions, unknown};
use crate::domain::Partition;

/// Kafka's number of the resource type "topic".
const TOPIC_RESOURCE: i8 = 2;
const METADATA_VERSION: i16 = 7;

impl Request for CreateTopicsRequest {
    const KEY: i16 = 19;
    type Response = CreateTopicsResponse;
}

impl Request for DescribeConfigsRequest {
    const KEY: i16 = 32;
    type Response = DescribeConfigsResponse;
}

/// The names of the topics.
#[derive(Debug, Clone, Copy)]
pub struct Topics<'a> {
    topic: &'a str,
    dead_letters: &'a str,
}

fn of_name<'a>(answer: &'a MetadataResponse, name: &str) -> Option<&'a MetadataResponseTopic> {
    let named = |topic: &&MetadataResponseTopic| topic.name.as_ref().is_some_and(|found| found.0.as_str() == name);
    answer.topics.iter().find(named).filter(|topic| !topic.partitions.is_empty())
}

async fn metadata(wire: &mut Wire, names: &[&str]) -> Result<MetadataResponse, JournalError> {
    let wanted = names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name)))).collect();
    wire.call(&MetadataRequest::default().with_topics(Some(wanted)).with_allow_auto_topic_creation(false), METADATA_VERSION).await
}

impl<'a> Topics<'a> {
    pub fn of(options: &'a KafkaOptions) -> Self {
        Self { topic: &options.topic, dead_letters: &options.dead_letter_topic }
    }

    /// Who leads the partitions of both.
    pub async fn leaders(self, wire: &mut Wire) -> Result<Leaders, JournalError> {
        let answer = metadata(wire, &[self.topic, self.dead_letters]).await?;
        let addresses = answer.brokers.iter().map(|broker| (broker.node_id.0, address(broker.host.as_str(), broker.port))).collect();
        let leaders = |name: &str| -> Option<Vec<_>> {
            let mut found: Vec<_> = of_name(&answer, name)?.partitions.iter().collect();
            found.sort_by_key(|partition| partition.partition_index);
            Some(found.into_iter().map(|partition| (partition.leader_id.0, partition.leader_epoch)).collect())
        };
        let partitions = leaders(self.topic).ok_or_else(|| unknown("metadata", &format!("there is no topic {}", self.topic)))?;
        let dead_letters = leaders(self.dead_letters).and_then(|leaders| leaders.first().copied()).map_or(NOBODY, |leader| leader.0);
        Ok(Leaders { partitions, dead_letters, addresses })
    }
}

/// Creates the topic where it is missing; its number of partitions.
pub async fn create(
    wire: &mut Wire,
    access: &Access,
    options: &KafkaOptions,
    name: &str,
    partitions: i32,
) -> Result<Partition, JournalError> {
    let count = |answer: &MetadataResponse| of_name(answer, name).map(|topic| i32::try_from(topic.partitions.len()));
    let seen = |count: Option<Result<i32, _>>| count.transpose().map_err(|error| unknown("metadata", &error));
    let answer = metadata(wire, &[name]).await?;
    if let Some(partitions) = seen(count(&answer))? {
        return Ok(partitions);
    }
    let controller = answer.brokers.iter().find(|broker| broker.node_id == answer.controller_id);
    let controller = controller.ok_or_else(|| unknown("metadata", &"the cluster has no controller yet"))?;
    let mut controller = access.enter(&address(controller.host.as_str(), controller.port)).await?;
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(options.replication_factor);
    let limit = i32::try_from(options.call_timeout.as_millis()).unwrap_or(i32::MAX);
    let created = controller.call(&CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(limit), 4).await?;
    for topic in created.topics {
        match ResponseError::try_from_code(topic.error_code) {
            None => tracing::info!(topic = name, partitions, replication_factor = options.replication_factor, "created topic"),
            // Another process was faster.
            Some(ResponseError::TopicAlreadyExists) => {}
            Some(error) => {
                let why = topic.error_message.map_or_else(String::new, |message| format!(": {}", message.as_str()));
                return Err(unknown(&format!("creating topic {name}"), &format!("{error}{why}")));
            }
        }
    }
    let started = Instant::now();
    while started.elapsed() < options.call_timeout {
        let answer = metadata(wire, &[name]).await?;
        let led = of_name(&answer, name).is_some_and(|topic| topic.partitions.iter().all(|partition| partition.leader_id.0 != NOBODY));
        if let (true, Some(partitions)) = (led, seen(count(&answer))?) {
            return Ok(partitions);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(JournalError::Unknown(format!("topic {name} was created but is not seen")))
}

/// What is wrong with a topic's settings is judged from these.
#[derive(Debug, Default)]
pub struct TopicSettings {
    pub values: BTreeMap<String, String>,
    /// The smallest number of replicas of any partition.
    pub replicas: usize,
}

impl TopicSettings {
    /// The topic's effective settings and replicas.
    pub async fn read(wire: &mut Wire, topic: &str) -> Result<Self, JournalError> {
        let resource = DescribeConfigsResource::default().with_resource_type(TOPIC_RESOURCE).with_resource_name(text(topic));
        let answer = wire.call(&DescribeConfigsRequest::default().with_resources(vec![resource.with_configuration_keys(None)]), 1).await?;
        let mut settings = Self::default();
        for result in answer.results {
            check("describing the topic", result.error_code)?;
            for entry in result.configs {
                let value = entry.value.map(|value| value.as_str().to_owned()).unwrap_or_default();
                settings.values.insert(entry.name.as_str().to_owned(), value);
            }
        }
        let answer = metadata(wire, &[topic]).await?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        settings.replicas = partitions.map(|partition| partition.replica_nodes.len()).min().unwrap_or_default();
        Ok(settings)
    }

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
