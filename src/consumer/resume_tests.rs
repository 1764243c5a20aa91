//! The consumer where it must go on: behind a stranger's move, a feed that ended, a log that ends early for a moment, another process.

use async_trait::async_trait;

use super::tests::World;
use super::*;
use crate::domain::testing::{terms, user};
use crate::domain::{Body, Status, fingerprint};
use crate::journal::testing::{Mood, Moody};
use crate::ledger::{Batch, Move, SqliteLedger};
use limiter::{Ask, Grant, Limit, Limiter, LocalLimiter};

fn no_limit() -> Arc<LocalLimiter> {
    Arc::new(LocalLimiter::new(Limit::Fixed(0.0)))
}

impl World {
    /// Waits until everything below `next` is written; generous, because nothing is measured.
    async fn drained(&self, consumer: &Consumer, next: Offset) {
        let drains = async {
            while self.ledger.positions().await.unwrap()[0].next < next {
                assert_eq!(consumer.stopped(), []);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), drains).await.is_ok(), "the drain does not go on");
    }

    fn moody(&self, mood: Mood) -> Arc<Moody> {
        Moody::new(Arc::clone(&self.journal), mood)
    }
}

/// Between the decision on the first batch and its commit, somebody else moves the partition to where `moves` says.
#[derive(Debug)]
struct Overtaken {
    ledger: Arc<SqliteLedger>,
    first: Mutex<Option<Batch>>,
}

#[async_trait]
impl Limiter for Overtaken {
    async fn take(&self, ask: Ask) -> Grant {
        let batch = self.first.lock().unwrap().take();
        if let Some(batch) = batch {
            self.ledger.commit(&batch).await.unwrap();
        }
        Grant { permits: ask.wanted, wait: Duration::ZERO }
    }

    fn rate(&self) -> f64 {
        0.0
    }

    fn share_among(&self, _: u32) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_owner_left_of_a_batch_is_drained() {
    let world = World::new().await;
    let records = world.journal.fetch(0, 0, 1 << 20, Duration::ZERO).await.unwrap().records;
    let fingerprint = fingerprint(&records[0].key, &records[0].value);
    let coupon =
        crate::ledger::CouponRow { coupon: world.coupon, partition: 0, terms: terms(1, 5, Status::Open), issued: 0, next_sequence: 1 };
    let theirs = Batch { moves: vec![Move { partition: 0, from: 0, to: 1, fingerprint }], coupons: vec![coupon], ..Batch::default() };
    let limiter = Arc::new(Overtaken { ledger: Arc::clone(&world.ledger), first: Mutex::new(Some(theirs)) });
    let journal = Arc::clone(&world.journal) as Arc<dyn Journal>;
    let (consumer, _draining) = world.drain_with(journal, limiter, Options::default());
    world.drained(&consumer, 3).await;
    assert_eq!([world.sequence_of("alice").await, world.sequence_of("bob").await], [Some(1), Some(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_died_is_started_again() {
    let world = World::new().await;
    let journal = world.moody(Mood::Panics);
    let (consumer, _draining) = world.drain_with(journal, no_limit(), Options::default());
    world.drained(&consumer, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_early_for_a_moment_is_drained_on() {
    let world = World::new().await;
    let journal = world.moody(Mood::Well);
    let options = Options { end_regress: Duration::from_secs(3_600), ..Options::default() };
    let (consumer, draining) = world.drain_with(Arc::clone(&journal) as Arc<dyn Journal>, no_limit(), options.clone());
    world.drained(&consumer, 3).await;
    journal.set(Mood::EndsAt(1));
    journal.answered(3).await;
    assert_eq!(consumer.stopped(), []);
    journal.set(Mood::Well);
    world.ask("carol").await;
    world.drained(&consumer, 4).await;
    drop(draining);

    // The same at the start of a process.
    journal.set(Mood::EndsAt(1));
    let (consumer, _draining) = world.drain_with(Arc::clone(&journal) as Arc<dyn Journal>, no_limit(), options);
    journal.answered(3).await;
    assert_eq!(consumer.stopped(), []);
    journal.set(Mood::Well);
    world.ask("dave").await;
    world.drained(&consumer, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_early_for_long_stops_the_drain() {
    let world = World::new().await;
    let journal = world.moody(Mood::Well);
    let options = Options { end_regress: Duration::from_millis(100), ..Options::default() };
    let (consumer, _draining) = world.drain_with(Arc::clone(&journal) as Arc<dyn Journal>, no_limit(), options);
    world.drained(&consumer, 3).await;
    journal.set(Mood::EndsAt(1));
    let stops = async {
        while consumer.stopped().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), stops).await.is_ok(), "the drain goes on");
    assert!(consumer.stopped()[0].1.contains("ends at 1 below the next offset 3"), "{:?}", consumer.stopped());
}

/// After a revocation fewer hold the coupon than there are numbers given out.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_goes_on_with_the_numbers_where_the_last_one_ended() {
    let world = World::new().await;
    let revoke = Body::Revoke { user_id: user("alice"), sequence: 1, reason: String::new(), at: 1 };
    world.append(encode(&revoke).unwrap()).await;
    let journal = || Arc::clone(&world.journal) as Arc<dyn Journal>;
    let (consumer, draining) = world.drain_with(journal(), no_limit(), Options::default());
    world.drained(&consumer, 4).await;
    drop(draining);
    world.ask("carol").await;
    let (consumer, _draining) = world.drain_with(journal(), no_limit(), Options::default());
    world.drained(&consumer, 5).await;
    assert_eq!([world.sequence_of("bob").await, world.sequence_of("carol").await], [Some(2), Some(3)]);
}
