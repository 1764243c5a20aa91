//! The connections to Redis that the gate and the limiter share: everything that is particular about the client lives here.
//!
//! Redis never carries correctness, so this room is built to give up early: every call has a deadline, nothing is sent twice, and
//! from the first failed call on until Redis answers again callers are told "away" at once, without a round trip. While away, one
//! background probe a tenth of a second asks whether Redis is back.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::clients::{Client, Pool};
use fred::interfaces::{ClientLike, KeysInterface, LuaInterface, SetsInterface};
use fred::types::config::{Config, ReconnectError, ReconnectPolicy, ServerConfig, TlsConnector, UnresponsiveConfig};
use fred::types::scripts::Script as FredScript;
use fred::types::{Builder, Value};
use futures_util::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::tls;

/// How long one attempt to connect, its TLS handshake and its internal commands may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A connection that owes an answer this long is closed and opened anew.
const UNRESPONSIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts to connect, the first and the longest pause.
const RECONNECT_MIN_MILLIS: u32 = 50;
const RECONNECT_MAX_MILLIS: u32 = 1_000;
/// Pause before a client whose connection task ended is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(250);
/// Between two probes while Redis is away.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// Where Redis is and how long to wait for it.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://` (TLS), `redis-sentinel://` or `rediss-sentinel://` with `sentinelServiceName` and further
    /// `node` parameters; credentials and database inside.
    pub url: SecretString,
    /// PEM file of the authorities that vouch for a server with TLS; None: the system's.
    pub ca_file: Option<PathBuf>,
    /// Deadline of every call, waiting and round trips together.
    pub command_timeout: Duration,
    /// Connections of this process, at least 1.
    pub connections: usize,
}

impl RedisOptions {
    /// The options for an address with the default deadline (250 ms) and two connections.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: SecretString::from(url.into()), ca_file: None, command_timeout: Duration::from_millis(250), connections: 2 }
    }
}

/// The address can never work; nothing about a Redis that is merely away.
#[derive(Debug, Clone, Error)]
pub enum BadRedis {
    #[error("redis.url is not usable: {0}")]
    Url(String),
    #[error("redis.url names a redis cluster; a single server or a sentinel set is needed")]
    Cluster,
    #[error("redis.ca_file: {0}")]
    Authorities(#[from] tls::NoAuthorities),
}

/// Redis gave no usable answer in time; whether it did what was asked is not known.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct RedisAway(String);

/// A Lua script, called by its hash.
#[derive(Debug, Clone)]
pub struct Script(FredScript);

impl Script {
    #[must_use]
    pub fn new(lua: &str) -> Self {
        Self(FredScript::from_lua(lua))
    }
}

/// Connected clients; reconnects by itself for as long as it lives, dropping it closes the connections.
pub struct Redis {
    pool: Pool,
    command_timeout: Duration,
    health: Arc<Health>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("connections", &self.pool.size()).field("reachable", &self.health.reachable()).finish_non_exhaustive()
    }
}

/// Starts the connections. Waits until the first attempts have ended, half a second at most; a Redis that is away is no error.
///
/// Needs a tokio runtime; the connections live on it.
///
/// # Errors
/// The address cannot be parsed or names a cluster, or TLS is asked for and the certificate authorities cannot be read.
pub async fn connect(options: &RedisOptions) -> Result<Redis, BadRedis> {
    let pool = build(options)?;
    let health = Arc::new(Health::default());
    let mut tasks = Vec::with_capacity(pool.size() + 1);
    let mut attempts = Vec::with_capacity(pool.size());
    for client in pool.clients() {
        let (ended, attempt) = oneshot::channel();
        tasks.push(AbortOnDropHandle::new(tokio::spawn(keep_connected(client.clone(), Arc::clone(&health), ended))));
        attempts.push(attempt);
    }
    let _ignored = timeout(CONNECT_TIMEOUT, join_all(attempts)).await;
    if pool.clients().iter().any(ClientLike::is_connected) {
        health.reachable.store(true, Ordering::Release);
    } else {
        let why = health.why().unwrap_or_else(|| "no connection in time".to_owned());
        tracing::warn!(reason = why, "redis is away at start, going on without it");
        health.failed.notify_one();
    }
    tasks.push(AbortOnDropHandle::new(tokio::spawn(probe_while_away(pool.clone(), Arc::clone(&health), options.command_timeout))));
    Ok(Redis { pool, command_timeout: options.command_timeout, health, _tasks: tasks })
}

impl Redis {
    /// Deadline of every call.
    #[must_use]
    pub const fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// Whether the last call was answered. While it was not, every call fails at once.
    #[must_use]
    pub fn reachable(&self) -> bool {
        self.health.reachable()
    }

    /// Counts a call as not answered that ended outside of this room, such as one that waited in a queue too long.
    pub fn mark_away(&self, why: &str) {
        self.health.fail(why);
    }

    /// A connection for several calls that are to be executed in the order they are sent in.
    ///
    /// # Errors
    /// Redis is away.
    pub fn lane(&self) -> Result<Lane<'_>, RedisAway> {
        if !self.reachable() {
            return Err(RedisAway("redis did not answer a moment ago".to_owned()));
        }
        let client = self.pool.next_connected();
        if client.is_connected() { Ok(Lane { redis: self, client, since: None }) } else { Err(self.fail("no connection to redis")) }
    }

    fn fail(&self, why: &str) -> RedisAway {
        self.health.fail(why);
        RedisAway(why.to_owned())
    }
}

/// One connection of a [`Redis`].
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "the client inside has no short form")]
pub struct Lane<'a> {
    redis: &'a Redis,
    client: &'a Client,
    since: Option<Instant>,
}

impl Lane<'_> {
    /// The same connection for calls that were asked for at `since`: the time they waited counts for their deadline.
    #[must_use]
    pub const fn since(self, since: Instant) -> Self {
        Self { since: Some(since), ..self }
    }

    /// Runs a script; it is put into Redis where Redis does not know it.
    ///
    /// # Errors
    /// No answer within the deadline, an error of the script or the server, or an answer that is not a list of numbers.
    ///
    /// # Cancellation
    /// A script that was sent is executed all the same.
    pub async fn run(&self, script: &Script, keys: Vec<String>, args: Vec<String>) -> Result<Vec<i64>, RedisAway> {
        // As values of the client's own they are shared by the copy, not copied.
        let args: Vec<Value> = args.into_iter().map(Value::from).collect();
        self.bounded(async {
            match self.client.evalsha(script.0.sha1().clone(), keys.clone(), args.clone()).await {
                // EVAL keeps the script, so the next call finds it: one round trip less than SCRIPT LOAD first.
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    let lua = script.0.lua().cloned().unwrap_or_default();
                    self.client.eval(lua, keys, args).await
                }
                answer => answer,
            }
        })
        .await
    }

    /// How many members the set has; 0 without the key.
    ///
    /// # Errors
    /// No answer within the deadline, or an error of the server.
    pub async fn set_len(&self, key: &str) -> Result<i64, RedisAway> {
        self.bounded(self.client.scard(key)).await
    }

    /// Drops the key, if it is there; Redis frees its memory in the background.
    ///
    /// # Errors
    /// No answer within the deadline, or an error of the server.
    ///
    /// # Cancellation
    /// A command that was sent is executed all the same.
    pub async fn remove(&self, key: &str) -> Result<(), RedisAway> {
        self.bounded(self.client.unlink(key)).await
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, fred::error::Error>>) -> Result<T, RedisAway> {
        match timeout_at(self.since.unwrap_or_else(Instant::now) + self.redis.command_timeout, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.redis.fail(&error.to_string())),
            Err(_) => Err(self.redis.fail("no answer from redis in time")),
        }
    }
}

/// What the last call said, and the last attempt to connect that failed.
#[derive(Default)]
struct Health {
    reachable: AtomicBool,
    failed: Notify,
    why: Mutex<Option<String>>,
}

impl Health {
    fn reachable(&self) -> bool {
        self.reachable.load(Ordering::Acquire)
    }

    fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps why there is no connection, and says it when it is news: an outage has one reason and many attempts.
    fn no_connection(&self, why: String) {
        let mut known = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&why) {
            tracing::warn!(reason = why, "redis cannot be connected to");
            *known = Some(why);
        }
    }

    fn fail(&self, why: &str) {
        if self.reachable.swap(false, Ordering::AcqRel) {
            tracing::warn!(reason = why, "redis is away");
            self.failed.notify_one();
        }
    }
}

fn build(options: &RedisOptions) -> Result<Pool, BadRedis> {
    // Only the first call of a process has an effect; without it a second TLS backend in the build would make rustls panic.
    let _ignored = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::from_url(options.url.expose_secret()).map_err(|error| BadRedis::Url(error.details().to_owned()))?;
    if matches!(config.server, ServerConfig::Clustered { .. }) {
        return Err(BadRedis::Cluster);
    }
    if let (Some(_), Some(file)) = (&config.tls, &options.ca_file) {
        config.tls = Some(TlsConnector::from(tls::client_config(Some(file))?).into());
    }
    // The first attempt is made at once and its failure seen; `keep_connected` makes the next one.
    config.fail_fast = true;
    Builder::from_config(config)
        .with_performance_config(|performance| performance.default_command_timeout = options.command_timeout)
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_TIMEOUT;
            connection.internal_command_timeout = CONNECT_TIMEOUT;
            // With more, a script in flight would be executed again after a reconnect.
            connection.max_command_attempts = 1;
            connection.tcp.nodelay = Some(true);
            connection.unresponsive = UnresponsiveConfig { max_timeout: Some(UNRESPONSIVE_TIMEOUT), interval: UNRESPONSIVE_TIMEOUT / 4 };
            // A former primary, or one that still loads: look for the right one again.
            connection.reconnect_errors = vec![ReconnectError::Loading, ReconnectError::ReadOnly, ReconnectError::MasterDown];
            // max_command_buffer_len stays 0 (none): its counter leaks; the gate bounds its own queue.
        })
        .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MILLIS, RECONNECT_MAX_MILLIS, 2))
        .build_pool(options.connections.max(1))
        .map_err(|error| BadRedis::Url(error.details().to_owned()))
}

/// Runs a client's connection task, again whenever it ends: the first attempt failed, or an error the client takes for final.
async fn keep_connected(client: Client, health: Arc<Health>, first_attempt: oneshot::Sender<()>) {
    let mut first_attempt = Some(first_attempt);
    loop {
        let mut connection = AbortOnDropHandle::new(client.connect());
        let ended = tokio::select! {
            ended = &mut connection => Some(ended),
            _ = client.wait_for_connect() => None,
        };
        if let Some(Ok(Err(error))) = &ended {
            health.no_connection(error.to_string());
        }
        if let Some(waiting) = first_attempt.take() {
            // Nobody waits any more when `connect` ran out of time.
            let _ignored = waiting.send(());
        }
        let ended = match ended {
            Some(ended) => ended,
            None => connection.await,
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "redis connection ended"),
            Err(error) => tracing::warn!(%error, "redis connection task failed"),
        }
        sleep(RESTART_PAUSE).await;
    }
}

/// The only one to ask a Redis that is away, so that recovery needs no caller and costs none a wait.
async fn probe_while_away(pool: Pool, health: Arc<Health>, deadline: Duration) {
    loop {
        health.failed.notified().await;
        while !health.reachable() {
            sleep(PROBE_PAUSE).await;
            let client = pool.next_connected();
            if client.is_connected() && matches!(timeout(deadline, client.ping::<()>(None)).await, Ok(Ok(()))) {
                health.reachable.store(true, Ordering::Release);
                *health.why.lock().unwrap_or_else(PoisonError::into_inner) = None;
                tracing::info!("redis answers");
            }
        }
    }
}

/// Redis for the tests of the rooms that use it.
#[cfg(test)]
pub(crate) mod testing {
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use tempfile::TempDir;
    use tokio::net::TcpStream;
    use tokio::time::{Instant, sleep};

    pub const DEFAULT_URL: &str = "redis://127.0.0.1:16379";

    /// The Redis all tests share: use keys of your own, never FLUSHALL.
    pub fn url() -> String {
        std::env::var("COUPON_TEST_REDIS").unwrap_or_else(|_| DEFAULT_URL.to_owned())
    }

    /// A port nobody listened on a moment ago.
    pub fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    /// A `redis-server` of one test's own, empty at every start; killed on drop.
    pub struct Server {
        port: u16,
        dir: TempDir,
        child: Child,
    }

    impl Server {
        pub async fn start() -> Self {
            let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
            let child = spawn(port, &dir);
            listening(port).await;
            Self { port, dir, child }
        }

        pub fn url(&self) -> String {
            format!("redis://127.0.0.1:{}", self.port)
        }

        pub fn kill(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }

        pub async fn restart(&mut self) {
            self.child = spawn(self.port, &self.dir);
            listening(self.port).await;
        }

        /// What `redis-cli` prints.
        pub fn cli(&self, args: &[&str]) -> String {
            let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(args).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        }

        /// Stops the process without closing its connections, and lets it go on.
        pub fn signal(&self, signal: &str) {
            assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ignored = self.child.kill();
            let _ignored = self.child.wait();
        }
    }

    fn spawn(port: u16, dir: &TempDir) -> Child {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server must be installed")
    }

    async fn listening(port: u16) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "redis-server does not listen on {port}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_can_never_work_is_an_error_without_its_secret() {
        for bad in ["", "nonsense", "redis://:hunter2@host:notaport", "redis-sentinel://:hunter2@host:1", "redis-cluster://:hunter2@host:1"]
        {
            let error = connect(&RedisOptions::new(bad)).await.unwrap_err().to_string();
            assert!(error.contains("redis.url") && !error.contains("hunter2"), "{bad}: {error}");
        }
    }

    #[tokio::test]
    async fn every_kind_of_address_is_understood() {
        for good in [
            "redis://127.0.0.1:1/3",
            "rediss://user:secret@127.0.0.1:1",
            "redis-sentinel://127.0.0.1:1/0?sentinelServiceName=main&node=127.0.0.1:2&sentinelPassword=secret",
        ] {
            let redis = connect(&RedisOptions::new(good)).await.unwrap();
            assert!(!redis.reachable(), "{good}");
            assert!(!format!("{redis:?}").contains("secret"));
        }
    }

    fn secured() -> RedisOptions {
        RedisOptions::new(std::env::var("COUPON_TEST_REDIS_TLS").unwrap_or_else(|_| "rediss://127.0.0.1:16380".to_owned()))
    }

    #[tokio::test]
    async fn tls_connects_to_whom_the_authorities_vouch_for() {
        let redis = connect(&RedisOptions { ca_file: Some(tls::testing::authority()), ..secured() }).await.unwrap();
        assert!(redis.reachable(), "a redis with tls at COUPON_TEST_REDIS_TLS or rediss://127.0.0.1:16380: {:?}", redis.health.why());
        assert_eq!(redis.lane().unwrap().set_len("coupon-test-nobody-has-this").await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_server_nobody_vouches_for_is_away_and_the_reason_is_known() {
        let redis = connect(&RedisOptions { ca_file: Some(tls::testing::stranger()), ..secured() }).await.unwrap();
        assert!(!redis.reachable());
        // On a busy machine the first attempt may not have ended yet.
        let why = timeout(10 * CONNECT_TIMEOUT, async {
            loop {
                match redis.health.why() {
                    Some(why) => return why,
                    None => sleep(PROBE_PAUSE).await,
                }
            }
        });
        let why = why.await.unwrap();
        assert!(why.contains("InvalidCertificate(UnknownIssuer)"), "{why}");
    }

    #[tokio::test]
    async fn tls_to_a_port_without_it_is_away_in_time() {
        let started = tokio::time::Instant::now();
        let url = testing::url().replace("redis://", "rediss://");
        let redis = connect(&RedisOptions { ca_file: Some(tls::testing::authority()), ..RedisOptions::new(url) }).await.unwrap();
        assert!(!redis.reachable() && redis.lane().is_err());
        assert!(started.elapsed() < 2 * CONNECT_TIMEOUT, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn authorities_that_cannot_be_read_are_an_error_that_names_the_file() {
        let options = RedisOptions { ca_file: Some("/nowhere/ca.pem".into()), ..secured() };
        let error = connect(&options).await.unwrap_err().to_string();
        assert!(error.contains("redis.ca_file") && error.contains("/nowhere/ca.pem"), "{error}");
    }
}
