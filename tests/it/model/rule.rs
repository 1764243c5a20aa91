//! The rule in a few bytes, with its guards as switches; with all of them on it is [`coupon_svc::domain::Roster`], as the test below shows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use coupon_svc::domain::{self, Refusal, Status};

use super::guards::{Guard, Guards};

/// Users of the model; a configuration may let fewer of them ask.
pub const USERS: usize = 3;

pub type User = u8;

/// The numbers of a model are small and signed like the real ones.
pub type Number = i8;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Terms {
    pub version: Number,
    pub total: Number,
    /// `Status` has no order.
    pub status: Life,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {}, total {}, {:?}", self.version, self.total, self.status)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Life {
    Open,
    Paused,
    Closed,
}

/// A record of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Record {
    Issue(User),
    Terms(Terms),
    Revoke(User, Number),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Won(Number),
    Already(Number),
    Refused(Refusal),
    TermsApplied,
    TermsIgnored,
    RevokeApplied,
    RevokeIgnored,
}

/// One coupon as the log decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Roster {
    /// Version 0: not created.
    pub terms: Terms,
    pub issued: Number,
    pub next_sequence: Number,
    /// The sequence, negative once revoked, 0: neither.
    pub users: [Number; USERS],
}

impl Default for Roster {
    fn default() -> Self {
        Self { terms: Terms { version: 0, total: 0, status: Life::Open }, issued: 0, next_sequence: 1, users: [0; USERS] }
    }
}

impl Roster {
    pub const fn created(&self) -> bool {
        self.terms.version > 0
    }

    /// Terms and counters, as a ledger's row has them.
    pub const fn without_users(self) -> Self {
        Self { users: [0; USERS], ..self }
    }

    pub fn user(&self, user: User) -> Number {
        self.users[usize::from(user)]
    }

    pub fn refusal(&self) -> Option<Refusal> {
        match self.terms.status {
            _ if !self.created() => Some(Refusal::Unknown),
            Life::Closed => Some(Refusal::Closed),
            Life::Paused => Some(Refusal::Paused),
            Life::Open => (self.issued >= self.terms.total).then_some(Refusal::SoldOut),
        }
    }

    /// What this state answers to a user who has no coupon; `None`: to be asked of the log.
    pub fn no(&self, user: User) -> Option<Refusal> {
        if self.user(user) < 0 { Some(Refusal::Revoked) } else { self.refusal() }
    }

    pub fn apply(&mut self, record: Record, guards: Guards) -> Decision {
        match record {
            Record::Issue(user) => self.apply_issue(user, guards),
            Record::Terms(terms) => self.apply_terms(terms, guards),
            Record::Revoke(user, sequence) => self.apply_revoke(user, sequence, guards),
        }
    }

    fn apply_issue(&mut self, user: User, guards: Guards) -> Decision {
        match self.user(user) {
            0 => {}
            sequence if sequence > 0 => return Decision::Already(sequence),
            _ => return Decision::Refused(Refusal::Revoked),
        }
        if let Some(refusal) = self.refusal() {
            return Decision::Refused(refusal);
        }
        let sequence = if guards.on(Guard::NextSequenceApartFromIssued) { self.next_sequence } else { self.issued + 1 };
        self.next_sequence += 1;
        self.issued += 1;
        self.users[usize::from(user)] = sequence;
        Decision::Won(sequence)
    }

    fn apply_terms(&mut self, next: Terms, guards: Guards) -> Decision {
        let closed = self.created() && self.terms.status == Life::Closed && guards.on(Guard::ClosedIsFinal);
        if closed || (next.version != self.terms.version + 1 && guards.on(Guard::TermsApplyInTurn)) {
            return Decision::TermsIgnored;
        }
        self.terms = next;
        if guards.on(Guard::LoweredTotalKeepsWhatIsIssued) {
            self.terms.total = next.total.max(self.issued);
        }
        Decision::TermsApplied
    }

    fn apply_revoke(&mut self, user: User, sequence: Number, guards: Guards) -> Decision {
        let held = self.user(user);
        if held <= 0 || (held != sequence && guards.on(Guard::RevokeNamesItsSequence)) {
            return Decision::RevokeIgnored;
        }
        self.users[usize::from(user)] = if guards.on(Guard::RevokedNeverBack) { -held } else { 0 };
        self.issued -= 1;
        Decision::RevokeApplied
    }
}

/// The state after `records`.
pub fn fold(records: &[Record], guards: Guards) -> Roster {
    let mut roster = Roster::default();
    for record in records {
        roster.apply(*record, guards);
    }
    roster
}

mod agreement {
    use super::*;

    fn name(user: User) -> domain::UserId {
        format!("user-{user}").parse().unwrap()
    }

    fn status(life: Life) -> Status {
        match life {
            Life::Open => Status::Open,
            Life::Paused => Status::Paused,
            Life::Closed => Status::Closed,
        }
    }

    fn body(record: Record) -> domain::Body {
        match record {
            Record::Issue(user) => domain::Body::Issue { user_id: name(user), at: 0, trace_id: String::new() },
            Record::Terms(Terms { version, total, status: life }) => domain::Body::Terms(domain::Terms {
                version: version.into(),
                change_id: uuid::Uuid::nil(),
                name: "coupon".into(),
                kind: "FIRST_COME".into(),
                discount: domain::Discount::Fixed(1),
                total_quantity: total.into(),
                opens_at: None,
                closes_at: None,
                status: status(life),
            }),
            Record::Revoke(user, sequence) => {
                domain::Body::Revoke { user_id: name(user), sequence: sequence.into(), reason: String::new(), at: 0 }
            }
        }
    }

    fn decision(decision: Decision) -> domain::Decision {
        match decision {
            Decision::Won(sequence) => domain::Decision::Won(sequence.into()),
            Decision::Already(sequence) => domain::Decision::Already(sequence.into()),
            Decision::Refused(refusal) => domain::Decision::Refused(refusal),
            Decision::TermsApplied => domain::Decision::TermsApplied,
            Decision::TermsIgnored => domain::Decision::TermsIgnored,
            Decision::RevokeApplied => domain::Decision::RevokeApplied,
            Decision::RevokeIgnored => domain::Decision::RevokeIgnored,
        }
    }

    fn same(small: &Roster, real: &domain::Roster<domain::UserId>) -> bool {
        let users = (0..).zip(small.users).all(|(user, packed)| {
            let expected = match i64::from(packed) {
                0 => None,
                sequence if sequence > 0 => Some(domain::UserState::Holder(sequence)),
                revoked => Some(domain::UserState::Revoked(-revoked)),
            };
            real.user(&name(user)) == expected
        });
        let terms = real.terms().map_or((0, 0, Status::Open), |terms| (terms.version, terms.total_quantity, terms.status));
        let numbers = (real.issued(), real.next_sequence(), real.refusal());
        users
            && terms == (small.terms.version.into(), small.terms.total.into(), status(small.terms.status))
            && numbers == (small.issued.into(), small.next_sequence.into(), small.refusal())
    }

    /// Every record is tried in every state that logs of any length over this alphabet lead to.
    #[test]
    fn the_rule_of_the_model_is_the_rule_of_the_service_on_every_log() {
        let mut alphabet: Vec<Record> = (0..3).map(Record::Issue).collect();
        for version in 1..=3 {
            for total in 1..=2 {
                alphabet.extend([Life::Open, Life::Paused, Life::Closed].map(|status| Record::Terms(Terms { version, total, status })));
            }
        }
        alphabet.extend((0..3).flat_map(|user| (1..=3).map(move |sequence| Record::Revoke(user, sequence))));
        let mut seen: HashMap<Roster, domain::Roster<domain::UserId>> = HashMap::from([(Roster::default(), domain::Roster::default())]);
        let mut untried = vec![Roster::default()];
        while let Some(before) = untried.pop() {
            for record in &alphabet {
                let (mut small, mut real) = (before, seen[&before].clone());
                let decided = small.apply(*record, Guards::ALL);
                assert_eq!(decision(decided), real.apply(&body(*record), Clone::clone), "{record:?} in {before:?}");
                assert!(same(&small, &real), "{record:?} in {before:?}: {small:?} is not {real:?}");
                if let Entry::Vacant(new) = seen.entry(small) {
                    new.insert(real);
                    untried.push(small);
                }
            }
        }
        assert!(seen.len() > 500, "{} states", seen.len());
    }
}
