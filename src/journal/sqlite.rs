//! The journal in an SQLite file: one partition, one writer thread that commits in groups.
//!
//! `offset = position - 1`. A record is readable only after its WAL frames are synced (`synchronous=FULL`), so what a reader saw survives a crash.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Bounds, Fetched, Journal, JournalError, RawRecord};
use crate::domain::{CouponId, Offset, Partition, now_millis};
use crate::kill_point::kill_point;

diesel::table! {
    journal (position) {
        position -> BigInt,
        coupon_id -> Text,
        value -> Binary,
        at -> BigInt,
    }
}

/// Appends that may wait for the writer.
const QUEUE: usize = 65_536;
/// Appends of one transaction.
const GROUP: usize = 1_000;
/// Records of one fetch.
const FETCH_ROWS: i64 = 10_000;
/// Deadline of an append, and of what a fetch or a look-up takes beyond its wait.
const DEADLINE: Duration = Duration::from_secs(5);
/// Connections kept open for readers.
const IDLE_READERS: usize = 4;

const PRAGMAS: &str = "PRAGMA busy_timeout=4000; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;";
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS journal (position INTEGER PRIMARY KEY AUTOINCREMENT, coupon_id TEXT NOT NULL, \
     value BLOB NOT NULL, at INTEGER NOT NULL);";
/// The sequence, not the last row: a cut tail is then seen as a gap and not as a shorter log.
const BOUNDS: &str = "SELECT (SELECT MIN(position) FROM journal) AS first, \
     (SELECT seq FROM sqlite_sequence WHERE name = 'journal') AS last";

/// One queued append.
#[derive(Debug)]
struct Append {
    coupon: CouponId,
    value: Vec<u8>,
    done: Option<Done>,
}

type Done = oneshot::Sender<Result<(), JournalError>>;

/// A journal in an SQLite file, for a single process: one partition, group commit.
///
/// Dropping it lets the writer finish what is queued in the background.
#[derive(Debug)]
pub struct SqliteJournal {
    queue: mpsc::Sender<Append>,
    /// The end as the writer last saw it: wakes waiting fetches. Closes when the writer has ended.
    end: watch::Receiver<Offset>,
    readers: Arc<Readers>,
}

impl SqliteJournal {
    /// Opens the file, creating it and its table where they are missing; its folder must exist.
    ///
    /// Blocks for the time that takes (up to the busy timeout of 4 s when another process holds the file).
    ///
    /// # Errors
    /// [`JournalError::Unknown`]: the file cannot be opened or written, or the writer thread cannot be started.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let mut writer = connect(path)?;
        writer.batch_execute(SCHEMA).map_err(|error| unknown("cannot create the journal table", &error))?;
        let readers = Arc::new(Readers { path: path.to_owned(), idle: Mutex::new(Vec::new()) });
        let end = bounds(&mut writer)?.end;
        let (queue, appends) = mpsc::channel(QUEUE);
        let (end_sender, end) = watch::channel(end);
        let writer = Writer { path: path.to_owned(), connection: Some(writer), end: end_sender };
        std::thread::Builder::new()
            .name("journal-writer".into())
            .spawn(move || writer.run(appends))
            .map_err(|error| unknown("cannot start the journal's writer", &error))?;
        Ok(Self { queue, end, readers })
    }

    fn put(&self, partition: Partition, coupon: CouponId, value: Vec<u8>, done: Option<Done>) -> Result<(), JournalError> {
        check(partition)?;
        self.queue.try_send(Append { coupon, value, done }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => JournalError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => JournalError::Unknown("the writer ended".into()),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unknown(what: &str, error: &dyn std::fmt::Display) -> JournalError {
    JournalError::Unknown(format!("{what}: {error}"))
}

fn connect(path: &Path) -> Result<SqliteConnection, JournalError> {
    let text = path.to_str().ok_or_else(|| JournalError::Unknown(format!("{} is not UTF-8", path.display())))?;
    let mut connection = SqliteConnection::establish(text).map_err(|error| unknown(&format!("cannot open {text}"), &error))?;
    connection.batch_execute(PRAGMAS).map_err(|error| unknown(&format!("cannot prepare {text}"), &error))?;
    Ok(connection)
}

/// For tests.
#[cfg(test)]
pub(super) fn damage(path: &Path, statements: &str) {
    connect(path).unwrap().batch_execute(statements).unwrap();
}

#[derive(QueryableByName)]
struct BoundsRow {
    #[diesel(sql_type = Nullable<BigInt>)]
    first: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    last: Option<i64>,
}

fn bounds(connection: &mut SqliteConnection) -> Result<Bounds, JournalError> {
    let row: BoundsRow =
        diesel::sql_query(BOUNDS).get_result(connection).map_err(|error| unknown("cannot read the journal's end", &error))?;
    let end = row.last.unwrap_or(0);
    Ok(Bounds { begin: row.first.map_or(end, |first| first - 1), end })
}

/// The thread that writes.
struct Writer {
    path: PathBuf,
    /// None after a failure: whatever state that left behind goes with the connection.
    connection: Option<SqliteConnection>,
    end: watch::Sender<Offset>,
}

impl Writer {
    fn run(mut self, mut appends: mpsc::Receiver<Append>) {
        while let Some(first) = appends.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(next) = appends.try_recv()
            {
                group.push(next);
            }
            kill_point("journal.append.before");
            let outcome = self.commit(&group);
            kill_point("journal.append.after");
            match &outcome {
                Ok(end) => {
                    self.end.send_replace(*end);
                }
                Err(error) => {
                    tracing::error!(%error, records = group.len(), "journal write failed");
                    self.connection = None;
                }
            }
            for done in group.into_iter().filter_map(|append| append.done) {
                // An append nobody waits for any more is in the log all the same.
                let _ignored = done.send(outcome.as_ref().map(|_| ()).map_err(Clone::clone));
            }
        }
    }

    /// Writes the group in one transaction and returns the new end.
    fn commit(&mut self, group: &[Append]) -> Result<Offset, JournalError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.path)?),
        };
        let at = now_millis();
        let end = connection.immediate_transaction(|connection| -> Result<Option<i64>, diesel::result::Error> {
            for append in group {
                diesel::insert_into(journal::table)
                    .values((journal::coupon_id.eq(append.coupon.to_string()), journal::value.eq(&append.value), journal::at.eq(at)))
                    .execute(connection)?;
            }
            journal::table.select(diesel::dsl::max(journal::position)).first(connection)
        });
        end.map(Option::unwrap_or_default).map_err(|error| unknown("write failed", &error))
    }
}

/// Connections for reading, used from blocking threads.
#[derive(Default)]
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<SqliteConnection>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Readers {
    /// Runs `read` on a connection of the pool; one that failed is not used again, unless the failure is about what was asked.
    async fn with<T, F>(self: &Arc<Self>, read: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> Result<T, JournalError> + Send + 'static,
    {
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let pooled = lock(&readers.idle).pop();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => connect(&readers.path)?,
            };
            let outcome = read(&mut connection);
            if !matches!(outcome, Err(JournalError::Unknown(_))) {
                let mut idle = lock(&readers.idle);
                if idle.len() < IDLE_READERS {
                    idle.push(connection);
                }
            }
            outcome
        });
        match tokio::time::timeout(DEADLINE, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(unknown("read failed", &error)),
            Err(_) => Err(JournalError::Unknown(format!("no answer to a read within {DEADLINE:?}"))),
        }
    }
}

/// Reads records and bounds in one snapshot.
fn read(connection: &mut SqliteConnection, from: Offset, max_bytes: usize) -> Result<(Vec<RawRecord>, Offset), JournalError> {
    /// What a transaction needs to fail with.
    struct Failed(JournalError);
    impl From<diesel::result::Error> for Failed {
        fn from(error: diesel::result::Error) -> Self {
            Self(unknown("read failed", &error))
        }
    }
    let outcome =
        connection.transaction(|connection| -> Result<_, Failed> {
            let bounds = bounds(connection).map_err(Failed)?;
            if from < bounds.begin || from > bounds.end {
                return Err(Failed(JournalError::OffsetOutOfRange { partition: 0, asked: from, bounds: Some(bounds) }));
            }
            let mut records = Vec::new();
            let mut bytes = 0;
            let mut expected = from;
            if from < bounds.end {
                let rows = journal::table
                    .filter(journal::position.gt(from))
                    .order(journal::position.asc())
                    .limit(FETCH_ROWS)
                    .load_iter::<(i64, String, Vec<u8>, i64), _>(connection)?;
                for row in rows {
                    let (position, key, value, at) = row?;
                    if !records.is_empty() && bytes + value.len() > max_bytes {
                        break;
                    }
                    let offset = position - 1;
                    if offset != expected {
                        return Err(Failed(JournalError::Damaged(format!("offset {offset} follows where {expected} was expected"))));
                    }
                    expected += 1;
                    bytes += value.len();
                    records.push(RawRecord { offset, key: key.into(), value: value.into(), at });
                }
                if records.is_empty() {
                    return Err(Failed(JournalError::Damaged(format!("no record at offset {from} below the end {}", bounds.end))));
                }
            }
            Ok((records, bounds.end))
        });
    outcome.map_err(|Failed(error)| error)
}

fn check(partition: Partition) -> Result<(), JournalError> {
    if partition == 0 { Ok(()) } else { Err(JournalError::Damaged(format!("there is no partition {partition}, only 0"))) }
}

#[async_trait]
impl Journal for SqliteJournal {
    fn partitions(&self) -> Partition {
        1
    }

    fn send(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError> {
        self.put(partition, coupon, value, None)
    }

    async fn append(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError> {
        let (done, answer) = oneshot::channel();
        self.put(partition, coupon, value, Some(done))?;
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(JournalError::Unknown("the writer ended".into())),
            Err(_) => Err(JournalError::Unknown(format!("no answer within {DEADLINE:?}"))),
        }
    }

    async fn fetch(&self, partition: Partition, from: Offset, max_bytes: usize, max_wait: Duration) -> Result<Fetched, JournalError> {
        check(partition)?;
        let deadline = tokio::time::Instant::now() + max_wait;
        let mut end = self.end.clone();
        loop {
            end.borrow_and_update();
            let last_look = tokio::time::Instant::now() >= deadline;
            let sent_at = Instant::now();
            let (records, high_watermark) = self.readers.with(move |connection| read(connection, from, max_bytes)).await?;
            if !records.is_empty() || last_look {
                return Ok(Fetched { records, high_watermark, sent_at });
            }
            // The last look comes after the wait: another process may have appended.
            if let Ok(Err(_)) = tokio::time::timeout_at(deadline, end.changed()).await {
                tokio::time::sleep_until(deadline).await;
            }
        }
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, JournalError> {
        check(partition)?;
        self.readers.with(bounds).await
    }

    /// There are no such tools here.
    async fn report_progress(&self, _next: &[(Partition, Offset)]) -> Result<(), JournalError> {
        Ok(())
    }

    /// There are no such tools here.
    async fn copy_dead_letter(&self, _key: Vec<u8>, _value: Vec<u8>) -> Result<(), JournalError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite;
    use super::*;

    fn open() -> (tempfile::TempDir, SqliteJournal) {
        let folder = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(&folder.path().join("journal.db")).unwrap();
        (folder, journal)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn passes_the_contract() {
        let (_folder, journal) = open();
        suite::run(&journal).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_acknowledged_is_there_after_reopening() {
        let (folder, journal) = open();
        let coupon = CouponId::random();
        for number in 0..10_u8 {
            journal.append(0, coupon, vec![number]).await.unwrap();
        }
        drop(journal);
        let journal = SqliteJournal::open(&folder.path().join("journal.db")).unwrap();
        assert_eq!(journal.bounds(0).await.unwrap(), Bounds { begin: 0, end: 10 });
        journal.append(0, coupon, vec![10]).await.unwrap();
        let fetched = journal.fetch(0, 0, 1 << 20, Duration::ZERO).await.unwrap();
        assert_eq!(fetched.records.iter().map(|record| record.value[0]).collect::<Vec<_>>(), (0..=10).collect::<Vec<_>>());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_missing_record_is_damage_and_never_skipped() {
        let (folder, journal) = open();
        for number in 0..5_u8 {
            journal.append(0, CouponId::random(), vec![number]).await.unwrap();
        }
        let mut connection = connect(&folder.path().join("journal.db")).unwrap();
        connection.batch_execute("DELETE FROM journal WHERE position IN (3, 5)").unwrap();
        for from in [0, 2, 4] {
            assert!(matches!(journal.fetch(0, from, 1 << 20, Duration::ZERO).await, Err(JournalError::Damaged(_))), "{from}");
        }
        connection.batch_execute("DELETE FROM journal WHERE position <= 3").unwrap();
        assert_eq!(journal.bounds(0).await.unwrap(), Bounds { begin: 3, end: 5 });
        assert!(matches!(journal.fetch(0, 2, 1 << 20, Duration::ZERO).await, Err(JournalError::OffsetOutOfRange { .. })));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failed_write_is_unknown_and_the_writer_goes_on() {
        let (folder, journal) = open();
        journal.append(0, CouponId::random(), vec![0]).await.unwrap();
        let mut connection = connect(&folder.path().join("journal.db")).unwrap();
        connection.batch_execute("CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT RAISE(FAIL, 'disk full'); END").unwrap();
        assert!(matches!(journal.append(0, CouponId::random(), vec![1]).await, Err(JournalError::Unknown(_))));
        connection.batch_execute("DROP TRIGGER full").unwrap();
        journal.append(0, CouponId::random(), vec![2]).await.unwrap();
        assert_eq!(journal.fetch(0, 1, 1 << 20, Duration::ZERO).await.unwrap().records[0].value[..], [2]);
        assert_eq!(journal.bounds(0).await.unwrap(), Bounds { begin: 0, end: 2 });
    }
}
