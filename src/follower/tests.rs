//! The follower on a real journal and a real ledger, both SQLite.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::testing::{terms, user};
use crate::domain::{Body, Status, encode, fingerprint, now_millis};
use crate::journal::SqliteJournal;
use crate::ledger::{Batch, CouponRow, DeadLetter, DeadLetterState, DeadWin, IssuedRow, Ledger, Move, SqliteLedger, TermsRow};

pub(super) struct World {
    pub(super) journal: Arc<SqliteJournal>,
    pub(super) ledger: SqliteLedger,
    pub(super) coupon: CouponId,
    dir: tempfile::TempDir,
}

pub(super) fn issue(name: &str) -> Body {
    Body::Issue { user_id: user(name), at: now_millis(), trace_id: String::new() }
}

async fn open(dir: &Path) -> (Arc<SqliteJournal>, SqliteLedger) {
    let ledger = SqliteLedger::open(&dir.join("ledger.db")).unwrap();
    ledger.migrate().await.unwrap();
    ledger.fix_partitions(1).await.unwrap();
    (Arc::new(SqliteJournal::open(&dir.join("journal.db")).unwrap()), ledger)
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (journal, ledger) = open(dir.path()).await;
        Self { journal, ledger, coupon: CouponId::random(), dir }
    }

    pub(super) async fn append(&self, body: &Body) {
        self.journal.append(0, self.coupon, encode(body).unwrap()).await.unwrap();
    }

    /// Carries out statements on the journal behind its back.
    fn damage(&self, statements: &str) {
        crate::journal::testing::damage(&self.dir.path().join("journal.db"), statements);
    }

    async fn start(&self) -> Result<Arc<Follower>, StartError> {
        let metrics = Arc::new(Metrics::new().unwrap());
        let options = Options { end_regress: Duration::from_millis(100), ..Options::default() };
        Follower::start(Arc::clone(&self.journal) as Arc<dyn Journal>, &self.ledger, options, metrics).await
    }

    /// A follower that tails until the token is dropped.
    pub(super) async fn tail(&self) -> (Arc<Follower>, tokio_util::sync::DropGuard) {
        let follower = self.start().await.unwrap();
        let cancel = CancellationToken::new();
        tokio::spawn(Arc::clone(&follower).tail(0, cancel.clone()));
        follower.caught_up().await;
        (follower, cancel.drop_guard())
    }

    /// Writes the first `to` records of the log, of which the first created the coupon and the second was won by alice.
    pub(super) async fn write_two(&self, status: Status) {
        let records = self.journal.fetch(0, 0, 1 << 20, Duration::ZERO).await.unwrap().records;
        let print = fingerprint(&records[1].key, &records[1].value);
        let terms = terms(1, 5, status);
        let batch = Batch {
            moves: vec![Move { partition: 0, from: 0, to: 2, fingerprint: print }],
            coupons: vec![CouponRow { coupon: self.coupon, partition: 0, terms: terms.clone(), issued: 1, next_sequence: 2 }],
            terms: vec![TermsRow { coupon: self.coupon, terms, log_offset: 0 }],
            issued: vec![IssuedRow { coupon: self.coupon, user: user("alice"), sequence: 1, log_offset: 1, requested_at: 1, issued_at: 0 }],
            ..Batch::default()
        };
        self.ledger.commit(&batch).await.unwrap();
    }
}

pub(super) fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(5)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_to_wait_has_won_and_the_others_are_holders() {
    let world = World::new().await;
    let (follower, _tailing) = world.tail().await;
    let wait = |name| follower.wait_for_user(world.coupon, &user(name)).map(|(wait, _)| wait);
    assert_eq!(wait("alice").unwrap_err().standing, Standing::Unknown, "nobody waits for a coupon that is not there");
    world.append(&Body::Terms(terms(1, 1, Status::Open))).await;
    follower.barrier(world.coupon, soon()).await.unwrap();
    let (mut first, mut second, mut bob) = (wait("alice").unwrap(), wait("alice").unwrap(), wait("bob").unwrap());
    assert!(first.is_first() && !second.is_first() && bob.is_first());
    world.append(&issue("alice")).await;
    world.append(&issue("bob")).await;
    assert_eq!(first.seen().await, Some(Seen::Won(1)));
    assert_eq!(second.seen().await, Some(Seen::Holder(1)));
    assert_eq!(bob.seen().await, Some(Seen::Refused(Refusal::SoldOut)));
    assert_eq!(follower.standing(world.coupon, &user("alice")), Standing::Holder(1));
    assert_eq!(follower.standing(world.coupon, &user("carol")), Standing::No(Refusal::SoldOut));
    assert_eq!(wait("alice").unwrap_err().standing, Standing::Holder(1), "nor where the roster has the answer");
    assert_eq!(wait("carol").unwrap_err().standing, Standing::No(Refusal::SoldOut));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_dropped_leaves_nothing_behind() {
    let world = World::new().await;
    let (follower, _tailing) = world.tail().await;
    world.append(&Body::Terms(terms(1, 1, Status::Open))).await;
    follower.barrier(world.coupon, soon()).await.unwrap();
    drop(follower.wait_for_user(world.coupon, &user("alice")));
    drop(follower.wait_for_change(world.coupon, Uuid::new_v4()));
    let shard = follower.shard(world.coupon).lock();
    assert!(shard.coupons[&world.coupon].waiters.is_empty() && shard.change_waiters.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_passes_only_when_everything_before_it_is_applied() {
    let world = World::new().await;
    let follower = world.start().await.unwrap();
    world.append(&Body::Terms(terms(1, 1, Status::Open))).await;
    let shortly = tokio::time::Instant::now() + Duration::from_millis(100);
    assert_eq!(follower.barrier(world.coupon, shortly).await, Err(BarrierFailed), "nothing is tailed yet");
    let cancel = CancellationToken::new();
    tokio::spawn(Arc::clone(&follower).tail(0, cancel.clone()));
    let passing = (0..50).map(|_| follower.barrier(world.coupon, soon()));
    assert!(futures_util::future::join_all(passing).await.iter().all(Result::is_ok));
    assert!(follower.coupon(world.coupon).is_some());
    cancel.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_no_longer_hears_from_the_log_is_not_fresh() {
    let world = World::new().await;
    let (follower, tailing) = world.tail().await;
    while !follower.fresh(world.coupon) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(tailing);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(!follower.fresh(world.coupon));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_takes_the_ledger_for_the_past_and_the_log_for_the_rest() {
    let world = World::new().await;
    world.append(&Body::Terms(terms(1, 5, Status::Open))).await;
    world.append(&issue("alice")).await;
    world.write_two(Status::Open).await;
    world.append(&issue("bob")).await;
    world.append(&issue("alice")).await;
    let (follower, _tailing) = world.tail().await;
    assert_eq!(follower.standing(world.coupon, &user("alice")), Standing::Holder(1));
    assert_eq!(follower.standing(world.coupon, &user("bob")), Standing::Holder(2));
    assert_eq!(follower.coupon(world.coupon).unwrap().issued, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_not_the_ledgers_is_refused() {
    let world = World::new().await;
    world.append(&Body::Terms(terms(1, 5, Status::Open))).await;
    world.append(&issue("alice")).await;
    world.write_two(Status::Open).await;
    let other = tempfile::tempdir().unwrap();
    let (journal, _) = open(other.path()).await;
    let mut world = World { journal, ..world };
    let refused = world.start().await.unwrap_err();
    assert!(matches!(refused, StartError::OtherLog { partition: 0, .. }), "shorter: {refused}");
    for name in ["x", "y", "z"] {
        world.append(&issue(name)).await;
    }
    let refused = world.start().await.unwrap_err();
    assert!(matches!(refused, StartError::OtherLog { partition: 0, .. }), "grown again: {refused}");
    world.coupon = CouponId::random();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_version_stops_the_reader_before_it() {
    let world = World::new().await;
    let (follower, _tailing) = world.tail().await;
    world.append(&Body::Terms(terms(1, 5, Status::Open))).await;
    follower.barrier(world.coupon, soon()).await.unwrap();
    world.journal.append(0, world.coupon, br#"{"v":2,"type":"issue"}"#.to_vec()).await.unwrap();
    world.append(&issue("alice")).await;
    let shortly = tokio::time::Instant::now() + Duration::from_millis(300);
    assert_eq!(follower.barrier(world.coupon, shortly).await, Err(BarrierFailed));
    assert_eq!(follower.applied(0), 1);
    assert!(follower.stopped()[0].1.contains("newer"), "{:?}", follower.stopped());
    assert!(!follower.fresh(world.coupon), "no 'no' from a reader that stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_coupon_is_unloaded_once_it_is_written_and_no_late_record_revives_it() {
    let world = World::new().await;
    let created = terms(1, 5, Status::Open);
    world.append(&Body::Terms(created.clone())).await;
    world.append(&issue("alice")).await;
    let (follower, _tailing) = world.tail().await;
    world.append(&Body::Terms(terms(2, 5, Status::Closed))).await;
    follower.barrier(world.coupon, soon()).await.unwrap();
    assert_eq!(follower.unload(&world.ledger).await.unwrap(), [], "not written yet");
    world.write_two(Status::Closed).await;
    assert_eq!(follower.unload(&world.ledger).await.unwrap(), [world.coupon]);
    assert_eq!(follower.standing(world.coupon, &user("alice")), Standing::Over);
    world.append(&Body::Terms(created)).await;
    follower.barrier(world.coupon, soon()).await.unwrap();
    assert_eq!(follower.standing(world.coupon, &user("bob")), Standing::Over);
    assert_eq!(follower.coupon(world.coupon).unwrap().terms.status, Status::Closed);
}

#[test]
fn a_reader_is_as_fresh_as_the_fetch_whose_end_it_reached() {
    let shard = Shard::new(shard::ShardState::default());
    let hasher = UserHasher::random();
    let fresh_at = |from: Offset, count: Offset, high_watermark, sent_at| {
        let raw = |offset| crate::journal::RawRecord { offset, key: Vec::new().into(), value: Vec::new().into(), at: 0 };
        let fetched = crate::journal::Fetched { records: (from..from + count).map(raw).collect(), high_watermark, sent_at };
        shard.apply(&fetched, 0, 1, &hasher).unwrap();
        shard.lock().fresh_at
    };
    let begin = Instant::now();
    let sent = |seconds| begin + Duration::from_secs(seconds);
    assert_eq!(fresh_at(0, 2, 4, sent(0)), None, "two are missing");
    assert_eq!(fresh_at(2, 1, 9, sent(1)), None, "one is missing of what there was at first");
    assert_eq!(fresh_at(3, 1, 9, sent(2)), Some(sent(0)));
    assert_eq!(fresh_at(4, 4, 9, sent(3)), Some(sent(0)), "one is missing again");
    assert_eq!(fresh_at(8, 1, 9, sent(4)), Some(sent(4)), "this fetch says itself that it is the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_first_to_wait_gives_up_the_others_begin_anew() {
    let world = World::new().await;
    let (follower, _tailing) = world.tail().await;
    world.append(&Body::Terms(terms(1, 1, Status::Open))).await;
    follower.barrier(world.coupon, soon()).await.unwrap();
    let wait = || follower.wait_for_user(world.coupon, &user("alice")).unwrap().0;
    let (first, mut second, third) = (wait(), wait(), wait());
    drop(third);
    drop(first);
    assert_eq!(tokio::time::timeout_at(soon(), second.seen()).await, Ok(None));
    drop(second);
    assert!(wait().is_first());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_to_one_version_the_second_hears_that_it_did_not_apply() {
    let world = World::new().await;
    let (follower, _tailing) = world.tail().await;
    let (one, two) = (terms(1, 5, Status::Open), Terms { change_id: Uuid::from_u128(2), ..terms(1, 9, Status::Open) });
    let mut waits = [&one, &two].map(|terms| follower.wait_for_change(world.coupon, terms.change_id));
    world.append(&Body::Terms(one)).await;
    world.append(&Body::Terms(two)).await;
    assert_eq!((waits[0].applied().await, waits[1].applied().await), (Some(true), Some(false)));
    assert_eq!(follower.coupon(world.coupon).unwrap().terms.total_quantity, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_pass_a_full_gate_at_a_time_as_there_are_slots() {
    let world = World::new().await;
    let (follower, _tailing) = world.tail().await;
    world.append(&Body::Terms(terms(1, 2, Status::Open))).await;
    follower.barrier(world.coupon, soon()).await.unwrap();
    let first = follower.overflow_permit(world.coupon);
    let second = follower.overflow_permit(world.coupon);
    assert!(first.is_some() && second.is_some() && follower.overflow_permit(world.coupon).is_none());
    drop(first);
    assert!(follower.overflow_permit(world.coupon).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_coupon_that_was_never_created_leave_nothing_behind() {
    let world = World::new().await;
    let (follower, _tailing) = world.tail().await;
    world.append(&Body::Terms(terms(2, 5, Status::Open))).await;
    world.append(&issue("alice")).await;
    world.append(&Body::Revoke { user_id: user("alice"), sequence: 1, reason: String::new(), at: 1 }).await;
    follower.barrier(world.coupon, soon()).await.unwrap();
    assert!(follower.shard(world.coupon).lock().coupons.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_stays_loaded_while_the_ledger_lacks_one_of_its_wins() {
    let world = World::new().await;
    world.append(&Body::Terms(terms(1, 5, Status::Open))).await;
    world.append(&issue("alice")).await;
    world.append(&issue("bob")).await;
    world.append(&Body::Terms(terms(2, 5, Status::Closed))).await;
    let (follower, _tailing) = world.tail().await;
    world.write_two(Status::Closed).await;
    assert_eq!(follower.unload(&world.ledger).await.unwrap(), []);
    assert_eq!(follower.standing(world.coupon, &user("bob")), Standing::Holder(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_stays_loaded_while_one_of_its_dead_letters_is_open() {
    let world = World::new().await;
    world.append(&Body::Terms(terms(1, 5, Status::Open))).await;
    world.append(&issue("alice")).await;
    world.append(&Body::Terms(terms(2, 5, Status::Closed))).await;
    let (follower, _tailing) = world.tail().await;
    let letter = DeadLetter {
        id: 0,
        partition: 0,
        log_offset: 1,
        win: Some(DeadWin { coupon: world.coupon, user: user("alice"), sequence: 1, requested_at: 1 }),
        error: String::new(),
        key: Vec::new(),
        value: Vec::new(),
        state: DeadLetterState::Open,
        created_at: 1,
        updated_at: 1,
    };
    let batch = Batch {
        coupons: vec![CouponRow { coupon: world.coupon, partition: 0, terms: terms(2, 5, Status::Closed), issued: 1, next_sequence: 2 }],
        dead_letters: vec![letter],
        ..Batch::default()
    };
    world.ledger.commit(&batch).await.unwrap();
    assert_eq!(follower.unload(&world.ledger).await.unwrap(), []);
    assert_eq!(follower.standing(world.coupon, &user("alice")), Standing::Holder(1));
}

/// A reader whose log is no longer what it was stops, and says why.
async fn stops(has_read: bool, statements: &str, reason: &str) {
    let world = World::new().await;
    for name in ["x", "y", "z"] {
        world.append(&issue(name)).await;
    }
    let follower = world.start().await.unwrap();
    if has_read {
        let cancel = CancellationToken::new();
        let tailing = tokio::spawn(Arc::clone(&follower).tail(0, cancel.clone()));
        follower.caught_up().await;
        cancel.cancel();
        tailing.await.unwrap();
    }
    world.damage(statements);
    let cancel = CancellationToken::new();
    let _tailing = cancel.clone().drop_guard();
    tokio::spawn(Arc::clone(&follower).tail(0, cancel));
    let stops = async {
        while follower.stopped().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout_at(soon(), stops).await.is_ok(), "the reader goes on: {:?}", follower.applied(0));
    assert!(follower.stopped()[0].1.contains(reason), "{:?}", follower.stopped());
    assert!(!follower.fresh(world.coupon));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_above_what_was_read_stops_the_reader() {
    stops(false, "DELETE FROM journal WHERE position <= 2", "deleted unread").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_gap_stops_the_reader() {
    stops(false, "DELETE FROM journal WHERE position = 2", "offset 2 follows where 1 was expected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_below_what_was_read_stops_the_reader() {
    let cut = "DELETE FROM journal WHERE position > 1; UPDATE sqlite_sequence SET seq = 1 WHERE name = 'journal'";
    stops(true, cut, "records were lost").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_refuses_a_log_that_begins_above_what_the_ledger_read() {
    let world = World::new().await;
    world.append(&Body::Terms(terms(1, 5, Status::Open))).await;
    world.append(&issue("alice")).await;
    world.write_two(Status::Open).await;
    world.append(&issue("bob")).await;
    world.append(&issue("carol")).await;
    world.damage("DELETE FROM journal WHERE position <= 2");
    world.start().await.unwrap();
    world.damage("DELETE FROM journal WHERE position <= 3");
    let refused = world.start().await.unwrap_err();
    assert!(matches!(refused, StartError::OtherLog { partition: 0, .. }), "{refused}");
}
