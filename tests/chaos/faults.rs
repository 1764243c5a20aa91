//! How each fault is made and healed. Returns when the part is back.

use std::io::Write;
use std::time::{Duration, Instant};

use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use tokio::time::{sleep, timeout};

use crate::cluster::BROKERS;
use crate::plan::{Fault, Stroke};
use crate::world::{PARTITIONS, TOPIC, World, broker_proxy, set_clock};

/// When a fault began and when its part was back.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: Instant,
    pub healed: Instant,
}

/// Strikes, waits and heals.
pub async fn strike(world: &World, stroke: &Stroke) -> Window {
    let from = Instant::now();
    let Stroke { fault, target, hold, .. } = stroke;
    let (target, hold) = (*target, *hold);
    match fault {
        Fault::ApiKilled | Fault::ConsumerKilled | Fault::EmbeddedKilled => {
            let process = match fault {
                Fault::ApiKilled => world.api(target),
                Fault::ConsumerKilled => world.consumer(target),
                _ => &world.embedded,
            };
            let mut process = process.lock().await;
            process.kill();
            sleep(hold).await;
            process.start_again();
        }
        Fault::ApiPaused | Fault::ApiPausedLong | Fault::ConsumerPaused => {
            let process = if *fault == Fault::ConsumerPaused { world.consumer(target) } else { world.api(target) };
            let process = process.lock().await;
            process.signal("STOP");
            sleep(hold).await;
            process.signal("CONT");
        }
        Fault::ApiTerminated => {
            let mut process = world.api(target).lock().await;
            let code = process.terminate(Duration::from_secs(30)).await;
            if code != Some(0) {
                world.findings.note(&format!("{} ended with {code:?} when asked to stop", process.name));
            }
            sleep(hold / 2).await;
            process.start_again();
        }
        Fault::ApiClockStepped | Fault::ConsumerClockStepped => {
            let name = if *fault == Fault::ApiClockStepped { "api-2" } else { "consumer-3" };
            set_clock(&world.dir, name, if target.is_multiple_of(2) { "+5400" } else { "-5400" });
            sleep(hold).await;
            set_clock(&world.dir, name, "+0");
        }
        Fault::ConsumersAllKilled => {
            for process in world.consumers() {
                process.lock().await.kill();
            }
            sleep(hold).await;
            for process in world.consumers() {
                process.lock().await.start_again();
            }
        }
        Fault::RedisCut => cut(world, &world.proxies("redis", None), hold).await,
        Fault::RedisCutFromOne => cut(world, &world.proxies("redis", Some(target)), hold).await,
        Fault::RedisSlow => slow(world, &world.proxies("redis", None), Duration::from_millis(300), hold).await,
        Fault::RedisHalfOpen => half_open(world, &world.proxies("redis", None), hold).await,
        Fault::MysqlCut => cut(world, &world.proxies("mysql", None), hold).await,
        Fault::MysqlCutFromOne => cut(world, &world.proxies("mysql", Some(target)), hold).await,
        Fault::MysqlSlow => slow(world, &world.proxies("mysql", None), Duration::from_millis(200), hold).await,
        Fault::MysqlHalfOpen => half_open(world, &world.proxies("mysql", None), hold).await,
        Fault::BrokerCut => cut(world, &[broker_proxy(target % 3)], hold).await,
        Fault::KafkaCut => cut(world, &brokers(), hold).await,
        Fault::KafkaSlow => slow(world, &brokers(), Duration::from_millis(200), hold).await,
        Fault::KafkaHalfOpen => half_open(world, &brokers(), hold).await,
        Fault::MysqlKilled => kill(world, &["mysql"], hold).await,
        Fault::MysqlPaused => pause(world, &["mysql"], hold).await,
        Fault::BrokerKilled => kill(world, &[BROKERS[target % 3]], hold).await,
        Fault::BrokerPaused => pause(world, &[BROKERS[target % 3]], hold).await,
        Fault::TwoBrokersKilled => kill(world, &two(target), hold).await,
        Fault::TwoBrokersPaused => pause(world, &two(target), hold).await,
        Fault::GarbageInTheLog => {
            write_garbage(world).await;
            sleep(hold).await;
        }
        Fault::DiskFull => fill_disk(world, hold).await,
        Fault::RedisKilled
        | Fault::RedisPaused
        | Fault::RedisFlushed
        | Fault::RedisRestartedEmpty
        | Fault::RedisRestoredOld
        | Fault::RedisFailedOver
        | Fault::RedisEvicting => strike_redis(world, *fault, hold).await,
    }
    Window { from, healed: Instant::now() }
}

async fn strike_redis(world: &World, fault: Fault, hold: Duration) {
    let mut pair = world.redis.lock().await;
    match fault {
        Fault::RedisKilled => {
            pair.primary().kill();
            sleep(hold).await;
            pair.primary().start_again().await;
        }
        Fault::RedisPaused => {
            pair.primary().signal("STOP");
            sleep(hold).await;
            pair.primary().signal("CONT");
        }
        Fault::RedisFlushed => {
            assert_eq!(pair.primary().cli(&["FLUSHALL"]), "OK");
            sleep(hold).await;
        }
        Fault::RedisRestartedEmpty => {
            pair.primary().kill();
            sleep(hold / 2).await;
            pair.primary().start_empty().await;
        }
        Fault::RedisRestoredOld => {
            pair.primary().snapshot().await;
            sleep(hold).await;
            pair.primary().kill();
            pair.primary().start_from_snapshot().await;
        }
        Fault::RedisEvicting => {
            let info = pair.primary().cli(&["INFO", "memory"]);
            let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).map_or("1000000", str::trim).to_owned();
            assert_eq!(pair.primary().cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random", "maxmemory", &used]), "OK");
            sleep(hold).await;
            assert_eq!(pair.primary().cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
        }
        // What is left: the replica lags behind by `hold` when it takes over; the old primary comes back as its replica.
        _ => {
            let (old, new) = (pair.active, 1 - pair.active);
            assert_eq!(pair.servers[new].cli(&["REPLICAOF", "NO", "ONE"]), "OK");
            sleep(hold).await;
            pair.servers[old].kill();
            let port = pair.servers[new].port;
            for proxy in world.proxies("redis", None) {
                world.toxiproxy.redirect(&proxy, port).await;
            }
            pair.active = new;
            pair.servers[old].start_empty().await;
            assert_eq!(pair.servers[old].cli(&["REPLICAOF", "127.0.0.1", &port.to_string()]), "OK");
        }
    }
}

fn brokers() -> Vec<String> {
    (0..BROKERS.len()).map(broker_proxy).collect()
}

fn two(target: usize) -> [&'static str; 2] {
    [BROKERS[target % 3], BROKERS[(target + 1) % 3]]
}

async fn cut(world: &World, proxies: &[String], hold: Duration) {
    for proxy in proxies {
        world.toxiproxy.enable(proxy, false).await;
    }
    sleep(hold).await;
    for proxy in proxies {
        world.toxiproxy.enable(proxy, true).await;
    }
}

async fn slow(world: &World, proxies: &[String], round_trip: Duration, hold: Duration) {
    for proxy in proxies {
        world.toxiproxy.slow(proxy, round_trip).await;
    }
    sleep(hold).await;
    for proxy in proxies {
        world.toxiproxy.cure(proxy).await;
    }
}

async fn half_open(world: &World, proxies: &[String], hold: Duration) {
    for proxy in proxies {
        world.toxiproxy.half_open(proxy).await;
    }
    sleep(hold).await;
    for proxy in proxies {
        world.toxiproxy.cure(proxy).await;
    }
}

async fn kill(world: &World, parts: &[&str], hold: Duration) {
    for part in parts {
        world.stack.signal(part, "KILL");
    }
    sleep(hold).await;
    world.stack.up(parts).await;
}

async fn pause(world: &World, parts: &[&str], hold: Duration) {
    for part in parts {
        world.stack.signal(part, "STOP");
    }
    sleep(hold).await;
    for part in parts {
        world.stack.signal(part, "CONT");
    }
}

/// Two messages nobody can read in every partition. With brokers away some may not be written; the log itself says which are.
async fn write_garbage(world: &World) {
    let brokers = world.stack.bootstrap().split(',').map(ToOwned::to_owned).collect();
    let writing = async {
        let client = ClientBuilder::new(brokers).build().await?;
        for partition in 0..PARTITIONS {
            let partition = client.partition_client(TOPIC, partition, UnknownTopicHandling::Retry).await?;
            let garbage = |key: &str, value: &[u8]| Record {
                key: Some(key.as_bytes().to_vec()),
                value: Some(value.to_vec()),
                headers: std::collections::BTreeMap::new(),
                timestamp: rskafka::chrono::DateTime::default(),
            };
            let records = vec![garbage("nobody", b"{}"), garbage("7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a", b"\xff\xfe")];
            partition.produce(records, Compression::NoCompression).await?;
        }
        Ok::<_, rskafka::client::error::Error>(())
    };
    if !matches!(timeout(Duration::from_secs(5), writing).await, Ok(Ok(()))) {
        eprintln!("chaos: not all unreadable records could be written");
    }
}

async fn fill_disk(world: &World, hold: Duration) {
    let filler = world.disk.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let mut block = vec![0_u8; 1 << 20];
    // Large blocks, then ever smaller ones, until nothing fits.
    while !block.is_empty() {
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
    sleep(hold).await;
    std::fs::remove_file(&filler).unwrap();
}
