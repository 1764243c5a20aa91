//! The audit: recomputes coupons from the log with the same rule and compares with the ledger, at one instant.
//!
//! It is the proof of who came first. Where retention deleted old records, it starts from the ledger's own state at the earliest retained offset.
//! The command audits everything at once; every consumer audits its own partitions in rotation ([`Background`]), by the same code.

mod background;
mod checks;
mod kind;
mod replay;
mod report;

use anyhow::Context;

use crate::domain::{CouponId, Partition, partition_of};
use crate::gate::Gate;
use crate::journal::Journal;
use crate::ledger::{Ledger, TableFault};

pub use background::{Background, Options};
pub use kind::Kind;
pub use report::{CouponReport, Report, Violation};

use replay::Reading;

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
        report.add(one(journal, ledger, partition, &mut Reading::all(coupon)).await?.unwrap_or_default());
    }
    if let Some(gate) = gate {
        for coupon in &mut report.coupons {
            // Advisory: the gate may be wrong and never harms.
            coupon.gate_members = gate.members(coupon.coupon_id).await.ok();
        }
    }
    let faults = ledger.self_check().await.context("failed to check the ledger's tables")?;
    // What the comparison with the log found of a coupon says it better.
    let news = |fault: &TableFault| coupon.is_none_or(|only| only == fault.coupon) && !report.is_faulty(fault.coupon);
    report.tables = faults.into_iter().filter(news).map(Violation::from).collect();
    report.finish();
    Ok(report)
}

/// Audits one partition. `None`: it has more rows than are read, nothing was compared.
async fn one(journal: &dyn Journal, ledger: &dyn Ledger, partition: Partition, reading: &mut Reading) -> anyhow::Result<Option<Report>> {
    let only = reading.only;
    let view = ledger.audit_view(partition, only, reading.most_rows).await.context("failed to read the ledger")?;
    let Some(view) = view else { return Ok(None) };
    reading.pace.take(view.issued.len()).await;
    let log = replay::replay(journal, partition, &view, reading).await?;
    // Many rows at once would hold up whoever shares this thread.
    let comparing = tokio::task::spawn_blocking(move || checks::compare(partition, &view, &log, only));
    Ok(Some(comparing.await.context("the comparison did not end")?))
}
