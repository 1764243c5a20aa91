//! One connection inside a call, of either database. The operations in `ops` are written once against this.

use diesel::sqlite::SqliteConnection;
use diesel_async::AsyncMysqlConnection;
use futures_util::future::BoxFuture;

use super::errors::Fault;
use crate::domain::EpochMillis;

/// A query that both databases can run, giving rows of `R`. It owns what it binds.
pub(super) trait Query<R>:
    diesel::query_dsl::LoadQuery<'static, SqliteConnection, R>
    + diesel_async::methods::LoadQuery<'static, AsyncMysqlConnection, R>
    + Send
    + 'static
{
}

impl<R, Q> Query<R> for Q where
    Q: diesel::query_dsl::LoadQuery<'static, SqliteConnection, R>
        + diesel_async::methods::LoadQuery<'static, AsyncMysqlConnection, R>
        + Send
        + 'static
{
}

/// A statement that both databases can run, giving the number of rows it matched.
pub(super) trait Command:
    diesel::query_dsl::methods::ExecuteDsl<SqliteConnection> + diesel_async::methods::ExecuteDsl<AsyncMysqlConnection> + Send + 'static
{
}

impl<Q> Command for Q where
    Q: diesel::query_dsl::methods::ExecuteDsl<SqliteConnection> + diesel_async::methods::ExecuteDsl<AsyncMysqlConnection> + Send + 'static
{
}

/// A statement without parameters and without rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    BeginWrite,
    /// Everything read until the commit is of one instant.
    BeginRead,
    Commit,
    Rollback,
}

/// The result of a statement, to be awaited.
pub(super) type Answer<'a, T> = BoxFuture<'a, Result<T, Fault>>;

/// One connection. On SQLite no future of these ever waits.
pub(super) trait Session: Send {
    fn control(&mut self, control: Control) -> Answer<'_, ()>;

    /// The database's clock.
    fn clock(&mut self) -> Answer<'_, EpochMillis>;

    fn load<R: Send + 'static, Q: Query<R>>(&mut self, query: Q) -> Answer<'_, Vec<R>>;

    fn execute<Q: Command>(&mut self, command: Q) -> Answer<'_, usize>;

    /// The first row.
    fn first<R: Send + 'static, Q: Query<R>>(&mut self, query: Q) -> Answer<'_, Option<R>> {
        let rows = self.load(query);
        Box::pin(async move { Ok(rows.await?.into_iter().next()) })
    }

    /// Ends the transaction as `result` asks. A failed rollback is not reported: the fault before it is, and the connection is given up.
    fn settle<'a, T: Send + 'a>(&'a mut self, result: Result<T, Fault>) -> Answer<'a, T> {
        Box::pin(async move {
            match result {
                Ok(value) => self.control(Control::Commit).await.map(|()| value),
                Err(fault) => {
                    let _ignored = self.control(Control::Rollback).await;
                    Err(fault)
                }
            }
        })
    }
}
