//! Clients of the brokers, and how to get new ones when something is wrong.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rskafka::BackoffConfig;
use rskafka::client::partition::{PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use secrecy::ExposeSecret;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::super::JournalError;
use super::access::Access;
use super::{KafkaOptions, KafkaSaslMechanism, lock, unknown};

/// Failures in a row after which the whole client is built anew.
const RENEW_AFTER: u32 = 3;
/// Connections to partitions being made at the same time.
const CONNECTING: usize = 16;
/// How long one of them counts.
const PERMIT: Duration = Duration::from_millis(250);
/// Clients of one link pool that are kept open while nobody uses them.
const IDLE_LINKS: usize = 4;

/// The client all connections are made from, replaced when it does not recover by itself.
pub struct Cluster {
    options: Arc<KafkaOptions>,
    access: Access,
    current: Mutex<Arc<Client>>,
    runtime: Handle,
    /// A full listen queue costs a second (the packet is sent again): a few connections at a time.
    connecting: tokio::sync::Semaphore,
    /// When the client was last built; held while one is built.
    renewed: tokio::sync::Mutex<Instant>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("brokers", &self.options.brokers).finish_non_exhaustive()
    }
}

impl Cluster {
    pub async fn connect(options: Arc<KafkaOptions>, access: Access) -> Result<Self, JournalError> {
        let client = build(&options, access.tls()).await?;
        Ok(Self {
            options,
            access,
            current: Mutex::new(Arc::new(client)),
            runtime: Handle::current(),
            connecting: tokio::sync::Semaphore::new(CONNECTING),
            renewed: tokio::sync::Mutex::new(Instant::now()),
        })
    }

    pub const fn access(&self) -> &Access {
        &self.access
    }

    pub fn client(&self) -> Arc<Client> {
        Arc::clone(&lock(&self.current))
    }

    /// Runs one call of the vendor crate, which itself has no deadline, under the call timeout.
    pub async fn timed<T, E: std::fmt::Display>(&self, what: &str, call: impl Future<Output = Result<T, E>>) -> Result<T, JournalError> {
        timed(what, self.options.call_timeout, call).await
    }

    /// A client of its own connection to the partition's leader. `failures`: how often in a row it went wrong before.
    pub async fn partition(self: &Arc<Self>, topic: &str, partition: i32, failures: u32) -> Result<PartitionClient, JournalError> {
        let (cluster, topic) = (Arc::clone(self), topic.to_owned());
        // Not on the runtime of the HTTP worker that may have asked: the connection would end with it.
        let connecting = self.runtime.spawn(async move { cluster.connect_to(&topic, partition, failures).await });
        AbortOnDropHandle::new(connecting).await.map_err(|error| unknown("connecting to the partition's leader", &error))?
    }

    async fn connect_to(&self, topic: &str, partition: i32, failures: u32) -> Result<PartitionClient, JournalError> {
        if failures > 0 && failures.is_multiple_of(RENEW_AFTER) {
            self.renew().await?;
        } else if failures > 0 {
            // Un-sticks a client that holds on to a leader of the past.
            self.timed("metadata", self.client().list_topics()).await?;
        }
        let client = self.client();
        let connect = async {
            let mut connect = std::pin::pin!(client.partition_client(topic, partition, UnknownTopicHandling::Retry));
            let permit = self.connecting.acquire().await.map_err(|error| error.to_string())?;
            // One that takes long (its leader is down) does not keep others waiting.
            let quick = tokio::time::timeout(PERMIT, &mut connect).await;
            drop(permit);
            match quick {
                Ok(outcome) => outcome,
                Err(_) => connect.await,
            }
            .map_err(|error| error.to_string())
        };
        self.timed("connecting to the partition's leader", connect).await
    }

    async fn renew(&self) -> Result<(), JournalError> {
        let mut renewed = self.renewed.lock().await;
        // Every partition fails in an outage: one new client serves them all.
        if renewed.elapsed() > Duration::from_secs(1) {
            *lock(&self.current) = Arc::new(build(&self.options, self.access.tls()).await?);
            *renewed = Instant::now();
            tracing::info!("built a new kafka client");
        }
        Ok(())
    }
}

pub async fn timed<T, E: std::fmt::Display>(
    what: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, JournalError> {
    match tokio::time::timeout(limit, call).await {
        Ok(outcome) => outcome.map_err(|error| unknown(what, &error)),
        Err(_) => Err(JournalError::Unknown(format!("{what}: no answer within {limit:?}"))),
    }
}

async fn build(options: &KafkaOptions, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Client, JournalError> {
    let mut builder = ClientBuilder::new(options.brokers.clone()).client_id(options.client_id.as_str()).backoff_config(BackoffConfig {
        init_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_secs(1),
        base: 2.0,
        deadline: None,
    });
    if let Some(tls) = tls {
        builder = builder.tls_config(tls);
    }
    if let Some(sasl) = &options.sasl {
        let credentials = Credentials::new(sasl.username.clone(), sasl.password.expose_secret().to_owned());
        builder = builder.sasl_config(match sasl.mechanism {
            KafkaSaslMechanism::Plain => SaslConfig::Plain(credentials),
            KafkaSaslMechanism::ScramSha256 => SaslConfig::ScramSha256(credentials),
            KafkaSaslMechanism::ScramSha512 => SaslConfig::ScramSha512(credentials),
        });
    }
    timed("connecting to kafka", options.call_timeout, builder.build()).await
}

/// Connections to one partition for one purpose: a connection answers in order, so two calls at once need two.
#[derive(Debug)]
pub struct Links {
    topic: String,
    partition: i32,
    idle: Mutex<Vec<PartitionClient>>,
    failures: AtomicU32,
}

impl Links {
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.to_owned(), partition, idle: Mutex::new(Vec::new()), failures: AtomicU32::new(0) }
    }

    /// A connection for the caller alone. One that is not given back (a failure, a dropped future) is closed.
    /// The caller tells of a failure, this one included, by [`Links::failed`].
    pub async fn take(&self, cluster: &Arc<Cluster>) -> Result<PartitionClient, JournalError> {
        let pooled = lock(&self.idle).pop();
        if let Some(link) = pooled {
            return Ok(link);
        }
        cluster.partition(&self.topic, self.partition, self.failures.load(Ordering::Relaxed)).await
    }

    pub fn give(&self, link: PartitionClient) {
        self.failures.store(0, Ordering::Relaxed);
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_LINKS {
            idle.push(link);
        }
    }

    /// The others of the pool are as old as the one that failed: none is used again.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        lock(&self.idle).clear();
    }
}
