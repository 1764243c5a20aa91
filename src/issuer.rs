//! The use case: how a request for a coupon becomes an honest answer.

use std::sync::Arc;

use uuid::Uuid;

use crate::domain::{CouponId, EpochMillis, FieldFault, Sequence, Terms, TermsDraft, TermsPatch, UserId};

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
    Accepted { issue_id: Uuid, sequence: Sequence },
    AlreadyIssued { issue_id: Uuid, sequence: Sequence },
    SoldOut,
    NotOpen { opens_at: EpochMillis },
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
    Issued { issue_id: Uuid, sequence: Sequence, issued_at: EpochMillis },
    /// Won; the row is not written yet.
    Pending { issue_id: Uuid, sequence: Sequence, ahead: i64 },
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

/// The issuer; see the module.
#[derive(Debug)]
pub struct Issuer {}

impl Issuer {
    /// Asks for `coupon` in the name of `user`. Answers within the request deadline.
    ///
    /// # Cancellation
    /// A dropped call may still win: asking again tells.
    pub async fn issue(&self, _coupon: CouponId, _user: &UserId, _trace_id: &str) -> IssueAnswer {
        unimplemented!()
    }

    pub async fn result_of(&self, _coupon: CouponId, _user: &UserId) -> ResultAnswer {
        unimplemented!()
    }

    /// Creates a coupon; `id` is the client's choice, if any.
    pub async fn create(&self, _id: Option<CouponId>, _draft: TermsDraft) -> CreateAnswer {
        unimplemented!()
    }

    pub async fn change(&self, _coupon: CouponId, _patch: &TermsPatch, _if_match: Option<i64>) -> ChangeAnswer {
        unimplemented!()
    }

    /// `Ok(None)`: there is no such coupon (asked of the log's end).
    ///
    /// # Errors
    /// The log does not answer, so "no such coupon" is not known.
    pub async fn coupon(&self, _coupon: CouponId) -> Result<Option<CouponView>, Unavailable> {
        unimplemented!()
    }

    /// Coupons in id order, at most `limit`, after `after`.
    #[must_use]
    pub fn coupons(&self, _limit: usize, _after: Option<CouponId>) -> Vec<CouponView> {
        unimplemented!()
    }
}

/// The answer is not known; asking again settles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// A shared issuer.
pub type SharedIssuer = Arc<Issuer>;
