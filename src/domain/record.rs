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
use super::terms::{MAX_INSTANT, Terms};

/// The version this build writes, and the newest it reads.
pub const WRITE_VERSION: u32 = 1;

/// The longest reason of a revocation, in bytes; a record with a longer one is no record.
pub const MAX_REASON_BYTES: usize = 2_000;
/// As the API's own trace ids.
const MAX_TRACE_BYTES: usize = 64;
/// What an error quotes of a message: anybody may have written it, at any length.
const MAX_QUOTE_CHARS: usize = 200;

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

impl Body {
    /// Why no reader takes this record, although it can be parsed: no writer of ours makes it, and somewhere behind the rule a sum would
    /// overflow or a column refuse it, which would stop a reader for good.
    fn fault(&self) -> Option<&'static str> {
        let is_instant = |at: &EpochMillis| (0..=MAX_INSTANT).contains(at);
        match self {
            Self::Issue { at, .. } | Self::Revoke { at, .. } if !is_instant(at) => Some("at is out of range"),
            Self::Issue { trace_id, .. } if trace_id.len() > MAX_TRACE_BYTES => Some("trace_id is too long"),
            Self::Revoke { sequence, .. } if *sequence < 1 => Some("sequence is out of range"),
            Self::Revoke { reason, .. } if reason.len() > MAX_REASON_BYTES => Some("reason is too long"),
            Self::Issue { .. } | Self::Revoke { .. } => None,
            Self::Terms(terms) => terms.fault(),
        }
    }
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
        Err(error) => return Ok(unreadable(&error.to_string())),
    };
    if header.v != u64::from(WRITE_VERSION) {
        return Err(StopReason::UnknownVersion(header.v));
    }
    if !matches!(header.kind.as_ref(), "issue" | "terms" | "revoke") {
        return Err(StopReason::UnknownType(quoted(&header.kind)));
    }
    match serde_json::from_slice::<Body>(value) {
        Ok(body) => Ok(body.fault().map_or_else(|| Decoded::Record(Record { coupon, body }), unreadable)),
        Err(error) => Ok(unreadable(&error.to_string())),
    }
}

fn unreadable(why: &str) -> Decoded {
    Decoded::Skip(SkipReason::Unreadable(quoted(why)))
}

fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTE_CHARS).collect()
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
