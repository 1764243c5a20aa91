//! The ledger in MySQL (9 and later) or MariaDB (10.11 and later).

mod migrate;
mod pool;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use diesel::mysql::Mysql;
use secrecy::SecretString;

use self::pool::Pool;
use super::{
    AuditView, Batch, Committed, CouponRow, DeadLetter, DeadLetterState, IssuedRow, Ledger, LedgerError, Loaded, Page, Position,
    ReplayOutcome, SnapshotSink, TableFault, migrations, ops,
};
use crate::domain::{CouponId, EpochMillis, Partition, Terms, UserId};

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct MysqlOptions {
    /// `mysql://user:password@host:port/database`
    pub url: SecretString,
    /// The most connections open at a time.
    pub pool: usize,
    /// For opening a connection, and for waiting for one.
    pub connect_timeout: Duration,
    /// For a call; of a streaming call (snapshot, audit, self check) for each statement.
    pub query_timeout: Duration,
    /// A PEM file with the authority that signed the server's certificate; without it the public authorities.
    pub tls_ca: Option<PathBuf>,
    /// Refuse a connection without TLS.
    pub require_tls: bool,
}

/// The ledger in MySQL or MariaDB.
#[derive(Debug)]
pub struct MysqlLedger {
    pool: Pool,
    query_timeout: Duration,
}

impl MysqlLedger {
    /// Prepares the pool and opens nothing: while the database is away every call says [`LedgerError::Down`], so a process can start
    /// before its database.
    ///
    /// # Errors
    /// [`LedgerError::Schema`] when the URL or the certificate authorities cannot be read.
    pub fn connect(options: MysqlOptions) -> Result<Self, LedgerError> {
        Ok(Self { query_timeout: options.query_timeout, pool: Pool::new(options)? })
    }

    /// As if the server's defaults for a new session were these statements; the server itself and everybody else on it are left alone.
    #[cfg(test)]
    pub(super) fn connect_with_defaults(options: MysqlOptions, defaults: &[&str]) -> Result<Self, LedgerError> {
        Ok(Self { query_timeout: options.query_timeout, pool: Pool::with_defaults(options, defaults)? })
    }
}

/// One call on a leased connection: it goes back to the pool only when the call came to its end in time and the connection is sound.
macro_rules! call {
    ($self:ident, $session:ident => $work:expr) => {{
        let mut lease = $self.pool.lease().await?;
        let $session = lease.session();
        let result = tokio::time::timeout($self.query_timeout, $work).await;
        lease.settle(result)
    }};
}

/// As [`call`], for calls as long as the data: only each statement has a deadline.
macro_rules! stream {
    ($self:ident, $session:ident => $work:expr) => {{
        let mut lease = $self.pool.lease().await?;
        let $session = lease.session();
        let result = $work.await;
        lease.settle(Ok(result))
    }};
}

#[async_trait]
impl Ledger for MysqlLedger {
    async fn migrate(&self) -> Result<Vec<String>, LedgerError> {
        Ok(migrate::migrate(self.pool.open().await?).await?)
    }

    async fn check_schema(&self) -> Result<(), LedgerError> {
        let embedded = migrations::embedded::<Mysql>(&migrations::MYSQL)?;
        call!(self, session => ops::setup::check_schema(session, &embedded))
    }

    async fn fix_partitions(&self, partitions: Partition) -> Result<Partition, LedgerError> {
        call!(self, session => ops::setup::fix_partitions(session, partitions))
    }

    async fn snapshot(&self, mut sink: Box<dyn SnapshotSink>) -> Result<(), LedgerError> {
        stream!(self, session => ops::snapshot::snapshot(session, sink.as_mut()))
    }

    async fn load(&self, partitions: &[Partition], wanted: &HashMap<CouponId, Vec<UserId>>) -> Result<Loaded, LedgerError> {
        call!(self, session => ops::reads::load(session, partitions, wanted))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, LedgerError> {
        call!(self, session => ops::commit::commit(session, batch))
    }

    async fn positions(&self) -> Result<Vec<Position>, LedgerError> {
        call!(self, session => ops::reads::positions(session))
    }

    async fn claim(&self, owner: &str, lease: Duration) -> Result<Vec<Partition>, LedgerError> {
        call!(self, session => ops::claims::claim(session, owner, lease))
    }

    async fn unowned(&self) -> Result<Vec<Position>, LedgerError> {
        call!(self, session => ops::claims::unowned(session))
    }

    async fn release(&self, owner: &str) -> Result<(), LedgerError> {
        call!(self, session => ops::claims::release(session, owner))
    }

    async fn coupon(&self, coupon: CouponId) -> Result<Option<CouponRow>, LedgerError> {
        call!(self, session => ops::reads::coupon(session, coupon))
    }

    async fn issued(&self, coupon: CouponId, user: &UserId) -> Result<Option<IssuedRow>, LedgerError> {
        call!(self, session => ops::reads::issued(session, coupon, user))
    }

    async fn unsettled(&self, coupon: CouponId) -> Result<i64, LedgerError> {
        call!(self, session => ops::letters::unsettled(session, coupon))
    }

    async fn coupons_of(&self, user: &UserId, page: Page<(EpochMillis, CouponId)>) -> Result<Vec<(IssuedRow, Terms)>, LedgerError> {
        call!(self, session => ops::reads::coupons_of(session, user, &page))
    }

    async fn dead_letters(&self, state: Option<DeadLetterState>, page: Page<i64>) -> Result<Vec<DeadLetter>, LedgerError> {
        call!(self, session => ops::letters::list(session, state, &page))
    }

    async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, LedgerError> {
        call!(self, session => ops::letters::get(session, id))
    }

    async fn dead_letter_counts(&self) -> Result<HashMap<DeadLetterState, i64>, LedgerError> {
        call!(self, session => ops::letters::counts(session))
    }

    async fn replay(&self, id: i64) -> Result<ReplayOutcome, LedgerError> {
        call!(self, session => ops::letters::replay(session, id))
    }

    async fn abandon(&self, id: i64) -> Result<Option<DeadLetter>, LedgerError> {
        call!(self, session => ops::letters::abandon(session, id))
    }

    async fn audit_view(&self, partition: Partition, coupon: Option<CouponId>, most: usize) -> Result<Option<AuditView>, LedgerError> {
        stream!(self, session => ops::snapshot::audit_view(session, partition, coupon, most))
    }

    async fn self_check(&self) -> Result<Vec<TableFault>, LedgerError> {
        stream!(self, session => ops::check::self_check(session))
    }

    fn pool(&self) -> (u32, u32) {
        self.pool.counts()
    }
}
