//! A scene: what may happen in one configuration of the model, and every single step of it.

use super::api::Wish;
use super::guards::{Guard, Guards};
use super::rule::{Record, Terms, User};
use super::state::{Api, ApiLife, Broken, Consumer, Ledger, Left, LetterState, Offset, Phase, Request, STALE, State, Told};

/// Records a consumer takes at a time, at most.
const BATCH: Offset = 2;

/// One small configuration.
#[derive(Debug, Clone)]
pub struct Scene {
    pub name: &'static str,
    pub guards: Guards,
    /// What the log begins with.
    pub log: Vec<Record>,
    /// What others sent and may land at any time, in any order; sorted.
    pub in_flight: Vec<Record>,
    /// How many users ask at each of the APIs.
    pub asking: [u8; 2],
    /// APIs of the scene; they all run at first, or all have yet to start.
    pub apis: usize,
    pub up: bool,
    /// Changes that an admin may ask for at either API.
    pub wishes: Vec<Wish>,
    /// Whether the ledger is written during the scene, or only once all is quiet.
    pub drains: bool,
    /// Owners at once; 0: the log is drained record by record, each in one step.
    pub consumers: usize,
    pub left: Left,
    /// What this search does not stop at.
    pub blind_to: Vec<Broken>,
}

/// One step of anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An append in flight lands.
    Lands(Record),
    /// A copy of an append lands late.
    LandsAgain(Record),
    /// `Issuer::issue` begins.
    Issue(usize, User),
    BarrierPassed(usize, User, Offset),
    /// The gate said Pass or Seen, or Full for too long: `append_and_wait`.
    Append(usize, User),
    /// The roster changed while the request waited.
    LooksAgain(usize, User),
    /// Deadline: 503.
    GivesUp(usize, User),
    AnsweredOnAcknowledgement(usize, User),
    AnsweredByTheGate(usize, User),
    Fetch(usize),
    Apply(usize),
    HalfSecondPasses,
    Dies(usize),
    Starts(usize),
    ReadsPositions(usize),
    ReadsRows(usize),
    Unloads(usize),
    Proposes(usize, Terms),
    Adopts(usize),
    Loads(usize, Offset),
    Commits(usize, Option<User>),
    Forgets(usize),
    Drains(Option<User>),
    ReplayReads(User),
    Replays(User),
    Abandons(User),
    RevokeAppended(User),
}

impl State {
    pub fn end(&self) -> Offset {
        Offset::try_from(self.log.len()).unwrap()
    }

    pub fn send(&mut self, record: Record) {
        self.left.appends -= 1;
        let place = self.in_flight.partition_point(|other| *other < record);
        self.in_flight.insert(place, record);
    }
}

impl Scene {
    pub fn timed(&self) -> bool {
        self.left.half_seconds > 0
    }

    pub fn without(&self, guards: &[Guard]) -> Self {
        let guards = guards.iter().fold(self.guards, |on, guard| on.without(*guard));
        Self { guards, ..self.clone() }
    }

    pub fn first_state(&self) -> State {
        State {
            log: self.log.clone(),
            in_flight: self.in_flight.clone(),
            apis: [if self.up { Api::new() } else { Api::down() }; 2],
            consumers: [Consumer::Away; 2],
            ledger: Ledger::default(),
            told: Told::default(),
            marks: [0; 2],
            left: self.left,
            broken: None,
        }
    }

    /// Every step that somebody may take in `state`.
    pub fn steps(&self, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, record) in state.in_flight.iter().enumerate() {
            if index == 0 || state.in_flight[index - 1] != *record {
                steps.push(Step::Lands(*record));
            }
        }
        if state.left.copies > 0 {
            for (index, record) in state.log.iter().enumerate() {
                if !state.log[..index].contains(record) {
                    steps.push(Step::LandsAgain(*record));
                }
            }
        }
        if state.left.half_seconds > 0 {
            steps.push(Step::HalfSecondPasses);
        }
        for at in 0..self.apis {
            self.api_steps(state, at, &mut steps);
        }
        if self.drains && self.consumers == 0 && state.ledger.next < state.end() {
            let roster = state.ledger.roster(self.guards, Guard::LoadCountsDeadLetters);
            self.write_steps(state, (state.ledger.next, state.ledger.next + 1), roster, Step::Drains, &mut steps);
        }
        for by in 0..self.consumers {
            self.consumer_steps(state, by, &mut steps);
        }
        self.letter_steps(state, &mut steps);
        steps
    }

    fn api_steps(&self, state: &State, at: usize, steps: &mut Vec<Step>) {
        let api = &state.apis[at];
        match api.life {
            ApiLife::Down if self.guards.on(Guard::SnapshotAtOneInstant) => return steps.push(Step::Starts(at)),
            ApiLife::Down => return steps.push(Step::ReadsPositions(at)),
            ApiLife::Positions => return steps.push(Step::ReadsRows(at)),
            ApiLife::Up => {}
        }
        if state.left.crashes > 0 {
            steps.push(Step::Dies(at));
        }
        if self.timed() {
            steps.push(Step::Fetch(at));
        }
        if api.next < state.end() {
            steps.push(Step::Apply(at));
        }
        if state.left.unloads > 0 && Self::may_unload(state, at) {
            steps.push(Step::Unloads(at));
        }
        for user in 0..self.asking[at] {
            self.request_steps(state, at, user, steps);
        }
        if state.left.appends > 0 {
            steps.extend(self.wishes.iter().filter_map(|wish| self.proposal(api, *wish)).map(|terms| Step::Proposes(at, terms)));
        }
    }

    fn request_steps(&self, state: &State, at: usize, user: User, steps: &mut Vec<Step>) {
        let api = &state.apis[at];
        match api.requests[usize::from(user)].phase {
            Phase::None => steps.push(Step::Issue(at, user)),
            Phase::Barrier(end) => {
                if api.next >= end {
                    steps.push(Step::BarrierPassed(at, user, end));
                }
                steps.push(Step::GivesUp(at, user));
            }
            Phase::Waiting => {
                if state.left.appends > 0 {
                    steps.push(Step::Append(at, user));
                }
                if !Self::would_wait(state, at, user) {
                    steps.push(Step::LooksAgain(at, user));
                }
                if !self.guards.on(Guard::FullIsAskedOfTheLog) {
                    steps.push(Step::AnsweredByTheGate(at, user));
                }
                if !self.guards.on(Guard::YesOnlyOnceSeen) && state.log.contains(&Record::Issue(user)) {
                    steps.push(Step::AnsweredOnAcknowledgement(at, user));
                }
                steps.push(Step::GivesUp(at, user));
            }
        }
    }

    fn consumer_steps(&self, state: &State, by: usize, steps: &mut Vec<Step>) {
        match state.consumers[by] {
            Consumer::Away => steps.push(Step::Adopts(by)),
            Consumer::Reading(from) => {
                steps.extend((from + 1..=state.end().min(from + BATCH)).map(|to| Step::Loads(by, to)));
                steps.push(Step::Forgets(by));
            }
            Consumer::Loaded { from, to, roster } => {
                self.write_steps(state, (from, to), roster, |refused| Step::Commits(by, refused), steps);
                steps.push(Step::Forgets(by));
            }
        }
    }

    fn write_steps(
        &self,
        state: &State,
        (from, to): (Offset, Offset),
        roster: super::rule::Roster,
        step: impl Fn(Option<User>) -> Step,
        steps: &mut Vec<Step>,
    ) {
        steps.push(step(None));
        if state.left.refusals > 0 {
            steps.extend(self.winners(state, from, to, roster).into_iter().map(|user| step(Some(user))));
        }
    }

    fn letter_steps(&self, state: &State, steps: &mut Vec<Step>) {
        for (user, letter) in (0..).zip(state.ledger.letters) {
            let open = letter.state == LetterState::Open;
            if self.guards.on(Guard::ReplayComparesAndSets) {
                steps.extend(open.then_some(Step::Replays(user)));
            } else {
                steps.extend((open && !letter.replay_began).then_some(Step::ReplayReads(user)));
                steps.extend(letter.replay_began.then_some(Step::Replays(user)));
            }
            if open {
                steps.push(Step::Abandons(user));
            }
            if letter.state == LetterState::Abandoning && state.left.appends > 0 {
                steps.push(Step::RevokeAppended(user));
            }
        }
    }

    pub fn take(&self, before: &State, step: Step) -> State {
        let mut state = before.clone();
        match step {
            Step::Lands(record) => {
                let place = state.in_flight.iter().position(|other| *other == record).unwrap();
                state.in_flight.remove(place);
                state.log.push(record);
            }
            Step::LandsAgain(record) => {
                state.left.copies -= 1;
                state.log.push(record);
            }
            Step::Issue(at, user) => self.issue(&mut state, at, user),
            Step::BarrierPassed(at, user, end) => self.barrier_passed(&mut state, at, user, end),
            Step::Append(_, user) => state.send(Record::Issue(user)),
            Step::LooksAgain(at, user) => self.look_again(&mut state, at, user),
            Step::GivesUp(at, user) => *state.apis[at].request(user) = Request::NONE,
            Step::AnsweredOnAcknowledgement(at, user) => self.answer_on_acknowledgement(&mut state, at, user),
            Step::AnsweredByTheGate(at, user) => self.answer_by_the_gate(&mut state, at, user),
            Step::Fetch(at) => self.fetch(&mut state, at),
            Step::Apply(at) => self.apply(&mut state, at),
            Step::HalfSecondPasses => half_second(&mut state),
            Step::Dies(at) => {
                state.left.crashes -= 1;
                state.apis[at] = Api::down();
            }
            Step::Starts(at) => self.start(&mut state, at),
            Step::ReadsPositions(at) => {
                state.apis[at].life = ApiLife::Positions;
                state.apis[at].next = state.ledger.next;
            }
            Step::ReadsRows(at) => self.read_rows(&mut state, at),
            Step::Unloads(at) => {
                state.left.unloads -= 1;
                self.unload(&mut state, at);
            }
            Step::Proposes(at, terms) => {
                state.apis[at].change = Some(terms);
                state.send(Record::Terms(terms));
            }
            Step::Adopts(by) => state.consumers[by] = Consumer::Reading(state.ledger.next),
            Step::Loads(by, to) => {
                if let Consumer::Reading(from) = state.consumers[by] {
                    self.load(&mut state, by, from, to);
                }
            }
            Step::Commits(by, refused) => {
                if let Consumer::Loaded { from, to, roster } = state.consumers[by] {
                    let written = self.commit(&mut state, from, to, roster, refused);
                    state.consumers[by] = if written { Consumer::Reading(to) } else { Consumer::Away };
                }
            }
            Step::Forgets(by) => state.consumers[by] = Consumer::Away,
            Step::Drains(refused) => {
                let (next, roster) = (state.ledger.next, state.ledger.roster(self.guards, Guard::LoadCountsDeadLetters));
                self.commit(&mut state, next, next + 1, roster, refused);
            }
            Step::ReplayReads(user) => state.ledger.letters[usize::from(user)].replay_began = true,
            Step::Replays(user) => Self::replay(&mut state, user),
            Step::Abandons(user) => state.ledger.letters[usize::from(user)].state = LetterState::Abandoning,
            Step::RevokeAppended(user) => self.append_revoke(&mut state, user),
        }
        state
    }
}

fn half_second(state: &mut State) {
    state.left.half_seconds -= 1;
    state.marks = [state.end(), state.marks[0]];
    for api in &mut state.apis {
        api.age = (api.age + 1).min(STALE);
        // Two are as good as many.
        api.pending = api.pending.map(|(reached, age)| (reached, (age + 1).min(STALE)));
    }
}
