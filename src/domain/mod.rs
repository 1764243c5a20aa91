//! The rule and its words: ids, coupon terms, the records of the journal and the [`Roster`] that decides.
//!
//! Nothing here does I/O and nothing here imports another room. Every reader of the log (follower, consumer, audit) folds
//! records through the same [`Roster::apply`], so every reader decides alike.

mod ids;
mod record;
mod roster;
mod terms;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use ids::{BadCouponId, BadUserId, CouponId, EpochMillis, Offset, Partition, Sequence, UserId, issue_id, now_millis, partition_of};
pub use record::{Body, Decoded, MAX_REASON_BYTES, Record, SkipReason, StopReason, WRITE_VERSION, decode, encode, fingerprint};
pub use roster::{Decision, Refusal, Roster, UserState};
pub use terms::{Discount, FieldFault, Status, Terms, TermsDraft, TermsPatch};
