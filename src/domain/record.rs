//! The records of the journal: JSON, versioned, one a message, the coupon id in the message's key only.
//!
//! What a reader does with bytes is part of the format: unreadable bytes and records in the wrong partition are skipped by
//! every reader alike; a version or type that this build does not know stops it ([`StopReason`]), because skipping what a
//! newer build obeys would make two readers decide differently. Upgrade readers first, then raise `journal.write_version`.

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use thiserror::Error;

use super::ids::{CouponId, EpochMillis, Partition, Sequence, UserId, partition_of};
use super::terms::Terms;

/// The version this build writes, and the newest it reads.
pub const WRITE_VERSION: u32 = 1;

/// One decoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub coupon: CouponId,
    pub body: Body,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Body {
    /// A user asks for the coupon.
    Issue {
        user_id: UserId,
        at: EpochMillis,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        trace_id: String,
    },
    /// The coupon is created or changed.
    Terms(Terms),
    /// A win is taken back: only the one with this sequence.
    Revoke { user_id: UserId, sequence: Sequence, reason: String, at: EpochMillis },
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    v: u32,
    #[serde(flatten)]
    body: std::borrow::Cow<'a, Body>,
}

#[derive(Deserialize)]
struct Header<'a> {
    v: u64,
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

/// The outcome of reading one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    Record(Record),
    /// Every reader passes over it; the consumer keeps the bytes as a dead letter.
    Skip(SkipReason),
}

/// Why every reader passes over a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SkipReason {
    #[error("the key is not a coupon id")]
    BadKey,
    #[error("the value is not a record: {0}")]
    Unreadable(String),
    #[error("the coupon belongs to partition {expected}")]
    WrongPartition { expected: Partition },
}

/// Why a reader must not go on: a newer build wrote this.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StopReason {
    #[error("record version {0} is newer than this build reads ({WRITE_VERSION}): upgrade every reader, then raise journal.write_version")]
    UnknownVersion(u64),
    #[error("record type {0:?} is not known to this build: upgrade every reader, then raise journal.write_version")]
    UnknownType(String),
}

/// The value of a record; its key is `record.coupon.to_string()`.
///
/// # Errors
/// Only if JSON cannot be written, which no value of these types causes.
pub fn encode(body: &Body) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Envelope { v: WRITE_VERSION, body: std::borrow::Cow::Borrowed(body) })
}

/// Reads one message of `partition` (of `partitions`).
///
/// # Errors
/// [`StopReason`] when a newer build wrote it: the reader must stop before it.
pub fn decode(partition: Partition, partitions: Partition, key: &[u8], value: &[u8]) -> Result<Decoded, StopReason> {
    let Some(coupon) = std::str::from_utf8(key).ok().and_then(|text| text.parse::<CouponId>().ok()) else {
        return Ok(Decoded::Skip(SkipReason::BadKey));
    };
    let expected = partition_of(coupon, partitions);
    if expected != partition {
        return Ok(Decoded::Skip(SkipReason::WrongPartition { expected }));
    }
    let header: Header<'_> = match serde_json::from_slice(value) {
        Ok(header) => header,
        Err(error) => return Ok(Decoded::Skip(SkipReason::Unreadable(error.to_string()))),
    };
    if header.v != u64::from(WRITE_VERSION) {
        return Err(StopReason::UnknownVersion(header.v));
    }
    if !matches!(header.kind.as_ref(), "issue" | "terms" | "revoke") {
        return Err(StopReason::UnknownType(header.kind.into_owned()));
    }
    match serde_json::from_slice::<Body>(value) {
        Ok(body) => Ok(Decoded::Record(Record { coupon, body })),
        Err(error) => Ok(Decoded::Skip(SkipReason::Unreadable(error.to_string()))),
    }
}

/// A hash of one message, stored beside the next offset: a topic that was deleted and grown again does not match it.
#[must_use]
pub fn fingerprint(key: &[u8], value: &[u8]) -> i64 {
    let mut hasher = SipHasher24::new_with_keys(0x636f_7570_6f6e, 0x6669_6e67_6572);
    hasher.write_usize(key.len());
    hasher.write(key);
    hasher.write(value);
    i64::from_ne_bytes(hasher.finish().to_ne_bytes())
}
