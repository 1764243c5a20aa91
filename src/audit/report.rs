//! What the audit says, for people and for scripts.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::kind::Kind;
use crate::domain::CouponId;
use crate::ledger::TableFault;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coupon_id: Option<CouponId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    pub detail: String,
}

impl From<TableFault> for Violation {
    fn from(TableFault { kind, coupon, user, detail }: TableFault) -> Self {
        Self { kind: Kind::of_tables(kind), coupon_id: Some(coupon), user_id: user, detail: format!("coupon {coupon}: {detail}") }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct CouponReport {
    pub coupon_id: CouponId,
    pub name: String,
    pub status: &'static str,
    pub total_quantity: i64,
    /// Issued rows in the ledger.
    pub issued: i64,
    /// Open or abandoning dead letters: wins that keep their slot.
    pub dead_letters: i64,
    /// Wins in the log that the ledger has not read yet.
    pub unwritten: i64,
    /// When the newest row was written, epoch milliseconds.
    pub last_issued_at_ms: Option<i64>,
    /// Users the gate let through (advisory).
    pub gate_members: Option<i64>,
    pub violations: Vec<Violation>,
}

/// The whole audit.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub clean: bool,
    pub coupons: Vec<CouponReport>,
    /// Tables that contradict themselves.
    pub tables: Vec<Violation>,
    /// Of a partition, not of a coupon.
    pub journal: Vec<Violation>,
    pub violations: usize,
}

impl Report {
    pub(crate) fn add(&mut self, other: Self) {
        self.coupons.extend(other.coupons);
        self.journal.extend(other.journal);
        self.tables.extend(other.tables);
    }

    pub(crate) fn finish(&mut self) {
        self.coupons.sort_unstable_by_key(|coupon| coupon.coupon_id);
        self.violations = self.all().count();
        self.clean = self.violations == 0;
    }

    /// Every violation, wherever it is listed.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Violation> {
        self.coupons.iter().flat_map(|coupon| &coupon.violations).chain(&self.journal).chain(&self.tables)
    }

    pub(crate) fn into_violations(self) -> Vec<Violation> {
        self.coupons.into_iter().flat_map(|coupon| coupon.violations).chain(self.journal).chain(self.tables).collect()
    }

    /// Whether the comparison with the log found something wrong with this coupon.
    pub(crate) fn is_faulty(&self, coupon: CouponId) -> bool {
        self.coupons.iter().any(|report| report.coupon_id == coupon && !report.violations.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<36}  {:>8}  {:>8}  {:>9}  {:>4}  {:<6}  name", "coupon", "total", "issued", "unwritten", "dead", "status")?;
        for coupon in &self.coupons {
            let CouponReport { coupon_id, total_quantity, issued, unwritten, dead_letters, status, name, .. } = coupon;
            writeln!(f, "{coupon_id}  {total_quantity:>8}  {issued:>8}  {unwritten:>9}  {dead_letters:>4}  {status:<6}  {name}")?;
            for violation in &coupon.violations {
                writeln!(f, "  VIOLATION {}: {}", violation.kind.as_str(), violation.detail)?;
            }
        }
        for violation in self.journal.iter().chain(&self.tables) {
            writeln!(f, "VIOLATION {}: {}", violation.kind.as_str(), violation.detail)?;
        }
        for kind in self.all().map(|violation| violation.kind).collect::<BTreeSet<_>>() {
            writeln!(f, "{}: {}", kind.as_str(), kind.meaning())?;
        }
        if self.clean {
            write!(f, "clean: {} coupons recomputed from the journal agree with the ledger", self.coupons.len())
        } else {
            write!(f, "{} violations", self.violations)
        }
    }
}
