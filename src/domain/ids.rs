//! Identifiers, parsed once at the edge: a value of these types is valid.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Number of a journal partition, from 0.
pub type Partition = i32;
/// Position of a record in its partition, from 0; "next" offsets are the first one not yet read: `[start, next)`.
pub type Offset = i64;
/// The running number of a win within a coupon, from 1, never used twice.
pub type Sequence = i64;
/// Milliseconds since the Unix epoch.
pub type EpochMillis = i64;

/// The namespace of [`issue_id`]; changing it changes every id ever given out.
const ISSUE_NAMESPACE: Uuid = Uuid::from_u128(0x6f0d_0f5e_6c8e_4a3b_9b50_3c1c_8f4d_2a71);

/// The present, by this process's clock.
#[must_use]
pub fn now_millis() -> EpochMillis {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

/// A coupon's UUID; its text is always the lower-case hyphenated form, which is also the journal's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CouponId(Uuid);

impl CouponId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for CouponId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// The text is not a UUID.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("must be a UUID such as 7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a")]
pub struct BadCouponId;

impl FromStr for CouponId {
    type Err = BadCouponId;

    /// Accepts the hyphenated form only, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 36 {
            return Err(BadCouponId);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| BadCouponId)
    }
}

/// An opaque user id: 1-64 characters of `A-Za-z0-9._:@-`, compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(Box<str>);

impl UserId {
    pub const MAX_LEN: usize = 64;

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_valid(text: &str) -> bool {
        (1..=Self::MAX_LEN).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'@' | b'-'))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a user id.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("must be 1-64 characters of A-Z a-z 0-9 . _ : @ -")]
pub struct BadUserId;

impl FromStr for UserId {
    type Err = BadUserId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if Self::is_valid(text) { Ok(Self(text.into())) } else { Err(BadUserId) }
    }
}

impl TryFrom<String> for UserId {
    type Error = BadUserId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if Self::is_valid(&text) { Ok(Self(text.into_boxed_str())) } else { Err(BadUserId) }
    }
}

impl From<UserId> for String {
    fn from(user: UserId) -> Self {
        user.0.into_string()
    }
}

/// The id of a user's issue of a coupon: `UUIDv5` of both, so it needs no memory and never changes.
#[must_use]
pub fn issue_id(coupon: CouponId, user: &UserId) -> Uuid {
    let mut name = Vec::with_capacity(16 + UserId::MAX_LEN);
    name.extend_from_slice(coupon.0.as_bytes());
    name.extend_from_slice(user.as_str().as_bytes());
    Uuid::new_v5(&ISSUE_NAMESPACE, &name)
}

/// The partition of a coupon: FNV-1a over the canonical id text, modulo the partition count.
///
/// Part of the data format: it must never change for a journal that has records.
#[must_use]
pub fn partition_of(coupon: CouponId, partitions: Partition) -> Partition {
    let mut buffer = Uuid::encode_buffer();
    let text = coupon.0.as_hyphenated().encode_lower(&mut buffer);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The high bits mix better in FNV-1a; 31 of them fit an i32.
    let folded = i32::try_from((hash ^ (hash >> 32)) & 0x7fff_ffff).unwrap_or(0);
    folded % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_checked_character_by_character() {
        for good in ["a", "A.b_c:d@e-9", &"x".repeat(64)] {
            assert!(good.parse::<UserId>().is_ok(), "{good}");
        }
        for bad in ["", " ", "a b", "ü", "a/b", "a\n", &"x".repeat(65)] {
            assert_eq!(bad.parse::<UserId>(), Err(BadUserId), "{bad:?}");
        }
    }

    #[test]
    fn coupon_ids_have_one_text() {
        let id: CouponId = "7F9C24E8-3B12-4FEF-91E0-CF0F6E9F4D2A".parse().unwrap();
        assert_eq!(id.to_string(), "7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a");
        assert!("7f9c24e83b124fef91e0cf0f6e9f4d2a".parse::<CouponId>().is_err());
    }

    #[test]
    fn format_constants_never_change() {
        let coupon: CouponId = "7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a".parse().unwrap();
        assert_eq!(partition_of(coupon, 60), 26, "partition hash");
        assert_eq!(issue_id(coupon, &"alice".parse().unwrap()).to_string(), "fe161a1c-1a7e-5296-a816-601e551693b8");
        assert_ne!(issue_id(coupon, &"alice".parse().unwrap()), issue_id(coupon, &"Alice".parse().unwrap()));
    }
}
