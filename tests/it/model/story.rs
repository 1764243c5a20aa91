//! Steps as a story to read.

use std::fmt;

use super::scene::Step;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lands(record) => write!(f, "log: {record:?} lands"),
            Self::LandsAgain(record) => write!(f, "log: {record:?} lands once more"),
            Self::Issue(at, user) => write!(f, "api {at}: issue for user {user}"),
            Self::BarrierPassed(at, user, end) => write!(f, "api {at}: barrier of user {user} passed at {end}"),
            Self::Append(at, user) => write!(f, "api {at}: append for user {user}"),
            Self::LooksAgain(at, user) => write!(f, "api {at}: user {user} looks at the roster again"),
            Self::GivesUp(at, user) => write!(f, "api {at}: 503 for user {user}"),
            Self::AnsweredOnAcknowledgement(at, user) => write!(f, "api {at}: yes to user {user} on acknowledgement"),
            Self::AnsweredByTheGate(at, user) => write!(f, "api {at}: sold out to user {user} by the gate"),
            Self::Fetch(at) => write!(f, "api {at}: fetch"),
            Self::Apply(at) => write!(f, "api {at}: apply the next record"),
            Self::HalfSecondPasses => write!(f, "half a second passes"),
            Self::Dies(at) => write!(f, "api {at}: dies"),
            Self::Starts(at) => write!(f, "api {at}: starts from the ledger's snapshot"),
            Self::ReadsPositions(at) => write!(f, "api {at}: reads the ledger's positions"),
            Self::ReadsRows(at) => write!(f, "api {at}: reads the ledger's rows"),
            Self::Unloads(at) => write!(f, "api {at}: unloads the coupon"),
            Self::Proposes(at, terms) => write!(f, "api {at}: proposes {terms:?}"),
            Self::Adopts(by) => write!(f, "consumer {by}: adopts"),
            Self::Loads(by, to) => write!(f, "consumer {by}: loads the state for records below {to}"),
            Self::Commits(by, None) => write!(f, "consumer {by}: commits"),
            Self::Commits(by, Some(user)) => write!(f, "consumer {by}: commits, the row of user {user} is refused"),
            Self::Forgets(by) => write!(f, "consumer {by}: forgets"),
            Self::Drains(None) => write!(f, "ledger: the next record is written"),
            Self::Drains(Some(user)) => write!(f, "ledger: the next record is written, the row of user {user} is refused"),
            Self::ReplayReads(user) => write!(f, "ledger: a replay reads the letter of user {user}"),
            Self::Replays(user) => write!(f, "ledger: the letter of user {user} is replayed"),
            Self::Abandons(user) => write!(f, "ledger: the letter of user {user} is to be abandoned"),
            Self::RevokeAppended(user) => write!(f, "log: append of the revoke of user {user}"),
        }
    }
}
