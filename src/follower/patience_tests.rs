//! The follower on a log that is silent or ends early for a moment, and behind a ledger whose numbers have gaps.

use tokio_util::sync::DropGuard;

use super::tests::{World, issue, soon};
use super::*;
use crate::domain::testing::{terms, user};
use crate::domain::{Body, Status};
use crate::journal::testing::{Mood, Moody};
use crate::ledger::{Batch, CouponRow, Ledger, Move, RevocationRow};

/// Long enough for any machine: what is waited for is a condition.
const PATIENT: Duration = Duration::from_secs(3_600);

async fn start(world: &World, journal: &Arc<Moody>, end_regress: Duration) -> Result<Arc<Follower>, StartError> {
    let options = Options { end_regress, ..Options::default() };
    let metrics = Arc::new(Metrics::new().unwrap());
    Follower::start(Arc::clone(journal) as Arc<dyn Journal>, &world.ledger, options, metrics).await
}

fn tail(follower: &Arc<Follower>) -> DropGuard {
    let cancel = CancellationToken::new();
    tokio::spawn(Arc::clone(follower).tail(0, cancel.clone()));
    cancel.drop_guard()
}

/// A coupon that alice won.
async fn with_alice() -> World {
    let world = World::new().await;
    world.append(&Body::Terms(terms(1, 5, Status::Open))).await;
    world.append(&issue("alice")).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_caught_up_who_has_not_read_what_was_there() {
    let world = with_alice().await;
    let journal = Moody::new(Arc::clone(&world.journal), Mood::Silent);
    let follower = start(&world, &journal, PATIENT).await.unwrap();
    let _tailing = tail(&follower);
    let mut catching_up = std::pin::pin!(follower.caught_up());
    let early = tokio::time::timeout(Duration::from_millis(300), catching_up.as_mut()).await;
    assert!(early.is_err(), "caught up at {}", follower.applied(0));
    journal.set(Mood::Well);
    catching_up.await;
    assert_eq!(follower.standing(world.coupon, &user("alice")), Standing::Holder(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_early_for_a_moment_is_read_on() {
    let world = with_alice().await;
    let journal = Moody::new(Arc::clone(&world.journal), Mood::Well);
    let follower = start(&world, &journal, PATIENT).await.unwrap();
    let _tailing = tail(&follower);
    follower.caught_up().await;
    journal.set(Mood::EndsAt(1));
    journal.answered(3).await;
    assert_eq!(follower.stopped(), []);
    journal.set(Mood::Well);
    world.append(&issue("bob")).await;
    follower.barrier(world.coupon, soon()).await.unwrap();
    assert_eq!(follower.standing(world.coupon, &user("bob")), Standing::Holder(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_the_end_that_the_ledger_has_seen() {
    let world = with_alice().await;
    world.write_two(Status::Open).await;
    let journal = Moody::new(Arc::clone(&world.journal), Mood::EndsAt(1));
    let asked = async {
        journal.answered(2).await;
        journal.set(Mood::Well);
    };
    let (started, ()) = tokio::join!(start(&world, &journal, PATIENT), asked);
    assert_eq!(started.unwrap().applied(0), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_go_on_where_the_ledger_ends_them() {
    let world = with_alice().await;
    world.write_two(Status::Open).await;
    let revoke = Body::Revoke { user_id: user("alice"), sequence: 1, reason: String::new(), at: 1 };
    world.append(&revoke).await;
    let records = world.journal.fetch(0, 2, 1 << 20, Duration::ZERO).await.unwrap().records;
    let fingerprint = crate::domain::fingerprint(&records[0].key, &records[0].value);
    let revocation = RevocationRow {
        coupon: world.coupon,
        user: user("alice"),
        sequence: 1,
        won_offset: 1,
        log_offset: 2,
        reason: String::new(),
        at: 1,
    };
    let batch = Batch {
        moves: vec![Move { partition: 0, from: 2, to: 3, fingerprint }],
        coupons: vec![CouponRow { coupon: world.coupon, partition: 0, terms: terms(1, 5, Status::Open), issued: 0, next_sequence: 2 }],
        revocations: vec![revocation],
        ..Batch::default()
    };
    world.ledger.commit(&batch).await.unwrap();
    world.append(&issue("bob")).await;
    let journal = Moody::new(Arc::clone(&world.journal), Mood::Well);
    let follower = start(&world, &journal, PATIENT).await.unwrap();
    let _tailing = tail(&follower);
    follower.caught_up().await;
    assert_eq!(follower.standing(world.coupon, &user("bob")), Standing::Holder(2));
}
