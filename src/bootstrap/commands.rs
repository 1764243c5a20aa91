//! The subcommands that work on the parts.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::parts::{self, Parts, Purpose};
use crate::api::{outcome_of_abandon, outcome_of_replay};
use crate::audit;
use crate::config::Config;
use crate::domain::{CouponId, encode};
use crate::kill_point::kill_point;
use crate::ledger::{DeadLetter, DeadLetterState, Ledger, Page, ReplayOutcome};
use crate::telemetry::Metrics;
use crate::telemetry::admin::{Action, Actor};
use anyhow::{Context, anyhow};

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

/// Dead letters in an operator's hands: every call is in the admin log, with the user of the operating system and the host.
#[derive(Debug)]
pub struct Settling<'a> {
    config: &'a Config,
    ledger: Arc<dyn Ledger>,
    by: String,
}

impl<'a> Settling<'a> {
    /// # Errors
    /// The ledger cannot be opened.
    pub async fn open(config: &'a Config) -> anyhow::Result<Self> {
        let host = whoami::fallible::hostname().unwrap_or_else(|_| "unknown".to_owned());
        Ok(Self { config, ledger: parts::open_ledger(config).await?, by: format!("{}@{host}", whoami::username()) })
    }

    const fn actor(&self) -> Actor<'_> {
        Actor { by: self.by.as_str(), trace_id: None }
    }

    /// Writes a dead letter's row with its kept sequence.
    ///
    /// # Errors
    /// It is not open, holds no win, or the database refuses it again.
    pub async fn replay(&self, id: i64) -> anyhow::Result<()> {
        let replayed = self.ledger.replay(id).await;
        let (outcome, detail) = outcome_of_replay(&replayed);
        self.actor().did_to_dead_letter(Action::DeadLetterReplay, id, outcome, &detail);
        match replayed.context("failed to replay the dead letter: it stays open")? {
            ReplayOutcome::Replayed => Ok(()),
            ReplayOutcome::NotFound => Err(anyhow!("there is no dead letter {id}")),
            ReplayOutcome::State(state) => Err(anyhow!("dead letter {id} is {}, not open: nothing was done", state.as_str())),
            ReplayOutcome::NotAWin => {
                Err(anyhow!("dead letter {id} is a message nobody could read: there is nothing to write; abandon it"))
            }
            ReplayOutcome::Refused(reason) => Err(anyhow!("the database refuses dead letter {id} again, it stays open: {reason}")),
        }
    }

    /// Gives a dead letter up: its win is revoked through the log, its slot is free again. Waits until a consumer applied it.
    ///
    /// # Errors
    /// There is none with this id, it is replayed, or a part does not answer: calling it again is harmless.
    pub async fn abandon(&self, id: i64, reason: &str) -> anyhow::Result<DeadLetter> {
        let abandoned = self.try_abandon(id, reason).await;
        let state = abandoned.as_ref().map(|letter| letter.as_ref().map(|letter| letter.state));
        let (outcome, detail) = outcome_of_abandon(state.ok());
        self.actor().did_to_dead_letter(Action::DeadLetterAbandon, id, outcome, detail);
        let letter = abandoned?.ok_or_else(|| anyhow!("there is no dead letter {id}"))?;
        match letter.state {
            DeadLetterState::Abandoned | DeadLetterState::Abandoning => Ok(letter),
            state => Err(anyhow!("dead letter {id} is {}, not open: nothing was done", state.as_str())),
        }
    }

    async fn try_abandon(&self, id: i64, reason: &str) -> anyhow::Result<Option<DeadLetter>> {
        let letter = self.ledger.abandon(id).await.context("failed to abandon the dead letter")?;
        let Some((letter, win)) =
            letter.as_ref().filter(|l| l.state == DeadLetterState::Abandoning).and_then(|l| Some((l, l.win.as_ref()?)))
        else {
            return Ok(letter);
        };
        let journal = parts::open_journal(self.config, &Metrics::new()?).await?;
        let body = win.revocation(format!("dead letter {id} abandoned by {}: {reason}", self.by));
        kill_point("abandon.revoke.before");
        journal
            .append(letter.partition, win.coupon, encode(&body)?)
            .await
            .context("failed to append the revocation: run the command again")?;
        kill_point("abandon.revoke.after");
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = self.ledger.dead_letter(id).await.context("failed to read the dead letter")?;
            if now.as_ref().is_none_or(|now| now.state != DeadLetterState::Abandoning) {
                return Ok(now);
            }
        }
        Ok(Some(letter.clone()))
    }
}

/// 0 when clean, 1 on a violation.
#[must_use]
pub fn exit_code(report: &audit::Report) -> ExitCode {
    if report.clean { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
