//! A batch on its way into the ledger, and what is told of it once it is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::Consumer;
use super::fold::Trace;
use crate::kill_point::kill_point;
use crate::ledger::{Batch, Committed, LedgerError};

/// A batch that only needs to be written.
pub(super) struct Decided {
    pub(super) batch: Batch,
    pub(super) traces: Vec<Trace>,
}

/// A batch that was written and not told of.
pub(super) struct Written {
    pub(super) decided: Arc<Decided>,
    pub(super) committed: Committed,
}

/// Writes what a worker decided, in one transaction.
pub(super) async fn put(consumer: Arc<Consumer>, worker: usize, decided: Arc<Decided>) -> Result<Committed, LedgerError> {
    let batch = &decided.batch;
    if batch.moves.is_empty() {
        return Ok(Committed::default());
    }
    kill_point("consumer.commit.before");
    let started = Instant::now();
    let committed = consumer.ledger.commit(batch).await?;
    let took = started.elapsed();
    consumer.limiter.wrote(worker, committed.rows, took);
    consumer.metrics.ledger_commit_seconds.observe(took.as_secs_f64());
    kill_point("consumer.commit.after");
    consumer.metrics.ledger_rows_total.inc_by(u64::try_from(committed.rows).unwrap_or(0));
    for moved in &batch.moves {
        consumer.note_progress(moved.partition, |progress| {
            progress.next = moved.to;
            progress.oldest_at = 0;
        });
    }
    Ok(committed)
}

impl Written {
    pub(super) async fn tell(self, consumer: &Consumer) {
        let Self { decided, committed } = self;
        let Decided { batch, traces } = &*decided;
        let dead: HashMap<_, _> =
            committed.dead.iter().filter_map(|letter| letter.win.as_ref().map(|win| ((win.coupon, &win.user), letter))).collect();
        for Trace { coupon, user, trace_id } in traces {
            match dead.get(&(*coupon, user)) {
                None => tracing::info!(coupon.id = %coupon, user.id = %user, trace_id, "issued"),
                Some(letter) => {
                    tracing::warn!(coupon.id = %coupon, user.id = %user, trace_id, error = %letter.error, "refused row is a dead letter");
                }
            }
        }
        for letter in &batch.dead_letters {
            tracing::warn!(partition = letter.partition, offset = letter.log_offset, error = %letter.error, "unreadable record is a dead letter");
        }
        for letter in batch.dead_letters.iter().chain(&committed.dead) {
            // The table has them all: a topic that is away must not hold up the drain.
            if let Err(error) = consumer.journal.copy_dead_letter(letter.key.clone(), letter.value.clone()).await {
                tracing::warn!(%error, "cannot copy dead letters to their topic: the table has them");
                break;
            }
        }
        kill_point("consumer.batch.after");
    }
}
