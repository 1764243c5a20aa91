//! The token bucket in Redis, over all consumers; without Redis, this process's share of the rate.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fred::prelude::{Error, Pool};
use fred::types::scripts::Script;
use tokio::time::timeout;

use super::local::{LocalLimiter, burst_of};
use super::{Grant, Limiter};
use crate::redis::{RedisOptions, connect};

/// Settings of the limiter in Redis.
#[derive(Debug, Clone)]
pub struct RedisLimiterOptions {
    pub redis: RedisOptions,
    /// The bucket's key: the same for all consumers.
    pub key: String,
    /// Permits a second over all consumers; 0: no limit.
    pub rate: f64,
}

/// See the module.
pub struct RedisLimiter {
    pool: Pool,
    script: Script,
    options: RedisLimiterOptions,
    fallback: LocalLimiter,
    consumers: AtomicU32,
    reachable: AtomicBool,
}

impl fmt::Debug for RedisLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLimiter").field("rate", &self.options.rate).finish_non_exhaustive()
    }
}

impl RedisLimiter {
    /// Redis may be away.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub async fn connect(options: RedisLimiterOptions) -> Result<Self, Error> {
        Ok(Self {
            pool: connect(&options.redis)?,
            script: Script::from_lua(include_str!("limiter.lua")),
            fallback: LocalLimiter::new(options.rate),
            consumers: AtomicU32::new(1),
            reachable: AtomicBool::new(true),
            options,
        })
    }

    async fn ask(&self, wanted: u32) -> Result<Grant, String> {
        let rate = self.options.rate;
        let args = vec![rate.to_string(), burst_of(rate).to_string(), wanted.to_string()];
        let client = self.pool.next_connected();
        let asked = self.script.evalsha_with_reload::<Vec<i64>, _, _>(client, self.options.key.as_str(), args);
        let answer = timeout(self.options.redis.command_timeout, asked).await.map_err(|_| "no answer in time".to_owned())?;
        match answer.map_err(|error| error.to_string())?.as_slice() {
            [granted, wait] => Ok(Grant {
                permits: u32::try_from(*granted).unwrap_or(0),
                wait: Duration::from_millis(u64::try_from(*wait).unwrap_or(5)),
            }),
            other => Err(format!("unexpected answer {other:?}")),
        }
    }
}

#[async_trait]
impl Limiter for RedisLimiter {
    async fn take(&self, wanted: u32) -> Grant {
        if self.options.rate <= 0.0 || wanted == 0 {
            return Grant { permits: wanted, wait: Duration::ZERO };
        }
        let asked = self.ask(wanted).await;
        let was = self.reachable.swap(asked.is_ok(), Ordering::Relaxed);
        match asked {
            Ok(grant) => grant,
            Err(error) => {
                let consumers = self.consumers.load(Ordering::Relaxed).max(1);
                if was {
                    tracing::warn!(%error, consumers, "redis does not answer: going on with this process's share of the rate");
                }
                self.fallback.take_share(wanted, 1.0 / f64::from(consumers))
            }
        }
    }

    fn rate(&self) -> f64 {
        self.options.rate
    }

    fn share_among(&self, consumers: u32) {
        self.consumers.store(consumers, Ordering::Relaxed);
    }
}
