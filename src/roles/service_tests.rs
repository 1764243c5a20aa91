//! A role's start, on a real ledger and real journals.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::testing::{terms, user};
use crate::domain::{Body, CouponId, Status, encode, partition_of};
use crate::follower::{Options, Standing};
use crate::journal::testing::{Mood, Moody, SideBySide};
use crate::journal::{Journal, SqliteJournal};
use crate::ledger::SqliteLedger;
use crate::telemetry::Metrics;

/// For what comes by itself; nothing is measured.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_has_not_read_a_partition_to_its_end_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| Arc::new(SqliteJournal::open(&dir.path().join(name)).unwrap());
    let held_back = Moody::new(open("second.db"), Mood::Silent);
    let journal: Arc<dyn Journal> = Arc::new(SideBySide(vec![open("first.db"), Arc::clone(&held_back) as Arc<dyn Journal>]));
    let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).unwrap();
    ledger.migrate().await.unwrap();
    ledger.fix_partitions(2).await.unwrap();
    let coupon = std::iter::repeat_with(CouponId::random).find(|coupon| partition_of(*coupon, 2) == 1).unwrap();
    for body in [Body::Terms(terms(1, 5, Status::Open)), Body::Issue { user_id: user("alice"), at: 1, trace_id: String::new() }] {
        journal.append(1, coupon, encode(&body).unwrap()).await.unwrap();
    }
    let metrics = Arc::new(Metrics::new().unwrap());
    let follower = Follower::start(journal, &ledger, Options::default(), metrics).await.unwrap();
    let cancel = CancellationToken::new();
    let _reading = cancel.clone().drop_guard();
    for partition in 0..2 {
        tokio::spawn(Arc::clone(&follower).tail(partition, cancel.clone()));
    }
    let health = Health::new();
    let (start, hears) = (health.condition("start"), health.condition("follower"));
    let heard = async {
        while !follower.hears() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, heard).await.is_ok(), "the first partition is read");
    hears.set(true, "reads the journal");

    let mut getting_ready = std::pin::pin!(until_ready(Some(&follower), &start, &health));
    let early = tokio::time::timeout(Duration::from_millis(300), getting_ready.as_mut()).await;
    assert!(early.is_err() && !health.report().ready, "ready with {} records read of two", follower.applied(1));
    held_back.set(Mood::Well);
    tokio::time::timeout(LONG, getting_ready).await.expect("everything is read");
    assert!(health.report().ready);
    assert_eq!(follower.standing(coupon, &user("alice")), Standing::Holder(1));
}
