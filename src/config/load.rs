//! Layers of configuration folded into one [`Config`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use config::builder::DefaultState;
use config::{ConfigBuilder, File, FileFormat, Value, ValueKind};

use super::{Config, Role};

/// Every key with its default and its documentation.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// What the name of an environment variable starts with to be a key.
pub const ENV_PREFIX: &str = "COUPON__";

/// What flags say; the last layer.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub role: Option<Role>,
}

/// One thing wrong with the configuration. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, `section.key`; empty when the fault is of a whole file.
    pub key: String,
    /// The file or environment variable at fault; empty for a rule between keys.
    pub source: String,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.source.as_str(), self.key.as_str()) {
            ("", key) => write!(f, "{key}: {}", self.message),
            (source, "") => write!(f, "{source}: {}", self.message),
            (source, key) => write!(f, "{key} ({source}): {}", self.message),
        }
    }
}

/// Every fault found; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Fault>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad configuration:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// The variables of this process's environment that are keys.
#[must_use]
pub fn process_env() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
        .collect()
}

/// The configuration from the built-in defaults, then `files` in order, then `env`, then `overrides`.
///
/// # Errors
/// Every fault at once: unreadable files, unknown keys, wrong types, broken rules.
pub fn load(files: &[PathBuf], env: &BTreeMap<String, String>, overrides: &Overrides) -> Result<Config, ConfigErrors> {
    let mut layers = Layers::new()?;
    for file in files {
        layers.file(file);
    }
    for (name, text) in env {
        layers.variable(name, text);
    }
    if let Some(role) = overrides.role {
        layers.leaves.insert("role".to_owned(), Value::new(None, role.as_str()));
    }
    layers.finish()
}

/// The defaults, which are also the schema, and what lies above them so far.
struct Layers {
    defaults: ConfigBuilder<DefaultState>,
    schema: BTreeMap<String, ValueKind>,
    leaves: BTreeMap<String, Value>,
    faults: Vec<Fault>,
}

impl Layers {
    fn new() -> Result<Self, ConfigErrors> {
        let built_in = |error: config::ConfigError| whole("built-in defaults", &error);
        let parsed = parse(DEFAULTS).map_err(built_in)?;
        let schema = flatten(parsed.cache.clone()).into_iter().map(|(key, value)| (key, value.kind)).collect();
        Ok(Self { defaults: config::Config::builder().add_source(parsed), schema, leaves: BTreeMap::new(), faults: Vec::new() })
    }

    fn fault(&mut self, key: &str, source: &str, message: impl Into<String>) {
        self.faults.push(Fault { key: key.to_owned(), source: source.to_owned(), message: message.into() });
    }

    fn file(&mut self, path: &std::path::Path) {
        let source = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.fault("", &source, format!("cannot be read: {error}")),
        };
        let parsed = match parse(&text) {
            Ok(parsed) => parsed,
            Err(error) => return self.faults.extend(whole(&source, &error).0),
        };
        for (key, value) in flatten(parsed.cache) {
            if let ValueKind::Table(_) = value.kind {
                // An empty section.
                if !self.is_section(&key) {
                    self.fault(&key, &source, "unknown section");
                }
            } else if let Some(kind) = self.schema.get(&key) {
                match fits(kind, &value.kind) {
                    Ok(()) => self.take(&key, &source, value),
                    Err(wanted) => self.fault(&key, &source, format!("must be {wanted}")),
                }
            } else if self.is_section(&key) {
                self.fault(&key, &source, "must be a section");
            } else {
                self.fault(&key, &source, "unknown key");
            }
        }
    }

    fn is_section(&self, key: &str) -> bool {
        let prefix = format!("{key}.");
        self.schema.keys().any(|known| known.starts_with(&prefix))
    }

    fn variable(&mut self, name: &str, text: &str) {
        let Some(path) = name.strip_prefix(ENV_PREFIX) else { return };
        let key = path.to_ascii_lowercase().replace("__", ".");
        let Some(kind) = self.schema.get(&key) else {
            return self.fault(&key, name, "unknown key");
        };
        let value = match kind {
            ValueKind::Boolean(_) => text.parse::<bool>().map(ValueKind::from).map_err(|_| "true or false"),
            ValueKind::I64(_) => text.parse::<i64>().map(ValueKind::from).map_err(|_| "a whole number"),
            ValueKind::Float(_) => text.parse::<f64>().map(ValueKind::from).map_err(|_| "a number"),
            ValueKind::Array(_) => {
                Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect::<Vec<String>>().into())
            }
            _ => Ok(text.into()),
        };
        match value {
            Ok(kind) => self.take(&key, name, Value::new(None, kind)),
            Err(wanted) => self.fault(&key, name, format!("must be {wanted}")),
        }
    }

    /// Takes a value that, alone above the defaults, makes a configuration; else says what is wrong with it.
    fn take(&mut self, key: &str, source: &str, value: Value) {
        match self.build([(key, &value)]) {
            Ok(_) => {
                self.leaves.insert(key.to_owned(), value);
            }
            Err(error) => {
                let message = innermost(&error);
                self.fault(key, source, message);
            }
        }
    }

    fn build<'a>(&self, leaves: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Result<Config, config::ConfigError> {
        let mut builder = self.defaults.clone();
        for (key, value) in leaves {
            builder = builder.set_override(key, value.clone())?;
        }
        builder.build()?.try_deserialize()
    }

    fn finish(self) -> Result<Config, ConfigErrors> {
        let config = self.build(self.leaves.iter().map(|(key, value)| (key.as_str(), value)));
        let mut faults = self.faults;
        match config {
            Ok(config) => {
                // A key with a bad value keeps its default here: a rule about it would only confuse.
                let named: BTreeSet<String> = faults.iter().map(|fault| fault.key.clone()).collect();
                faults.extend(config.faults().into_iter().filter(|fault| !named.contains(&fault.key)));
                if faults.is_empty() { Ok(config) } else { Err(ConfigErrors(faults)) }
            }
            Err(error) => {
                faults.push(Fault { key: String::new(), source: "configuration".to_owned(), message: innermost(&error) });
                Err(ConfigErrors(faults))
            }
        }
    }
}

fn parse(text: &str) -> Result<config::Config, config::ConfigError> {
    config::Config::builder().add_source(File::from_str(text, FileFormat::Toml)).build()
}

/// Leaves by `section.key`; an empty section stands for itself.
fn flatten(root: Value) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, value: Value, leaves: &mut BTreeMap<String, Value>) {
        match value.kind {
            ValueKind::Table(table) if !table.is_empty() => {
                for (key, value) in table {
                    // A quoted key may hold a dot: keep it from passing for a section and a key.
                    let key = key.replace('.', "\".\"");
                    let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                    walk(&path, value, leaves);
                }
            }
            _ => {
                leaves.insert(prefix.to_owned(), value);
            }
        }
    }
    let mut leaves = BTreeMap::new();
    walk("", root, &mut leaves);
    leaves.remove("");
    leaves
}

/// Whether a value is of the default's type; else what it must be.
fn fits(default: &ValueKind, value: &ValueKind) -> Result<(), &'static str> {
    match (default, value) {
        (ValueKind::Boolean(_), ValueKind::Boolean(_))
        | (ValueKind::I64(_), ValueKind::I64(_))
        | (ValueKind::Float(_), ValueKind::Float(_) | ValueKind::I64(_))
        | (ValueKind::String(_), ValueKind::String(_)) => Ok(()),
        (ValueKind::Array(_), ValueKind::Array(items)) if items.iter().all(|item| matches!(item.kind, ValueKind::String(_))) => Ok(()),
        (ValueKind::Boolean(_), _) => Err("true or false"),
        (ValueKind::I64(_), _) => Err("a whole number"),
        (ValueKind::Float(_), _) => Err("a number"),
        (ValueKind::Array(_), _) => Err("a list of strings"),
        _ => Err("a string"),
    }
}

/// A fault of a whole file. The parser quotes the line at fault, which may hold a secret: only where and what is kept.
fn whole(source: &str, error: &config::ConfigError) -> ConfigErrors {
    let text = error.to_string();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let message = match (lines.next(), lines.next_back()) {
        (Some(place), Some(what)) => format!("{place}: {what}"),
        _ => "is not TOML".to_owned(),
    };
    ConfigErrors(vec![Fault { key: String::new(), source: source.to_owned(), message }])
}

/// The message without the key, which the fault names itself.
fn innermost(error: &config::ConfigError) -> String {
    match error {
        config::ConfigError::At { error, .. } => innermost(error),
        // The type was checked before: what is left is a number too large or below zero.
        config::ConfigError::Type { .. } => "is out of range".to_owned(),
        config::ConfigError::Message(message) => match message.as_str() {
            "invalid socket address syntax" => "must be IP:port".to_owned(),
            "invalid IP address syntax" => "must be IP addresses".to_owned(),
            other => other.to_owned(),
        },
        _ => error.to_string().split(" for key ").next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
