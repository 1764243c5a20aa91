//! The journal: the log whose order decides.
//!
//! Port [`Journal`], two implementations (SQLite, Kafka), one contract suite.

mod kafka;
mod sqlite;
#[cfg(test)]
mod suite;
#[cfg(test)]
pub(crate) mod testing;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use thiserror::Error;
use tokio_util::bytes::Bytes;

use crate::domain::{CouponId, Offset, Partition};

pub use kafka::{KafkaJournal, KafkaOptions, KafkaSasl, KafkaSaslMechanism, KafkaTls};
pub use sqlite::SqliteJournal;

/// One message as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    pub offset: Offset,
    /// Both are parts of what the fetch brought, which stays in memory with them.
    pub key: Bytes,
    pub value: Bytes,
    /// When the log took it, by the log's clock (epoch milliseconds).
    pub at: i64,
}

/// Answer of one fetch: `records` start at the offset asked for and have no gap.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub records: Vec<RawRecord>,
    /// First offset not yet committed: everything below is readable and never changes.
    pub high_watermark: Offset,
    /// When the request left: nothing acknowledged before it is missing below the high watermark.
    pub sent_at: Instant,
}

/// The first retained and the first not yet written offset: `[begin, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub begin: Offset,
    pub end: Offset,
}

/// Why a journal call failed.
#[derive(Debug, Clone, Error)]
pub enum JournalError {
    /// The bounded queue is full: nothing was sent.
    #[error("the journal's queue is full")]
    Overloaded,
    /// No answer, or one that leaves it open: an append may be in the log all the same.
    #[error("the journal did not answer: {0}")]
    Unknown(String),
    /// The offset asked for is below the first retained or above the end.
    #[error("offset {asked} is out of the range {bounds:?} of partition {partition}")]
    OffsetOutOfRange { partition: Partition, asked: Offset, bounds: Option<Bounds> },
    /// The answer skipped offsets, or the log is not what it was: never go on silently.
    #[error("the journal is damaged: {0}")]
    Damaged(String),
}

/// The log. Every method has its own deadline inside and never blocks for longer.
///
/// An implementation guarantees: appends to a partition get consecutive offsets; a fetch sees a prefix of one fixed order,
/// only records that survive a crash of this process; records never change.
#[async_trait]
pub trait Journal: Send + Sync + std::fmt::Debug {
    /// How many partitions, fixed for the journal's life.
    fn partitions(&self) -> Partition;

    /// Puts one record on its way to `partition` and waits for nothing: whoever follows the log sees it there, or never. An acknowledgement
    /// would tell such a caller nothing new and wake it once more.
    ///
    /// # Errors
    /// Nothing was sent.
    fn send(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError>;

    /// Appends one record to `partition`; returns when the log has acknowledged it.
    ///
    /// # Errors
    /// [`JournalError::Unknown`]: it may have landed; appending again is harmless by the rule.
    ///
    /// # Cancellation
    /// A dropped future does not take the record back once queued.
    async fn append(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError>;

    /// Reads from `from`; waits up to `max_wait` for the first record. An empty answer means caught up.
    /// At most about `max_bytes` of values (but always one record when there is one).
    ///
    /// # Cancellation
    /// Safe: reading changes nothing.
    async fn fetch(&self, partition: Partition, from: Offset, max_bytes: usize, max_wait: Duration) -> Result<Fetched, JournalError>;

    /// The retained range, asked of the log now.
    ///
    /// # Cancellation
    /// Safe.
    async fn bounds(&self, partition: Partition) -> Result<Bounds, JournalError>;

    /// Tells operators' tools how far the consumers are; reporting only, the truth is in the ledger. Does nothing where there are no such tools.
    async fn report_progress(&self, next: &[(Partition, Offset)]) -> Result<(), JournalError>;

    /// Puts an at-least-once copy of a dead letter where operators' tools see it. Does nothing where there are no such tools.
    async fn copy_dead_letter(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), JournalError>;

    /// Makes the connections that appends need, so that the first records do not wait for them. Bounded; does nothing where there are none.
    async fn warm(&self) {}
}
