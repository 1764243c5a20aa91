//! The tables of a deployment, behind the service's back: to plant what must be found.

use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel::sqlite::SqliteConnection;
use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};

use super::Deployment;

/// Everything that the audit reads.
const TABLES: [&str; 6] = ["coupons", "coupon_terms", "issued_coupons", "revocations", "dead_letters", "partition_offsets"];

/// A constraint, or a trigger where constraints cannot be added: rows of users whose id begins with `poison` are refused.
const POISON_MYSQL: &str = "ALTER TABLE issued_coupons ADD CONSTRAINT poisoned_by_the_test CHECK (user_id NOT LIKE 'poison%')";
const ANTIDOTE_MYSQL: &str = "ALTER TABLE issued_coupons DROP CONSTRAINT poisoned_by_the_test";
const POISON_SQLITE: &str = "CREATE TRIGGER poison BEFORE INSERT ON issued_coupons WHEN NEW.user_id LIKE 'poison%' \
     BEGIN SELECT RAISE(ABORT, 'poisoned_by_the_test'); END";
const ANTIDOTE_SQLITE: &str = "DROP TRIGGER poison";

impl Deployment {
    fn sqlite(&self, file: &str) -> SqliteConnection {
        let path = self.dir.path().join("data").join(file);
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        connection
    }

    /// Carries out statements on the ledger.
    pub async fn sql(&self, statements: &str) {
        match self.env.get("COUPON__MYSQL__URL") {
            Some(url) => AsyncMysqlConnection::establish(url).await.unwrap().batch_execute(statements).await,
            None => self.sqlite("ledger.db").batch_execute(statements),
        }
        .unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Carries out statements on the embedded journal.
    pub fn journal_sql(&self, statements: &str) {
        self.sqlite("journal.db").batch_execute(statements).unwrap();
    }

    fn is_embedded(&self) -> bool {
        !self.env.contains_key("COUPON__MYSQL__URL")
    }

    pub async fn poison(&self) {
        self.sql(if self.is_embedded() { POISON_SQLITE } else { POISON_MYSQL }).await;
    }

    pub async fn antidote(&self) {
        self.sql(if self.is_embedded() { ANTIDOTE_SQLITE } else { ANTIDOTE_MYSQL }).await;
    }

    /// Copies every table, and drops their keys and checks: nothing in the database keeps a corruption out any more.
    pub async fn unguard(&self) {
        for table in TABLES {
            self.sql(&format!("CREATE TABLE {table}_kept AS SELECT * FROM {table}")).await;
            self.sql(&format!("DROP TABLE {table}")).await;
            self.sql(&format!("CREATE TABLE {table} AS SELECT * FROM {table}_kept")).await;
        }
    }

    /// Puts back what [`Deployment::unguard`] copied.
    pub async fn repair(&self) {
        let all = TABLES.map(|table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM {table}_kept;"));
        self.sql(&format!("BEGIN; {} COMMIT", all.concat())).await;
    }
}
