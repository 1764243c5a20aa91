//! The sections as types. What each key means is documented in `config/default.toml`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::print::{redact_secret, redact_url};

/// An enum that is one of a closed set of words, in the configuration and on the command line.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            /// Every word there is.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}", Self::WORDS.join(", "))),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for &'static str {
            fn from(value: $name) -> Self {
                value.as_str()
            }
        }
    };
}

words! {
    /// Which parts the service stands on.
    Parts {
        /// SQLite in a folder; one process.
        Embedded = "embedded",
        /// Redis, Kafka and MySQL.
        Distributed = "distributed",
    }
}

words! {
    /// What a process does.
    Role {
        Api = "api",
        Consumer = "consumer",
        All = "all",
    }
}

impl Role {
    /// Whether this process answers HTTP calls.
    #[must_use]
    pub const fn serves_api(self) -> bool {
        matches!(self, Self::Api | Self::All)
    }

    /// Whether this process drains the journal into the ledger.
    #[must_use]
    pub const fn consumes(self) -> bool {
        matches!(self, Self::Consumer | Self::All)
    }
}

words! {
    /// Where the user's identity comes from.
    Identity {
        Header = "header",
        Gateway = "gateway",
        Jwt = "jwt",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        Human = "human",
        Json = "json",
    }
}

words! {
    /// How the service proves itself to Kafka.
    SaslMechanism {
        None = "none",
        Plain = "plain",
        ScramSha256 = "scram-sha-256",
        ScramSha512 = "scram-sha-512",
    }
}

/// The whole configuration. `Debug` and `Serialize` show no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub parts: Parts,
    pub role: Role,
    pub api: Api,
    pub ops: Ops,
    pub embedded: Embedded,
    pub redis: Redis,
    pub kafka: Kafka,
    pub mysql: Mysql,
    pub consumer: Consumer,
    pub audit: Audit,
    pub follower: Follower,
    pub limiter: Limiter,
    pub jwt: Jwt,
    pub journal: JournalSection,
    pub log: Log,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    pub listen: SocketAddr,
    pub identity: Identity,
    pub gateway_proxies: Vec<IpAddr>,
    /// 0: one for each core.
    pub workers: usize,
    pub max_connections: usize,
    pub max_in_flight: usize,
    pub body_limit_bytes: usize,
    pub request_timeout_ms: u64,
    pub header_timeout_ms: u64,
    pub exchange_timeout_ms: u64,
    pub keep_alive_ms: u64,
    pub shutdown_timeout_ms: u64,
}

impl Api {
    #[must_use]
    pub const fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    #[must_use]
    pub const fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }

    #[must_use]
    pub const fn exchange_timeout(&self) -> Duration {
        Duration::from_millis(self.exchange_timeout_ms)
    }

    #[must_use]
    pub const fn keep_alive(&self) -> Duration {
        Duration::from_millis(self.keep_alive_ms)
    }

    #[must_use]
    pub const fn shutdown_timeout(&self) -> Duration {
        Duration::from_millis(self.shutdown_timeout_ms)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ops {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    pub data_dir: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Holds a password: never log it; [`redact_url`] first.
    #[serde(serialize_with = "secret_url")]
    pub url: SecretString,
    pub ca_file: PathBuf,
    pub command_timeout_ms: u64,
    pub connections: usize,
    pub gate_batch: usize,
}

impl Redis {
    #[must_use]
    pub const fn command_timeout(&self) -> Duration {
        Duration::from_millis(self.command_timeout_ms)
    }

    /// The certificate authority's file, if set.
    #[must_use]
    pub fn ca_file(&self) -> Option<PathBuf> {
        set(&self.ca_file)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    pub brokers: String,
    pub topic: String,
    pub dead_letter_topic: String,
    pub group: String,
    pub partitions: i32,
    pub replication_factor: i16,
    pub append_timeout_ms: u64,
    pub call_timeout_ms: u64,
    pub tls: bool,
    pub ca_file: PathBuf,
    pub sasl_mechanism: SaslMechanism,
    pub sasl_username: String,
    #[serde(serialize_with = "secret")]
    pub sasl_password: SecretString,
}

impl Kafka {
    /// The bootstrap brokers, one by one.
    #[must_use]
    pub fn broker_list(&self) -> Vec<String> {
        self.brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty()).map(str::to_owned).collect()
    }

    #[must_use]
    pub const fn append_timeout(&self) -> Duration {
        Duration::from_millis(self.append_timeout_ms)
    }

    #[must_use]
    pub const fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }

    /// The certificate authority's file, if set.
    #[must_use]
    pub fn ca_file(&self) -> Option<PathBuf> {
        set(&self.ca_file)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mysql {
    /// Holds a password: never log it; [`redact_url`] first.
    #[serde(serialize_with = "secret_url")]
    pub url: SecretString,
    pub pool: usize,
    pub tls: bool,
    pub ca_file: PathBuf,
    pub query_timeout_ms: u64,
    pub migrate_at_start: bool,
}

impl Mysql {
    #[must_use]
    pub const fn query_timeout(&self) -> Duration {
        Duration::from_millis(self.query_timeout_ms)
    }

    /// The certificate authority's file, if set.
    #[must_use]
    pub fn ca_file(&self) -> Option<PathBuf> {
        set(&self.ca_file)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    pub workers: usize,
    pub batch_rows: usize,
    pub lease_ms: u64,
}

impl Consumer {
    #[must_use]
    pub const fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// 0: no audit in the background.
    pub records_per_second: u32,
    pub every_ms: u64,
    pub most_rows: usize,
}

impl Audit {
    #[must_use]
    pub const fn every(&self) -> Duration {
        Duration::from_millis(self.every_ms)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Follower {
    pub fresh_ms: u64,
    pub fetch_wait_ms: u64,
    pub max_bytes: usize,
}

impl Follower {
    #[must_use]
    pub const fn fresh(&self) -> Duration {
        Duration::from_millis(self.fresh_ms)
    }

    #[must_use]
    pub const fn fetch_wait(&self) -> Duration {
        Duration::from_millis(self.fetch_wait_ms)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limiter {
    /// 0: no limit; with `adaptive` no ceiling.
    pub rate: f64,
    pub adaptive: bool,
    pub floor: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    #[serde(serialize_with = "secret")]
    pub hs256_secret: SecretString,
    pub public_keys: Vec<PathBuf>,
    pub jwks_file: PathBuf,
    pub issuer: String,
    pub audience: String,
    pub leeway_seconds: u64,
}

impl Jwt {
    /// The HS256 secret, if set.
    #[must_use]
    pub fn hs256_secret(&self) -> Option<&SecretString> {
        (!self.hs256_secret.expose_secret().is_empty()).then_some(&self.hs256_secret)
    }

    /// The JWKS file, if set.
    #[must_use]
    pub fn jwks_file(&self) -> Option<PathBuf> {
        set(&self.jwks_file)
    }

    /// The required issuer, if set.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        (!self.issuer.is_empty()).then_some(self.issuer.as_str())
    }

    /// The required audience, if set.
    #[must_use]
    pub fn audience(&self) -> Option<&str> {
        (!self.audience.is_empty()).then_some(self.audience.as_str())
    }
}

/// The section `journal`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSection {
    pub write_version: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

fn set(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

fn secret<S: Serializer>(value: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(redact_secret(value.expose_secret()))
}

fn secret_url<S: Serializer>(value: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redact_url(value.expose_secret()))
}
