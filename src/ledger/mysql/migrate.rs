//! Migrations, one process at a time.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable};
use diesel_async::AsyncMysqlConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;

use super::pool::MysqlSession;
use crate::kill_point::kill_point;
use crate::ledger::errors::{self, Fault};
use crate::ledger::migrations;

/// DDL is not transactional here: without a lock, two processes that start together would run one migration twice. And one that dies between
/// a migration and the record of it leaves it to be run again: every one is a single statement that may be repeated.
const LOCK: &str = "SELECT CAST(GET_LOCK(LEFT(CONCAT('coupon-svc-migrate:', DATABASE()), 64), 60) AS SIGNED) AS got";

#[derive(QueryableByName)]
struct Locked {
    #[diesel(sql_type = Nullable<BigInt>)]
    got: Option<i64>,
}

/// Runs what is pending on a connection of its own; closing it gives the lock back.
pub(super) async fn migrate(session: MysqlSession) -> Result<Vec<String>, Fault> {
    let task = tokio::task::spawn_blocking(move || {
        let mut conn: AsyncConnectionWrapper<AsyncMysqlConnection> = session.conn.into();
        let lock: Locked = diesel::sql_query(LOCK).get_result(&mut conn).map_err(|error| errors::mysql(&error, None))?;
        if lock.got != Some(1) {
            return Err(Fault::Retry("another process is migrating".to_owned()));
        }
        kill_point("ledger.migrate.locked");
        migrations::run(&mut conn, migrations::MYSQL)
    });
    task.await.map_err(|error| Fault::Down(error.to_string()))?
}
