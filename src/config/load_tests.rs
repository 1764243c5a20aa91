use std::path::Path;

use secrecy::ExposeSecret;

use super::super::{Identity, Parts, PrintFormat};
use super::*;

const GOOD_SECRET: &str = "kJ8s0fQpZr3vX1yBnM6tLw9eHcUaGdR2";

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn from_env(pairs: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    load(&[], &env(pairs), &Overrides::default())
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn keys(result: Result<Config, ConfigErrors>) -> Vec<String> {
    result.unwrap_err().0.into_iter().map(|fault| fault.key).collect()
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn the_defaults_serve_a_newcomer() {
    let config = from_env(&[]).unwrap();
    assert_eq!((config.parts, config.role), (Parts::Embedded, Role::All));
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.ops.listen.to_string(), "127.0.0.1:9100");
    assert_eq!(config.embedded.data_dir, Path::new("./data"));
    assert_eq!(config.kafka.partitions, 60);
}

#[test]
fn every_key_has_a_comment_and_a_default() {
    let mut previous = "";
    for line in DEFAULTS.lines() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(previous.starts_with('#'), "no comment above: {line}");
        }
        previous = line;
    }
    let printed = parse(&from_env(&[]).unwrap().print(PrintFormat::Toml)).unwrap();
    let printed: Vec<String> = flatten(printed.cache).into_keys().collect();
    let documented: Vec<String> = flatten(parse(DEFAULTS).unwrap().cache).into_keys().collect();
    assert_eq!(printed, documented, "the types and the file have the same keys");
}

#[test]
fn the_shipped_files_load() {
    let stack = load(&[shipped("stack.toml")], &BTreeMap::new(), &Overrides::default()).unwrap();
    assert_eq!((stack.parts, stack.api.identity, stack.mysql.migrate_at_start), (Parts::Distributed, Identity::Header, true));
    for role in [Role::Api, Role::Consumer] {
        load(&[shipped("stack.toml")], &BTreeMap::new(), &Overrides { role: Some(role) }).unwrap();
    }
    let production = [shipped("production.example.toml")];
    assert_eq!(keys(load(&production, &BTreeMap::new(), &Overrides::default())), ["kafka.sasl_password"]);
    load(&production, &env(&[("COUPON__KAFKA__SASL_PASSWORD", "x")]), &Overrides::default()).unwrap();
}

#[test]
fn later_layers_win() {
    let (_one, first) = file("role = \"api\"\nparts = \"distributed\"\n[consumer]\nworkers = 3\nbatch_rows = 7\n[limiter]\nrate = 5");
    let (_two, second) = file("[consumer]\nworkers = 4\n");
    let files = [first, second];
    let config = load(&files, &env(&[]), &Overrides::default()).unwrap();
    assert_eq!((config.role, config.consumer.workers, config.consumer.batch_rows), (Role::Api, 4, 7));
    assert!((config.limiter.rate - 5.0).abs() < f64::EPSILON);
    let variables = env(&[("COUPON__CONSUMER__WORKERS", "5"), ("COUPON__ROLE", "consumer"), ("UNRELATED", "x")]);
    let config = load(&files, &variables, &Overrides { role: Some(Role::All) }).unwrap();
    assert_eq!((config.role, config.consumer.workers), (Role::All, 5));
}

#[test]
fn variables_take_the_type_of_their_key() {
    let config = from_env(&[
        ("COUPON__API__GATEWAY_PROXIES", "10.0.0.1, 10.0.0.2"),
        ("COUPON__KAFKA__TLS", "true"),
        ("COUPON__KAFKA__BROKERS", "a:9092,b:9092"),
        ("COUPON__LIMITER__RATE", "250"),
        ("COUPON__JWT__ISSUER", "12345"),
    ])
    .unwrap();
    assert_eq!(config.api.gateway_proxies.len(), 2);
    assert!(config.kafka.tls);
    assert_eq!(config.kafka.broker_list(), ["a:9092", "b:9092"]);
    assert_eq!(config.jwt.issuer(), Some("12345"));
}

#[test]
fn every_fault_is_reported_at_once() {
    let (_folder, path) = file(
        "rolle = \"all\"\n[api]\nlisten = \"0.0.0.0:80\"\nworkers = \"four\"\nidentity = \"trust\"\nmax_in_flight = -1\n\
         [api.deep]\nx = 1\n[apii]\n[redis]\nurl = \"http://r\"\n[consumer]\nlease_ms = 0\nbatch_rows = 1.5\n\"ops.listen\" = 1\n",
    );
    let missing = PathBuf::from("/nowhere/at-all.toml");
    let variables = env(&[
        ("COUPON__KAFKA__PARTITONS", "3"),
        ("COUPON__KAFKA__BROKERS", "one,two:0"),
        ("COUPON__OPS__LISTEN", "localhost"),
        ("COUPON__MYSQL__URL", "postgres://x"),
        ("COUPON__JOURNAL__WRITE_VERSION", "2"),
        ("COUPON__MYSQL__TLS", "yes"),
        ("COUPON__LOG__FILTER", "info,a=loud"),
    ]);
    let errors = load(&[path.clone(), missing], &variables, &Overrides { role: Some(Role::Api) }).unwrap_err();
    let text = errors.to_string();
    for needle in [
        "rolle (",
        "api.workers (",
        "api.identity (",
        "must be one of header, gateway, jwt",
        "api.max_in_flight (",
        "api.deep.x (",
        "apii (",
        "consumer.batch_rows (",
        "/nowhere/at-all.toml: cannot be read",
        "kafka.partitons (COUPON__KAFKA__PARTITONS): unknown key",
        "\"one\" is not host:port",
        "\"two:0\" is not host:port",
        "ops.listen (COUPON__OPS__LISTEN)",
        "mysql.url: must be mysql://",
        "redis.url: must be",
        "consumer.lease_ms: must not be 0",
        "journal.write_version: must be 1",
        "mysql.tls (COUPON__MYSQL__TLS): must be true or false",
        "log.filter:",
        "role: api alone needs parts",
    ] {
        assert!(text.contains(needle), "{needle} is missing in:\n{text}");
    }
}

#[test]
fn dangerous_identities_are_refused() {
    let public = ("COUPON__API__LISTEN", "0.0.0.0:8080");
    let jwt = ("COUPON__API__IDENTITY", "jwt");
    let secret = |text: &str| from_env(&[jwt, ("COUPON__JWT__HS256_SECRET", text)]);
    assert_eq!(keys(from_env(&[public])), ["api.identity"]);
    assert_eq!(keys(from_env(&[public, ("COUPON__API__IDENTITY", "gateway")])), ["api.gateway_proxies"]);
    assert_eq!(keys(from_env(&[jwt])), ["jwt"]);
    assert_eq!(keys(secret("short")), ["jwt.hs256_secret"]);
    assert_eq!(keys(secret("change-me-change-me-change-me-change-me")), ["jwt.hs256_secret"]);
    assert_eq!(keys(secret(&"a".repeat(64))), ["jwt.hs256_secret"]);
    assert_eq!(secret(GOOD_SECRET).unwrap().jwt.hs256_secret().unwrap().expose_secret(), GOOD_SECRET);
    assert!(from_env(&[public, jwt, ("COUPON__JWT__JWKS_FILE", "/keys.json")]).is_ok());
}

#[test]
fn an_authority_without_tls_is_refused() {
    let file = |key| (key, "/etc/ca.pem");
    let (redis, kafka, mysql) = (file("COUPON__REDIS__CA_FILE"), file("COUPON__KAFKA__CA_FILE"), file("COUPON__MYSQL__CA_FILE"));
    assert_eq!(keys(from_env(&[redis, kafka, mysql])), ["redis.ca_file", "kafka.ca_file", "mysql.ca_file"]);
    let config = from_env(&[redis, ("COUPON__REDIS__URL", "rediss://r:6380"), kafka, ("COUPON__KAFKA__TLS", "true")]).unwrap();
    assert_eq!((config.redis.ca_file(), config.mysql.ca_file()), (Some("/etc/ca.pem".into()), None));
}

#[test]
fn secrets_are_never_shown() {
    let config = from_env(&[
        ("COUPON__API__IDENTITY", "jwt"),
        ("COUPON__JWT__HS256_SECRET", GOOD_SECRET),
        ("COUPON__REDIS__URL", "redis://:hunter2@r:6379"),
        ("COUPON__MYSQL__URL", "mysql://coupon:hunter2@db/coupon"),
        ("COUPON__KAFKA__SASL_MECHANISM", "plain"),
        ("COUPON__KAFKA__SASL_USERNAME", "svc"),
        ("COUPON__KAFKA__SASL_PASSWORD", "hunter2"),
    ])
    .unwrap();
    for text in [config.print(PrintFormat::Toml), config.print(PrintFormat::Json), format!("{config:?}"), format!("{config:#?}")] {
        assert!(!text.contains("hunter2") && !text.contains(GOOD_SECRET), "{text}");
    }
    assert!(config.print(PrintFormat::Toml).contains("mysql://coupon:<redacted>@db/coupon"));
}

#[test]
fn faults_do_not_show_secrets_either() {
    for text in [
        "[jwt]\nhs256_secret = \"hunter2",
        "[jwt]\nhs256_secret = hunter2\n",
        "[mysql]\nurl = [\"hunter2\"]\n",
        "[redis]\nurl = \"http://:hunter2@r\"\n",
        "[mysql]\nurl = \"hunter2\"\n",
    ] {
        let (_folder, path) = file(text);
        let errors = load(&[path], &BTreeMap::new(), &Overrides::default()).unwrap_err();
        assert!(!format!("{errors} {errors:?}").contains("hunter2"), "{errors}");
    }
}

#[test]
fn the_print_is_a_configuration_again() {
    let config = from_env(&[]).unwrap();
    let (_folder, path) = file(&config.print(PrintFormat::Toml));
    let again = load(&[path], &BTreeMap::new(), &Overrides::default()).unwrap();
    assert_eq!(again.print(PrintFormat::Json), config.print(PrintFormat::Json));
}

#[test]
fn an_adaptive_limit_needs_a_floor_below_its_ceiling() {
    let limiter = |adaptive, floor, rate| {
        from_env(&[("COUPON__LIMITER__ADAPTIVE", adaptive), ("COUPON__LIMITER__FLOOR", floor), ("COUPON__LIMITER__RATE", rate)])
    };
    let config = limiter("true", "50", "2700").unwrap();
    assert!(config.limiter.adaptive && config.print(PrintFormat::Toml).contains("floor = 50.0"));
    limiter("true", "50", "0").unwrap();
    limiter("false", "5000", "100").unwrap();
    assert_eq!(keys(limiter("true", "0", "2700")), ["limiter.floor"]);
    assert_eq!(keys(limiter("true", "inf", "0")), ["limiter.floor"]);
    let errors = limiter("true", "100.5", "100").unwrap_err();
    assert_eq!(errors.0.len(), 1);
    assert!(errors.to_string().contains("limiter.floor: must be at most limiter.rate"), "{errors}");
}
