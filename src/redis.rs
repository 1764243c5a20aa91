//! The Redis client as this service wants it: deadlines everywhere, no command run twice by the client, never in the way of a start.

use std::time::Duration;

use fred::prelude::{Builder, ClientLike, Config, Error, Pool, ReconnectPolicy, TcpConfig};
use fred::types::config::UnresponsiveConfig;
use secrecy::{ExposeSecret, SecretString};

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://`, or a cluster or sentinel URL as fred reads them.
    pub url: SecretString,
    /// Deadline of one command.
    pub command_timeout: Duration,
    pub connections: usize,
}

/// A pool that connects in the background and for ever: whoever asks while Redis is away gets an error within the deadline.
///
/// # Errors
/// The URL cannot be read.
pub fn connect(options: &RedisOptions) -> Result<Pool, Error> {
    let config = Config { fail_fast: true, ..Config::from_url(options.url.expose_secret())? };
    let timeout = options.command_timeout;
    let pool = Builder::from_config(config)
        .with_performance_config(|performance| performance.default_command_timeout = timeout)
        .with_connection_config(|connection| {
            connection.connection_timeout = Duration::from_millis(500);
            connection.internal_command_timeout = Duration::from_millis(500);
            // A script in flight at a disconnect would run again by itself; whether to ask again is the caller's business.
            connection.max_command_attempts = 1;
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: Some(Duration::from_secs(1)), interval: Duration::from_millis(250) };
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
        })
        .set_policy(ReconnectPolicy::new_exponential(0, 50, 1_000, 2))
        .build_pool(options.connections.max(1))?;
    // The tasks live as long as the pool; they reconnect by the policy.
    drop(pool.connect_pool());
    Ok(pool)
}
