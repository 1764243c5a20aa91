//! The ledger of the embedded parts: one SQLite file, one writer, a few readers, all on the blocking pool.

use std::collections::HashMap;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sqlite::{Sqlite, SqliteConnection};
use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::errors::{self, Fault};
use super::session::{Answer, Command, Control, Query, Session};
use super::{
    AuditView, Batch, Committed, CouponRow, DeadLetter, DeadLetterState, IssuedRow, Ledger, LedgerError, Loaded, Page, Position,
    ReplayOutcome, SnapshotSink, TableFault, migrations, ops,
};
use crate::domain::{CouponId, EpochMillis, Partition, Terms, UserId};

/// Connections that read beside the writer.
const READERS: usize = 4;
/// The longest a call may wait for a connection; SQLite itself waits `busy_timeout` for a lock.
const WAIT: Duration = Duration::from_secs(10);

const WRITER: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;";
const READER: &str = "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON;";

#[derive(diesel::QueryableByName)]
struct Clock {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    millis: i64,
}

/// A connection; none of its futures ever waits, so they run to their end on a blocking thread.
struct SqliteSession(SqliteConnection);

impl SqliteSession {
    fn open(path: &Path, pragmas: &str) -> Result<Self, Fault> {
        let mut conn = SqliteConnection::establish(&path.to_string_lossy())
            .map_err(|error| Fault::Down(format!("cannot open {}: {error}", path.display())))?;
        diesel::connection::SimpleConnection::batch_execute(&mut conn, pragmas).map_err(|error| errors::sqlite(&error))?;
        Ok(Self(conn))
    }

    fn run(&mut self, sql: &str) -> Result<(), Fault> {
        diesel::connection::SimpleConnection::batch_execute(&mut self.0, sql).map_err(|error| errors::sqlite(&error))
    }
}

impl Session for SqliteSession {
    fn control(&mut self, control: Control) -> Answer<'_, ()> {
        let result = match control {
            Control::BeginWrite => self.run("BEGIN IMMEDIATE"),
            Control::BeginRead => self.run("BEGIN"),
            // A commit that is refused leaves the transaction open.
            Control::Commit => self.run("COMMIT").inspect_err(|_| drop(self.run("ROLLBACK"))),
            // Some faults (full, I/O) have rolled back already.
            Control::Rollback => {
                let _ignored = self.run("ROLLBACK");
                Ok(())
            }
        };
        Box::pin(ready(result))
    }

    fn clock(&mut self) -> Answer<'_, EpochMillis> {
        let query = diesel::sql_query("SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) AS millis");
        let row: Result<Clock, Fault> = query.get_result(&mut self.0).map_err(|error| errors::sqlite(&error));
        Box::pin(ready(row.map(|row| row.millis)))
    }

    fn load<R: Send + 'static, Q: Query<R>>(&mut self, query: Q) -> Answer<'_, Vec<R>> {
        let rows = diesel::query_dsl::LoadQuery::<'static, SqliteConnection, R>::internal_load(query, &mut self.0);
        let rows: diesel::QueryResult<Vec<R>> = rows.and_then(Iterator::collect);
        Box::pin(ready(rows.map_err(|error| errors::sqlite(&error))))
    }

    fn execute<Q: Command>(&mut self, command: Q) -> Answer<'_, usize> {
        let result = diesel::query_dsl::methods::ExecuteDsl::<SqliteConnection>::execute(command, &mut self.0);
        Box::pin(ready(result.map_err(|error| errors::sqlite(&error))))
    }
}

/// The value of a future that never waits.
fn now<T>(future: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    future.now_or_never().unwrap_or_else(|| Err(Fault::Down("a call of SQLite waited".to_owned())))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Idle connections of one kind and the right to use one.
struct Pool {
    permits: Arc<Semaphore>,
    size: usize,
    idle: Mutex<Vec<SqliteSession>>,
}

impl Pool {
    fn new(size: usize, first: SqliteSession) -> Self {
        Self { permits: Arc::new(Semaphore::new(size)), size, idle: Mutex::new(vec![first]) }
    }

    fn take(&self) -> Option<SqliteSession> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, session: SqliteSession) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    fn counts(&self) -> (u32, u32) {
        let used = self.size.saturating_sub(self.permits.available_permits());
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).len();
        (u32::try_from(used).unwrap_or(u32::MAX), u32::try_from(used + idle).unwrap_or(u32::MAX))
    }
}

/// The ledger in one SQLite file (WAL, every commit synced).
pub struct SqliteLedger {
    path: PathBuf,
    writer: Arc<Pool>,
    readers: Arc<Pool>,
}

impl std::fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteLedger").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteLedger {
    /// Opens (or creates) the file. It has no tables before [`Ledger::migrate`].
    ///
    /// # Errors
    /// [`LedgerError::Down`] when the file cannot be opened or is not a database.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let writer = Pool::new(1, SqliteSession::open(path, WRITER)?);
        let readers = Pool::new(READERS, SqliteSession::open(path, READER)?);
        Ok(Self { path: path.to_owned(), writer: Arc::new(writer), readers: Arc::new(readers) })
    }

    /// Runs `work` on a blocking thread. When the caller goes away it still runs to its end: the transaction commits or rolls back.
    async fn call<T, F>(&self, access: Access, work: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteSession) -> Result<T, Fault> + Send + 'static,
    {
        let (pool, pragmas) = match access {
            Access::Read => (Arc::clone(&self.readers), READER),
            Access::Write => (Arc::clone(&self.writer), WRITER),
        };
        let permit = tokio::time::timeout(WAIT, Arc::clone(&pool.permits).acquire_owned())
            .await
            .map_err(|_| LedgerError::Down("every connection is in use".to_owned()))?
            .map_err(|error| LedgerError::Down(error.to_string()))?;
        let path = self.path.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut session = match pool.take() {
                Some(session) => session,
                None => SqliteSession::open(&path, pragmas)?,
            };
            let result = work(&mut session);
            pool.put(session);
            drop(permit);
            result
        });
        Ok(task.await.map_err(|error| LedgerError::Down(error.to_string()))??)
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn migrate(&self) -> Result<Vec<String>, LedgerError> {
        self.call(Access::Write, |session| migrations::run(&mut session.0, migrations::SQLITE)).await
    }

    async fn check_schema(&self) -> Result<(), LedgerError> {
        let embedded = migrations::embedded::<Sqlite>(&migrations::SQLITE)?;
        self.call(Access::Read, move |session| now(ops::setup::check_schema(session, &embedded))).await
    }

    async fn fix_partitions(&self, partitions: Partition) -> Result<Partition, LedgerError> {
        self.call(Access::Write, move |session| now(ops::setup::fix_partitions(session, partitions))).await
    }

    async fn snapshot(&self, mut sink: Box<dyn SnapshotSink>) -> Result<(), LedgerError> {
        self.call(Access::Read, move |session| now(ops::snapshot::snapshot(session, sink.as_mut()))).await
    }

    async fn load(&self, partitions: &[Partition], wanted: &HashMap<CouponId, Vec<UserId>>) -> Result<Loaded, LedgerError> {
        let (partitions, wanted) = (partitions.to_vec(), wanted.clone());
        self.call(Access::Read, move |session| now(ops::reads::load(session, &partitions, &wanted))).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, LedgerError> {
        let batch = batch.clone();
        self.call(Access::Write, move |session| now(ops::commit::commit(session, &batch))).await
    }

    async fn positions(&self) -> Result<Vec<Position>, LedgerError> {
        self.call(Access::Read, |session| now(ops::reads::positions(session))).await
    }

    async fn claim(&self, owner: &str, lease: Duration) -> Result<Vec<Partition>, LedgerError> {
        let owner = owner.to_owned();
        self.call(Access::Write, move |session| now(ops::claims::claim(session, &owner, lease))).await
    }

    async fn unowned(&self) -> Result<Vec<Position>, LedgerError> {
        self.call(Access::Read, |session| now(ops::claims::unowned(session))).await
    }

    async fn release(&self, owner: &str) -> Result<(), LedgerError> {
        let owner = owner.to_owned();
        self.call(Access::Write, move |session| now(ops::claims::release(session, &owner))).await
    }

    async fn coupon(&self, coupon: CouponId) -> Result<Option<CouponRow>, LedgerError> {
        self.call(Access::Read, move |session| now(ops::reads::coupon(session, coupon))).await
    }

    async fn issued(&self, coupon: CouponId, user: &UserId) -> Result<Option<IssuedRow>, LedgerError> {
        let user = user.clone();
        self.call(Access::Read, move |session| now(ops::reads::issued(session, coupon, &user))).await
    }

    async fn unsettled(&self, coupon: CouponId) -> Result<i64, LedgerError> {
        self.call(Access::Read, move |session| now(ops::letters::unsettled(session, coupon))).await
    }

    async fn coupons_of(&self, user: &UserId, page: Page<(EpochMillis, CouponId)>) -> Result<Vec<(IssuedRow, Terms)>, LedgerError> {
        let user = user.clone();
        self.call(Access::Read, move |session| now(ops::reads::coupons_of(session, &user, &page))).await
    }

    async fn dead_letters(&self, state: Option<DeadLetterState>, page: Page<i64>) -> Result<Vec<DeadLetter>, LedgerError> {
        self.call(Access::Read, move |session| now(ops::letters::list(session, state, &page))).await
    }

    async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, LedgerError> {
        self.call(Access::Read, move |session| now(ops::letters::get(session, id))).await
    }

    async fn dead_letter_counts(&self) -> Result<HashMap<DeadLetterState, i64>, LedgerError> {
        self.call(Access::Read, |session| now(ops::letters::counts(session))).await
    }

    async fn replay(&self, id: i64) -> Result<ReplayOutcome, LedgerError> {
        self.call(Access::Write, move |session| now(ops::letters::replay(session, id))).await
    }

    async fn abandon(&self, id: i64) -> Result<Option<DeadLetter>, LedgerError> {
        self.call(Access::Write, move |session| now(ops::letters::abandon(session, id))).await
    }

    async fn audit_view(&self, partition: Partition, coupon: Option<CouponId>, most: usize) -> Result<Option<AuditView>, LedgerError> {
        self.call(Access::Read, move |session| now(ops::snapshot::audit_view(session, partition, coupon, most))).await
    }

    async fn self_check(&self) -> Result<Vec<TableFault>, LedgerError> {
        self.call(Access::Read, |session| now(ops::check::self_check(session))).await
    }

    fn pool(&self) -> (u32, u32) {
        let (writing, writers) = self.writer.counts();
        let (reading, readers) = self.readers.counts();
        (writing + reading, writers + readers)
    }
}
