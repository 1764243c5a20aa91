//! The consumer on a real journal and a real ledger, both SQLite: what it must not go on from.

use tokio_util::sync::DropGuard;

use super::*;
use crate::domain::testing::{terms, user};
use crate::domain::{Body, CouponId, Status};
use crate::journal::SqliteJournal;
use crate::ledger::{Batch, CouponRow, IssuedRow, Move, SqliteLedger};
use limiter::{Limit, LocalLimiter, Range};

pub(super) struct World {
    pub(super) journal: Arc<SqliteJournal>,
    pub(super) ledger: Arc<SqliteLedger>,
    pub(super) coupon: CouponId,
    dir: tempfile::TempDir,
}

impl World {
    /// The log: the coupon's terms, then alice, then bob.
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Arc::new(SqliteJournal::open(&dir.path().join("journal.db")).unwrap());
        let ledger = Arc::new(SqliteLedger::open(&dir.path().join("ledger.db")).unwrap());
        ledger.migrate().await.unwrap();
        ledger.fix_partitions(1).await.unwrap();
        let world = Self { journal, ledger, coupon: CouponId::random(), dir };
        world.append(encode(&Body::Terms(terms(1, 5, Status::Open))).unwrap()).await;
        world.ask("alice").await;
        world.ask("bob").await;
        world
    }

    pub(super) async fn append(&self, value: Vec<u8>) {
        self.journal.append(0, self.coupon, value).await.unwrap();
    }

    pub(super) async fn ask(&self, name: &str) {
        self.append(encode(&Body::Issue { user_id: user(name), at: 1, trace_id: String::new() }).unwrap()).await;
    }

    /// A consumer that drains until the guard is dropped.
    fn drain(&self) -> (Arc<Consumer>, DropGuard) {
        let journal = Arc::clone(&self.journal) as Arc<dyn Journal>;
        self.drain_with(journal, Arc::new(LocalLimiter::new(Limit::Fixed(0.0))), Options::default())
    }

    pub(super) fn drain_with(&self, journal: Arc<dyn Journal>, limiter: Arc<dyn Limiter>, options: Options) -> (Arc<Consumer>, DropGuard) {
        let ledger = Arc::clone(&self.ledger) as Arc<dyn Ledger>;
        let options = Options { workers: 1, ..options };
        let metrics = Arc::new(Metrics::new().unwrap());
        let consumer = Consumer::new(journal, ledger, limiter, options, metrics, "test".into());
        let cancel = CancellationToken::new();
        tokio::spawn(Arc::clone(&consumer).hold_claims(cancel.clone()));
        tokio::spawn(Arc::clone(&consumer).work(0, cancel.clone()));
        (consumer, cancel.drop_guard())
    }

    /// Drains until the partition is stopped, which must be for `reason`, and before the offset `next`.
    async fn stops_before(&self, next: Offset, reason: &str) {
        let (consumer, _draining) = self.drain();
        let stops = async {
            while consumer.stopped().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), stops).await.is_ok(), "the drain goes on");
        assert!(consumer.stopped()[0].1.contains(reason), "{:?}", consumer.stopped());
        assert_eq!(self.ledger.positions().await.unwrap()[0].next, next);
    }

    pub(super) async fn sequence_of(&self, name: &str) -> Option<i64> {
        self.ledger.issued(self.coupon, &user(name)).await.unwrap().map(|row| row.sequence)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_version_stops_the_drain_before_it() {
    let world = World::new().await;
    world.append(br#"{"v":2,"type":"issue"}"#.to_vec()).await;
    world.ask("carol").await;
    world.stops_before(3, "newer").await;
    let rows = [world.sequence_of("alice").await, world.sequence_of("bob").await, world.sequence_of("carol").await];
    assert_eq!(rows, [Some(1), Some(2), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_above_the_next_offset_stops_the_drain() {
    let world = World::new().await;
    crate::journal::testing::damage(&world.dir.path().join("journal.db"), "DELETE FROM journal WHERE position <= 2");
    world.stops_before(0, "begins at 2 above the next offset 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_gap_stops_the_drain() {
    let world = World::new().await;
    crate::journal::testing::damage(&world.dir.path().join("journal.db"), "DELETE FROM journal WHERE position = 2");
    world.stops_before(0, "offset 2 follows where 1 was expected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_the_ledgers_is_not_drained() {
    let world = World::new().await;
    let moves = vec![Move { partition: 0, from: 0, to: 1, fingerprint: 7 }];
    world.ledger.commit(&Batch { moves, ..Batch::default() }).await.unwrap();
    world.stops_before(1, "not the one the ledger was written from").await;
}

/// The ledger has a row of which its counters know nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_fires_stops_the_drain() {
    let world = World::new().await;
    let row = IssuedRow { coupon: world.coupon, user: user("thief"), sequence: 2, log_offset: 0, requested_at: 1, issued_at: 0 };
    let coupon = CouponRow { coupon: world.coupon, partition: 0, terms: terms(1, 5, Status::Open), issued: 0, next_sequence: 1 };
    world.ledger.commit(&Batch { issued: vec![row], coupons: vec![coupon], ..Batch::default() }).await.unwrap();
    world.stops_before(0, "UNIQUE").await;
    assert_eq!(world.sequence_of("alice").await, None, "all of the batch or nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_partitions_without_an_owner_are_counted() {
    let world = World::new().await;
    let (journal, ledger) = (Arc::clone(&world.journal) as Arc<dyn Journal>, Arc::clone(&world.ledger) as Arc<dyn Ledger>);
    let metrics = Arc::new(Metrics::new().unwrap());
    let limiter = Arc::new(LocalLimiter::new(Limit::Fixed(0.0)));
    let options = Options { report_every: Duration::from_millis(20), ..Options::default() };
    let consumer = Consumer::new(journal, ledger, limiter, options, Arc::clone(&metrics), "test".into());
    let cancel = CancellationToken::new();
    let _reporting = cancel.clone().drop_guard();
    tokio::spawn(Arc::clone(&consumer).report(cancel));
    let becomes = async |lag: i64| {
        let reported = async {
            while metrics.consumer_unowned_lag.get() != lag {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), reported).await.is_ok(), "{}", metrics.consumer_unowned_lag.get());
    };
    becomes(3).await;
    world.ledger.claim("somebody", Duration::from_secs(60)).await.unwrap();
    becomes(0).await;
    world.ledger.release("somebody").await.unwrap();
    becomes(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adaptive_limit_measures_the_commits() {
    let world = World::new().await;
    let journal = Arc::clone(&world.journal) as Arc<dyn Journal>;
    let limiter = Arc::new(LocalLimiter::new(Limit::Adaptive(Range { floor: 100.0, ceiling: 0.0 })));
    let (consumer, _draining) = world.drain_with(journal, limiter, Options::default());
    let carol_is_written = async {
        // The speed is told with the next batch's request for permits.
        while world.sequence_of("bob").await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.ask("carol").await;
        while world.sequence_of("carol").await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), carol_is_written).await.is_ok(), "the drain does not go on");
    consumer.observe();
    let (rate, measured) = (consumer.metrics.limiter_rate.get(), consumer.metrics.limiter_measured.get());
    assert!(measured > 0.0, "commits are measured");
    assert!(consumer.metrics.ledger_commit_seconds.get_sample_count() >= 2);
    assert!((100.0..measured).contains(&rate), "{rate} of {measured}");
}
