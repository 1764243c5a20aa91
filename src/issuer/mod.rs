//! The use case: how a request for a coupon becomes an honest answer.
//!
//! ```text
//! roster in memory -> gate -> append -> seen in the log -> answer
//! ```
//! The wait is registered before the append, so the log cannot overtake it. Whatever is not known when the deadline comes is
//! [`IssueAnswer::Unavailable`]: the record may be in the log, and asking again settles it.

mod changes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::domain::{Body, CouponId, EpochMillis, FieldFault, Refusal, Sequence, Terms, UserId, UserState, encode, issue_id, now_millis};
use crate::follower::{Follower, Look, Seen, Standing, Stock, UserWait};
use crate::gate::{Ask, Gate, LocalGate, Verdict};
use crate::journal::{Journal, JournalError};
use crate::kill_point::kill_point;
use crate::ledger::Ledger;
use crate::telemetry::Metrics;

/// A coupon as this process sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponView {
    pub coupon: CouponId,
    pub terms: Terms,
    pub issued: i64,
}

/// Every answer of the issue call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueAnswer {
    Accepted {
        issue_id: Uuid,
        sequence: Sequence,
    },
    AlreadyIssued {
        issue_id: Uuid,
        sequence: Sequence,
    },
    SoldOut,
    NotOpen {
        opens_at: EpochMillis,
    },
    Paused,
    Closed,
    Revoked,
    NotFound,
    /// Too much in flight here: nothing was sent.
    Overloaded,
    /// Not known (yet): asking again settles it.
    Unavailable,
}

/// Every answer to "what became of my request".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultAnswer {
    /// The row is written.
    Issued {
        issue_id: Uuid,
        sequence: Sequence,
        issued_at: EpochMillis,
    },
    /// Won; the row is not written yet.
    Pending {
        issue_id: Uuid,
        sequence: Sequence,
        ahead: i64,
    },
    NotRequested,
    SoldOut,
    Revoked,
    NotFound,
    Unavailable,
}

/// Every answer to the creation of a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateAnswer {
    Created(CouponView),
    /// The id exists and was created with the same fields.
    Same(CouponView),
    /// The id exists with other fields.
    Exists(CouponView),
    Unavailable,
}

/// Every answer to a change of a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeAnswer {
    /// The wish holds now (by this call or already).
    Done(CouponView),
    /// `If-Match` named another version.
    Version(CouponView),
    /// CLOSED is final.
    Closed(CouponView),
    Invalid(Vec<FieldFault>),
    NotFound,
    Unavailable,
}

/// The answer is not known; asking again settles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// Settings of an issuer.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest time from a call to its answer.
    pub deadline: Duration,
    /// How long a user whom the gate holds back waits for the roster to agree before the log is asked.
    pub full_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: Duration::from_millis(1_800), full_wait: Duration::from_millis(50) }
    }
}

/// The issuer; see the module.
#[derive(Debug)]
pub struct Issuer {
    follower: Arc<Follower>,
    journal: Arc<dyn Journal>,
    gate: Arc<dyn Gate>,
    /// Stands in while the gate is away: roster and own admissions only.
    fallback: LocalGate,
    ledger: Arc<dyn Ledger>,
    options: Options,
    metrics: Arc<Metrics>,
    /// See [`Issuer::look_up_over`].
    look_ups: Semaphore,
}

/// Look-ups of users of unloaded coupons at a time.
const LOOK_UPS: usize = 32;

impl Issuer {
    #[must_use]
    pub fn new(
        follower: Arc<Follower>,
        journal: Arc<dyn Journal>,
        gate: Arc<dyn Gate>,
        ledger: Arc<dyn Ledger>,
        options: Options,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { follower, journal, gate, fallback: LocalGate::new(), ledger, options, metrics, look_ups: Semaphore::new(LOOK_UPS) }
    }

    /// Asks for `coupon` in the name of `user`. Answers within the deadline.
    ///
    /// # Cancellation
    /// A dropped call may still win: asking again tells.
    pub async fn issue(&self, coupon: CouponId, user: &UserId, trace_id: &str) -> IssueAnswer {
        let deadline = Instant::now() + self.options.deadline;
        let mut look = self.follower.look(coupon, user);
        if look.standing == Standing::Unknown {
            if self.follower.barrier(coupon, deadline).await.is_err() {
                return IssueAnswer::Unavailable;
            }
            look = self.follower.look(coupon, user);
        }
        let answering = async {
            match self.answer_from(coupon, user, look).await {
                Some(answer) => answer,
                None => self.ask_the_log(coupon, user, trace_id).await,
            }
        };
        timeout_at(deadline, answering).await.unwrap_or(IssueAnswer::Unavailable)
    }

    /// The answer that needs no append, if there is one.
    async fn answer_from(&self, coupon: CouponId, user: &UserId, Look { standing, fresh }: Look) -> Option<IssueAnswer> {
        let no = match standing {
            Standing::Holder(sequence) => {
                return Some(IssueAnswer::AlreadyIssued { issue_id: issue_id(coupon, user), sequence });
            }
            // The barrier was passed just before.
            Standing::Unknown => return Some(IssueAnswer::NotFound),
            Standing::Over => match self.look_up_over(coupon, user).await {
                Ok(Some(UserState::Holder(sequence))) => {
                    return Some(IssueAnswer::AlreadyIssued { issue_id: issue_id(coupon, user), sequence });
                }
                Ok(Some(UserState::Revoked(_))) => IssueAnswer::Revoked,
                Ok(None) => IssueAnswer::Closed,
                Err(Unavailable) => return Some(IssueAnswer::Unavailable),
            },
            Standing::Revoked => IssueAnswer::Revoked,
            Standing::No(refusal) => refused(refusal),
            Standing::Open { opens_at, closes_at, .. } => {
                let now = now_millis();
                match (opens_at, closes_at) {
                    (Some(opens_at), _) if now < opens_at => IssueAnswer::NotOpen { opens_at },
                    (_, Some(closes_at)) if now >= closes_at => IssueAnswer::Closed,
                    // A process that does not hear from the log must not queue hopes for it.
                    _ => return (!fresh).then_some(IssueAnswer::Unavailable),
                }
            }
        };
        Some(if fresh { no } else { IssueAnswer::Unavailable })
    }

    /// The way past the gate into the log and back; bounded by the caller's deadline.
    async fn ask_the_log(&self, coupon: CouponId, user: &UserId, trace_id: &str) -> IssueAnswer {
        // What the log decided before the wait began is in the roster.
        let (mut wait, mut stock) = loop {
            let (mut wait, stock) = match self.follower.wait_for_user(coupon, user) {
                Ok(registered) => registered,
                Err(look) => return self.answer(coupon, user, look).await,
            };
            if wait.is_first() {
                break (wait, stock);
            }
            // One append in flight per user and coupon: the first to wait makes it. If it gives up, this one may be the first.
            if let Some(seen) = wait.seen().await {
                return answer_of(coupon, user, Some(seen));
            }
        };
        let stock_now = || match self.follower.look(coupon, user) {
            Look { standing: Standing::Open { stock, .. }, .. } => Ok(stock),
            look => Err(look),
        };
        let mut overflow = None;
        while overflow.is_none() && self.admit(coupon, user, stock).await == Verdict::Full {
            let Some(changed) = self.follower.changes_of(coupon) else { return IssueAnswer::Unavailable };
            // Enabled before the roster is read, so that no change falls between.
            let mut change = std::pin::pin!(changed.notified());
            change.as_mut().enable();
            if stock_now().is_ok_and(|now| now.total == stock.total) {
                // Those who passed land within milliseconds; then the roster says sold out.
                tokio::select! {
                    seen = wait.seen() => return answer_of(coupon, user, seen),
                    () = change => {}
                    () = tokio::time::sleep(self.options.full_wait) => overflow = self.follower.overflow_permit(coupon),
                }
            }
            match stock_now() {
                Ok(now) => stock = now,
                Err(look) => return self.answer(coupon, user, look).await,
            }
        }
        let answer = self.append_and_wait(coupon, user, trace_id, &mut wait).await;
        drop(overflow);
        answer
    }

    /// The answer of a roster that has one: nothing but [`Standing::Open`] needs the log.
    async fn answer(&self, coupon: CouponId, user: &UserId, look: Look) -> IssueAnswer {
        self.answer_from(coupon, user, look).await.unwrap_or(IssueAnswer::Unavailable)
    }

    /// The ledger's word on a user of an unloaded coupon; few at a time, or a crowd at one old coupon would take the database from the drain.
    async fn look_up_over(&self, coupon: CouponId, user: &UserId) -> Result<Option<UserState>, Unavailable> {
        let _permit = self.look_ups.try_acquire().map_err(|_| Unavailable)?;
        let wanted = HashMap::from([(coupon, vec![user.clone()])]);
        match self.ledger.load(&[], &wanted).await {
            Ok(loaded) => Ok(loaded.users.get(&coupon).and_then(|users| users.get(user)).copied()),
            Err(error) => {
                tracing::warn!(coupon.id = %coupon, %error, "cannot look up a user of an unloaded coupon");
                Err(Unavailable)
            }
        }
    }

    /// Drops what the gates know of a coupon that is over.
    pub async fn forget(&self, coupon: CouponId) {
        for forgotten in [self.gate.forget(coupon).await, self.fallback.forget(coupon).await] {
            if let Err(error) = forgotten {
                tracing::debug!(coupon.id = %coupon, %error, "the gate did not forget a coupon: it costs memory only");
            }
        }
    }

    async fn admit(&self, coupon: CouponId, user: &UserId, Stock { total, issued }: Stock) -> Verdict {
        kill_point("issuer.gate.before");
        let ask = || Ask { coupon, user: user.clone(), total, issued };
        let verdict = match self.gate.admit(ask()).await {
            Ok(verdict) => verdict,
            Err(_away) => {
                self.metrics.gate_fallback_total.inc();
                self.fallback.admit(ask()).await.unwrap_or(Verdict::Pass)
            }
        };
        let said = &self.metrics.gate_verdicts;
        match verdict {
            Verdict::Pass => said.pass.inc(),
            Verdict::Seen => said.seen.inc(),
            Verdict::Full => said.full.inc(),
        }
        kill_point("issuer.gate.after");
        verdict
    }

    async fn append_and_wait(&self, coupon: CouponId, user: &UserId, trace_id: &str, wait: &mut UserWait) -> IssueAnswer {
        let body = Body::Issue { user_id: user.clone(), at: now_millis(), trace_id: trace_id.to_owned() };
        kill_point("issuer.append.before");
        let sent = value_of(&body).and_then(|value| self.journal.send(self.follower.partition_of(coupon), coupon, value));
        kill_point("issuer.append.sent");
        match sent {
            Ok(()) => answer_of(coupon, user, wait.seen().await),
            Err(JournalError::Overloaded) => IssueAnswer::Overloaded,
            Err(error) => {
                tracing::warn!(coupon.id = %coupon, trace_id, %error, "cannot append");
                IssueAnswer::Unavailable
            }
        }
    }

    async fn append(&self, coupon: CouponId, body: &Body) -> Result<(), JournalError> {
        self.journal.append(self.follower.partition_of(coupon), coupon, value_of(body)?).await
    }

    /// What became of the user's request.
    pub async fn result_of(&self, coupon: CouponId, user: &UserId) -> ResultAnswer {
        let deadline = Instant::now() + self.options.deadline;
        timeout_at(deadline, self.look_up_result(coupon, user, deadline)).await.unwrap_or(ResultAnswer::Unavailable)
    }

    async fn look_up_result(&self, coupon: CouponId, user: &UserId, deadline: Instant) -> ResultAnswer {
        let mut standing = self.follower.standing(coupon, user);
        if matches!(standing, Standing::Unknown | Standing::Open { .. } | Standing::No(_)) {
            // "Nothing" is only true at the log's end.
            if self.follower.barrier(coupon, deadline).await.is_err() {
                return ResultAnswer::Unavailable;
            }
            standing = self.follower.standing(coupon, user);
        }
        match standing {
            Standing::Holder(_) | Standing::Over => {}
            Standing::Unknown => return ResultAnswer::NotFound,
            Standing::Revoked => return ResultAnswer::Revoked,
            Standing::No(Refusal::SoldOut) => return ResultAnswer::SoldOut,
            Standing::No(_) | Standing::Open { .. } => return ResultAnswer::NotRequested,
        }
        let issue_id = issue_id(coupon, user);
        // A ledger that is silent must not use up the time for the answer that needs none.
        let patience = self.options.deadline / 3;
        let written = timeout(patience, self.ledger.issued(coupon, user)).await.map_err(|_| Unavailable);
        match (written.and_then(|row| row.map_err(|_| Unavailable)), standing) {
            (Ok(Some(row)), _) => ResultAnswer::Issued { issue_id, sequence: row.sequence, issued_at: row.issued_at },
            (Ok(None), Standing::Holder(sequence)) => {
                let ahead = timeout(patience, self.ahead_of(coupon, sequence)).await.unwrap_or(0);
                ResultAnswer::Pending { issue_id, sequence, ahead }
            }
            (Ok(None), _) => match self.look_up_over(coupon, user).await {
                Ok(Some(UserState::Revoked(_))) => ResultAnswer::Revoked,
                Ok(_) => ResultAnswer::NotRequested,
                Err(Unavailable) => ResultAnswer::Unavailable,
            },
            // With the database away a holder is still a holder.
            (Err(Unavailable), Standing::Holder(sequence)) => ResultAnswer::Pending { issue_id, sequence, ahead: 0 },
            (Err(Unavailable), _) => ResultAnswer::Unavailable,
        }
    }

    /// How many wins of the coupon wait before this one: an estimate; 0 when the ledger does not tell.
    async fn ahead_of(&self, coupon: CouponId, sequence: Sequence) -> i64 {
        let written = self.ledger.coupon(coupon).await.ok().flatten().map_or(sequence, |row| row.next_sequence);
        (sequence - written).max(0)
    }
}

fn value_of(body: &Body) -> Result<Vec<u8>, JournalError> {
    encode(body).map_err(|error| JournalError::Unknown(error.to_string()))
}

const fn refused(refusal: Refusal) -> IssueAnswer {
    match refusal {
        Refusal::Unknown => IssueAnswer::NotFound,
        Refusal::Paused => IssueAnswer::Paused,
        Refusal::Closed => IssueAnswer::Closed,
        Refusal::SoldOut => IssueAnswer::SoldOut,
        Refusal::Revoked => IssueAnswer::Revoked,
    }
}

fn answer_of(coupon: CouponId, user: &UserId, seen: Option<Seen>) -> IssueAnswer {
    kill_point("issuer.answer.before");
    match seen {
        Some(Seen::Won(sequence)) => IssueAnswer::Accepted { issue_id: issue_id(coupon, user), sequence },
        Some(Seen::Holder(sequence)) => IssueAnswer::AlreadyIssued { issue_id: issue_id(coupon, user), sequence },
        // Decided in the log itself: no freshness is needed.
        Some(Seen::Refused(refusal)) => refused(refusal),
        None => IssueAnswer::Unavailable,
    }
}
