//! The subcommands that work on the parts.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use super::parts::{self, Parts, Purpose};
use crate::audit;
use crate::config::Config;
use crate::domain::{CouponId, encode};
use crate::kill_point::kill_point;
use crate::ledger::{DeadLetter, DeadLetterState, Page, ReplayOutcome};
use crate::telemetry::Metrics;

/// Brings the ledger's tables up to date.
///
/// # Errors
/// The database does not answer, or a migration failed.
pub async fn migrate(config: &Config) -> anyhow::Result<Vec<String>> {
    let ledger = parts::open_ledger(config).await?;
    ledger.migrate().await.context("failed to migrate the ledger")
}

/// Recomputes from the journal and compares with the ledger.
///
/// # Errors
/// A part does not answer.
pub async fn audit(config: &Config, coupon: Option<CouponId>) -> anyhow::Result<audit::Report> {
    let metrics = Metrics::new()?;
    let parts = Parts::open(config, &metrics, Purpose::Command).await?;
    // The gate of embedded parts lives in the service's memory.
    let gate = (config.parts == crate::config::Parts::Distributed).then_some(parts.gate.as_ref());
    audit::run(parts.journal.as_ref(), parts.ledger.as_ref(), gate, coupon).await
}

/// A page of dead letters.
///
/// # Errors
/// The database does not answer.
pub async fn dead_letters(config: &Config, state: Option<DeadLetterState>, page: Page<i64>) -> anyhow::Result<Vec<DeadLetter>> {
    let ledger = parts::open_ledger(config).await?;
    ledger.dead_letters(state, page).await.context("failed to list the dead letters")
}

/// One dead letter.
///
/// # Errors
/// There is none with this id, or the database does not answer.
pub async fn dead_letter(config: &Config, id: i64) -> anyhow::Result<DeadLetter> {
    let ledger = parts::open_ledger(config).await?;
    ledger.dead_letter(id).await.context("failed to read the dead letter")?.ok_or_else(|| anyhow!("there is no dead letter {id}"))
}

/// Writes a dead letter's row with its kept sequence.
///
/// # Errors
/// It is not open, holds no win, or the database refuses it again.
pub async fn replay(config: &Config, id: i64) -> anyhow::Result<()> {
    let ledger = parts::open_ledger(config).await?;
    match ledger.replay(id).await.context("failed to replay the dead letter: it stays open")? {
        ReplayOutcome::Replayed => Ok(()),
        ReplayOutcome::NotFound => Err(anyhow!("there is no dead letter {id}")),
        ReplayOutcome::State(state) => Err(anyhow!("dead letter {id} is {}, not open: nothing was done", state.as_str())),
        ReplayOutcome::NotAWin => Err(anyhow!("dead letter {id} is a message nobody could read: there is nothing to write; abandon it")),
    }
}

/// Gives a dead letter up: its win is revoked through the log, its slot is free again. Waits until a consumer applied it.
///
/// # Errors
/// There is none with this id, or a part does not answer: calling it again is harmless.
pub async fn abandon(config: &Config, id: i64, reason: &str) -> anyhow::Result<DeadLetter> {
    let ledger = parts::open_ledger(config).await?;
    let letter =
        ledger.abandon(id).await.context("failed to abandon the dead letter")?.ok_or_else(|| anyhow!("there is no dead letter {id}"))?;
    let (DeadLetterState::Abandoning, Some(win)) = (letter.state, &letter.win) else { return Ok(letter) };
    let journal = parts::open_journal(config, &Metrics::new()?).await?;
    let body = win.revocation(format!("dead letter {id}: {reason}"));
    kill_point("abandon.revoke.before");
    journal.append(letter.partition, win.coupon, encode(&body)?).await.context("failed to append the revocation: run the command again")?;
    kill_point("abandon.revoke.after");
    journal.close().await;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if let Some(now) = ledger.dead_letter(id).await.context("failed to read the dead letter")?
            && now.state != DeadLetterState::Abandoning
        {
            return Ok(now);
        }
    }
    Ok(letter)
}

/// A dead letter for people and scripts; bytes as text, what is no UTF-8 replaced.
#[must_use]
pub fn dead_letter_json(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "state": letter.state.as_str(),
        "partition": letter.partition,
        "log_offset": letter.log_offset,
        "coupon_id": letter.win.as_ref().map(|win| win.coupon),
        "user_id": letter.win.as_ref().map(|win| win.user.as_str()),
        "sequence": letter.win.as_ref().map(|win| win.sequence),
        "error": letter.error,
        "key": String::from_utf8_lossy(&letter.key),
        "value": String::from_utf8_lossy(&letter.value),
        "created_at_ms": letter.created_at,
        "updated_at_ms": letter.updated_at,
    })
}

/// 0 when clean, 1 on a violation.
#[must_use]
pub fn exit_code(report: &audit::Report) -> ExitCode {
    if report.clean { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
