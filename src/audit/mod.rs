//! The audit: recomputes coupons from the log with the same rule and compares with the ledger, at one instant.
//!
//! It is the proof of who came first. Where retention deleted old records, it starts from the ledger's own state at the earliest retained offset.

mod checks;
mod report;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::domain::{CouponId, Decoded, Offset, Partition, Roster, UserId, decode, fingerprint, partition_of};
use crate::gate::Gate;
use crate::journal::Journal;
use crate::ledger::{AuditView, Ledger};

pub use report::{CouponReport, Report, Violation};

const FETCH_BYTES: usize = 1 << 20;

/// Audits one coupon or all.
///
/// # Errors
/// Journal or ledger do not answer, or hold something this build cannot read.
pub async fn run(journal: &dyn Journal, ledger: &dyn Ledger, gate: Option<&dyn Gate>, coupon: Option<CouponId>) -> anyhow::Result<Report> {
    let partitions = journal.partitions();
    let chosen = match coupon {
        Some(coupon) => {
            let partition = partition_of(coupon, partitions);
            partition..partition + 1
        }
        None => 0..partitions,
    };
    let mut report = Report::default();
    for partition in chosen {
        let view = ledger.audit_view(partition, coupon).await.context("failed to read the ledger")?;
        let log = replay(journal, partition, &view, coupon).await?;
        checks::compare(partition, &view, &log, coupon, &mut report);
    }
    if let Some(gate) = gate {
        for coupon in &mut report.coupons {
            // Advisory: the gate may be wrong and never harms.
            coupon.gate_members = gate.members(coupon.coupon_id).await.ok();
        }
    }
    for (kind, found_in, detail) in ledger.self_check().await.context("failed to check the ledger's tables")? {
        if coupon.is_none_or(|coupon| *coupon.as_uuid() == found_in) {
            report.tables.push(Violation { kind, user_id: None, detail: format!("coupon {found_in}: {detail}") });
        }
    }
    report.finish();
    Ok(report)
}

/// What the log says, in two cuts: up to the ledger's offset (must equal the tables), and to its end (what is still unwritten).
#[derive(Debug, Default)]
pub(crate) struct FromLog {
    pub rosters: HashMap<CouponId, Roster<UserId>>,
    /// Where each win below the ledger's offset lies.
    pub wins: HashMap<(CouponId, UserId), Offset>,
    /// Wins at or above the ledger's offset, by coupon.
    pub unwritten: HashMap<CouponId, i64>,
    /// The fingerprint of the record below the ledger's offset, where it is retained.
    pub fingerprint: Option<i64>,
    pub begin: Offset,
    pub end: Offset,
}

async fn replay(journal: &dyn Journal, partition: Partition, view: &AuditView, only: Option<CouponId>) -> anyhow::Result<FromLog> {
    let bounds = journal.bounds(partition).await.context("failed to ask the journal for its range")?;
    let written = view.position.next;
    let mut log = FromLog { begin: bounds.begin, end: bounds.end, ..FromLog::default() };
    if bounds.end < written || bounds.begin > written {
        return Ok(log);
    }
    if bounds.begin > 0 {
        log.rosters = checks::state_at(view, bounds.begin);
    }
    let mut ahead: Option<HashMap<CouponId, Roster<UserId>>> = None;
    let mut next = bounds.begin;
    while next < bounds.end {
        let fetched = journal.fetch(partition, next, FETCH_BYTES, Duration::from_secs(1)).await.context("failed to read the journal")?;
        if fetched.records.is_empty() {
            bail!("partition {partition}: no record at offset {next} below the end {}", bounds.end);
        }
        for raw in fetched.records {
            next = raw.offset + 1;
            if raw.offset + 1 == written {
                log.fingerprint = Some(fingerprint(&raw.key, &raw.value));
            }
            let decoded = decode(partition, journal.partitions(), &raw.key, &raw.value)
                .with_context(|| format!("partition {partition}, offset {}", raw.offset))?;
            let Decoded::Record(record) = decoded else { continue };
            if only.is_some_and(|only| only != record.coupon) {
                continue;
            }
            let below = raw.offset < written;
            // From the ledger's offset on, a copy goes ahead.
            let rosters = if below { &mut log.rosters } else { ahead.get_or_insert_with(|| log.rosters.clone()) };
            let decision = rosters.entry(record.coupon).or_default().apply(&record.body, Clone::clone);
            if let (crate::domain::Decision::Won(_), crate::domain::Body::Issue { user_id, .. }) = (decision, record.body) {
                if below {
                    log.wins.insert((record.coupon, user_id), raw.offset);
                } else {
                    *log.unwritten.entry(record.coupon).or_default() += 1;
                }
            }
        }
    }
    Ok(log)
}
