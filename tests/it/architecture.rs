//! The rooms of `src/` and who may know whom: the sources are read, a forbidden import fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room and the rooms it must not know.
const FORBIDDEN_ROOMS: &[(&str, &[&str])] = &[
    ("domain", &["*"]),
    ("kill_point", &["*"]),
    ("gate", &["journal", "ledger", "api", "issuer", "follower", "consumer", "audit", "roles", "bootstrap", "cli"]),
    ("journal", &["gate", "ledger", "api", "issuer", "follower", "consumer", "audit", "roles", "bootstrap", "cli"]),
    ("ledger", &["gate", "journal", "api", "issuer", "follower", "consumer", "audit", "roles", "bootstrap", "cli"]),
    ("redis", &["gate", "journal", "ledger", "api", "issuer", "follower", "consumer", "audit", "roles", "bootstrap", "cli"]),
    ("tls", &["*"]),
    ("follower", &["gate", "api", "issuer", "consumer", "audit", "roles", "bootstrap", "cli"]),
    ("issuer", &["api", "consumer", "audit", "roles", "bootstrap", "cli"]),
    ("consumer", &["gate", "api", "issuer", "audit", "roles", "bootstrap", "cli"]),
    ("audit", &["api", "issuer", "follower", "consumer", "roles", "bootstrap", "cli"]),
    ("api", &["gate", "journal", "consumer", "audit", "roles", "bootstrap", "cli"]),
    ("config", &["gate", "journal", "ledger", "api", "issuer", "follower", "consumer", "audit", "roles", "bootstrap", "cli"]),
    ("telemetry", &["gate", "journal", "ledger", "api", "issuer", "follower", "consumer", "audit", "roles", "bootstrap", "cli"]),
    ("roles", &["bootstrap"]),
    ("cli", &["gate", "journal", "api", "issuer", "follower", "consumer", "audit", "roles", "bootstrap"]),
];

/// A vendor's crate and the places (prefixes of paths below `src/`) that wrap it.
const VENDORS: &[(&str, &[&str])] = &[
    ("rskafka", &["journal/kafka"]),
    ("kafka_protocol", &["journal/kafka"]),
    ("rsasl", &["journal/kafka"]),
    ("tokio_rustls", &["journal/kafka"]),
    ("fred", &["redis.rs"]),
    ("diesel", &["ledger/", "journal/sqlite"]),
    ("diesel_async", &["ledger/"]),
    ("diesel_migrations", &["ledger/", "journal/sqlite"]),
    ("mysql_async", &["ledger/"]),
    ("actix_web", &["api/", "telemetry/ops"]),
    ("actix_http", &["api/"]),
    ("actix_service", &["api/"]),
    ("jsonwebtoken", &["api/identity"]),
    ("sd_notify", &["roles/systemd"]),
    ("clap", &["cli.rs"]),
    ("rustix", &["kill_point.rs"]),
];

/// An adapter and its room; everywhere else a port stands for it. Only the composition root names it.
const ADAPTERS: &[(&str, &[&str])] = &[
    ("SqliteJournal", &["journal/"]),
    ("KafkaJournal", &["journal/"]),
    ("RedisGate", &["gate/"]),
    // The issuer's stand-in while the gate is away.
    ("LocalGate", &["gate/", "issuer/"]),
    ("MysqlLedger", &["ledger/"]),
    ("SqliteLedger", &["ledger/"]),
    ("RedisLimiter", &["consumer/limiter/"]),
    ("LocalLimiter", &["consumer/limiter/"]),
];

/// Rooms that keep to themselves in their tests too; those of the others may put real parts together.
const CLOSED_ROOMS: &[&str] = &["domain", "gate", "journal", "ledger"];

const COMPOSITION_ROOT: &str = "bootstrap/";
const MOST_LINES: usize = 500;

/// A source file by its path below `src/`, with `/`.
struct Source {
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    assert!(found.len() > 50, "the sources are where they were: {}", found.len());
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
    found.iter().map(|path| Source { path: name(path), text: fs::read_to_string(path).unwrap() }).collect()
}

fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap();
    let in_suite = path.split('/').any(|part| part.starts_with("suite"));
    in_suite || ["tests.rs", "testing.rs"].contains(&name) || name.ends_with("_tests.rs")
}

/// Words and marks of Rust text, without comments and literals; `::` is one mark.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens: Vec<String> = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        match at(i) {
            '/' if at(i + 1) == '/' => i = (i..chars.len()).find(|&j| at(j) == '\n').unwrap_or(chars.len()),
            '/' if at(i + 1) == '*' => {
                let mut depth = 1;
                i += 2;
                while depth > 0 && i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                }
            }
            '"' => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            // A character literal, not a lifetime.
            '\'' if at(i + 1) == '\\' => i = (i + 3..chars.len()).find(|&j| at(j) == '\'').map_or(chars.len(), |j| j + 1),
            '\'' if at(i + 2) == '\'' => i += 3,
            c if is_word(c) => {
                let end = (i..chars.len()).find(|&j| !is_word(at(j))).unwrap_or(chars.len());
                let word: String = chars[i..end].iter().collect();
                let hashes = (end..chars.len()).take_while(|&j| at(j) == '#').count();
                if matches!(word.as_str(), "r" | "br" | "cr") && at(end + hashes) == '"' {
                    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                    let body = end + hashes + 1;
                    i = (body..chars.len()).find(|&j| chars[j..].starts_with(&close)).map_or(chars.len(), |j| j + close.len());
                } else {
                    tokens.push(word);
                    i = end;
                }
            }
            ':' if at(i + 1) == ':' => {
                tokens.push("::".to_owned());
                i += 2;
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                i += 1;
            }
        }
    }
    tokens
}

/// The module of a file: `a/b/mod.rs` and `a/b.rs` are `[a, b]`; `tests` beside a file is a child of its folder, near enough.
fn module_of(path: &str) -> Vec<String> {
    let mut module: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// Every path of the crate that the tokens name, from its root; use trees are taken apart.
fn own_paths(module: &[String], tokens: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut inner: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => {
                depth += 1;
                if i >= 2 && tokens[i - 2] == "mod" {
                    inner.push((tokens[i - 1].clone(), depth));
                }
            }
            "}" => {
                inner.retain(|(_, opened)| *opened < depth);
                depth -= 1;
            }
            "crate" | "coupon_svc" | "super" | "self" if tokens.get(i + 1).is_some_and(|next| next == "::") => {
                // `super::super` and `$x::self` are read from their first word.
                if i > 0 && tokens[i - 1] == "::" {
                    continue;
                }
                let mut base: Vec<String> = module.iter().cloned().chain(inner.iter().map(|(name, _)| name.clone())).collect();
                let mut next = i;
                while let Some(word) = tokens.get(next).filter(|word| ["crate", "coupon_svc", "super", "self"].contains(&word.as_str())) {
                    match word.as_str() {
                        "super" => drop(base.pop()),
                        "self" => {}
                        _ => base.clear(),
                    }
                    next += 2;
                }
                expand(tokens, next, base, &mut paths);
            }
            _ => {}
        }
    }
    paths
}

/// Reads the rest of a path from `i` on; gives the index behind it.
fn expand(tokens: &[String], mut i: usize, mut path: Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    while let Some(token) = tokens.get(i) {
        if token == "{" {
            i += 1;
            while tokens.get(i).is_some_and(|token| token != "}") {
                i = expand(tokens, i, path.clone(), paths);
                while tokens.get(i).is_some_and(|token| token != "," && token != "}") {
                    i += 1;
                }
                i += usize::from(tokens.get(i).is_some_and(|token| token == ","));
            }
            return i + 1;
        }
        path.push(token.clone());
        i += 1;
        if tokens.get(i).is_none_or(|token| token != "::") {
            break;
        }
        i += 1;
    }
    paths.push(path);
    i
}

/// Without `#[cfg(test)] mod name { ... }`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let is_marked = tokens.len() >= i + mark.len() && tokens[i..i + mark.len()].iter().zip(mark).all(|(token, mark)| token == mark);
        let body = i + mark.len();
        if is_marked && tokens.get(body).is_some_and(|token| token == "mod") && tokens.get(body + 2).is_some_and(|token| token == "{") {
            let mut depth = 0;
            i = body + 2;
            loop {
                match tokens.get(i).map(String::as_str) {
                    Some("{") => depth += 1,
                    Some("}") => depth -= 1,
                    Some(_) => {}
                    None => break,
                }
                i += 1;
                if depth == 0 {
                    break;
                }
            }
            continue;
        }
        kept.push(tokens[i].clone());
        i += 1;
    }
    kept
}

fn room_of(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

fn violations(sources: &[Source]) -> Vec<String> {
    let rooms: BTreeSet<&str> = sources.iter().map(|source| room_of(&source.path)).filter(|room| !["lib", "main"].contains(room)).collect();
    let mut found = BTreeSet::new();
    for Source { path, text } in sources {
        let tokens = tokens(text);
        let room = room_of(path);
        let forbidden = FORBIDDEN_ROOMS.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, forbidden)| forbidden);
        let shipped = if is_test_file(path) { Vec::new() } else { without_tests(&tokens) };
        for own in own_paths(&module_of(path), if CLOSED_ROOMS.contains(&room) { &tokens } else { &shipped }) {
            let Some(other) = own.first().filter(|other| *other != room && rooms.contains(other.as_str())) else { continue };
            if forbidden.contains(&"*") || forbidden.contains(&other.as_str()) {
                found.insert(format!("{path}: {room} must not know {other} ({})", own.join("::")));
            }
        }
        for (vendor, places) in VENDORS {
            let is_named = tokens.iter().any(|token| token == vendor);
            if is_named && !places.iter().any(|place| path.starts_with(place)) {
                found.insert(format!("{path}: {vendor} belongs to {places:?}"));
            }
        }
        for (adapter, places) in ADAPTERS {
            let is_named = shipped.iter().any(|token| token == adapter);
            if is_named && !path.starts_with(COMPOSITION_ROOT) && !places.iter().any(|place| path.starts_with(place)) {
                found.insert(format!("{path}: only {COMPOSITION_ROOT} may name {adapter}"));
            }
        }
        let lines = text.lines().count();
        if lines > MOST_LINES && !is_test_file(path) {
            found.insert(format!("{path}: {lines} lines, at most {MOST_LINES}"));
        }
    }
    found.into_iter().collect()
}

#[test]
fn every_room_keeps_to_itself() {
    let found = violations(&sources());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_rule_is_about_something_that_is_there() {
    let sources = sources();
    let rooms: BTreeSet<&str> = sources.iter().map(|source| room_of(&source.path)).collect();
    for (room, others) in FORBIDDEN_ROOMS {
        for name in others.iter().filter(|name| **name != "*").chain([room]) {
            assert!(rooms.contains(name), "there is no room {name}");
        }
    }
    for (name, places) in VENDORS.iter().chain(ADAPTERS) {
        let uses = |source: &&Source| {
            places.iter().any(|place| source.path.starts_with(place)) && tokens(&source.text).iter().any(|token| token == name)
        };
        assert!(sources.iter().any(|source| uses(&source)), "{name} is used in {places:?}");
    }
}

/// A checker that finds nothing proves nothing.
#[test]
fn the_checker_sees_what_is_forbidden() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let check = |path: &str, text: &str| {
        let others = ["domain", "gate", "journal", "ledger", "api", "issuer", "telemetry"];
        let others = others.into_iter().map(|room| source(&format!("{room}/mod.rs"), ""));
        violations(&others.chain([source(path, text)]).collect::<Vec<_>>())
    };
    for (path, text) in [
        ("domain/ids.rs", "use crate::telemetry::Metrics;"),
        ("domain/ids.rs", "fn f() { crate::ledger::x() }"),
        ("domain/mod.rs", "use super::ledger;"),
        ("gate/local.rs", "use crate::{domain::UserId, journal::{Journal}};"),
        ("gate/local.rs", "use super::super::ledger::Ledger;"),
        ("gate/local.rs", "mod tests { use super::super::super::ledger::Ledger; }"),
        ("journal/kafka/mod.rs", "use coupon_svc::gate::Gate;"),
        ("gate/suite.rs", "#[cfg(test)] mod tests { use crate::journal::Journal; }"),
        ("ledger/mod.rs", "pub(super) use {crate::domain::x, crate::api::y};"),
        ("api/me.rs", "use crate::journal::Journal;"),
        ("issuer/mod.rs", "use rskafka::client;"),
        ("gate/redis.rs", "extern crate fred as f;"),
        ("api/me.rs", "type X = diesel::result::Error;"),
        ("telemetry/health.rs", "use actix_web::web;"),
        ("api/me.rs", "fn f(_: &RedisGate) {}"),
        ("issuer/mod.rs", "use crate::ledger::{Ledger, MysqlLedger as L};"),
        ("api/me.rs", &"\n".repeat(501)),
    ] {
        assert_eq!(check(path, text).len(), 1, "{path}: {text:?}: {:?}", check(path, text));
    }
    for (path, text) in [
        (
            "domain/ids.rs",
            "// use crate::ledger::x\n/* crate::api::y /* crate::gate */ */ const A: &str = \"crate::ledger\"; const B: char = '\"';",
        ),
        ("domain/ids.rs", "fn f<'a>(_: &'a str) -> &'a str { r#\"\"crate::ledger::x\"# }"),
        ("domain/mod.rs", "mod ids; use self::ids::ledger; use ids::journal;"),
        ("gate/local.rs", "use crate::domain::{self, ledger}; mod tests { use super::super::Gate; }"),
        ("telemetry/ops.rs", "use actix_web::web;"),
        ("issuer/mod.rs", "use crate::gate::LocalGate;"),
        ("bootstrap/parts.rs", "use crate::ledger::MysqlLedger;"),
        ("api/me.rs", "#[cfg(test)]\nmod tests { fn f() { SqliteLedger::open(); } }"),
        ("api/testing.rs", "use crate::journal::{Journal, SqliteJournal};"),
        ("api/me_tests.rs", &"\n".repeat(501)),
    ] {
        assert_eq!(check(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}
