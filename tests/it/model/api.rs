//! What an API does: the issuer's path from a request to an answer, and the follower under it.

use coupon_svc::domain::Refusal;

use super::guards::Guard;
use super::rule::{Decision, Life, Number, Record, Roster, Terms, User, fold};
use super::scene::Scene;
use super::state::{Api, ApiLife, Broken, Offset, Phase, Request, STALE, State};

/// A change an admin asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Pause,
    Open,
    Close,
    Restock,
    LowerToOne,
}

/// `follower::Standing`.
enum Standing {
    Unknown,
    Holder(Number),
    Over,
    No(Refusal),
    Open,
}

impl Api {
    fn standing(&self, user: User) -> Standing {
        if !self.roster.created() {
            Standing::Unknown
        } else if self.over {
            Standing::Over
        } else if self.roster.user(user) > 0 {
            Standing::Holder(self.roster.user(user))
        } else {
            self.roster.no(user).map_or(Standing::Open, Standing::No)
        }
    }
}

impl Scene {
    fn fresh(&self, api: &Api, guard: Guard) -> bool {
        !self.timed() || api.age < STALE || !self.guards.on(guard)
    }

    /// `Issuer::issue`.
    pub(super) fn issue(&self, state: &mut State, at: usize, user: User) {
        let since = state.marks[1];
        let end = state.end();
        if matches!(state.apis[at].standing(user), Standing::Unknown) {
            if self.guards.on(Guard::BarrierBeforeUnknown) {
                *state.apis[at].request(user) = Request { phase: Phase::Barrier(end), since };
            } else {
                self.no(state, user, Refusal::Unknown, end);
            }
        } else {
            self.answer_from(state, at, user, since);
        }
    }

    /// The barrier's end is applied.
    pub(super) fn barrier_passed(&self, state: &mut State, at: usize, user: User, end: Offset) {
        let since = state.apis[at].request(user).since;
        *state.apis[at].request(user) = Request::NONE;
        if matches!(state.apis[at].standing(user), Standing::Unknown) {
            self.no(state, user, Refusal::Unknown, end);
        } else {
            self.answer_from(state, at, user, since);
        }
    }

    /// A request that waits looks at the roster once more.
    pub(super) fn look_again(&self, state: &mut State, at: usize, user: User) {
        let since = state.apis[at].request(user).since;
        *state.apis[at].request(user) = Request::NONE;
        self.answer_from(state, at, user, since);
    }

    pub(super) fn would_wait(state: &State, at: usize, user: User) -> bool {
        matches!(state.apis[at].standing(user), Standing::Open)
    }

    /// `Issuer::answer_from`; what is not answered and does not wait is a 503.
    fn answer_from(&self, state: &mut State, at: usize, user: User, since: Offset) {
        let api = &mut state.apis[at];
        let no = match api.standing(user) {
            Standing::Unknown => return,
            Standing::Holder(sequence) => return Self::yes(state, user, sequence),
            Standing::No(refusal) => refusal,
            Standing::Open => {
                if self.fresh(api, Guard::AskedOnlyWhileFresh) {
                    *api.request(user) = Request { phase: Phase::Waiting, since };
                }
                return;
            }
            Standing::Over => match state.ledger.roster(self.guards, Guard::LoadCountsDeadLetters).user(user) {
                0 => Refusal::Closed,
                sequence if sequence > 0 => return Self::yes(state, user, sequence),
                _ => Refusal::Revoked,
            },
        };
        if self.fresh(&state.apis[at], Guard::NoOnlyWhileFresh) {
            self.no(state, user, no, since);
        }
    }

    /// Without the guard: acknowledged, so answered by what the roster would give next.
    pub(super) fn answer_on_acknowledgement(&self, state: &mut State, at: usize, user: User) {
        let sequence = state.apis[at].roster.next_sequence;
        *state.apis[at].request(user) = Request::NONE;
        Self::yes(state, user, sequence);
    }

    /// Without the guard: the gate said Full, and that is taken for an answer.
    pub(super) fn answer_by_the_gate(&self, state: &mut State, at: usize, user: User) {
        let since = state.apis[at].request(user).since;
        *state.apis[at].request(user) = Request::NONE;
        self.no(state, user, Refusal::SoldOut, since);
    }

    /// ACCEPTED or `ALREADY_ISSUED`.
    fn yes(state: &mut State, user: User, sequence: Number) {
        let told = &mut state.told.sequence[usize::from(user)];
        let letter = state.ledger.letters[usize::from(user)];
        if *told != 0 && *told != sequence && !(letter.given_up() && letter.sequence == *told) {
            state.broken = Some(Broken::OtherSequence);
        }
        *told = sequence;
    }

    /// A "no" must have been true at some length of the log from `since` on.
    fn no(&self, state: &mut State, user: User, refusal: Refusal, since: Offset) {
        let (before, within) = state.log.split_at(usize::from(since));
        let mut roster = fold(before, self.guards);
        let mut was_true = roster.no(user) == Some(refusal);
        for record in within {
            roster.apply(*record, self.guards);
            was_true |= roster.no(user) == Some(refusal);
        }
        if !was_true {
            state.broken = Some(Broken::NoNotTrue);
        }
    }

    /// `Journal::fetch`: its high watermark counts from when it was sent.
    pub(super) fn fetch(&self, state: &mut State, at: usize) {
        let end = state.end();
        let api = &mut state.apis[at];
        if api.pending.is_none_or(|(reached, _)| api.next >= reached) {
            api.pending = Some((end, 0));
        }
        self.reach(api);
    }

    fn reach(&self, api: &mut Api) {
        if let Some((reached, age)) = api.pending
            && (api.next >= reached || !self.guards.on(Guard::NoOnlyOnceCaughtUp))
        {
            api.age = age;
            api.pending = None;
        }
    }

    /// `ShardState::apply` of the next record, and the wake-up of who waits for it.
    pub(super) fn apply(&self, state: &mut State, at: usize) {
        let api = &mut state.apis[at];
        let record = state.log[usize::from(api.next)];
        api.next += 1;
        if !api.roster.created() && !matches!(record, Record::Terms(_)) {
            self.reach(api);
            return;
        }
        let decision = api.roster.apply(record, self.guards);
        self.reach(api);
        match record {
            Record::Issue(user) if api.request(user).phase == Phase::Waiting => {
                let since = api.request(user).since;
                *api.request(user) = Request::NONE;
                match decision {
                    Decision::Won(sequence) | Decision::Already(sequence) => Self::yes(state, user, sequence),
                    // Decided in the log itself: no freshness is needed.
                    Decision::Refused(refusal) => self.no(state, user, refusal, since),
                    _ => {}
                }
            }
            Record::Terms(terms) if api.change == Some(terms) => {
                api.change = None;
                let holds = api.roster.terms;
                if decision == Decision::TermsApplied && state.told.change.is_none_or(|told| told.version < holds.version) {
                    state.told.change = Some(holds);
                }
            }
            _ => {}
        }
    }

    /// `Follower::start`: positions and rows at one instant.
    pub(super) fn start(&self, state: &mut State, at: usize) {
        state.apis[at].next = state.ledger.next;
        self.read_rows(state, at);
    }

    pub(super) fn read_rows(&self, state: &mut State, at: usize) {
        let roster = state.ledger.roster(self.guards, Guard::SnapshotCountsDeadLetters);
        let counted = self.guards.on(Guard::SnapshotCountsDeadLetters);
        let held = counted && state.ledger.letters.iter().any(super::state::Letter::unsettled);
        let over = roster.created() && roster.terms.status == Life::Closed && !held;
        let api = &mut state.apis[at];
        api.life = ApiLife::Up;
        api.over = over;
        api.roster = if over { roster.without_users() } else { roster };
    }

    /// `Follower::unload`, where it would.
    pub(super) fn may_unload(state: &State, at: usize) -> bool {
        let (api, ledger) = (&state.apis[at], &state.ledger);
        let closed = |roster: &Roster| roster.created() && roster.terms.status == Life::Closed;
        let written = api.roster.issued == ledger.coupon.issued && api.roster.next_sequence == ledger.coupon.next_sequence;
        let waited_for = api.requests.iter().any(|request| request.phase == Phase::Waiting);
        let unsettled = ledger.letters.iter().any(super::state::Letter::unsettled);
        !api.over && closed(&api.roster) && closed(&ledger.coupon) && written && !unsettled && !waited_for
    }

    pub(super) fn unload(&self, state: &mut State, at: usize) {
        let api = &mut state.apis[at];
        if self.guards.on(Guard::TombstoneStays) {
            api.over = true;
            api.roster = api.roster.without_users();
        } else {
            api.roster = Roster::default();
        }
    }

    /// `Issuer::change`: the terms it would propose.
    pub(super) fn proposal(&self, api: &Api, wish: Wish) -> Option<Terms> {
        let now = api.roster.terms;
        let mut next = Terms { version: now.version + 1, ..now };
        match wish {
            Wish::Pause => next.status = Life::Paused,
            Wish::Open => next.status = Life::Open,
            Wish::Close => next.status = Life::Closed,
            Wish::Restock => next.total += 1,
            Wish::LowerToOne => next.total = 1,
        }
        if self.guards.on(Guard::LoweredTotalIsRaisedAtTheApi) {
            next.total = next.total.max(api.roster.issued);
        }
        let same_wish = (next.status, next.total) == (now.status, now.total);
        let closed = now.status == Life::Closed && self.guards.on(Guard::ClosedIsRefusedAtTheApi);
        (api.roster.created() && api.change.is_none() && !same_wish && !closed).then_some(next)
    }
}
