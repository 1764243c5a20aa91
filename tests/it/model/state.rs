//! A state of the model: the log, what is on its way there, two APIs, two consumers, the ledger, and what was promised.

use super::rule::{Number, Record, Roster, Terms, USERS, User};

/// A position in the log, or its length.
pub type Offset = u8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub log: Vec<Record>,
    /// Appends sent and not landed, sorted; one that never lands stays here.
    pub in_flight: Vec<Record>,
    pub apis: [Api; 2],
    pub consumers: [Consumer; 2],
    pub ledger: Ledger,
    pub told: Told,
    /// The log's length one and two half seconds ago: a process may be fresh with what it fetched since the older one.
    pub marks: [Offset; 2],
    pub left: Left,
    /// Something happened that must not; the search stops here.
    pub broken: Option<Broken>,
}

/// What the bounds of a configuration still allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Left {
    /// Appends of users and admins.
    pub appends: u8,
    /// Records that land once more.
    pub copies: u8,
    pub crashes: u8,
    /// Rows that the database refuses.
    pub refusals: u8,
    pub half_seconds: u8,
    pub unloads: u8,
}

/// What the outside world heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Told {
    /// The sequence of each user's ACCEPTED or `ALREADY_ISSUED`, 0: none yet.
    pub sequence: [Number; USERS],
    /// The newest change an admin was told is done.
    pub change: Option<Terms>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Api {
    pub life: ApiLife,
    /// First offset not applied.
    pub next: Offset,
    pub roster: Roster,
    /// Closed and unloaded: users are asked of the ledger.
    pub over: bool,
    /// Half seconds since the fetch left whose high watermark was reached last.
    pub age: u8,
    /// A high watermark not reached yet, and its fetch's age.
    pub pending: Option<(Offset, u8)>,
    pub requests: [Request; USERS],
    /// A change of terms that waits for its record.
    pub change: Option<Terms>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ApiLife {
    Down,
    /// Only without the guard: positions were read, rows were not.
    Positions,
    Up,
}

/// Old enough to be no longer fresh.
pub const STALE: u8 = 2;

impl Api {
    pub fn down() -> Self {
        Self { life: ApiLife::Down, ..Self::new() }
    }

    /// Started from an empty ledger.
    pub fn new() -> Self {
        Self {
            life: ApiLife::Up,
            next: 0,
            roster: Roster::default(),
            over: false,
            age: STALE,
            pending: None,
            requests: [Request::NONE; USERS],
            change: None,
        }
    }

    pub fn request(&mut self, user: User) -> &mut Request {
        &mut self.requests[usize::from(user)]
    }
}

/// One user's request at one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    pub phase: Phase,
    /// A "no" to it must have been true at some length of the log from here on.
    pub since: Offset,
}

impl Request {
    pub const NONE: Self = Self { phase: Phase::None, since: 0 };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    None,
    /// Unknown coupon: waits until this end is applied.
    Barrier(Offset),
    /// Waits for its record, appended or not yet: the gate has not answered, or said Full.
    Waiting,
}

/// A worker and the partition: what it remembers without owning anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Consumer {
    /// Knows nothing.
    Away,
    /// Its feed reads from here.
    Reading(Offset),
    /// Records of `from..to`, and the state loaded from the ledger at `loaded`.
    Loaded { from: Offset, to: Offset, roster: Roster },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ledger {
    pub next: Offset,
    /// The coupon's row; `users` is not used here.
    pub coupon: Roster,
    /// The sequence of each user's issued row.
    pub rows: [Number; USERS],
    pub revocations: [Number; USERS],
    pub letters: [Letter; USERS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Letter {
    pub sequence: Number,
    pub state: LetterState,
    /// Only without the guard: a replay has read that it is open.
    pub replay_began: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LetterState {
    #[default]
    None,
    Open,
    Abandoning,
    Replayed,
    Abandoned,
}

impl Letter {
    pub const fn unsettled(&self) -> bool {
        matches!(self.state, LetterState::Open | LetterState::Abandoning)
    }

    /// An admin took this win back.
    pub const fn given_up(&self) -> bool {
        matches!(self.state, LetterState::Abandoning | LetterState::Abandoned)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self { next: 0, coupon: Roster::default(), rows: [0; USERS], revocations: [0; USERS], letters: [Letter::default(); USERS] }
    }
}

/// What must never be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// P1: more issued than there is stock.
    OverIssued,
    /// P2: a second row for a user (the unique key fires).
    SecondRow,
    /// P3: who was told yes has no coupon, and no admin took it back.
    YesNotKept,
    /// P4: everybody asked and was answered, and a slot is left over.
    SlotLeaks,
    /// P5: another sequence than the one told before.
    OtherSequence,
    /// P6: a "no" that was true at no instant of the request.
    NoNotTrue,
    /// P7: a win that is neither row nor dead letter nor revocation.
    Dropped,
    /// A sequence was given out twice.
    SequenceTwice,
    /// A revoked user has a row.
    RevokedHolds,
    /// The ledger is not the fold of the log up to its offset.
    LedgerIsNotTheLog,
    /// A revocation of a win that the ledger does not have.
    RevokedNothing,
    /// What an admin was told is done is not so.
    ChangeUndone,
    /// CLOSED was not final.
    Reopened,
}
