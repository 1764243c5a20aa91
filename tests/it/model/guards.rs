//! The guards of the design, each a switch; without any one of them the search must find the harm it keeps away, and says by which steps
//! (`cargo test model::guards -- --nocapture`). Where two guards keep the same harm away, the test shows that both are off before it comes.

use super::scene::Scene;
use super::scenes;
use super::search::{search, tell};
use super::state::Broken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    // The rule.
    TermsApplyInTurn,
    ClosedIsFinal,
    NextSequenceApartFromIssued,
    RevokeNamesItsSequence,
    RevokedNeverBack,
    LoweredTotalKeepsWhatIsIssued,
    // Issuer and follower.
    YesOnlyOnceSeen,
    AskedOnlyWhileFresh,
    NoOnlyWhileFresh,
    NoOnlyOnceCaughtUp,
    BarrierBeforeUnknown,
    FullIsAskedOfTheLog,
    SeenIsAppendedAgain,
    ClosedIsRefusedAtTheApi,
    LoweredTotalIsRaisedAtTheApi,
    SnapshotAtOneInstant,
    SnapshotCountsDeadLetters,
    TombstoneStays,
    // Consumer and ledger.
    OffsetComparedAndSet,
    LoadChecksPositions,
    LoadCountsDeadLetters,
    RefusedRowBecomesDeadLetter,
    AbandonedWithTheRevoke,
    ReplayComparesAndSets,
}

/// Those that are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guards(u32);

impl Guards {
    pub const ALL: Self = Self(u32::MAX);

    pub const fn on(self, guard: Guard) -> bool {
        self.0 & (1 << guard as u32) != 0
    }

    pub const fn with(self, guard: Guard) -> Self {
        Self(self.0 | (1 << guard as u32))
    }

    pub const fn without(self, guard: Guard) -> Self {
        Self(self.0 & !(1 << guard as u32))
    }
}

/// The search finds `harm` in `scene` without `guards`; what only an insider sees on the way there does not count.
#[track_caller]
fn harm_without(guards: &[Guard], scene: Scene, harm: Broken) {
    let mut scene = scene.without(guards);
    scene.blind_to.push(Broken::LedgerIsNotTheLog);
    if harm != Broken::SlotLeaks {
        // Shorter, but its trace ends before the harm.
        scene.blind_to.push(Broken::SlotLeaks);
    }
    let searched = search(&scene);
    let Some((broken, steps)) = searched.broken else {
        panic!("without {guards:?} nothing is found in {} states of scene \"{}\"", searched.states, scene.name);
    };
    let told = tell(&scene, broken, &steps);
    eprintln!("without {guards:?}, {} states: {told}", searched.states);
    assert_eq!(broken, harm, "without {guards:?}: {told}");
}

/// A second line: another guard keeps the harm away as well.
#[track_caller]
fn no_harm_without(guard: Guard, scene: &Scene) {
    let scene = scene.without(&[guard]);
    let searched = search(&scene);
    if let Some((broken, steps)) = searched.broken {
        panic!("{guard:?} is no second line only: {}", tell(&scene, broken, &steps));
    }
    eprintln!("without {guard:?} nothing is found in {} states of scene \"{}\"", searched.states, scene.name);
}

macro_rules! guards {
    ($($name:ident: $guard:ident in $scene:ident finds $harm:ident;)+) => {
        $(#[test]
        fn $name() {
            harm_without(&[Guard::$guard], scenes::$scene(), Broken::$harm);
        })+
    };
}

guards! {
    terms_apply_in_turn: TermsApplyInTurn in changes finds ChangeUndone;
    the_next_sequence_is_apart_from_issued: NextSequenceApartFromIssued in dead_letters finds SequenceTwice;
    a_revoked_user_never_comes_back: RevokedNeverBack in dead_letters finds RevokedHolds;
    a_lowered_total_keeps_what_is_issued: LoweredTotalKeepsWhatIsIssued in changes finds OverIssued;
    yes_only_once_it_was_seen_in_the_log: YesOnlyOnceSeen in answers finds YesNotKept;
    asked_only_while_fresh: AskedOnlyWhileFresh in freshness finds NoNotTrue;
    no_only_while_fresh: NoOnlyWhileFresh in freshness finds NoNotTrue;
    no_only_once_caught_up: NoOnlyOnceCaughtUp in freshness finds NoNotTrue;
    a_barrier_before_unknown: BarrierBeforeUnknown in creation finds NoNotTrue;
    a_gate_that_says_full_is_no_answer: FullIsAskedOfTheLog in answers finds NoNotTrue;
    who_was_seen_by_the_gate_is_appended_again: SeenIsAppendedAgain in answers finds SlotLeaks;
    the_snapshot_is_of_one_instant: SnapshotAtOneInstant in starts finds YesNotKept;
    the_snapshot_counts_open_dead_letters: SnapshotCountsDeadLetters in starts finds YesNotKept;
    the_offset_is_compared_and_set: OffsetComparedAndSet in owners finds Dropped;
    the_state_of_a_consumer_counts_open_dead_letters: LoadCountsDeadLetters in owners finds SecondRow;
    a_refused_row_becomes_a_dead_letter: RefusedRowBecomesDeadLetter in owners finds Dropped;
    abandoned_only_in_the_transaction_that_applies_the_revoke: AbandonedWithTheRevoke in dead_letters finds Dropped;
    a_replay_compares_and_sets_the_state: ReplayComparesAndSets in dead_letters finds RevokedHolds;
}

/// Without it the coupon is unknown at once (404 for a coupon that exists), and after a late copy of its first terms it gives itself out.
#[test]
fn an_unloaded_coupon_leaves_a_tombstone() {
    harm_without(&[Guard::TombstoneStays], scenes::unloading(), Broken::NoNotTrue);
    let mut scene = scenes::unloading();
    scene.blind_to.push(Broken::NoNotTrue);
    harm_without(&[Guard::TombstoneStays], scene, Broken::YesNotKept);
}

/// Who reads CLOSED proposes nothing, and who does not proposes a version that is taken: each check is the other's second line.
#[test]
fn closed_is_final() {
    no_harm_without(Guard::ClosedIsFinal, &scenes::changes());
    no_harm_without(Guard::ClosedIsRefusedAtTheApi, &scenes::changes());
    harm_without(&[Guard::ClosedIsFinal, Guard::ClosedIsRefusedAtTheApi], scenes::changes(), Broken::Reopened);
}

/// While nobody comes back a user has one sequence ever, so its number in the revoke is the second line; without the first it is the only one.
#[test]
fn a_revoke_names_the_sequence_it_takes_back() {
    no_harm_without(Guard::RevokeNamesItsSequence, &scenes::revocations());
    let mut scene = scenes::revocations();
    scene.blind_to.extend([Broken::RevokedHolds, Broken::Dropped]);
    harm_without(&[Guard::RevokedNeverBack, Guard::RevokeNamesItsSequence], scene, Broken::YesNotKept);
}

/// The compare-and-set at the commit refuses what this check only refuses earlier.
#[test]
fn a_load_that_checks_its_position_only_saves_work() {
    no_harm_without(Guard::LoadChecksPositions, &scenes::owners());
}

/// The rule raises a lowered total; the API's own check makes asking for it twice one change.
#[test]
fn a_lowered_total_raised_before_the_append_only_saves_work() {
    no_harm_without(Guard::LoweredTotalIsRaisedAtTheApi, &scenes::changes());
}
