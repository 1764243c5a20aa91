//! Migrations, partitions, claims and the self check.

use std::collections::HashSet;

use super::*;

pub(super) async fn migrates_once(bench: Arc<Bench>) {
    let error = bench.ledger.check_schema().await.unwrap_err();
    assert!(matches!(&error, LedgerError::Schema(text) if text.contains("run coupon-svc migrate")), "{error}");
    let other = bench.another();
    // SQLite has one process a folder; servers may be met by several at once.
    let ran = if bench.is_sqlite() {
        bench.ledger.migrate().await.unwrap()
    } else {
        let (a, b) = tokio::join!(bench.ledger.migrate(), other.migrate());
        [a.unwrap(), b.unwrap()].concat()
    };
    assert_eq!(ran.len(), 9, "{ran:?}");
    assert!(bench.ledger.migrate().await.unwrap().is_empty());
    bench.ledger.check_schema().await.unwrap();
    // Down and up again, by the scripts.
    let folder = format!("{}/migrations/{}", env!("CARGO_MANIFEST_DIR"), if bench.is_sqlite() { "sqlite" } else { "mysql" });
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    for script in scripts.iter().rev() {
        bench.sql(&std::fs::read_to_string(script.join("down.sql")).unwrap()).await;
    }
    bench.sql("DELETE FROM __diesel_schema_migrations").await;
    assert_eq!(bench.ledger.migrate().await.unwrap().len(), 9);
    assert_eq!(bench.ledger.fix_partitions(2).await.unwrap(), 2);
}

pub(super) async fn refuses_tables_that_are_too_old(bench: Arc<Bench>) {
    assert!(matches!(bench.ledger.positions().await, Err(LedgerError::Schema(_))));
    bench.ledger.migrate().await.unwrap();
    bench.sql("DELETE FROM __diesel_schema_migrations WHERE version = '20260101000009'").await;
    let error = bench.ledger.check_schema().await.unwrap_err();
    assert!(matches!(&error, LedgerError::Schema(text) if text.contains("settings")), "{error}");
}

pub(super) async fn the_first_partition_count_holds(bench: Arc<Bench>) {
    bench.ledger.migrate().await.unwrap();
    let other = bench.another();
    let (a, b) = tokio::join!(bench.ledger.fix_partitions(6), other.fix_partitions(60));
    let count = a.unwrap();
    assert_eq!(b.unwrap(), count);
    assert_eq!(bench.ledger.fix_partitions(99).await.unwrap(), count);
    let positions = bench.ledger.positions().await.unwrap();
    assert_eq!(positions.len(), usize::try_from(count).unwrap());
    assert!(positions.iter().all(|position| position.next == 0 && position.fingerprint == 0));
}

const LEASE: Duration = Duration::from_secs(60);

pub(super) async fn claims_are_shared_fairly(bench: Arc<Bench>) {
    let unowned = async || -> Vec<Partition> { bench.ledger.unowned().await.unwrap().iter().map(|position| position.partition).collect() };
    assert_eq!(unowned().await, [0, 1, 2, 3]);
    assert_eq!(bench.ledger.claim("a", LEASE).await.unwrap(), [0, 1, 2, 3]);
    assert_eq!(bench.ledger.claim("a", LEASE).await.unwrap(), [0, 1, 2, 3]);
    assert!(unowned().await.is_empty());
    // The second waits until the first gives its surplus back.
    assert!(bench.ledger.claim("b", LEASE).await.unwrap().is_empty());
    assert_eq!(bench.ledger.claim("a", LEASE).await.unwrap(), [0, 1]);
    assert_eq!(unowned().await, [2, 3], "given back and not taken yet");
    assert_eq!(bench.ledger.claim("b", LEASE).await.unwrap(), [2, 3]);
    bench.ledger.release("a").await.unwrap();
    bench.ledger.release("a").await.unwrap();
    assert_eq!(bench.ledger.claim("b", LEASE).await.unwrap(), [0, 1, 2, 3]);
}

pub(super) async fn claims_that_expire_are_taken_over(bench: Arc<Bench>) {
    assert_eq!(bench.ledger.claim("dies", Duration::from_millis(300)).await.unwrap().len(), 4);
    assert!(bench.ledger.claim("lives", LEASE).await.unwrap().is_empty());
    assert!(bench.ledger.unowned().await.unwrap().is_empty());
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(bench.ledger.unowned().await.unwrap().len(), 4);
    assert_eq!(bench.ledger.claim("lives", LEASE).await.unwrap().len(), 4);
    // One that comes back finds its share only when it is given.
    assert!(bench.ledger.claim("dies", LEASE).await.unwrap().is_empty());
}

pub(super) async fn claims_raced_by_many_never_overlap(bench: Arc<Bench>) {
    let other = bench.another();
    for _ in 0..10 {
        let (a, b) = tokio::join!(bench.ledger.claim("a", LEASE), other.claim("b", LEASE));
        let (a, b) = (a.unwrap(), b.unwrap());
        // What one gave up after the other's turn is the other's next time; nobody has more than everything.
        assert!(a.len() <= 4 && b.len() <= 4);
    }
    let (a, b) = (bench.ledger.claim("a", LEASE).await.unwrap(), other.claim("b", LEASE).await.unwrap());
    let all: HashSet<Partition> = a.iter().chain(&b).copied().collect();
    assert_eq!((a.len(), b.len(), all.len()), (2, 2, 4));
}

pub(super) async fn self_check_finds_what_was_planted(bench: Arc<Bench>) {
    let coupon = CouponId::random();
    bench.ledger.commit(&wins(coupon, 3, 0, &names("u", 0..3))).await.unwrap();
    assert_eq!(bench.ledger.self_check().await.unwrap(), Vec::new());
    let kinds = |found: Vec<TableFault>| -> HashSet<&'static str> {
        assert!(found.iter().all(|fault| fault.coupon == coupon && TABLE_FAULTS.contains(&fault.kind)), "{found:?}");
        found.into_iter().map(|fault| fault.kind).collect()
    };
    if !bench.is_sqlite() {
        bench.sql("ALTER TABLE coupons DROP CONSTRAINT coupons_issued_within_total").await;
    }
    let plants = [
        ("count_wrong", "UPDATE coupons SET issued = 2", "UPDATE coupons SET issued = 3"),
        ("over_issue", "UPDATE coupons SET issued = 4", "UPDATE coupons SET issued = 3"),
        ("counters_differ", "UPDATE coupons SET next_sequence = 3", "UPDATE coupons SET next_sequence = 4"),
        ("counters_differ", "UPDATE coupons SET next_sequence = 9", "UPDATE coupons SET next_sequence = 4"),
        (
            "revoked_holds",
            "INSERT INTO revocations SELECT coupon_id, user_id, 50, 0, 0, 'planted', 0 FROM issued_coupons WHERE sequence = 1",
            "DELETE FROM revocations",
        ),
        (
            "double_sequence",
            "INSERT INTO revocations SELECT coupon_id, 'another', 1, 0, 0, 'planted', 0 FROM issued_coupons WHERE sequence = 1",
            "DELETE FROM revocations",
        ),
        (
            "double_user",
            "INSERT INTO dead_letters SELECT 1, 0, 0, coupon_id, user_id, 50, 0, '', '', '', 'open', 0, 0 FROM issued_coupons WHERE sequence = 1",
            "DELETE FROM dead_letters",
        ),
        (
            "dead_letter_without_row",
            "INSERT INTO dead_letters SELECT 1, 0, 0, coupon_id, 'gone', 50, 0, '', '', '', 'replayed', 0, 0 FROM issued_coupons WHERE sequence = 1",
            "DELETE FROM dead_letters",
        ),
    ];
    for (kind, plant, undo) in plants {
        bench.sql(plant).await;
        let found = kinds(bench.ledger.self_check().await.unwrap());
        assert!(found.contains(kind), "{kind}: {found:?}");
        bench.sql(undo).await;
        assert_eq!(bench.ledger.self_check().await.unwrap(), Vec::new(), "after {kind}");
    }
    bench.sql("DELETE FROM coupons").await;
    assert_eq!(kinds(bench.ledger.self_check().await.unwrap()), HashSet::from(["row_without_coupon"]));
}
