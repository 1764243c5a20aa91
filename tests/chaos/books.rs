//! What the log and the tables say at the end, read by this program alone: its own reading of the records, its own rule, plain SQL.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use mysql_async::prelude::Queryable;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{OffsetAt, PartitionClient, UnknownTopicHandling};
use serde_json::Value;
use tokio::time::timeout;

use crate::world::{PARTITIONS, TOPIC};

/// One message of the log.
#[derive(Debug)]
pub struct Message {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: Vec<u8>,
}

/// A row of `issued_coupons` or an open dead letter of a win.
#[derive(Debug, Clone)]
pub struct Row {
    pub coupon: String,
    pub user: String,
    pub sequence: i64,
    pub issue_id: Option<String>,
}

#[derive(Debug, Default)]
pub struct Tables {
    pub rows: Vec<Row>,
    /// (coupon, total, issued, status).
    pub coupons: Vec<(String, i64, i64, String)>,
    /// Wins that are open or abandoning dead letters.
    pub letters: Vec<Row>,
    /// (partition, offset) of every dead letter.
    pub letter_records: HashSet<(i32, i64)>,
    pub next: BTreeMap<i32, i64>,
}

/// The log's story of one coupon.
#[derive(Debug, Default)]
pub struct Story {
    pub partition: Option<i32>,
    pub total: i64,
    pub issued: i64,
    next: i64,
    pub version: i64,
    pub status: String,
    pub holders: HashMap<String, i64>,
    pub revoked: HashSet<String>,
    /// Every version: the total and the status it set.
    pub versions: HashMap<i64, (i64, String)>,
    pub ever_sold_out: bool,
    pub strays: usize,
}

impl Story {
    /// The first `total` distinct users in log order, while it is open.
    fn tell(&mut self, record: &Value) -> Option<()> {
        match record["type"].as_str()? {
            "issue" => {
                let user = record["user_id"].as_str()?;
                let open = self.status == "OPEN" && self.issued < self.total;
                if open && !self.holders.contains_key(user) && !self.revoked.contains(user) {
                    self.next += 1;
                    self.issued += 1;
                    self.holders.insert(user.to_owned(), self.next);
                }
            }
            "terms" => {
                if record["version"].as_i64()? == self.version + 1 && self.status != "CLOSED" {
                    self.version += 1;
                    self.status = record["status"].as_str()?.to_owned();
                    self.total = record["total_quantity"].as_i64()?.max(self.issued);
                    self.versions.insert(self.version, (self.total, self.status.clone()));
                }
            }
            "revoke" => {
                let user = record["user_id"].as_str()?;
                if self.holders.get(user) == Some(&record["sequence"].as_i64()?) {
                    self.holders.remove(user);
                    self.revoked.insert(user.to_owned());
                    self.issued -= 1;
                }
            }
            _ => return None,
        }
        self.ever_sold_out |= self.version > 0 && self.issued >= self.total;
        Some(())
    }
}

/// Reads the log from its start; also returns the places of what cannot be read.
pub fn tell(messages: &[Message]) -> (HashMap<String, Story>, HashSet<(i32, i64)>) {
    let mut stories: HashMap<String, Story> = HashMap::new();
    let mut unreadable = HashSet::new();
    for Message { partition, offset, key, value } in messages {
        let record = serde_json::from_slice::<Value>(value).unwrap_or_default();
        if uuid::Uuid::parse_str(key).is_err() || record["v"] != 1 {
            unreadable.insert((*partition, *offset));
            continue;
        }
        let story = stories.entry(key.clone()).or_default();
        if *story.partition.get_or_insert(*partition) != *partition {
            story.strays += 1;
        }
        if story.tell(&record).is_none() {
            unreadable.insert((*partition, *offset));
        }
    }
    (stories, unreadable)
}

async fn partition_client(brokers: &str, partition: i32) -> PartitionClient {
    let brokers = brokers.split(',').map(ToOwned::to_owned).collect();
    let connecting = async {
        let client = ClientBuilder::new(brokers).build().await.unwrap();
        client.partition_client(TOPIC, partition, UnknownTopicHandling::Error).await.unwrap()
    };
    timeout(Duration::from_secs(20), connecting).await.expect("kafka answers")
}

/// The end of every partition.
pub async fn ends_of_kafka(brokers: &str) -> BTreeMap<i32, i64> {
    let mut ends = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let client = partition_client(brokers, partition).await;
        let end = timeout(Duration::from_secs(20), client.get_offset(OffsetAt::Latest)).await.expect("kafka answers").unwrap();
        ends.insert(partition, end);
    }
    ends
}

pub async fn log_of_kafka(brokers: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    for partition in 0..PARTITIONS {
        let client = partition_client(brokers, partition).await;
        let mut next = 0;
        loop {
            let fetch = client.fetch_records(next, 1..8_000_000, 500);
            let (records, end) = timeout(Duration::from_secs(20), fetch).await.expect("kafka answers").unwrap();
            for found in records {
                assert_eq!(found.offset, next, "the log has a gap in partition {partition}");
                next += 1;
                messages.push(Message {
                    partition,
                    offset: found.offset,
                    key: String::from_utf8_lossy(&found.record.key.unwrap_or_default()).into_owned(),
                    value: found.record.value.unwrap_or_default(),
                });
            }
            if next >= end {
                break;
            }
        }
    }
    messages
}

const ROWS: &str = "SELECT coupon_id, user_id, sequence, issue_id FROM issued_coupons";
const COUPONS: &str = "SELECT coupon_id, total_quantity, issued, status FROM coupons";
const LETTERS: &str =
    "SELECT coupon_id, user_id, sequence FROM dead_letters WHERE state IN ('open', 'abandoning') AND sequence IS NOT NULL";
const LETTER_RECORDS: &str = "SELECT part, log_offset FROM dead_letters";
const NEXT: &str = "SELECT part, next_offset FROM partition_offsets";

async fn mysql(port: u16) -> mysql_async::Conn {
    let url = format!("mysql://coupon:coupon@127.0.0.1:{port}/coupon");
    let connecting = mysql_async::Conn::new(mysql_async::Opts::from_url(&url).unwrap());
    timeout(Duration::from_secs(20), connecting).await.expect("mysql answers").unwrap()
}

pub async fn next_of_mysql(port: u16) -> BTreeMap<i32, i64> {
    let mut connection = mysql(port).await;
    connection.query::<(i32, i64), _>(NEXT).await.unwrap().into_iter().collect()
}

pub async fn tables_of_mysql(port: u16) -> Tables {
    let mut connection = mysql(port).await;
    let row = |(coupon, user, sequence, issue_id)| Row { coupon, user, sequence, issue_id };
    Tables {
        rows: connection.query_map(ROWS, row).await.unwrap(),
        coupons: connection.query(COUPONS).await.unwrap(),
        letters: connection.query_map(LETTERS, |(coupon, user, sequence)| Row { coupon, user, sequence, issue_id: None }).await.unwrap(),
        letter_records: connection.query::<(i32, i64), _>(LETTER_RECORDS).await.unwrap().into_iter().collect(),
        next: connection.query::<(i32, i64), _>(NEXT).await.unwrap().into_iter().collect(),
    }
}

#[derive(QueryableByName)]
struct Issued {
    #[diesel(sql_type = Text)]
    coupon_id: String,
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = BigInt)]
    sequence: i64,
    #[diesel(sql_type = Nullable<Text>)]
    issue_id: Option<String>,
}

#[derive(QueryableByName)]
struct CouponLine {
    #[diesel(sql_type = Text)]
    coupon_id: String,
    #[diesel(sql_type = BigInt)]
    total_quantity: i64,
    #[diesel(sql_type = BigInt)]
    issued: i64,
    #[diesel(sql_type = Text)]
    status: String,
}

#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    part: i32,
    #[diesel(sql_type = BigInt)]
    at: i64,
}

#[derive(QueryableByName)]
struct Entry {
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Text)]
    coupon_id: String,
    #[diesel(sql_type = diesel::sql_types::Binary)]
    value: Vec<u8>,
}

fn sqlite(file: &Path) -> SqliteConnection {
    SqliteConnection::establish(&file.display().to_string()).unwrap()
}

pub fn log_of_sqlite(data: &Path) -> Vec<Message> {
    let mut connection = sqlite(&data.join("journal.db"));
    let entries: Vec<Entry> =
        diesel::sql_query("SELECT position, coupon_id, value FROM journal ORDER BY position").load(&mut connection).unwrap();
    let message = |entry: Entry| Message { partition: 0, offset: entry.position - 1, key: entry.coupon_id, value: entry.value };
    entries.into_iter().map(message).collect()
}

pub fn tables_of_sqlite(data: &Path) -> Tables {
    let mut connection = sqlite(&data.join("ledger.db"));
    let row = |issued: Issued| Row { coupon: issued.coupon_id, user: issued.user_id, sequence: issued.sequence, issue_id: issued.issue_id };
    let places = |connection: &mut SqliteConnection, query: &str| -> Vec<(i32, i64)> {
        let places: Vec<Place> = diesel::sql_query(query).load(connection).unwrap();
        places.into_iter().map(|place| (place.part, place.at)).collect()
    };
    let letters = LETTERS.replace("sequence FROM", "sequence, NULL AS issue_id FROM");
    Tables {
        rows: diesel::sql_query(ROWS).load(&mut connection).unwrap().into_iter().map(row).collect(),
        coupons: diesel::sql_query(COUPONS)
            .load(&mut connection)
            .unwrap()
            .into_iter()
            .map(|line: CouponLine| (line.coupon_id, line.total_quantity, line.issued, line.status))
            .collect(),
        letters: diesel::sql_query(letters).load(&mut connection).unwrap().into_iter().map(row).collect(),
        letter_records: places(&mut connection, "SELECT part, log_offset AS at FROM dead_letters").into_iter().collect(),
        next: places(&mut connection, "SELECT part, next_offset AS at FROM partition_offsets").into_iter().collect(),
    }
}
