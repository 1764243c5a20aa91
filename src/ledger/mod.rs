//! The ledger: what the log says, in tables.
//!
//! Port [`Ledger`], two implementations (SQLite, MySQL), one contract suite. The tables are the same in both; see `migrations/`.
//!
//! State of a coupon is a pure function of the next offset of its partition: every write moves that offset by compare-and-set
//! in the same transaction. So a decision made on state read at offset `n` is right if the write that carries it moves from `n`.

mod errors;
mod migrations;
mod mysql;
mod ops;
mod rows;
mod schema;
mod session;
mod sqlite;
#[cfg(test)]
mod suite;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use thiserror::Error;
use tokio_util::bytes::Bytes;

use crate::domain::{Body, CouponId, EpochMillis, MAX_REASON_BYTES, Offset, Partition, Sequence, Terms, UserId, UserState, now_millis};

pub use mysql::{MysqlLedger, MysqlOptions};
pub use sqlite::SqliteLedger;

/// Where a partition's readers stand: everything below `next` is in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub partition: Partition,
    pub next: Offset,
    /// [`crate::domain::fingerprint`] of the record at `next - 1`; 0 while `next` is 0.
    pub fingerprint: i64,
}

/// A coupon row: the roster without its users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponRow {
    pub coupon: CouponId,
    pub partition: Partition,
    pub terms: Terms,
    pub issued: i64,
    pub next_sequence: Sequence,
}

/// One issued coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedRow {
    pub coupon: CouponId,
    pub user: UserId,
    pub sequence: Sequence,
    /// Where in the log it was won.
    pub log_offset: Offset,
    pub requested_at: EpochMillis,
    /// When the row was written, by the writing process's clock; set by the implementation.
    pub issued_at: EpochMillis,
}

/// A change of terms that applied, with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermsRow {
    pub coupon: CouponId,
    pub terms: Terms,
    pub log_offset: Offset,
}

/// A win that was taken back. Its issued row (or dead letter) is gone (or abandoned) in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationRow {
    pub coupon: CouponId,
    pub user: UserId,
    pub sequence: Sequence,
    /// Where in the log it had been won; set by the implementation from the row it removes, ignored on write.
    pub won_offset: Offset,
    pub log_offset: Offset,
    pub reason: String,
    pub at: EpochMillis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadLetterState {
    Open,
    /// The revoke is on its way through the log.
    Abandoning,
    Replayed,
    Abandoned,
}

impl DeadLetterState {
    pub const ALL: [Self; 4] = [Self::Open, Self::Abandoning, Self::Replayed, Self::Abandoned];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Abandoning => "abandoning",
            Self::Replayed => "replayed",
            Self::Abandoned => "abandoned",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What could not be written. With a `win` it keeps that slot and sequence until it is replayed or abandoned; without one
/// it is a message no reader could read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Set by the implementation (0 on write).
    pub id: i64,
    pub partition: Partition,
    pub log_offset: Offset,
    pub win: Option<DeadWin>,
    pub error: String,
    pub key: Vec<u8>,
    /// Cut to [`DEAD_LETTER_BYTES`].
    pub value: Vec<u8>,
    pub state: DeadLetterState,
    pub created_at: EpochMillis,
    pub updated_at: EpochMillis,
}

pub const DEAD_LETTER_BYTES: usize = 8_192;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadWin {
    pub coupon: CouponId,
    pub user: UserId,
    pub sequence: Sequence,
    pub requested_at: EpochMillis,
}

impl DeadWin {
    /// The record that takes this win back; a reason too long for a record is cut.
    #[must_use]
    pub fn revocation(&self, mut reason: String) -> Body {
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        Body::Revoke { user_id: self.user.clone(), sequence: self.sequence, reason, at: now_millis() }
    }
}

/// One move of a partition's readers, `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub partition: Partition,
    pub from: Offset,
    pub to: Offset,
    /// Fingerprint of the record at `to - 1`.
    pub fingerprint: i64,
}

/// Everything a batch changes, written in one transaction or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// First statements of the transaction, sorted by partition; 0 rows in any: [`LedgerError::Fenced`].
    pub moves: Vec<Move>,
    /// The state after the batch of every coupon it touched (insert or update).
    pub coupons: Vec<CouponRow>,
    pub terms: Vec<TermsRow>,
    pub issued: Vec<IssuedRow>,
    /// The message of each row of `issued`, in the same order: what a refused row leaves in its dead letter. May be left out.
    pub messages: Vec<Bytes>,
    /// Applied after `issued`: a user may win and be revoked in one batch.
    pub revocations: Vec<RevocationRow>,
    pub dead_letters: Vec<DeadLetter>,
}

/// What [`Ledger::load`] found, all at one instant.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    pub positions: HashMap<Partition, Position>,
    pub coupons: HashMap<CouponId, CouponRow>,
    /// Of the users asked for, those with a state: issued rows, open or abandoning dead letters, revocations.
    pub users: HashMap<CouponId, HashMap<UserId, UserState>>,
}

/// The result of a successful [`Ledger::commit`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    pub rows: usize,
    /// Rows the database refused for their data: written as dead letters instead, in the same transaction.
    pub dead: Vec<DeadLetter>,
}

/// The start of a follower: everything at one instant.
pub trait SnapshotSink: Send {
    fn position(&mut self, position: Position);
    /// Called for every coupon before its users. `over`: closed, fully written, without open dead letters: its users do not follow.
    fn coupon(&mut self, row: CouponRow, over: bool);
    fn user(&mut self, coupon: CouponId, user: &str, state: UserState);
}

/// What the audit compares with the log, of one partition (or one coupon of it), at one instant.
#[derive(Debug, Clone)]
pub struct AuditView {
    pub position: Position,
    pub coupons: Vec<CouponRow>,
    pub terms: Vec<TermsRow>,
    pub issued: Vec<IssuedRow>,
    pub revocations: Vec<RevocationRow>,
    /// Every state.
    pub dead_letters: Vec<DeadLetter>,
}

/// Tables that contradict themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFault {
    /// One of [`TABLE_FAULTS`].
    pub kind: &'static str,
    pub coupon: CouponId,
    pub user: Option<String>,
    pub detail: String,
}

/// The kinds of [`TableFault`].
pub const TABLE_FAULTS: [&str; 8] = [
    "over_issue",
    "count_wrong",
    "counters_differ",
    "revoked_holds",
    "double_sequence",
    "double_user",
    "dead_letter_without_row",
    "row_without_coupon",
];

/// A page of keyset pagination: at most `limit` rows after the key `after`.
#[derive(Debug, Clone)]
pub struct Page<K> {
    pub limit: i64,
    pub after: Option<K>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    Replayed,
    NotFound,
    /// Not open (any more), in this state.
    State(DeadLetterState),
    /// Nothing to write: the message could not be read.
    NotAWin,
    /// The database refuses the row again, for this reason: the letter stays open.
    Refused(String),
}

/// Why a ledger call failed. Each asks for another answer of the caller.
#[derive(Debug, Clone, Error)]
pub enum LedgerError {
    /// Another owner moved the offset: forget cached state, read again.
    #[error("partition {0} was moved by another owner")]
    Fenced(Partition),
    /// Deadlock, lock wait, serialization: the same call again, soon.
    #[error("the database asks to retry: {0}")]
    Retry(String),
    /// Away, read-only, too many connections, full, or anything not understood: back off and try again.
    #[error("the database is not available: {0}")]
    Down(String),
    /// A guard fired that never should (unique key, issued <= total): stop the partition, raise the alarm.
    #[error("a guard of the ledger fired: {0}")]
    Guard(String),
    /// The tables hold something this build cannot read, or a wrong schema version.
    #[error("the ledger is not usable: {0}")]
    Schema(String),
}

/// The ledger. Every method has its own deadline inside ([`LedgerError::Down`] when it passes).
///
/// # Cancellation
/// Every method may be dropped: a transaction is then rolled back, or has committed; the offset tells which.
#[async_trait]
pub trait Ledger: Send + Sync + std::fmt::Debug {
    /// Brings the schema to this build's version, behind a lock that other processes respect. Returns the migrations run.
    async fn migrate(&self) -> Result<Vec<String>, LedgerError>;

    /// Whether the schema is this build's.
    async fn check_schema(&self) -> Result<(), LedgerError>;

    /// Records the partition count at first start; returns the recorded one ever after. Creates missing rows of `partition_offsets` and
    /// `partition_claims`. A larger count than recorded never changes it.
    async fn fix_partitions(&self, partitions: Partition) -> Result<Partition, LedgerError>;

    /// Streams one consistent snapshot of positions, coupons and users into `sink`; returns it.
    async fn snapshot(&self, sink: Box<dyn SnapshotSink>) -> Result<(), LedgerError>;

    /// State of the given coupons and users and positions of the given partitions, at one instant.
    async fn load(&self, partitions: &[Partition], wanted: &HashMap<CouponId, Vec<UserId>>) -> Result<Loaded, LedgerError>;

    /// Writes a batch. A row refused for its data becomes a dead letter (found by halving the statement).
    async fn commit(&self, batch: &Batch) -> Result<Committed, LedgerError>;

    async fn positions(&self) -> Result<Vec<Position>, LedgerError>;

    /// Renews `owner`'s leases and rebalances: fair share (rounded up) among live members, expired and free partitions taken,
    /// surplus given back. Returns what is owned now, sorted. By the database's clock.
    async fn claim(&self, owner: &str, lease: Duration) -> Result<Vec<Partition>, LedgerError>;

    /// Positions of the partitions that no living member owns: free, or with a lease that ran out by the database's clock.
    async fn unowned(&self) -> Result<Vec<Position>, LedgerError>;

    /// Gives back every lease of `owner` and its membership.
    async fn release(&self, owner: &str) -> Result<(), LedgerError>;

    async fn coupon(&self, coupon: CouponId) -> Result<Option<CouponRow>, LedgerError>;

    /// Whether an issued row exists; the state of a holder by dead letter or of a revoked user is not a row.
    async fn issued(&self, coupon: CouponId, user: &UserId) -> Result<Option<IssuedRow>, LedgerError>;

    /// Open and abandoning dead letters of a coupon.
    async fn unsettled(&self, coupon: CouponId) -> Result<i64, LedgerError>;

    /// A user's rows, newest first by (`issued_at`, coupon), with the coupon's terms.
    async fn coupons_of(&self, user: &UserId, page: Page<(EpochMillis, CouponId)>) -> Result<Vec<(IssuedRow, Terms)>, LedgerError>;

    /// By id, ascending.
    async fn dead_letters(&self, state: Option<DeadLetterState>, page: Page<i64>) -> Result<Vec<DeadLetter>, LedgerError>;

    async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, LedgerError>;

    async fn dead_letter_counts(&self) -> Result<HashMap<DeadLetterState, i64>, LedgerError>;

    /// Writes the row with its kept sequence and marks the letter, in one transaction, only from state open.
    async fn replay(&self, id: i64) -> Result<ReplayOutcome, LedgerError>;

    /// Open -> abandoning (a win; repeating it is allowed) or open -> abandoned (an unreadable message). Returns the letter as it is
    /// now, `None` when there is none. Abandoning -> abandoned happens in the [`Ledger::commit`] that applies the revocation.
    async fn abandon(&self, id: i64) -> Result<Option<DeadLetter>, LedgerError>;

    /// `None`: there are more than `most` issued rows.
    async fn audit_view(&self, partition: Partition, coupon: Option<CouponId>, most: usize) -> Result<Option<AuditView>, LedgerError>;

    /// Cheap checks on the tables alone.
    async fn self_check(&self) -> Result<Vec<TableFault>, LedgerError>;

    /// (connections in use, connections open); for the gauges.
    fn pool(&self) -> (u32, u32);
}
