//! The audit in the background: a consumer's own partitions in rotation, one at a time, at a bounded rate.
//!
//! It sees no transient states: the tables are read in one snapshot together with the offset they are of, and what the log holds below that
//! offset never changes. Two consumers at the same partition, while claims move, only read.
//!
//! Memory: the rows of one partition and what the log says of them, about 300 bytes a row, at most [`Options::most_rows`] rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::kind::Kind;
use super::replay::{Pace, Reading};
use super::report::{Report, Violation};
use crate::domain::{CouponId, Partition, now_millis};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::telemetry::Metrics;

/// The owner of this partition also checks what belongs to none.
const FIRST: Partition = 0;
/// New violations of one check that get a log line each; `coupon-svc audit` names all.
const MOST_LINES: usize = 50;

/// Settings of the background audit.
#[derive(Debug, Clone)]
pub struct Options {
    /// Records of the log and rows of the ledger together; 0: off.
    pub records_per_second: u32,
    /// A round begins at most this often.
    pub every: Duration,
    pub most_rows: usize,
}

/// One of the checks of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    Partition(Partition),
    /// The tables alone: rows of coupons that no partition knows.
    Tables,
}

/// What a check found last.
#[derive(Debug, Default)]
struct Found {
    counts: BTreeMap<Kind, i64>,
    /// The first of them, to tell the new ones.
    named: BTreeSet<(Kind, Option<CouponId>, Option<String>)>,
}

/// See the module.
#[derive(Debug)]
pub struct Background {
    journal: Arc<dyn Journal>,
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
    every: Duration,
    enabled: bool,
    reading: Reading,
    found: BTreeMap<Check, Found>,
}

impl Background {
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>, ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>, options: Options) -> Self {
        let pace = Pace::new(options.records_per_second);
        let reading = Reading { only: None, to_end: false, most_rows: options.most_rows, pace };
        let (every, enabled) = (options.every, options.records_per_second > 0);
        Self { journal, ledger, metrics, every, enabled, reading, found: BTreeMap::new() }
    }

    /// Audits what is owned, round after round, until cancelled.
    pub async fn run(mut self, owned: impl Fn() -> Vec<Partition>, cancel: CancellationToken) {
        // A check that is dropped has only read.
        cancel.run_until_cancelled(self.rounds(owned)).await;
    }

    async fn rounds(&mut self, owned: impl Fn() -> Vec<Partition>) {
        while self.enabled {
            let began = Instant::now();
            let mut complete = true;
            for partition in owned() {
                // Claims move while a round is on its way.
                if owned().contains(&partition) {
                    complete &= self.check(Check::Partition(partition)).await;
                }
            }
            if owned().contains(&FIRST) {
                complete &= self.check(Check::Tables).await;
            }
            let owned = owned();
            self.found.retain(|check, _| match check {
                Check::Partition(partition) => owned.contains(partition),
                Check::Tables => owned.contains(&FIRST),
            });
            self.show();
            if complete && !owned.is_empty() {
                self.metrics.audit_last_timestamp_seconds.set(Duration::from_millis(now_millis().unsigned_abs()).as_secs_f64());
            }
            tokio::time::sleep_until(began + self.every).await;
        }
    }

    /// Carries out one check and shows what it found; false: it could not be carried out, what was found before stands.
    async fn check(&mut self, check: Check) -> bool {
        let violations = match self.violations(check).await {
            Ok(Some(violations)) => violations,
            Ok(None) => {
                let most_rows = self.reading.most_rows;
                tracing::warn!(?check, most_rows, "too many rows for the audit in the background: run coupon-svc audit");
                return false;
            }
            Err(error) => {
                tracing::warn!(?check, error = format!("{error:#}"), "cannot audit now: tried again in the next round");
                return false;
            }
        };
        let before = self.found.remove(&check).unwrap_or_default();
        if violations.is_empty() && !before.counts.is_empty() {
            tracing::info!(?check, "the audit finds no violation any more");
        }
        let found = judge(check, violations, &before);
        self.found.insert(check, found);
        self.show();
        true
    }

    async fn violations(&mut self, check: Check) -> anyhow::Result<Option<Vec<Violation>>> {
        match check {
            Check::Partition(partition) => {
                let report = super::one(self.journal.as_ref(), self.ledger.as_ref(), partition, &mut self.reading).await?;
                Ok(report.map(Report::into_violations))
            }
            Check::Tables => {
                let faults = self.ledger.self_check().await.context("failed to check the ledger's tables")?;
                // Everything else is found, and said better, where the coupon's partition is audited.
                let violations = faults.into_iter().map(Violation::from);
                Ok(Some(violations.filter(|violation| violation.kind == Kind::RowWithoutCoupon).collect()))
            }
        }
    }

    fn show(&self) {
        for kind in Kind::ALL {
            let count = self.found.values().filter_map(|found| found.counts.get(kind)).sum();
            self.metrics.audit_violations.with_label_values(&[kind.as_str()]).set(count);
        }
    }
}

/// Counts the violations and logs those that are new.
fn judge(check: Check, violations: Vec<Violation>, before: &Found) -> Found {
    let mut found = Found::default();
    let (mut lines, mut unsaid) = (0, 0);
    for Violation { kind, coupon_id, user_id, detail } in violations {
        *found.counts.entry(kind).or_default() += 1;
        let name = (kind, coupon_id, user_id);
        if !before.named.contains(&name) {
            if lines < MOST_LINES {
                let coupon = coupon_id.map(tracing::field::display);
                tracing::error!(
                    audit.kind = kind.as_str(),
                    coupon.id = coupon,
                    user.id = name.2.as_deref(),
                    ?check,
                    detail,
                    "the audit found a violation"
                );
                lines += 1;
            } else {
                unsaid += 1;
            }
        }
        if found.named.len() < MOST_LINES {
            found.named.insert(name);
        }
    }
    if unsaid > 0 {
        tracing::error!(?check, unsaid, "the audit found more violations: coupon-svc audit names them");
    }
    found
}
