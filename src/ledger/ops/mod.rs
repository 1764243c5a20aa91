//! What the port promises, written once for both databases against [`super::session::Session`].

pub(super) mod check;
pub(super) mod claims;
pub(super) mod commit;
pub(super) mod letters;
pub(super) mod reads;
pub(super) mod setup;
pub(super) mod snapshot;

use super::DeadLetterState;

/// Letters that hold a slot.
const UNSETTLED: [&str; 2] = [DeadLetterState::Open.as_str(), DeadLetterState::Abandoning.as_str()];
