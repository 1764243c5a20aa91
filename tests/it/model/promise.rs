//! What must hold in every state, and what must become of it once all is quiet.

use super::guards::Guard;
use super::rule::{Life, Record, Roster, USERS, User, fold};
use super::scene::{Scene, Step};
use super::state::{ApiLife, Broken, Left, Phase, State};

impl Scene {
    /// What is broken in `state`.
    pub fn broken(&self, state: &State) -> Option<Broken> {
        let seen = |broken: &Broken| !self.blind_to.contains(broken);
        let checks = [Self::rows, Self::accounts, Self::answers, Self::changes, Self::ledger, Self::slots];
        state.broken.filter(seen).or_else(|| checks.iter().find_map(|check| check(self, state).filter(seen)))
    }

    /// P1 and P2 in the tables.
    fn rows(&self, state: &State) -> Option<Broken> {
        let ledger = &state.ledger;
        let rows = ledger.rows.iter().filter(|sequence| **sequence != 0).count();
        if rows > usize::try_from(ledger.coupon.terms.total).unwrap_or(0) {
            return Some(Broken::OverIssued);
        }
        let second = (0..USERS).any(|user| ledger.rows[user] != 0 && ledger.letters[user].unsettled());
        second.then_some(Broken::SecondRow)
    }

    /// P7: every number that was given out is a row, an unsettled dead letter or a revocation, and only one of them.
    fn accounts(&self, state: &State) -> Option<Broken> {
        let ledger = &state.ledger;
        let mut given = [0; 8];
        let mut total = 0;
        for user in 0..USERS {
            let letter = ledger.letters[user];
            let unsettled = if letter.unsettled() { letter.sequence } else { 0 };
            if ledger.rows[user] != 0 && ledger.revocations[user] != 0 && !self.blind_to.contains(&Broken::RevokedHolds) {
                return Some(Broken::RevokedHolds);
            }
            for sequence in [ledger.rows[user], ledger.revocations[user], unsettled].into_iter().filter(|sequence| *sequence != 0) {
                let times = &mut given[usize::try_from(sequence).unwrap()];
                *times += 1;
                total += 1;
                if *times > 1 {
                    return Some(Broken::SequenceTwice);
                }
            }
        }
        (total != ledger.coupon.next_sequence - 1).then_some(Broken::Dropped)
    }

    /// P3: who was told yes has it in the log, and in the ledger once that has read all of it.
    fn answers(&self, state: &State) -> Option<Broken> {
        if state.told.sequence == [0; USERS] {
            return None;
        }
        let now = fold(&state.log, self.guards);
        let drained = state.ledger.next == state.end();
        let kept = |user: usize, told| {
            let letter = &state.ledger.letters[user];
            let taken_back = letter.given_up() && letter.sequence == told;
            let written = state.ledger.rows[user] == told || (letter.unsettled() && letter.sequence == told);
            taken_back || (now.users[user] == told && (written || !drained))
        };
        let broken = state.told.sequence.into_iter().enumerate().any(|(user, told)| told != 0 && !kept(user, told));
        broken.then_some(Broken::YesNotKept)
    }

    /// CLOSED is final, no change leaves less stock than is issued, and what an admin was told is done stays done until the next change.
    fn changes(&self, state: &State) -> Option<Broken> {
        if self.wishes.is_empty() {
            return None;
        }
        let mut now = Roster::default();
        let mut closed = false;
        for record in &state.log {
            now.apply(*record, self.guards);
            let is_closed = now.created() && now.terms.status == Life::Closed;
            if closed && !is_closed {
                return Some(Broken::Reopened);
            }
            closed = is_closed;
        }
        if now.issued > now.terms.total {
            return Some(Broken::OverIssued);
        }
        let told = state.told.change?;
        let undone = now.terms.version < told.version || (now.terms.version == told.version && now.terms != told);
        undone.then_some(Broken::ChangeUndone)
    }

    /// The ledger is the fold of the log up to its offset.
    fn ledger(&self, state: &State) -> Option<Broken> {
        let expected = fold(&state.log[..usize::from(state.ledger.next)], self.guards);
        let same = state.ledger.roster(self.guards.with(Guard::LoadCountsDeadLetters), Guard::LoadCountsDeadLetters) == expected;
        (!same).then_some(Broken::LedgerIsNotTheLog)
    }

    /// P4: from a quiet state everybody asks at one API, with the gate against them: each gets an answer that is final, and no slot is left.
    fn slots(&self, state: &State) -> Option<Broken> {
        if self.blind_to.contains(&Broken::SlotLeaks) {
            return None;
        }
        let drained = !self.drains || state.ledger.next == state.end();
        let quiet = drained && state.apis.iter().all(|api| api.requests.iter().all(|request| request.phase == Phase::None));
        let leaks = quiet && (0..self.apis).any(|at| self.asking[at] > 0 && self.leaks_at(state, at));
        leaks.then_some(Broken::SlotLeaks)
    }

    fn leaks_at(&self, state: &State, at: usize) -> bool {
        let mut state = State { left: Left { appends: 9, ..Left::default() }, ..state.clone() };
        match state.apis[at].life {
            ApiLife::Up => {}
            ApiLife::Down => state = self.take(&state, Step::Starts(at)),
            ApiLife::Positions => state = self.take(&state, Step::ReadsRows(at)),
        }
        for user in 0..self.asking[at] {
            state = self.catch_up(&state, at);
            state = self.take(&state, Step::Issue(at, user));
            if let Phase::Barrier(end) = state.apis[at].request(user).phase {
                state = self.take(&state, Step::BarrierPassed(at, user, end));
            }
            if state.apis[at].request(user).phase == Phase::Waiting && !self.gate_stands_in_the_way(&state, user) {
                state = self.take(&state, Step::Append(at, user));
                state = self.take(&state, Step::Lands(Record::Issue(user)));
                state = self.catch_up(&state, at);
            }
            // With a fresh reader no request goes without an answer.
            if state.apis[at].request(user).phase != Phase::None {
                return true;
            }
        }
        while state.ledger.next < state.end() {
            state = self.take(&state, Step::Drains(None));
        }
        let holders = state.ledger.roster(self.guards, Guard::LoadCountsDeadLetters).users;
        let without = (0..self.asking[at]).any(|user| holders[usize::from(user)] == 0);
        let open = state.ledger.coupon.created() && state.ledger.coupon.terms.status == Life::Open;
        let held = holders.iter().filter(|sequence| **sequence > 0).count();
        open && without && held != usize::try_from(state.ledger.coupon.terms.total).unwrap()
    }

    /// The gate says Seen to whoever asked before.
    fn gate_stands_in_the_way(&self, state: &State, user: User) -> bool {
        let asked_before = state.log.contains(&Record::Issue(user)) || state.in_flight.contains(&Record::Issue(user));
        asked_before && !self.guards.on(Guard::SeenIsAppendedAgain)
    }

    fn catch_up(&self, state: &State, at: usize) -> State {
        let mut state = self.take(state, Step::Fetch(at));
        while state.apis[at].next < state.end() {
            state = self.take(&state, Step::Apply(at));
        }
        self.take(&state, Step::Fetch(at))
    }
}
