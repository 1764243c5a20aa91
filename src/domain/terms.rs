//! What a coupon promises: its terms, how they are proposed and how they are changed.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::EpochMillis;

/// Whether a coupon gives itself out. CLOSED is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Open,
    Paused,
    Closed,
}

impl Status {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Paused => "PAUSED",
            Self::Closed => "CLOSED",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Paused, Self::Closed].into_iter().find(|status| status.as_str() == text)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the coupon is worth: an amount in the smallest currency unit, or whole percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "UPPERCASE", deny_unknown_fields)]
pub enum Discount {
    Fixed(i64),
    Percentage(i64),
}

impl Discount {
    #[must_use]
    pub const fn type_str(self) -> &'static str {
        match self {
            Self::Fixed(_) => "FIXED",
            Self::Percentage(_) => "PERCENTAGE",
        }
    }

    #[must_use]
    pub const fn value(self) -> i64 {
        match self {
            Self::Fixed(value) | Self::Percentage(value) => value,
        }
    }

    #[must_use]
    pub fn from_parts(type_str: &str, value: i64) -> Option<Self> {
        match type_str {
            "FIXED" => Some(Self::Fixed(value)),
            "PERCENTAGE" => Some(Self::Percentage(value)),
            _ => None,
        }
    }
}

/// One version of a coupon's terms, as a record of the journal carries it. Version 1 creates the coupon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// From 1; a version applies only right after the one before it.
    pub version: i64,
    /// Who made this change: the admin call that finds its own id in the log has won.
    pub change_id: Uuid,
    pub name: String,
    pub kind: String,
    pub discount: Discount,
    pub total_quantity: i64,
    /// Judged by the API's clock before the append, never by the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<EpochMillis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<EpochMillis>,
    pub status: Status,
}

/// One bad field of a request, by its JSON path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldFault {
    pub field: String,
    pub message: String,
}

impl FieldFault {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// A coupon as an admin proposes it; [`TermsDraft::check`] names every fault, [`TermsDraft::first_version`] makes the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermsDraft {
    pub name: String,
    pub kind: String,
    pub discount: Discount,
    pub total_quantity: i64,
    pub opens_at: Option<EpochMillis>,
    pub closes_at: Option<EpochMillis>,
}

/// Largest stock and discount value: far above any event, far below any overflow.
const MAX_QUANTITY: i64 = 1_000_000_000;
const MAX_NAME_CHARS: usize = 100;
const MAX_KIND_CHARS: usize = 32;
/// 9999-12-31T23:59:59.999Z, the last instant RFC 3339 can write.
pub(super) const MAX_INSTANT: EpochMillis = 253_402_300_799_999;

impl TermsDraft {
    /// Every fault of the proposal; empty when it can be made a coupon.
    #[must_use]
    pub fn check(&self) -> Vec<FieldFault> {
        let mut faults = Vec::new();
        check_text(&mut faults, "name", &self.name, MAX_NAME_CHARS);
        check_text(&mut faults, "kind", &self.kind, MAX_KIND_CHARS);
        let (most, unit) = match self.discount {
            Discount::Fixed(_) => (MAX_QUANTITY, "an amount from 1 to 1000000000"),
            Discount::Percentage(_) => (100, "a percentage from 1 to 100"),
        };
        if !(1..=most).contains(&self.discount.value()) {
            faults.push(FieldFault::new("discount.value", format!("must be {unit}")));
        }
        check_quantity(&mut faults, self.total_quantity);
        check_window(&mut faults, self.opens_at, self.closes_at);
        faults
    }

    #[must_use]
    pub fn first_version(self, change_id: Uuid) -> Terms {
        Terms {
            version: 1,
            change_id,
            name: self.name,
            kind: self.kind,
            discount: self.discount,
            total_quantity: self.total_quantity,
            opens_at: self.opens_at,
            closes_at: self.closes_at,
            status: Status::Open,
        }
    }

    /// Whether a coupon with these terms may be what this draft once created: stock and window only count while nobody changed them.
    #[must_use]
    pub fn agrees_with(&self, terms: &Terms) -> bool {
        let unchanged = terms.version == 1;
        let same_stock =
            self.total_quantity == terms.total_quantity && self.opens_at == terms.opens_at && self.closes_at == terms.closes_at;
        self.name == terms.name && self.kind == terms.kind && self.discount == terms.discount && (same_stock || !unchanged)
    }
}

/// A change an admin asks for; a field that is absent stays as it is, a window that is `Some(None)` is taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TermsPatch {
    pub status: Option<Status>,
    pub total_quantity: Option<i64>,
    pub opens_at: Option<Option<EpochMillis>>,
    pub closes_at: Option<Option<EpochMillis>>,
}

impl TermsPatch {
    /// The terms that follow `current`, or every fault. Equal to `current` but for version and change id when there is nothing to do.
    ///
    /// # Errors
    /// The faults of the merged terms.
    pub fn merge(&self, current: &Terms, change_id: Uuid) -> Result<Terms, Vec<FieldFault>> {
        let mut next = current.clone();
        next.version += 1;
        next.change_id = change_id;
        if let Some(status) = self.status {
            next.status = status;
        }
        if let Some(total) = self.total_quantity {
            next.total_quantity = total;
        }
        if let Some(opens_at) = self.opens_at {
            next.opens_at = opens_at;
        }
        if let Some(closes_at) = self.closes_at {
            next.closes_at = closes_at;
        }
        let mut faults = Vec::new();
        check_quantity(&mut faults, next.total_quantity);
        check_window(&mut faults, next.opens_at, next.closes_at);
        if faults.is_empty() { Ok(next) } else { Err(faults) }
    }
}

impl Terms {
    /// Why no reader takes a record with these terms; see [`super::record`]. Texts are judged by bytes alone: what counts as blank or as a
    /// control character is a matter of the Unicode version a reader was built with.
    pub(super) fn fault(&self) -> Option<&'static str> {
        const MAX_CHAR_BYTES: usize = 4;
        let is_instant = |at: &EpochMillis| (0..=MAX_INSTANT).contains(at);
        if self.version < 1 {
            Some("version is out of range")
        } else if !(1..=MAX_QUANTITY).contains(&self.total_quantity) {
            Some("total_quantity is out of range")
        } else if self.name.len() > MAX_NAME_CHARS * MAX_CHAR_BYTES || self.kind.len() > MAX_KIND_CHARS * MAX_CHAR_BYTES {
            Some("name or kind is too long")
        } else if ![self.opens_at, self.closes_at].iter().flatten().all(is_instant) {
            Some("the window is out of range")
        } else {
            None
        }
    }

    /// Whether both say the same but for who said it and when.
    #[must_use]
    pub fn same_wish(&self, other: &Self) -> bool {
        let mut aligned = other.clone();
        aligned.version = self.version;
        aligned.change_id = self.change_id;
        *self == aligned
    }
}

fn check_text(faults: &mut Vec<FieldFault>, field: &str, text: &str, most: usize) {
    let chars = text.chars().count();
    if text.trim().is_empty() || chars > most || text.chars().any(char::is_control) {
        faults.push(FieldFault::new(field, format!("must be 1 to {most} characters, not blank, without control characters")));
    }
}

fn check_quantity(faults: &mut Vec<FieldFault>, total: i64) {
    if !(1..=MAX_QUANTITY).contains(&total) {
        faults.push(FieldFault::new("total_quantity", "must be from 1 to 1000000000"));
    }
}

fn check_window(faults: &mut Vec<FieldFault>, opens_at: Option<EpochMillis>, closes_at: Option<EpochMillis>) {
    for (field, instant) in [("opens_at", opens_at), ("closes_at", closes_at)] {
        if instant.is_some_and(|at| !(0..=MAX_INSTANT).contains(&at)) {
            faults.push(FieldFault::new(field, "must lie between 1970 and 9999"));
        }
    }
    if let (Some(opens), Some(closes)) = (opens_at, closes_at)
        && closes <= opens
    {
        faults.push(FieldFault::new("closes_at", "must be after opens_at"));
    }
}
