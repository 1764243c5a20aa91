//! Configuration: sections, loading, the rules between keys, and a print that shows no secret.
//!
//! ```text
//! built-in config/default.toml  <  --config files in order  <  environment COUPON__SECTION__KEY  <  flags
//! ```
//! [`load()`] is a pure function of what it is given (and of the files it is told to read); it reports every fault at once: unknown
//! keys, wrong types, and the rules of [`Config::validate`].

mod load;
mod print;
mod sections;
mod validate;

pub use load::{ConfigErrors, DEFAULTS, ENV_PREFIX, Fault, Overrides, load, process_env};
pub use print::{PrintFormat, redact_url};
pub use sections::{
    Api, Config, Consumer, Embedded, Follower, Identity, JournalSection, Jwt, Kafka, Limiter, Log, LogFormat, Mysql, Ops, Parts, Redis,
    Role, SaslMechanism,
};
