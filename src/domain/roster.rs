//! The rule: the first `total` distinct users in log order, while the coupon is open, have it.
//!
//! A [`Roster`] is one coupon's state, and [`Roster::apply`] the only place that decides. It is generic over the user key so
//! that the follower can keep 16-byte hashes, and the consumer and the audit whole user ids, under one rule.
//! State of a user goes none -> holder -> revoked, never back.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

use super::ids::{Sequence, UserId};
use super::record::Body;
use super::terms::{Status, Terms};

/// What a roster knows of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserState {
    Holder(Sequence),
    /// Took part once and lost it by an admin's hand; never gets it again.
    Revoked(Sequence),
}

/// Why an issue record wins nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The coupon was not created before this record.
    Unknown,
    Paused,
    Closed,
    SoldOut,
    Revoked,
}

/// What one record did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The user has the coupon from here on.
    Won(Sequence),
    /// The user had it already; nothing changed.
    Already(Sequence),
    Refused(Refusal),
    /// The terms of this version hold from here on.
    TermsApplied,
    /// Another change came first, or the coupon is closed; nothing changed.
    TermsIgnored,
    /// The win with this sequence is taken back, its slot is free again.
    RevokeApplied,
    RevokeIgnored,
}

/// One coupon as the log decides it.
#[derive(Debug, Clone)]
pub struct Roster<K, S = RandomState> {
    terms: Option<Terms>,
    issued: i64,
    next_sequence: Sequence,
    users: HashMap<K, Packed, S>,
}

/// A [`UserState`] in eight bytes: the sequence, negative once revoked. Sequences start at 1.
#[derive(Debug, Clone, Copy)]
struct Packed(i64);

impl From<UserState> for Packed {
    fn from(state: UserState) -> Self {
        match state {
            UserState::Holder(sequence) => Self(sequence),
            UserState::Revoked(sequence) => Self(-sequence),
        }
    }
}

impl From<Packed> for UserState {
    fn from(packed: Packed) -> Self {
        if packed.0 < 0 { Self::Revoked(-packed.0) } else { Self::Holder(packed.0) }
    }
}

impl<K: Eq + Hash, S: BuildHasher + Default> Default for Roster<K, S> {
    fn default() -> Self {
        Self { terms: None, issued: 0, next_sequence: 1, users: HashMap::default() }
    }
}

impl<K: Eq + Hash, S: BuildHasher + Default> Roster<K, S> {
    /// A roster as a ledger recorded it; users follow by [`Roster::remember`].
    #[must_use]
    pub fn restore(terms: Terms, issued: i64, next_sequence: Sequence) -> Self {
        Self { terms: Some(terms), issued, next_sequence, users: HashMap::default() }
    }

    /// Puts in what the ledger says of a user. Does not count: `issued` is part of [`Roster::restore`].
    pub fn remember(&mut self, user: K, state: UserState) {
        self.users.insert(user, state.into());
    }

    #[must_use]
    pub const fn terms(&self) -> Option<&Terms> {
        self.terms.as_ref()
    }

    /// Coupons held now: wins less revocations.
    #[must_use]
    pub const fn issued(&self) -> i64 {
        self.issued
    }

    /// The number the next win takes; ever growing, apart from [`Roster::issued`].
    #[must_use]
    pub const fn next_sequence(&self) -> Sequence {
        self.next_sequence
    }

    /// Slots still free; 0 for a coupon not created.
    #[must_use]
    pub fn remaining(&self) -> i64 {
        self.terms.as_ref().map_or(0, |terms| terms.total_quantity - self.issued)
    }

    #[must_use]
    pub fn user<Q>(&self, user: &Q) -> Option<UserState>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.users.get(user).map(|packed| UserState::from(*packed))
    }

    /// Users this roster remembers, revoked ones too.
    pub fn users(&self) -> impl Iterator<Item = (&K, UserState)> {
        self.users.iter().map(|(user, packed)| (user, UserState::from(*packed)))
    }

    /// Gives back the memory of the users; terms and counters stay.
    pub fn forget_users(&mut self) {
        self.users = HashMap::default();
    }

    /// Why an issue record of a user who has no state would be refused now; `None`: it would win.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let Some(terms) = &self.terms else { return Some(Refusal::Unknown) };
        match terms.status {
            Status::Closed => Some(Refusal::Closed),
            Status::Paused => Some(Refusal::Paused),
            Status::Open if self.issued >= terms.total_quantity => Some(Refusal::SoldOut),
            Status::Open => None,
        }
    }

    /// Decides one record. Deterministic: the same records in the same order give the same decisions anywhere.
    pub fn apply(&mut self, body: &Body, key_of: impl FnOnce(&UserId) -> K) -> Decision {
        match body {
            Body::Issue { user_id, .. } => self.apply_issue(key_of(user_id)),
            Body::Terms(terms) => self.apply_terms(terms),
            Body::Revoke { user_id, sequence, .. } => self.apply_revoke(&key_of(user_id), *sequence),
        }
    }

    fn apply_issue(&mut self, user: K) -> Decision {
        match self.users.get(&user).map(|packed| UserState::from(*packed)) {
            Some(UserState::Holder(sequence)) => return Decision::Already(sequence),
            Some(UserState::Revoked(_)) => return Decision::Refused(Refusal::Revoked),
            None => {}
        }
        if let Some(refusal) = self.refusal() {
            return Decision::Refused(refusal);
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.issued += 1;
        self.users.insert(user, UserState::Holder(sequence).into());
        Decision::Won(sequence)
    }

    fn apply_terms(&mut self, next: &Terms) -> Decision {
        let current_version = self.terms.as_ref().map_or(0, |terms| terms.version);
        let closed = self.terms.as_ref().is_some_and(|terms| terms.status == Status::Closed);
        if closed || next.version != current_version + 1 {
            return Decision::TermsIgnored;
        }
        let mut applied = next.clone();
        // A coupon given out cannot be un-given by a smaller stock.
        applied.total_quantity = applied.total_quantity.max(self.issued);
        self.terms = Some(applied);
        Decision::TermsApplied
    }

    fn apply_revoke(&mut self, user: &K, sequence: Sequence) -> Decision {
        match self.users.get_mut(user) {
            Some(packed) if UserState::from(*packed) == UserState::Holder(sequence) => {
                *packed = UserState::Revoked(sequence).into();
                self.issued -= 1;
                Decision::RevokeApplied
            }
            _ => Decision::RevokeIgnored,
        }
    }
}
