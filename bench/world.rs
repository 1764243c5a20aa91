//! Where the service stands in a run: fresh data for every start, and the servers' processes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::config::Config;
use fred::types::{Builder, Value};
use kafka_protocol::messages::{DeleteTopicsRequest, RequestHeader, TopicName};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::processes::Process;

/// Everything but the load.
#[derive(Debug)]
pub struct World {
    pub dir: PathBuf,
    program: PathBuf,
    /// Redis, Kafka and MySQL, by name.
    pub servers: Vec<(String, u32)>,
    mysql: String,
    pub redis: String,
    kafka: String,
    /// Deleted at the end, not beside what is measured.
    topics: Mutex<Vec<String>>,
}

/// A database of the local stack that nothing else uses.
const REDIS: &str = "redis://127.0.0.1:16379/15";
const DELETE_WITHIN: Duration = Duration::from_secs(60);

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

impl World {
    pub fn new(dir: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let run = PathBuf::from(variable("STACK_STATE", &root.join(".stack").display().to_string())).join("run");
        let servers = ["redis", "kafka", "mysql"].into_iter().filter_map(|name| {
            let pid = std::fs::read_to_string(run.join(format!("{name}.pid"))).ok()?.trim().parse().ok()?;
            Some((name.to_owned(), pid))
        });
        Self {
            dir: dir.to_owned(),
            program: variable("COUPON_SVC", &root.join("target/release/coupon-svc").display().to_string()).into(),
            servers: servers.collect(),
            mysql: variable("COUPON_BENCH_MYSQL", "mysql://coupon:coupon@127.0.0.1:13306/coupon"),
            redis: variable("COUPON_BENCH_REDIS", REDIS),
            kafka: variable("COUPON_BENCH_KAFKA", "127.0.0.1:19092"),
            topics: Mutex::default(),
        }
    }

    pub fn constant(&self) -> Process {
        Process::constant(&self.dir)
    }

    /// One process on SQLite files of its own.
    pub fn embedded(&self) -> Process {
        let data = self.dir.join(format!("data-{}", Uuid::new_v4().simple()));
        let env = BTreeMap::from([
            ("COUPON__PARTS".to_owned(), "embedded".to_owned()),
            ("COUPON__EMBEDDED__DATA_DIR".to_owned(), data.display().to_string()),
        ]);
        Process::service(&self.program, "all", &env, &self.dir)
    }

    /// Only the database that is the bench's own: who names another may have more there.
    fn empty_redis(&self) {
        if self.redis != REDIS {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Builder::from_config(Config::from_url(&self.redis).unwrap()).build().unwrap();
            client.init().await.expect("Redis must run: make bench starts it");
            let _done: Value = client.eval("return redis.call('FLUSHDB')", Vec::<String>::new(), Vec::<String>::new()).await.unwrap();
            client.quit().await.unwrap();
        });
    }

    /// A topic and a database of its own, and an empty Redis: one that is full refuses, and then the gate is not measured at all.
    pub fn deployment(&self) -> Deployment<'_> {
        self.empty_redis();
        let unique = Uuid::new_v4().simple().to_string();
        let database = format!("coupon_bench_{unique}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = AsyncMysqlConnection::establish(&self.mysql).await.expect("MySQL must run: make bench starts it");
            connection.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        });
        let url = self.mysql.rsplit_once('/').map(|(server, _)| format!("{server}/{database}")).unwrap();
        let topic = format!("bench-{unique}");
        let env = [
            ("PARTS", "distributed"),
            ("MYSQL__URL", &url),
            ("MYSQL__MIGRATE_AT_START", "true"),
            ("REDIS__URL", &self.redis),
            ("KAFKA__BROKERS", &self.kafka),
            ("KAFKA__TOPIC", &topic),
            ("KAFKA__DEAD_LETTER_TOPIC", &format!("{topic}-dlq")),
            ("KAFKA__GROUP", &topic),
        ];
        let env = env.into_iter().map(|(key, value)| (format!("COUPON__{key}"), value.to_owned())).collect();
        self.topics.lock().unwrap().extend([format!("{topic}-dlq"), topic]);
        Deployment { world: self, env, url, database }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let topics = self.topics.get_mut().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _left = tokio::time::timeout(DELETE_WITHIN, delete_topics(&self.kafka, topics)).await;
        });
    }
}

/// A broker that keeps the partitions of all that was ever measured on it is another broker.
async fn delete_topics(broker: &str, topics: &[String]) -> io::Result<()> {
    const KEY: i16 = 20;
    /// The last one with the plain header.
    const VERSION: i16 = 3;
    let names = topics.iter().map(|topic| TopicName(StrBytes::from(topic.clone()))).collect();
    let request = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(i32::MAX);
    let header = RequestHeader::default().with_request_api_key(KEY).with_request_api_version(VERSION);
    let mut frame = Vec::new();
    header.encode(&mut frame, DeleteTopicsRequest::header_version(VERSION)).map_err(io::Error::other)?;
    request.encode(&mut frame, VERSION).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(broker).await?;
    stream.write_i32(i32::try_from(frame.len()).map_err(io::Error::other)?).await?;
    stream.write_all(&frame).await?;
    let mut answer = vec![0; usize::try_from(stream.read_i32().await?).map_err(io::Error::other)?];
    stream.read_exact(&mut answer).await?;
    Ok(())
}

#[derive(Debug)]
pub struct Deployment<'a> {
    world: &'a World,
    pub env: BTreeMap<String, String>,
    pub url: String,
    database: String,
}

impl Deployment<'_> {
    pub fn start(&self, role: &str) -> Process {
        Process::service(&self.world.program, role, &self.env, &self.world.dir)
    }
}

impl Drop for Deployment<'_> {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            if let Ok(mut connection) = AsyncMysqlConnection::establish(&self.world.mysql).await {
                let _left = connection.batch_execute(&format!("DROP DATABASE {}", self.database)).await;
            }
        });
    }
}
