//! The contract of [`Ledger`], on SQLite, MySQL and MariaDB alike. A server that is missing fails the suite.
//!
//! Each case has a database of its own, dropped afterwards also when the case fails.

mod cases;
mod letters;
mod maintenance;
mod sessions;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use mysql_async::prelude::Queryable;
use uuid::Uuid;

use super::*;
use crate::domain::testing::user;
use crate::domain::{Discount, Status};

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Sqlite,
    Mysql,
    Mariadb,
}

/// A way around the ledger, to plant faults.
#[derive(Debug)]
enum Raw {
    Sqlite(tempfile::TempDir),
    Mysql { admin: String, url: String, name: String },
}

#[derive(Debug)]
pub(super) struct Bench {
    pub ledger: Arc<dyn Ledger>,
    raw: Raw,
    kind: Kind,
}

const PARTITIONS: Partition = 4;

impl Bench {
    async fn bare(kind: Kind) -> Self {
        let (variable, default) = match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let ledger = Arc::new(SqliteLedger::open(&folder.path().join("coupon.db")).unwrap());
                return Self { ledger, raw: Raw::Sqlite(folder), kind };
            }
            Kind::Mysql => ("COUPON_TEST_MYSQL", "mysql://coupon:coupon@127.0.0.1:13306/coupon"),
            Kind::Mariadb => ("COUPON_TEST_MARIADB", "mysql://coupon:coupon@127.0.0.1:13307/coupon"),
        };
        let admin = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
        let name = format!("coupon_test_{}", Uuid::new_v4().simple());
        let url = format!("{}/{name}", admin.rsplit_once('/').unwrap().0);
        run_mysql(&admin, &format!("CREATE DATABASE {name}")).await;
        let ledger = Arc::new(MysqlLedger::connect(options(&url)).unwrap());
        Self { ledger, raw: Raw::Mysql { admin, url, name }, kind }
    }

    async fn migrated(kind: Kind) -> Self {
        let bench = Self::bare(kind).await;
        bench.ledger.migrate().await.unwrap();
        bench.ledger.fix_partitions(PARTITIONS).await.unwrap();
        bench
    }

    /// A second ledger on the same tables, as another process has.
    fn another(&self) -> Arc<dyn Ledger> {
        match &self.raw {
            Raw::Sqlite(folder) => Arc::new(SqliteLedger::open(&folder.path().join("coupon.db")).unwrap()),
            Raw::Mysql { url, .. } => Arc::new(MysqlLedger::connect(options(url)).unwrap()),
        }
    }

    fn is_sqlite(&self) -> bool {
        matches!(self.raw, Raw::Sqlite(_))
    }

    async fn sql(&self, sql: &str) {
        match &self.raw {
            Raw::Sqlite(folder) => {
                let mut conn = SqliteConnection::establish(folder.path().join("coupon.db").to_str().unwrap()).unwrap();
                conn.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA ignore_check_constraints = ON;").unwrap();
                conn.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
            Raw::Mysql { url, .. } => run_mysql(url, sql).await,
        }
    }

    /// Refuses the rows of user `poison` from here on, each database in its own way.
    async fn poison(&self) {
        self.sql(match self.kind {
            Kind::Sqlite => {
                "CREATE TRIGGER poison BEFORE INSERT ON issued_coupons WHEN NEW.user_id = 'poison' \
                 BEGIN SELECT RAISE(ABORT, 'no poison here'); END"
            }
            Kind::Mariadb => {
                "CREATE TRIGGER poison BEFORE INSERT ON issued_coupons FOR EACH ROW \
                 IF NEW.user_id = 'poison' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no poison here'; END IF"
            }
            // With its binary log on, a trigger takes a right that the service does not have: here the name is too long.
            Kind::Mysql => "ALTER TABLE issued_coupons MODIFY user_id VARCHAR(5) CHARACTER SET ascii COLLATE ascii_bin NOT NULL",
        })
        .await;
    }

    async fn cure(&self) {
        self.sql(match self.kind {
            Kind::Mysql => "ALTER TABLE issued_coupons MODIFY user_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL",
            _ => "DROP TRIGGER poison",
        })
        .await;
    }
}

fn options(url: &str) -> MysqlOptions {
    MysqlOptions {
        url: url.to_owned().into(),
        pool: 4,
        connect_timeout: Duration::from_secs(10),
        query_timeout: Duration::from_secs(20),
        tls_ca: None,
        require_tls: false,
    }
}

async fn run_mysql(url: &str, sql: &str) {
    let opts = mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(url).unwrap()).prefer_socket(false);
    let mut conn = mysql_async::Conn::new(opts).await.unwrap_or_else(|error| panic!("the suite needs the server of {url}: {error}"));
    conn.query_drop(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    conn.disconnect().await.unwrap();
}

/// Runs a case and drops its database whatever happens.
async fn with<F: Future<Output = ()> + Send + 'static>(bench: Bench, case: impl FnOnce(Arc<Bench>) -> F) {
    let bench = Arc::new(bench);
    let result = tokio::spawn(case(Arc::clone(&bench))).await;
    if let Raw::Mysql { admin, name, .. } = &bench.raw {
        run_mysql(admin, &format!("DROP DATABASE {name}")).await;
    }
    result.unwrap();
}

macro_rules! suite {
    ($kind:ident $module:ident: $($room:ident :: $case:ident ($start:ident)),+ $(,)?) => {
        mod $module {
            use super::{Bench, Kind, with};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    with(Bench::$start(Kind::$kind).await, super::$room::$case).await;
                }
            )+
        }
    };
}

macro_rules! on_every_database {
    ($($tokens:tt)+) => {
        suite!(Sqlite on_sqlite: $($tokens)+);
        suite!(Mysql on_mysql: $($tokens)+);
        suite!(Mariadb on_mariadb: $($tokens)+);
    };
}

on_every_database!(
    maintenance::migrates_once(bare),
    maintenance::refuses_tables_that_are_too_old(bare),
    maintenance::the_first_partition_count_holds(bare),
    maintenance::claims_are_shared_fairly(migrated),
    maintenance::claims_that_expire_are_taken_over(migrated),
    maintenance::claims_raced_by_many_never_overlap(migrated),
    maintenance::self_check_finds_what_was_planted(migrated),
    cases::a_batch_is_loaded_back(migrated),
    cases::a_large_batch_is_written_in_chunks(migrated),
    cases::a_stale_owner_leaves_nothing(migrated),
    cases::of_two_racing_writers_one_wins(migrated),
    cases::a_snapshot_is_of_one_instant(migrated),
    cases::a_snapshot_leaves_out_users_of_what_is_over(migrated),
    cases::alice_is_not_alice(migrated),
    cases::a_revoked_win_frees_its_row(migrated),
    cases::a_user_may_win_and_lose_in_one_batch(migrated),
    cases::a_revoke_of_nothing_is_a_guard(migrated),
    cases::guards_fire(migrated),
    cases::a_users_coupons_come_newest_first(migrated),
    letters::a_refused_row_becomes_a_dead_letter(migrated),
    letters::a_refused_row_takes_nothing_with_it(migrated),
    letters::a_replay_writes_the_kept_sequence(migrated),
    letters::a_replay_that_comes_second_does_nothing(migrated),
    letters::an_abandoned_win_is_revoked_by_the_commit(migrated),
    letters::unreadable_messages_are_kept_and_listed(migrated),
);

#[tokio::test]
async fn a_database_that_is_away_is_down_at_the_call() {
    let mut away = options("mysql://coupon:coupon@127.0.0.1:1/coupon");
    away.connect_timeout = Duration::from_secs(1);
    let ledger = MysqlLedger::connect(away).unwrap();
    assert!(matches!(ledger.positions().await, Err(LedgerError::Down(_))));
    assert_eq!(ledger.pool(), (0, 0));
}

#[test]
fn a_bad_url_is_told_without_its_password() {
    let error = MysqlLedger::connect(options("postgres://u:hidden@h/x")).unwrap_err();
    assert!(!error.to_string().contains("hidden"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_that_cannot_be_trusted_is_refused() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        with(Bench::bare(kind).await, |bench| async move {
            let Raw::Mysql { url, .. } = &bench.raw else { unreachable!() };
            // Neither server has a certificate of a public authority: no silent way back to plain text.
            let strict = MysqlLedger::connect(MysqlOptions { require_tls: true, ..options(url) }).unwrap();
            assert!(matches!(strict.positions().await, Err(LedgerError::Down(_))));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_connects_to_whom_the_authorities_vouch_for_and_says_why_not_else() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        with(Bench::migrated(kind).await, |bench| async move {
            let Raw::Mysql { url, .. } = &bench.raw else { unreachable!() };
            let with_ca = |file| MysqlLedger::connect(MysqlOptions { require_tls: true, tls_ca: Some(file), ..options(url) });
            let trusting = with_ca(crate::tls::testing::authority()).unwrap();
            assert_eq!(trusting.positions().await.unwrap().len(), usize::try_from(PARTITIONS).unwrap());
            let error = with_ca(crate::tls::testing::stranger()).unwrap().positions().await.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, LedgerError::Down(_)) && text.contains("UnknownIssuer"), "{text}");
            let error = with_ca("/nowhere/ca.pem".into()).unwrap_err().to_string();
            assert!(error.contains("mysql.ca_file") && error.contains("/nowhere/ca.pem"), "{error}");
        })
        .await;
    }
}

async fn slow_calls_leave_the_pool(kind: Kind) {
    with(Bench::migrated(kind).await, |bench| async move {
        let Raw::Mysql { url, .. } = &bench.raw else { unreachable!() };
        let mut hasty = options(url);
        hasty.query_timeout = Duration::from_millis(300);
        let hasty = MysqlLedger::connect(hasty).unwrap();
        hasty.positions().await.unwrap();
        assert_eq!(hasty.pool(), (0, 1));
        // Somebody else holds the row.
        let opts = mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(url).unwrap()).prefer_socket(false);
        let mut conn = mysql_async::Conn::new(opts).await.unwrap();
        conn.query_drop("BEGIN").await.unwrap();
        conn.query_drop("UPDATE partition_offsets SET fingerprint = 9 WHERE part = 0").await.unwrap();
        assert!(matches!(hasty.commit(&step(0, 0, 1)).await, Err(LedgerError::Down(_))));
        assert_eq!(hasty.pool(), (0, 0));
        conn.query_drop("ROLLBACK").await.unwrap();
        // The abandoned statement dies with its connection; until then its lock may hold the next one back.
        for _ in 0..50 {
            match hasty.commit(&step(0, 0, 1)).await {
                Ok(_) => return,
                Err(LedgerError::Down(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(LedgerError::Fenced(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the row stayed locked");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_slow_calls_leave_the_pool() {
    slow_calls_leave_the_pool(Kind::Mysql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_slow_calls_leave_the_pool() {
    slow_calls_leave_the_pool(Kind::Mariadb).await;
}

fn step(partition: Partition, from: Offset, to: Offset) -> Batch {
    Batch { moves: vec![Move { partition, from, to, fingerprint: to * 7 }], ..Batch::default() }
}

fn coupon_row(coupon: CouponId, total: i64, issued: i64, next_sequence: Sequence) -> CouponRow {
    let terms = Terms {
        version: 1,
        change_id: Uuid::from_u128(5),
        name: "Früh dran 🎟".to_owned(),
        kind: "event".to_owned(),
        discount: Discount::Percentage(10),
        total_quantity: total,
        opens_at: Some(1_000),
        closes_at: None,
        status: Status::Open,
    };
    CouponRow { coupon, partition: 0, terms, issued, next_sequence }
}

fn win(coupon: CouponId, name: &str, sequence: Sequence, log_offset: Offset) -> IssuedRow {
    IssuedRow { coupon, user: user(name), sequence, log_offset, requested_at: 77, issued_at: 0 }
}

/// The batch in which `names` win, one record each, from offset `from` of partition 0, when `from` have won before.
fn wins(coupon: CouponId, total: i64, from: i64, names: &[String]) -> Batch {
    let count = i64::try_from(names.len()).unwrap();
    let mut batch = step(0, from, from + count);
    batch.coupons.push(coupon_row(coupon, total, from + count, from + count + 1));
    batch.issued = names.iter().zip(from..).map(|(name, at)| win(coupon, name, at + 1, at)).collect();
    batch
}

fn names(prefix: &str, range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|number| format!("{prefix}{number}")).collect()
}

/// What a snapshot said.
#[derive(Debug, Default, Clone)]
struct Seen {
    positions: HashMap<Partition, Position>,
    coupons: HashMap<CouponId, (CouponRow, bool)>,
    users: HashMap<(CouponId, String), UserState>,
    doubles: usize,
}

#[derive(Debug, Default, Clone)]
struct Collect(Arc<Mutex<Seen>>);

impl SnapshotSink for Collect {
    fn position(&mut self, position: Position) {
        self.0.lock().unwrap().positions.insert(position.partition, position);
    }

    fn coupon(&mut self, row: CouponRow, over: bool) {
        self.0.lock().unwrap().coupons.insert(row.coupon, (row, over));
    }

    fn user(&mut self, coupon: CouponId, user: &str, state: UserState) {
        let mut seen = self.0.lock().unwrap();
        assert!(seen.coupons.contains_key(&coupon), "a user before its coupon");
        if seen.users.insert((coupon, user.to_owned()), state).is_some() {
            seen.doubles += 1;
        }
    }
}

async fn snapshot(ledger: &dyn Ledger) -> Seen {
    let collect = Collect::default();
    ledger.snapshot(Box::new(collect.clone())).await.unwrap();
    collect.0.lock().unwrap().clone()
}
