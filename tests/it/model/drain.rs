//! What happens to the ledger: consumers, dead letters, and what a reader of it gets.

use super::guards::{Guard, Guards};
use super::rule::{Decision, Number, Record, Roster, User};
use super::scene::Scene;
use super::state::{Broken, Consumer, Ledger, Letter, LetterState, Offset, State};

impl Ledger {
    /// The coupon as `snapshot` and `load` give it: holders are rows and unsettled dead letters.
    pub fn roster(&self, guards: Guards, counts_dead_letters: Guard) -> Roster {
        let mut roster = self.coupon;
        for (index, known) in roster.users.iter_mut().enumerate() {
            if self.letters[index].unsettled() && guards.on(counts_dead_letters) {
                *known = self.letters[index].sequence;
            }
            if self.rows[index] != 0 {
                *known = self.rows[index];
            }
            if self.revocations[index] != 0 && guards.on(Guard::RevokedNeverBack) {
                *known = -self.revocations[index];
            }
        }
        roster
    }
}

impl Scene {
    /// `Ledger::load` within `Worker::try_write`.
    pub(super) fn load(&self, state: &mut State, by: usize, from: Offset, to: Offset) {
        let fenced = state.ledger.next != from && self.guards.on(Guard::LoadChecksPositions);
        let roster = state.ledger.roster(self.guards, Guard::LoadCountsDeadLetters);
        state.consumers[by] = if fenced { Consumer::Away } else { Consumer::Loaded { from, to, roster } };
    }

    /// One transaction; `refused`: the user whose row the database refuses. False: another owner was here.
    pub(super) fn commit(&self, state: &mut State, from: Offset, to: Offset, mut roster: Roster, refused: Option<User>) -> bool {
        if state.ledger.next != from && self.guards.on(Guard::OffsetComparedAndSet) {
            return false;
        }
        state.ledger.next = to;
        for offset in usize::from(from)..usize::from(to) {
            let record = state.log[offset];
            let held = if let Record::Revoke(user, _) = record { roster.user(user) } else { 0 };
            match (record, roster.apply(record, self.guards)) {
                (Record::Issue(user), Decision::Won(sequence)) if refused == Some(user) => {
                    state.left.refusals -= 1;
                    if self.guards.on(Guard::RefusedRowBecomesDeadLetter) {
                        bury(state, user, sequence);
                    }
                }
                (Record::Issue(user), Decision::Won(sequence)) => put_row(state, user, sequence),
                (Record::Revoke(user, _), Decision::RevokeApplied) => take_back(state, user, held),
                _ => {}
            }
        }
        state.ledger.coupon = roster.without_users();
        true
    }

    /// The rows that a commit would insert.
    pub(super) fn winners(&self, state: &State, from: Offset, to: Offset, mut roster: Roster) -> Vec<User> {
        let won = |record: &Record| match (record, roster.apply(*record, self.guards)) {
            (Record::Issue(user), Decision::Won(_)) => Some(*user),
            _ => None,
        };
        state.log[usize::from(from)..usize::from(to)].iter().filter_map(won).collect()
    }

    /// `Ledger::replay`, in one transaction from a letter that is open.
    pub(super) fn replay(state: &mut State, user: User) {
        let letter = &mut state.ledger.letters[usize::from(user)];
        letter.state = LetterState::Replayed;
        letter.replay_began = false;
        let sequence = letter.sequence;
        put_row(state, user, sequence);
    }

    /// The revoke of an abandoned letter is sent (again).
    pub(super) fn append_revoke(&self, state: &mut State, user: User) {
        let letter = &mut state.ledger.letters[usize::from(user)];
        let record = Record::Revoke(user, letter.sequence);
        if !self.guards.on(Guard::AbandonedWithTheRevoke) {
            letter.state = LetterState::Abandoned;
        }
        state.send(record);
    }
}

fn put_row(state: &mut State, user: User, sequence: Number) {
    let row = &mut state.ledger.rows[usize::from(user)];
    if *row != 0 {
        state.broken = Some(Broken::SecondRow);
    }
    *row = sequence;
}

fn bury(state: &mut State, user: User, sequence: Number) {
    let letter = &mut state.ledger.letters[usize::from(user)];
    if letter.unsettled() {
        state.broken = Some(Broken::SecondRow);
    }
    *letter = Letter { sequence, state: LetterState::Open, replay_began: false };
}

/// `commit::revoke`: the dead letter first, else the row.
fn take_back(state: &mut State, user: User, sequence: Number) {
    let ledger = &mut state.ledger;
    let (letter, row) = (&mut ledger.letters[usize::from(user)], &mut ledger.rows[usize::from(user)]);
    if letter.unsettled() && letter.sequence == sequence {
        letter.state = LetterState::Abandoned;
    } else if *row == sequence {
        *row = 0;
    } else {
        state.broken = Some(Broken::RevokedNothing);
    }
    ledger.revocations[usize::from(user)] = sequence;
}
