//! The rules between keys: what is impossible or dangerous is refused, all of it at once.

use std::net::SocketAddr;

use secrecy::ExposeSecret;

use super::{Config, ConfigErrors, Fault, Identity, Parts, Role, SaslMechanism};
use crate::domain::WRITE_VERSION;
use crate::telemetry::logs;

/// HS256 wants a key at least as long as its hash.
const MIN_SECRET_BYTES: usize = 32;
/// A secret with fewer different bytes was typed, not made.
const MIN_DISTINCT_BYTES: usize = 8;
const PLACEHOLDERS: [&str; 5] = ["change-me", "changeme", "change_me", "example", "default"];
const REDIS_SCHEMES: [&str; 4] = ["redis", "rediss", "redis-sentinel", "rediss-sentinel"];
const MAX_PARTITIONS: i32 = 10_000;

impl Config {
    /// Checks every rule.
    ///
    /// # Errors
    /// Every rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let faults = self.faults();
        if faults.is_empty() { Ok(()) } else { Err(ConfigErrors(faults)) }
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults(Vec::new());
        self.check_process(&mut faults);
        self.check_identity(&mut faults);
        self.check_amounts(&mut faults);
        self.check_servers(&mut faults);
        faults.0
    }

    /// What is allowed but deserves a line in the log at start.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.ops.listen.ip().is_loopback() {
            warnings.push(format!("ops.listen {} is not a loopback address: keep it from the public", self.ops.listen));
        }
        if self.audit.records_per_second == 0 && self.role.consumes() {
            warnings.push("audit.records_per_second is 0: nobody compares the ledger with the journal unless asked".to_owned());
        }
        if self.parts == Parts::Distributed {
            if self.kafka.replication_factor == 1 {
                warnings.push("kafka.replication_factor is 1: a lost broker disk loses coupons".to_owned());
            }
            if self.kafka.sasl_mechanism == SaslMechanism::Plain && !self.kafka.tls {
                warnings.push("kafka.sasl_mechanism is plain without kafka.tls: the password travels in clear text".to_owned());
            }
            if self.kafka.append_timeout_ms < 1_000 {
                warnings.push("kafka.append_timeout_ms is below 1000: the first append on a new connection may take that long".to_owned());
            }
        }
        warnings
    }

    fn check_process(&self, faults: &mut Faults) {
        let embedded = self.parts == Parts::Embedded;
        if embedded && self.role != Role::All {
            faults.add("role", format!("{} alone needs parts = \"distributed\": embedded parts are one process", self.role));
        }
        if embedded && self.embedded.data_dir.as_os_str().is_empty() {
            faults.add("embedded.data_dir", "must not be empty with parts = \"embedded\"");
        }
        if self.role.serves_api() && overlap(self.api.listen, self.ops.listen) {
            faults.add("ops.listen", format!("must differ from api.listen {}", self.api.listen));
        }
        if self.journal.write_version != u64::from(WRITE_VERSION) {
            faults.add("journal.write_version", format!("must be {WRITE_VERSION}, the only version this build writes"));
        }
        if let Err(reason) = logs::check_filter(&self.log.filter) {
            faults.add("log.filter", reason);
        }
    }

    fn check_identity(&self, faults: &mut Faults) {
        match self.api.identity {
            Identity::Header => {
                if !self.api.listen.ip().is_loopback() {
                    faults.add(
                        "api.identity",
                        format!(
                            "header believes whoever calls: refused on the non-loopback address {}; use jwt or gateway",
                            self.api.listen
                        ),
                    );
                }
            }
            Identity::Gateway => {
                if self.api.gateway_proxies.is_empty() {
                    faults.add("api.gateway_proxies", "must name at least one proxy address with api.identity = \"gateway\"");
                }
            }
            Identity::Jwt => self.check_jwt(faults),
        }
    }

    fn check_jwt(&self, faults: &mut Faults) {
        let secret = self.jwt.hs256_secret().map(ExposeSecret::expose_secret);
        if secret.is_none() && self.jwt.public_keys.is_empty() && self.jwt.jwks_file().is_none() {
            faults.add("jwt", "needs a key with api.identity = \"jwt\": hs256_secret, public_keys or jwks_file");
        }
        let Some(secret) = secret else { return };
        let lower = secret.to_ascii_lowercase();
        let mut distinct = secret.as_bytes().to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if secret.len() < MIN_SECRET_BYTES {
            faults.add("jwt.hs256_secret", format!("must be at least {MIN_SECRET_BYTES} bytes, e.g. from `openssl rand -base64 48`"));
        } else if PLACEHOLDERS.iter().any(|word| lower.contains(word)) || distinct.len() < MIN_DISTINCT_BYTES {
            faults.add("jwt.hs256_secret", "is a placeholder: make one, e.g. with `openssl rand -base64 48`");
        }
    }

    fn check_amounts(&self, faults: &mut Faults) {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        for (key, amount) in [
            ("api.max_connections", wide(self.api.max_connections)),
            ("api.max_in_flight", wide(self.api.max_in_flight)),
            ("api.body_limit_bytes", wide(self.api.body_limit_bytes)),
            ("api.request_timeout_ms", self.api.request_timeout_ms),
            ("api.header_timeout_ms", self.api.header_timeout_ms),
            ("api.exchange_timeout_ms", self.api.exchange_timeout_ms),
            ("api.keep_alive_ms", self.api.keep_alive_ms),
            ("api.shutdown_timeout_ms", self.api.shutdown_timeout_ms),
            ("redis.command_timeout_ms", self.redis.command_timeout_ms),
            ("redis.connections", wide(self.redis.connections)),
            ("redis.gate_batch", wide(self.redis.gate_batch)),
            ("kafka.append_timeout_ms", self.kafka.append_timeout_ms),
            ("kafka.call_timeout_ms", self.kafka.call_timeout_ms),
            ("mysql.pool", wide(self.mysql.pool)),
            ("mysql.query_timeout_ms", self.mysql.query_timeout_ms),
            ("consumer.workers", wide(self.consumer.workers)),
            ("consumer.batch_rows", wide(self.consumer.batch_rows)),
            ("consumer.lease_ms", self.consumer.lease_ms),
            ("audit.every_ms", self.audit.every_ms),
            ("audit.most_rows", wide(self.audit.most_rows)),
            ("follower.fresh_ms", self.follower.fresh_ms),
            ("follower.fetch_wait_ms", self.follower.fetch_wait_ms),
            ("follower.max_bytes", wide(self.follower.max_bytes)),
        ] {
            if amount == 0 {
                faults.add(key, "must not be 0");
            }
        }
        let exchange = self.api.header_timeout_ms.saturating_mul(2).saturating_add(self.api.request_timeout_ms);
        if self.api.exchange_timeout_ms <= exchange && self.api.exchange_timeout_ms > 0 {
            faults.add(
                "api.exchange_timeout_ms",
                "must be above api.request_timeout_ms and twice api.header_timeout_ms, which are parts of it",
            );
        }
        if self.follower.fetch_wait_ms >= self.follower.fresh_ms && self.follower.fresh_ms > 0 {
            faults.add("follower.fetch_wait_ms", "must be below follower.fresh_ms, or an idle log looks stale");
        }
        if !self.limiter.rate.is_finite() || self.limiter.rate < 0.0 {
            faults.add("limiter.rate", "must be 0 (no limit) or more");
        }
        if !self.limiter.floor.is_finite() || self.limiter.floor <= 0.0 {
            faults.add("limiter.floor", "must be above 0: an adaptive limit starts there, and a drain that stands still measures nothing");
        } else if self.limiter.adaptive && self.limiter.rate > 0.0 && self.limiter.floor > self.limiter.rate {
            faults.add("limiter.floor", "must be at most limiter.rate, which is the ceiling with limiter.adaptive");
        }
        if !(1..=MAX_PARTITIONS).contains(&self.kafka.partitions) {
            faults.add("kafka.partitions", format!("must be from 1 to {MAX_PARTITIONS}"));
        }
        if self.kafka.replication_factor < 1 {
            faults.add("kafka.replication_factor", "must be at least 1");
        }
    }

    fn check_servers(&self, faults: &mut Faults) {
        let redis = scheme_and_rest(self.redis.url.expose_secret());
        if !redis.is_some_and(|(scheme, rest)| REDIS_SCHEMES.contains(&scheme) && has_host(rest)) {
            faults.add("redis.url", format!("must be SCHEME://host:port, with a scheme of {}", REDIS_SCHEMES.join(", ")));
        }
        let mysql = scheme_and_rest(self.mysql.url.expose_secret());
        let has_database = |rest: &str| rest.rsplit_once('/').is_some_and(|(_, name)| !name.is_empty() && !name.starts_with('?'));
        if !mysql.is_some_and(|(scheme, rest)| scheme == "mysql" && has_host(rest) && has_database(rest)) {
            faults.add("mysql.url", "must be mysql://user:password@host:port/database");
        }
        let brokers = self.kafka.broker_list();
        if brokers.is_empty() {
            faults.add("kafka.brokers", "must name at least one broker as host:port");
        }
        for broker in brokers.iter().filter(|broker| !is_host_and_port(broker)) {
            faults.add("kafka.brokers", format!("{broker:?} is not host:port"));
        }
        for (key, name) in [
            ("kafka.topic", &self.kafka.topic),
            ("kafka.dead_letter_topic", &self.kafka.dead_letter_topic),
            ("kafka.group", &self.kafka.group),
        ] {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            if !(1..=249).contains(&name.len()) || !name.bytes().all(legal) || name == "." || name == ".." {
                faults.add(key, "must be 1-249 characters of A-Z a-z 0-9 . _ -");
            }
        }
        if self.kafka.topic == self.kafka.dead_letter_topic {
            faults.add("kafka.dead_letter_topic", "must differ from kafka.topic");
        }
        let redis_tls = redis.is_some_and(|(scheme, _)| scheme.starts_with("rediss"));
        for (key, file, tls, wanted) in [
            ("redis.ca_file", self.redis.ca_file(), redis_tls, "rediss:// in redis.url"),
            ("kafka.ca_file", self.kafka.ca_file(), self.kafka.tls, "kafka.tls = true"),
            ("mysql.ca_file", self.mysql.ca_file(), self.mysql.tls, "mysql.tls = true"),
        ] {
            if file.is_some() && !tls {
                faults.add(key, format!("has no effect without {wanted}"));
            }
        }
        self.check_sasl(faults);
    }

    fn check_sasl(&self, faults: &mut Faults) {
        let wanted = self.kafka.sasl_mechanism != SaslMechanism::None;
        let password = self.kafka.sasl_password.expose_secret();
        for (key, is_set) in [("kafka.sasl_username", !self.kafka.sasl_username.is_empty()), ("kafka.sasl_password", !password.is_empty())]
        {
            if wanted && !is_set {
                faults.add(key, "must be set with kafka.sasl_mechanism");
            }
            if !wanted && is_set {
                faults.add(key, "has no effect without kafka.sasl_mechanism");
            }
        }
    }
}

struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, key: &str, message: impl Into<String>) {
        self.0.push(Fault { key: key.to_owned(), source: String::new(), message: message.into() });
    }
}

/// Whether two listeners would ask for the same port; port 0 never collides.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_address = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_address
}

fn scheme_and_rest(url: &str) -> Option<(&str, &str)> {
    url.split_once("://")
}

fn has_host(rest: &str) -> bool {
    let after_user = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    after_user.chars().next().is_some_and(|first| !matches!(first, '/' | ':' | '?'))
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
