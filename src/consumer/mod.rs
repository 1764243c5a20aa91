//! The consumer: claims partitions, applies the rule under the rate limit, writes rows and next offsets in one transaction.
//!
//! ```text
//! claims -> feeds (one fetch loop a partition) -> worker: load state, fold, take permits, commit [offsets by compare-and-set + rows]
//! ```
//! Claims are for liveness only. A worker that lost one and does not know commits nothing: the offset it moves from is no longer there.

mod commit;
mod feed;
mod fold;
mod known;
pub mod limiter;
#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::{Offset, Partition, encode, now_millis};
use crate::journal::Journal;
use crate::kill_point::kill_point;
use crate::ledger::{DeadLetterState, Ledger, Page};
use crate::telemetry::Metrics;
use limiter::Limiter;

/// How long the log may be silent before this process does not count as hearing from it.
const SILENCE: Duration = Duration::from_secs(3);

/// Settings of a consumer.
#[derive(Debug, Clone)]
pub struct Options {
    /// Workers of this process; each owns a part of the claimed partitions and one database connection at a time.
    pub workers: usize,
    /// Most records of one transaction.
    pub batch_rows: usize,
    /// How long a claim lives without being renewed: a killed process is taken over after this.
    pub lease: Duration,
    pub fetch_wait: Duration,
    pub fetch_bytes: usize,
    /// How long the log's end may lie below the next offset (a new leader may lag) before that is an alarm.
    pub end_regress: Duration,
    /// How often operators' tools are told the progress.
    pub report_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 2,
            batch_rows: 2_000,
            lease: Duration::from_secs(5),
            fetch_wait: Duration::from_millis(500),
            fetch_bytes: 256 << 10,
            end_regress: Duration::from_secs(30),
            report_every: Duration::from_secs(5),
        }
    }
}

/// How far a partition is, for lag and group offsets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    pub next: Offset,
    pub high_watermark: Offset,
    /// When the log took the oldest record not yet written; 0: none waits.
    pub oldest_at: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Consumer {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) limiter: Arc<dyn Limiter>,
    pub(crate) options: Options,
    pub(crate) metrics: Arc<Metrics>,
    owner: String,
    owned: watch::Sender<Vec<Partition>>,
    progress: Mutex<HashMap<Partition, Progress>>,
    stopped: Mutex<HashMap<Partition, String>>,
    last_claim: Mutex<Option<Instant>>,
    /// When a fetch was answered last, of any partition.
    last_fetch: Mutex<Option<Instant>>,
}

impl Consumer {
    /// `owner` names this process among all consumers; it must be unique for each start.
    #[must_use]
    pub fn new(
        journal: Arc<dyn Journal>,
        ledger: Arc<dyn Ledger>,
        limiter: Arc<dyn Limiter>,
        options: Options,
        metrics: Arc<Metrics>,
        owner: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            journal,
            ledger,
            limiter,
            options,
            metrics,
            owner,
            owned: watch::Sender::new(Vec::new()),
            progress: Mutex::default(),
            stopped: Mutex::default(),
            last_claim: Mutex::default(),
            last_fetch: Mutex::default(),
        })
    }

    /// Renews claims until cancelled, then gives them back. While the ledger is away the last claims stand: commits are fenced anyway.
    pub async fn hold_claims(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            kill_point("consumer.claim.before");
            match self.ledger.claim(&self.owner, self.options.lease).await {
                Ok(partitions) => {
                    *self.last_claim.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                    let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX).max(1);
                    let all = u32::try_from(self.journal.partitions()).unwrap_or(1);
                    self.limiter.share_among(all.div_ceil(count));
                    self.owned.send_if_modified(|owned| {
                        let changed = *owned != partitions;
                        if changed {
                            kill_point("consumer.claim.after");
                            tracing::info!(owner = %self.owner, partitions = partitions.len(), "claims changed");
                            *owned = partitions;
                        }
                        changed
                    });
                }
                Err(error) => tracing::warn!(%error, "cannot renew claims"),
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(self.options.lease / 5) => {}
            }
        }
    }

    /// Gives back the claims; call when the workers have ended.
    pub async fn release_claims(&self) {
        if let Err(error) = self.ledger.release(&self.owner).await {
            tracing::warn!(%error, "cannot release claims: they run out by themselves");
        }
    }

    /// Partitions claimed now.
    #[must_use]
    pub fn owned(&self) -> Vec<Partition> {
        self.owned.borrow().clone()
    }

    /// Partitions whose drain stopped for good, with the reason.
    #[must_use]
    pub fn stopped(&self) -> Vec<(Partition, String)> {
        self.lock_stopped().iter().map(|(partition, reason)| (*partition, reason.clone())).collect()
    }

    /// Whether this process can take part in the drain, and why not.
    #[must_use]
    pub fn condition(&self) -> (bool, String) {
        let age = |last: &Mutex<Option<Instant>>| last.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed());
        match (age(&self.last_claim), age(&self.last_fetch)) {
            (None, _) => (false, "claiming partitions".to_owned()),
            (Some(claimed), _) if claimed > self.options.lease => (false, "the ledger does not answer".to_owned()),
            _ if self.owned.borrow().is_empty() => (true, "claims are renewed, none is free for this process".to_owned()),
            (_, Some(fetched)) if fetched <= SILENCE + self.options.fetch_wait => {
                (true, "claims are renewed, the journal answers".to_owned())
            }
            _ => (false, "the journal does not answer".to_owned()),
        }
    }

    pub(crate) fn note_fetch(&self) {
        *self.last_fetch.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn lock_stopped(&self) -> std::sync::MutexGuard<'_, HashMap<Partition, String>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_progress(&self) -> std::sync::MutexGuard<'_, HashMap<Partition, Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stop_partition(&self, partition: Partition, reason: &str) {
        tracing::error!(partition, reason, "consumer stopped this partition");
        self.metrics.reader_stopped.with_label_values(&["consumer", &partition.to_string()]).set(1);
        self.lock_stopped().insert(partition, reason.to_owned());
    }

    pub(crate) fn is_stopped(&self, partition: Partition) -> bool {
        self.lock_stopped().contains_key(&partition)
    }

    pub(crate) fn note_progress(&self, partition: Partition, note: impl FnOnce(&mut Progress)) {
        note(self.lock_progress().entry(partition).or_default());
    }

    /// Sets lag gauges; called at a scrape.
    pub fn observe(&self) {
        let owned = self.owned();
        self.metrics.consumer_lag.reset();
        let mut oldest = 0_i64;
        let now = now_millis();
        for (partition, progress) in self.lock_progress().iter().filter(|(partition, _)| owned.contains(partition)) {
            let lag = (progress.high_watermark - progress.next).max(0);
            self.metrics.consumer_lag.with_label_values(&[&partition.to_string()]).set(lag);
            if progress.oldest_at > 0 && lag > 0 {
                oldest = oldest.max(now - progress.oldest_at);
            }
        }
        self.metrics.consumer_oldest_seconds.set(Duration::from_millis(oldest.unsigned_abs()).as_secs_f64());
        self.metrics.limiter_rate.set(self.limiter.rate());
        self.metrics.limiter_measured.set(self.limiter.measured());
    }

    /// Reports progress to operators' tools and sends revokes of abandoned letters again until they are seen; until cancelled.
    pub async fn report(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(self.options.report_every) => {}
            }
            let owned = self.owned();
            let next: Vec<_> =
                self.lock_progress().iter().filter(|(p, _)| owned.contains(p)).map(|(p, progress)| (*p, progress.next)).collect();
            if !next.is_empty()
                && let Err(error) = self.journal.report_progress(&next).await
            {
                tracing::warn!(%error, "cannot report progress to the group");
            }
            self.push_abandoned().await;
            self.measure_unowned().await;
            if let Ok(counts) = self.ledger.dead_letter_counts().await {
                for state in DeadLetterState::ALL {
                    self.metrics.dead_letters.with_label_values(&[state.as_str()]).set(counts.get(&state).copied().unwrap_or(0));
                }
            }
        }
    }

    /// What nobody drains: one query, and one look-up of the log's end for each partition without an owner, of which there are none as a rule.
    async fn measure_unowned(&self) {
        let unowned = match self.ledger.unowned().await {
            Ok(unowned) => unowned,
            Err(error) => return tracing::debug!(%error, "cannot ask whose the partitions are"),
        };
        let mut lag = 0;
        for position in unowned {
            match self.journal.bounds(position.partition).await {
                Ok(bounds) => lag += (bounds.end - position.next).max(0),
                Err(error) => return tracing::debug!(%error, "cannot ask where an unowned partition ends"),
            }
        }
        self.metrics.consumer_unowned_lag.set(lag);
    }

    /// A revoke lost on its way is appended again: the rule takes only the first.
    async fn push_abandoned(&self) {
        let page = Page { limit: 100, after: None };
        let Ok(letters) = self.ledger.dead_letters(Some(DeadLetterState::Abandoning), page).await else {
            return;
        };
        for letter in letters {
            let Some(win) = letter.win else { continue };
            let body = win.revocation(format!("dead letter {} abandoned", letter.id));
            let Ok(value) = encode(&body) else { continue };
            if let Err(error) = self.journal.append(letter.partition, win.coupon, value).await {
                tracing::warn!(dead_letter.id = letter.id, %error, "cannot append a revoke: tried again later");
            }
            kill_point("consumer.revoke.again");
        }
    }
}
