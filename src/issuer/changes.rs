//! Creating and changing coupons: a change is done when its own id is the version seen in the log.

use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{ChangeAnswer, CouponView, CreateAnswer, Issuer, Unavailable};
use crate::domain::{Body, CouponId, Status, Terms, TermsDraft, TermsPatch, now_millis};
use crate::follower::CouponState;
use crate::journal::JournalError;
use crate::kill_point::kill_point;

/// How long after `closes_at` the closing terms are appended: other APIs' clocks may be behind.
const CLOSE_AFTER_MILLIS: i64 = 60_000;

impl Issuer {
    /// Creates a coupon; `id` is the client's choice, if any: repeating the call is then harmless.
    ///
    /// # Cancellation
    /// A dropped call may still create it.
    pub async fn create(&self, id: Option<CouponId>, draft: TermsDraft) -> CreateAnswer {
        let deadline = Instant::now() + self.options.deadline;
        let coupon = id.unwrap_or_else(CouponId::random);
        // A chosen id may exist although this process has not read that far.
        if id.is_some() && self.follower.barrier(coupon, deadline).await.is_err() {
            return CreateAnswer::Unavailable;
        }
        if self.follower.coupon(coupon).is_none() {
            let terms = draft.clone().first_version(Uuid::new_v4());
            match self.propose(coupon, terms, deadline).await {
                Some(true) => return self.view(coupon).map_or(CreateAnswer::Unavailable, CreateAnswer::Created),
                Some(false) => {}
                None => return CreateAnswer::Unavailable,
            }
        }
        match self.view(coupon) {
            Some(view) if draft.agrees_with(&view.terms) => CreateAnswer::Same(view),
            Some(view) => CreateAnswer::Exists(view),
            None => CreateAnswer::Unavailable,
        }
    }

    /// Changes a coupon. Without `if_match` a lost race is merged and tried again.
    ///
    /// # Cancellation
    /// A dropped call may still have changed it.
    pub async fn change(&self, coupon: CouponId, patch: &TermsPatch, if_match: Option<i64>) -> ChangeAnswer {
        let deadline = Instant::now() + self.options.deadline;
        if self.follower.barrier(coupon, deadline).await.is_err() {
            return ChangeAnswer::Unavailable;
        }
        loop {
            let Some(view) = self.view(coupon) else {
                return ChangeAnswer::NotFound;
            };
            if if_match.is_some_and(|version| version != view.terms.version) {
                return ChangeAnswer::Version(view);
            }
            let mut next = match patch.merge(&view.terms, Uuid::new_v4()) {
                Ok(next) => next,
                Err(faults) => return ChangeAnswer::Invalid(faults),
            };
            // The rule would raise it too; here so that asking for it twice is one change.
            next.total_quantity = next.total_quantity.max(view.issued);
            if next.same_wish(&view.terms) {
                return ChangeAnswer::Done(view);
            }
            if view.terms.status == Status::Closed {
                return ChangeAnswer::Closed(view);
            }
            match self.propose(coupon, next, deadline).await {
                Some(true) => return self.view(coupon).map_or(ChangeAnswer::Unavailable, ChangeAnswer::Done),
                Some(false) => {}
                None => return ChangeAnswer::Unavailable,
            }
        }
    }

    /// Appends terms and waits for what becomes of them; `None`: not known in time.
    async fn propose(&self, coupon: CouponId, terms: Terms, deadline: Instant) -> Option<bool> {
        let mut wait = self.follower.wait_for_change(coupon, terms.change_id);
        let proposing = async {
            kill_point("issuer.terms.before");
            match self.append(coupon, &Body::Terms(terms)).await {
                Ok(()) | Err(JournalError::Unknown(_)) => {
                    kill_point("issuer.terms.after");
                    wait.applied().await
                }
                Err(error) => {
                    tracing::warn!(coupon.id = %coupon, %error, "cannot append terms");
                    None
                }
            }
        };
        timeout_at(deadline, proposing).await.ok().flatten()
    }

    fn view(&self, coupon: CouponId) -> Option<CouponView> {
        self.follower.coupon(coupon).map(|state| view_of(coupon, state))
    }

    /// `Ok(None)`: there is no such coupon, by the log's end.
    ///
    /// # Errors
    /// The log does not answer, so "no such coupon" is not known.
    pub async fn coupon(&self, coupon: CouponId) -> Result<Option<CouponView>, Unavailable> {
        if let Some(view) = self.view(coupon) {
            return Ok(Some(view));
        }
        let deadline = Instant::now() + self.options.deadline;
        self.follower.barrier(coupon, deadline).await.map_err(|_| Unavailable)?;
        Ok(self.view(coupon))
    }

    /// Coupons in id order, at most `limit`, after `after`.
    #[must_use]
    pub fn coupons(&self, limit: usize, after: Option<CouponId>) -> Vec<CouponView> {
        let mut all = self.follower.coupons();
        all.retain(|(coupon, _)| after.is_none_or(|after| *coupon > after));
        all.sort_unstable_by_key(|(coupon, _)| *coupon);
        all.truncate(limit);
        all.into_iter().map(|(coupon, state)| view_of(coupon, state)).collect()
    }

    /// Appends the closing terms of every coupon whose window ended a minute ago. Repeated until CLOSED is seen; a second copy is ignored by the rule.
    pub async fn close_ended(&self) {
        let now = now_millis();
        for (coupon, state) in self.follower.coupons() {
            let ended = state.terms.closes_at.is_some_and(|closes_at| now - CLOSE_AFTER_MILLIS >= closes_at);
            if ended && state.terms.status != Status::Closed {
                let mut terms = state.terms;
                terms.version += 1;
                terms.change_id = Uuid::new_v4();
                terms.status = Status::Closed;
                let applied = self.propose(coupon, terms, Instant::now() + self.options.deadline).await;
                tracing::info!(coupon.id = %coupon, ?applied, "closing a coupon whose window ended");
            }
        }
    }

    /// Appends a revocation; returns when the log has acknowledged it. It holds once the readers applied it.
    ///
    /// # Errors
    /// Not known in time: asking again is harmless, the rule takes only the first.
    pub async fn revoke(&self, coupon: CouponId, revocation: &Body) -> Result<(), Unavailable> {
        let deadline = Instant::now() + self.options.deadline;
        match timeout_at(deadline, self.append(coupon, revocation)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Unavailable),
        }
    }
}

fn view_of(coupon: CouponId, state: CouponState) -> CouponView {
    CouponView { coupon, terms: state.terms, issued: state.issued }
}
