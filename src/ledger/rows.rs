//! Rows as the tables hold them, fields in the order of the columns, and their way to and from the types of the port.
//!
//! `treat_none_as_default_value = false` lets SQLite insert many rows in one statement; without it diesel opens a transaction of its own.

use diesel::prelude::*;
use uuid::Uuid;

use super::errors::Fault;
use super::schema::{coupon_terms, coupons, dead_letters, issued_coupons, partition_offsets, revocations};
use super::{CouponRow, DEAD_LETTER_BYTES, DeadLetter, DeadLetterState, DeadWin, IssuedRow, Position, RevocationRow, TermsRow};
use crate::domain::{CouponId, Discount, EpochMillis, Status, Terms, UserId, issue_id};

/// The longest error text kept with a dead letter, in characters.
const ERROR_CHARS: usize = 2_000;

pub(super) fn coupon_id(text: &str) -> Result<CouponId, Fault> {
    text.parse().map_err(|_| Fault::Schema(format!("{text:?} is not a coupon id")))
}

pub(super) fn user_id(text: String) -> Result<UserId, Fault> {
    UserId::try_from(text).map_err(|error| Fault::Schema(format!("a row holds a user id this build cannot read: {error}")))
}

/// The terms in a row of `coupons` or `coupon_terms`: both name these columns alike.
macro_rules! terms_of {
    ($row:expr) => {{
        let row = $row;
        let unreadable = |what: &str| Fault::Schema(format!("coupon {}: a {what} this build cannot read", row.coupon_id));
        Ok::<Terms, Fault>(Terms {
            version: row.version,
            change_id: Uuid::parse_str(&row.change_id).map_err(|_| unreadable("change id"))?,
            discount: Discount::from_parts(&row.discount_type, row.discount_value).ok_or_else(|| unreadable("discount"))?,
            total_quantity: row.total_quantity,
            opens_at: row.opens_at,
            closes_at: row.closes_at,
            status: Status::parse(&row.status).ok_or_else(|| unreadable("status"))?,
            name: row.name,
            kind: row.kind,
        })
    }};
}

#[derive(Debug, Clone, Queryable, Insertable, AsChangeset)]
#[diesel(table_name = coupons, primary_key(coupon_id), treat_none_as_null = true, treat_none_as_default_value = false)]
pub(super) struct CouponRaw {
    pub coupon_id: String,
    pub part: i32,
    pub version: i64,
    pub change_id: String,
    pub name: String,
    pub kind: String,
    pub discount_type: String,
    pub discount_value: i64,
    pub total_quantity: i64,
    pub opens_at: Option<i64>,
    pub closes_at: Option<i64>,
    pub status: String,
    pub issued: i64,
    pub next_sequence: i64,
}

impl From<&CouponRow> for CouponRaw {
    fn from(row: &CouponRow) -> Self {
        let terms = &row.terms;
        Self {
            coupon_id: row.coupon.to_string(),
            part: row.partition,
            version: terms.version,
            change_id: terms.change_id.to_string(),
            name: terms.name.clone(),
            kind: terms.kind.clone(),
            discount_type: terms.discount.type_str().to_owned(),
            discount_value: terms.discount.value(),
            total_quantity: terms.total_quantity,
            opens_at: terms.opens_at,
            closes_at: terms.closes_at,
            status: terms.status.as_str().to_owned(),
            issued: row.issued,
            next_sequence: row.next_sequence,
        }
    }
}

impl TryFrom<CouponRaw> for CouponRow {
    type Error = Fault;

    fn try_from(raw: CouponRaw) -> Result<Self, Fault> {
        let (coupon, partition, issued, next_sequence) = (coupon_id(&raw.coupon_id)?, raw.part, raw.issued, raw.next_sequence);
        Ok(Self { coupon, partition, terms: terms_of!(raw)?, issued, next_sequence })
    }
}

#[derive(Debug, Clone, Queryable, Insertable)]
#[diesel(table_name = coupon_terms, treat_none_as_default_value = false)]
pub(super) struct TermsRaw {
    pub coupon_id: String,
    pub version: i64,
    pub change_id: String,
    pub name: String,
    pub kind: String,
    pub discount_type: String,
    pub discount_value: i64,
    pub total_quantity: i64,
    pub opens_at: Option<i64>,
    pub closes_at: Option<i64>,
    pub status: String,
    pub log_offset: i64,
}

impl From<&TermsRow> for TermsRaw {
    fn from(row: &TermsRow) -> Self {
        let terms = &row.terms;
        Self {
            coupon_id: row.coupon.to_string(),
            version: terms.version,
            change_id: terms.change_id.to_string(),
            name: terms.name.clone(),
            kind: terms.kind.clone(),
            discount_type: terms.discount.type_str().to_owned(),
            discount_value: terms.discount.value(),
            total_quantity: terms.total_quantity,
            opens_at: terms.opens_at,
            closes_at: terms.closes_at,
            status: terms.status.as_str().to_owned(),
            log_offset: row.log_offset,
        }
    }
}

impl TryFrom<TermsRaw> for TermsRow {
    type Error = Fault;

    fn try_from(raw: TermsRaw) -> Result<Self, Fault> {
        let (coupon, log_offset) = (coupon_id(&raw.coupon_id)?, raw.log_offset);
        Ok(Self { coupon, terms: terms_of!(raw)?, log_offset })
    }
}

#[derive(Debug, Clone, Queryable, Insertable)]
#[diesel(table_name = issued_coupons, treat_none_as_default_value = false)]
pub(super) struct IssuedRaw {
    pub coupon_id: String,
    pub sequence: i64,
    pub user_id: String,
    pub issue_id: String,
    pub log_offset: i64,
    pub requested_at: i64,
    pub issued_at: i64,
}

impl IssuedRaw {
    pub(super) fn new(row: &IssuedRow, issued_at: EpochMillis) -> Self {
        Self {
            coupon_id: row.coupon.to_string(),
            sequence: row.sequence,
            user_id: row.user.as_str().to_owned(),
            issue_id: issue_id(row.coupon, &row.user).to_string(),
            log_offset: row.log_offset,
            requested_at: row.requested_at,
            issued_at,
        }
    }
}

impl TryFrom<IssuedRaw> for IssuedRow {
    type Error = Fault;

    fn try_from(raw: IssuedRaw) -> Result<Self, Fault> {
        Ok(Self {
            coupon: coupon_id(&raw.coupon_id)?,
            user: user_id(raw.user_id)?,
            sequence: raw.sequence,
            log_offset: raw.log_offset,
            requested_at: raw.requested_at,
            issued_at: raw.issued_at,
        })
    }
}

#[derive(Debug, Clone, Queryable, Insertable)]
#[diesel(table_name = revocations, treat_none_as_default_value = false)]
pub(super) struct RevocationRaw {
    pub coupon_id: String,
    pub user_id: String,
    pub sequence: i64,
    pub won_offset: i64,
    pub log_offset: i64,
    pub reason: String,
    pub at_ms: i64,
}

impl RevocationRaw {
    pub(super) fn new(row: &RevocationRow, won_offset: i64) -> Self {
        Self {
            coupon_id: row.coupon.to_string(),
            user_id: row.user.as_str().to_owned(),
            sequence: row.sequence,
            won_offset,
            log_offset: row.log_offset,
            reason: row.reason.clone(),
            at_ms: row.at,
        }
    }
}

impl TryFrom<RevocationRaw> for RevocationRow {
    type Error = Fault;

    fn try_from(raw: RevocationRaw) -> Result<Self, Fault> {
        Ok(Self {
            coupon: coupon_id(&raw.coupon_id)?,
            user: user_id(raw.user_id)?,
            sequence: raw.sequence,
            won_offset: raw.won_offset,
            log_offset: raw.log_offset,
            reason: raw.reason,
            at: raw.at_ms,
        })
    }
}

/// A dead letter without its id, which the database gives.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = dead_letters, treat_none_as_default_value = false)]
pub(super) struct NewDeadLetter {
    pub part: i32,
    pub log_offset: i64,
    pub coupon_id: Option<String>,
    pub user_id: Option<String>,
    pub sequence: Option<i64>,
    pub requested_at: Option<i64>,
    pub error: String,
    pub record_key: Vec<u8>,
    pub value: Vec<u8>,
    pub state: String,
    pub created_at: i64,
    pub updated_at: i64,
}

impl From<&DeadLetter> for NewDeadLetter {
    fn from(letter: &DeadLetter) -> Self {
        let cut = |bytes: &[u8]| bytes.iter().take(DEAD_LETTER_BYTES).copied().collect();
        let win = letter.win.as_ref();
        Self {
            part: letter.partition,
            log_offset: letter.log_offset,
            coupon_id: win.map(|win| win.coupon.to_string()),
            user_id: win.map(|win| win.user.as_str().to_owned()),
            sequence: win.map(|win| win.sequence),
            requested_at: win.map(|win| win.requested_at),
            error: letter.error.chars().take(ERROR_CHARS).collect(),
            record_key: cut(&letter.key),
            value: cut(&letter.value),
            state: letter.state.as_str().to_owned(),
            created_at: letter.created_at,
            updated_at: letter.updated_at,
        }
    }
}

#[derive(Debug, Clone, Queryable)]
pub(super) struct DeadLetterRaw {
    pub id: i64,
    pub part: i32,
    pub log_offset: i64,
    pub coupon_id: Option<String>,
    pub user_id: Option<String>,
    pub sequence: Option<i64>,
    pub requested_at: Option<i64>,
    pub error: String,
    pub record_key: Vec<u8>,
    pub value: Vec<u8>,
    pub state: String,
    pub created_at: i64,
    pub updated_at: i64,
}

impl TryFrom<DeadLetterRaw> for DeadLetter {
    type Error = Fault;

    fn try_from(raw: DeadLetterRaw) -> Result<Self, Fault> {
        let win = match (raw.coupon_id, raw.user_id, raw.sequence, raw.requested_at) {
            (Some(coupon), Some(user), Some(sequence), Some(requested_at)) => {
                Some(DeadWin { coupon: coupon_id(&coupon)?, user: user_id(user)?, sequence, requested_at })
            }
            _ => None,
        };
        let state = DeadLetterState::parse(&raw.state)
            .ok_or_else(|| Fault::Schema(format!("dead letter {}: a state this build cannot read", raw.id)))?;
        Ok(Self {
            id: raw.id,
            partition: raw.part,
            log_offset: raw.log_offset,
            win,
            error: raw.error,
            key: raw.record_key,
            value: raw.value,
            state,
            created_at: raw.created_at,
            updated_at: raw.updated_at,
        })
    }
}

#[derive(Debug, Clone, Queryable, Insertable)]
#[diesel(table_name = partition_offsets, treat_none_as_default_value = false)]
pub(super) struct OffsetRaw {
    pub part: i32,
    pub next_offset: i64,
    pub fingerprint: i64,
}

impl From<OffsetRaw> for Position {
    fn from(raw: OffsetRaw) -> Self {
        Self { partition: raw.part, next: raw.next_offset, fingerprint: raw.fingerprint }
    }
}

/// Every row of a result, converted.
pub(super) fn convert<R, T: TryFrom<R, Error = Fault>>(rows: Vec<R>) -> Result<Vec<T>, Fault> {
    rows.into_iter().map(T::try_from).collect()
}
