//! The parts a process stands on, by configuration. The only file that names adapters.

use std::fs::{self, File, TryLockError};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use crate::config::{Config, Parts as Choice, SaslMechanism};
use crate::consumer::limiter::{Limit, Limiter, LocalLimiter, Range, RedisLimiter, RedisLimiterOptions};
use crate::gate::{Gate, LocalGate, RedisGate, RedisGateOptions};
use crate::journal::{Journal, KafkaJournal, KafkaOptions, KafkaSasl, KafkaSaslMechanism, KafkaTls, SqliteJournal};
use crate::kill_point::kill_point;
use crate::ledger::{Ledger, MysqlLedger, MysqlOptions, SqliteLedger};
use crate::redis::RedisOptions;
use crate::telemetry::Metrics;

/// Who opens the parts: a data folder serves one service, and any number of commands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Service,
    Command,
}

/// What a process stands on.
#[derive(Debug)]
pub struct Parts {
    pub journal: Arc<dyn Journal>,
    pub ledger: Arc<dyn Ledger>,
    pub gate: Arc<dyn Gate>,
    pub limiter: Arc<dyn Limiter>,
    /// Held for the process's life.
    _lock: Option<File>,
}

/// The ledger alone: for `migrate` and the dead letters, which need no other server.
///
/// # Errors
/// The data folder cannot be used, or the URL is wrong. A database that is away shows at the first call.
pub async fn open_ledger(config: &Config) -> anyhow::Result<Arc<dyn Ledger>> {
    Ok(match config.parts {
        Choice::Embedded => {
            let dir = &config.embedded.data_dir;
            fs::create_dir_all(dir).with_context(|| format!("failed to create the data folder {}", dir.display()))?;
            Arc::new(SqliteLedger::open(&dir.join("ledger.db")).context("failed to open the ledger")?)
        }
        Choice::Distributed => Arc::new(
            MysqlLedger::connect(MysqlOptions {
                url: config.mysql.url.clone(),
                pool: config.mysql.pool,
                connect_timeout: Duration::from_secs(5),
                query_timeout: config.mysql.query_timeout(),
                tls_ca: config.mysql.ca_file(),
                require_tls: config.mysql.tls,
            })
            .context("failed to set up the ledger")?,
        ),
    })
}

/// The journal alone.
///
/// # Errors
/// It cannot be opened, or does not answer.
pub async fn open_journal(config: &Config, metrics: &Metrics) -> anyhow::Result<Arc<dyn Journal>> {
    Ok(match config.parts {
        Choice::Embedded => {
            let dir = &config.embedded.data_dir;
            fs::create_dir_all(dir).with_context(|| format!("failed to create the data folder {}", dir.display()))?;
            Arc::new(SqliteJournal::open(&dir.join("journal.db")).context("failed to open the journal")?)
        }
        Choice::Distributed => Arc::new(KafkaJournal::connect(kafka_options(config, metrics)).await.context("failed to connect to kafka")?),
    })
}

impl Parts {
    /// Opens all of them and checks that they fit each other.
    ///
    /// # Errors
    /// A part cannot be used; with a server away it is worth trying again, which [`Parts::open`] leaves to its caller.
    pub async fn open(config: &Config, metrics: &Metrics, purpose: Purpose) -> anyhow::Result<Self> {
        let lock = match (config.parts, purpose) {
            (Choice::Embedded, Purpose::Service) => Some(lock_folder(config)?),
            _ => None,
        };
        kill_point("start.locked");
        let ledger = open_ledger(config).await?;
        let migrates = config.parts == Choice::Embedded || config.mysql.migrate_at_start;
        if migrates && purpose == Purpose::Service {
            ledger.migrate().await.context("failed to bring the ledger up to date")?;
        }
        ledger.check_schema().await.context("the ledger's schema is not this build's")?;
        let journal = open_journal(config, metrics).await?;
        let recorded = ledger.fix_partitions(journal.partitions()).await.context("failed to read the recorded partition count")?;
        if recorded != journal.partitions() {
            bail!(
                "the journal has {} partitions, the ledger was started with {recorded}: coupons would change their partition; \
                 restore the topic with {recorded} partitions, or start over with a new topic and an empty ledger",
                journal.partitions()
            );
        }
        let limit = if config.limiter.adaptive {
            Limit::Adaptive(Range { floor: config.limiter.floor, ceiling: config.limiter.rate })
        } else {
            Limit::Fixed(config.limiter.rate)
        };
        let (gate, limiter): (Arc<dyn Gate>, Arc<dyn Limiter>) = match config.parts {
            Choice::Embedded => (Arc::new(LocalGate::new()), Arc::new(LocalLimiter::new(limit))),
            Choice::Distributed => {
                let redis = RedisOptions {
                    url: config.redis.url.clone(),
                    ca_file: config.redis.ca_file(),
                    command_timeout: config.redis.command_timeout(),
                    connections: config.redis.connections,
                };
                let gate = RedisGate::connect(RedisGateOptions {
                    batch: config.redis.gate_batch,
                    batch_size: Some(metrics.gate_batch_size.clone()),
                    ..RedisGateOptions::new(redis.clone())
                });
                let limiter = RedisLimiter::connect(RedisLimiterOptions { redis, key: "coupon:limiter".to_owned(), limit });
                (
                    Arc::new(gate.await.context("failed to set up the gate")?),
                    Arc::new(limiter.await.context("failed to set up the limiter")?),
                )
            }
        };
        Ok(Self { journal, ledger, gate, limiter, _lock: lock })
    }
}

fn lock_folder(config: &Config) -> anyhow::Result<File> {
    let dir = &config.embedded.data_dir;
    fs::create_dir_all(dir).with_context(|| format!("failed to create the data folder {}", dir.display()))?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(anyhow!("another process serves the data folder {}: stop it, or choose another folder by embedded.data_dir", dir.display()))
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("failed to lock {}", path.display())),
    }
}

fn kafka_options(config: &Config, metrics: &Metrics) -> KafkaOptions {
    let kafka = &config.kafka;
    let mechanism = match kafka.sasl_mechanism {
        SaslMechanism::None => None,
        SaslMechanism::Plain => Some(KafkaSaslMechanism::Plain),
        SaslMechanism::ScramSha256 => Some(KafkaSaslMechanism::ScramSha256),
        SaslMechanism::ScramSha512 => Some(KafkaSaslMechanism::ScramSha512),
    };
    KafkaOptions {
        brokers: kafka.broker_list(),
        topic: kafka.topic.clone(),
        dead_letter_topic: kafka.dead_letter_topic.clone(),
        group: kafka.group.clone(),
        partitions: kafka.partitions,
        replication_factor: kafka.replication_factor,
        append_timeout: kafka.append_timeout(),
        call_timeout: kafka.call_timeout(),
        tls: kafka.tls.then(|| KafkaTls { ca_file: kafka.ca_file() }),
        sasl: mechanism.map(|mechanism| KafkaSasl {
            mechanism,
            username: kafka.sasl_username.clone(),
            password: kafka.sasl_password.clone(),
        }),
        append_seconds: Some(metrics.journal_append_seconds.clone()),
        ..KafkaOptions::default()
    }
}
