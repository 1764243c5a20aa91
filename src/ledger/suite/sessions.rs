//! What every session of MySQL and MariaDB is set to, by what would go wrong without it.

use super::*;

fn url_of(bench: &Bench) -> String {
    match &bench.raw {
        Raw::Mysql { url, .. } => url.clone(),
        Raw::Sqlite(_) => unreachable!(),
    }
}

/// A session that sees what others have not committed, and does not wait long.
async fn watcher(bench: &Bench) -> mysql_async::Conn {
    let opts = mysql_async::Opts::from_url(&url_of(bench)).unwrap();
    let mut conn = mysql_async::Conn::new(mysql_async::OptsBuilder::from_opts(opts).prefer_socket(false)).await.unwrap();
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED").await.unwrap();
    conn.query_drop("SET SESSION innodb_lock_wait_timeout = 1").await.unwrap();
    conn
}

async fn until(conn: &mut mysql_async::Conn, query: &str) {
    let there = async {
        while conn.query_first::<i64, _>(query).await.unwrap() == Some(0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), there).await.is_ok(), "{query}");
}

fn coupon(number: u128) -> CouponId {
    Uuid::from_u128(number).to_string().parse().unwrap()
}

/// A commit that wrote a new coupon waits for the row of another: new coupons beside it are not held up, and it is soon to be tried again.
async fn a_commit_that_waits(bench: Arc<Bench>) {
    let (new, beside, held) = (coupon(1 << 100), coupon(2 << 100), coupon(3 << 100));
    bench.ledger.commit(&Batch { coupons: vec![coupon_row(held, 10, 0, 1)], ..Batch::default() }).await.unwrap();
    let mut holder = watcher(&bench).await;
    holder.query_drop("BEGIN").await.unwrap();
    holder.query_drop(format!("UPDATE coupons SET issued = 1 WHERE coupon_id = '{held}'")).await.unwrap();

    let ledger = Arc::clone(&bench.ledger);
    let waiting = tokio::spawn(async move {
        let coupons = vec![coupon_row(new, 10, 0, 1), coupon_row(held, 10, 0, 1)];
        ledger.commit(&Batch { coupons, ..step(0, 0, 1) }).await
    });
    let mut other = watcher(&bench).await;
    until(&mut other, &format!("SELECT COUNT(*) FROM coupons WHERE coupon_id = '{new}'")).await;
    let columns = "part, version, change_id, name, kind, discount_type, discount_value, total_quantity, status, issued, next_sequence, \
        opens_at, closes_at";
    let insert = format!("INSERT INTO coupons (coupon_id, {columns}) SELECT '{beside}', {columns} FROM coupons WHERE coupon_id = '{new}'");
    other.query_drop(insert).await.expect("the gap is not locked");

    // The holder does not let go: not an outage, which would end the connection, and well before the deadline of the call.
    let waited = waiting.await.unwrap();
    assert!(matches!(waited, Err(LedgerError::Retry(_))), "{waited:?}");
    holder.query_drop("ROLLBACK").await.unwrap();
}

/// MySQL commits each statement of a migration by itself: one that ran may not be recorded.
async fn a_migration_that_was_not_recorded(bench: Arc<Bench>) {
    bench.ledger.migrate().await.unwrap();
    bench.sql("DELETE FROM __diesel_schema_migrations WHERE version > '20260101000003'").await;
    assert_eq!(bench.ledger.migrate().await.unwrap().len(), 6);
    bench.ledger.check_schema().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waits_for_a_row_holds_up_no_new_coupon_and_is_tried_again() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        with(Bench::migrated(kind).await, a_commit_that_waits).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_ran_and_was_not_recorded_is_run_again() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        with(Bench::bare(kind).await, a_migration_that_was_not_recorded).await;
    }
}

/// Members that claim at once lock their own rows and then look at all: side by side they would deadlock.
async fn a_claim_in_the_middle_of_another(bench: Arc<Bench>) {
    let mut other = watcher(&bench).await;
    other.query_drop("BEGIN").await.unwrap();
    other.query_drop("UPDATE settings SET value = value WHERE name = 'partitions'").await.unwrap();
    let waited = bench.ledger.claim("late", Duration::from_secs(60)).await;
    assert!(matches!(waited, Err(LedgerError::Retry(_))), "{waited:?}");
    other.query_drop("ROLLBACK").await.unwrap();
    assert_eq!(bench.ledger.claim("late", Duration::from_secs(60)).await.unwrap(), [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_waits_for_the_one_before_it() {
    with(Bench::migrated(Kind::Mysql).await, a_claim_in_the_middle_of_another).await;
}

/// The name is longer than its column: cut short, the row would be somebody else's.
async fn a_name_that_is_too_long(bench: Arc<Bench>) {
    bench.sql("ALTER TABLE issued_coupons MODIFY user_id VARCHAR(5) CHARACTER SET ascii COLLATE ascii_bin NOT NULL").await;
    let ledger = MysqlLedger::connect_with_defaults(options(&url_of(&bench)), &["SET SESSION sql_mode = ''"]).unwrap();
    let coupon = CouponId::random();
    let batch = wins(coupon, 10, 0, &["a".to_owned(), "longer".to_owned(), "b".to_owned()]);
    let committed = ledger.commit(&batch).await.unwrap();
    assert_eq!((committed.rows, committed.dead.len()), (2, 1));
    let letter = &committed.dead[0];
    assert_eq!(letter.win.as_ref().map(|win| (&win.user, win.sequence)), Some((&user("longer"), 2)));
    assert!(letter.error.contains("Data too long for column 'user_id'"), "{}", letter.error);
    assert_eq!(ledger.issued(coupon, &user("longe")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_lenient_by_default_cuts_no_value_short() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        with(Bench::migrated(kind).await, a_name_that_is_too_long).await;
    }
}
