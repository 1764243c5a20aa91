//! What admins did, one log line each.
//!
//! Operators search by these fields, so their names never change: `admin.action`, `admin.by`,
//! `admin.via`, `admin.outcome`, `admin.detail`, `trace_id`, `coupon.id`, `dead_letter.id`.

use crate::domain::CouponId;

/// The target of these lines; commands let it through their filter.
pub const TARGET: &str = "admin";

/// What an admin asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    CouponCreate,
    CouponChange,
    DeadLetterReplay,
    DeadLetterAbandon,
}

impl Action {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CouponCreate => "coupon.create",
            Self::CouponChange => "coupon.change",
            Self::DeadLetterReplay => "dead_letter.replay",
            Self::DeadLetterAbandon => "dead_letter.abandon",
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It was so before.
    Unchanged,
    Refused,
    NotFound,
    /// A part did not answer: it may be done or not.
    Failed,
}

impl Outcome {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::Failed => "failed",
        }
    }
}

/// Who acts, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    /// A user id over HTTP; user and host on the command line.
    pub by: &'a str,
    /// `None` on the command line.
    pub trace_id: Option<&'a str>,
}

impl Actor<'_> {
    pub fn did_to_coupon(&self, action: Action, coupon: Option<CouponId>, outcome: Outcome, detail: &str) {
        self.log(action, coupon, None, outcome, detail);
    }

    pub fn did_to_dead_letter(&self, action: Action, id: i64, outcome: Outcome, detail: &str) {
        self.log(action, None, Some(id), outcome, detail);
    }

    fn log(&self, action: Action, coupon: Option<CouponId>, dead_letter: Option<i64>, outcome: Outcome, detail: &str) {
        let via = if self.trace_id.is_some() { "http" } else { "command" };
        let coupon = coupon.map(tracing::field::display);
        tracing::info!(
            target: TARGET,
            {
                admin.action = action.as_str(),
                admin.by = self.by,
                admin.via = via,
                admin.outcome = outcome.as_str(),
                admin.detail = detail,
                trace_id = self.trace_id,
                coupon.id = coupon,
                dead_letter.id = dead_letter,
            },
            "admin action"
        );
    }
}
