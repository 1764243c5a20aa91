//! Connections: opened when needed, leased for one call, given up when a call did not come to its end.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel_async::{AsyncMysqlConnection, RunQueryDsl, SimpleAsyncConnection};
use mysql_async::{Opts, OptsBuilder, SslOpts};
use secrecy::ExposeSecret;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::MysqlOptions;
use crate::domain::EpochMillis;
use crate::ledger::LedgerError;
use crate::ledger::errors::{self, Diagnosis, Fault};
use crate::ledger::session::{Answer, Command, Control, Query, Session};
use crate::tls;

/// A connection idle for longer is asked whether it still lives.
const TRUST: Duration = Duration::from_secs(10);
/// How long a failed statement may take to explain itself.
const DIAGNOSE: Duration = Duration::from_secs(2);

/// Every session alike, whatever the server's defaults.
const SETUP: [&str; 5] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION innodb_lock_wait_timeout = 5",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    "SET SESSION autocommit = 1",
    // A process that froze, or whose machine is gone, in the middle of a transaction: the server ends it and frees its locks. Longer than
    // TRUST, or a connection would be gone before it is doubted.
    "SET SESSION wait_timeout = 15",
];

#[derive(diesel::QueryableByName)]
struct Clock {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    millis: i64,
}

#[derive(diesel::QueryableByName)]
struct Condition {
    #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Text>)]
    error_number: Option<String>,
    #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Text>)]
    error_state: Option<String>,
}

/// One connection.
pub(super) struct MysqlSession {
    pub(super) conn: AsyncMysqlConnection,
    statement_timeout: Duration,
    /// Not to be used again: nobody knows what is still on the wire.
    broken: bool,
}

impl MysqlSession {
    async fn finish<T>(&mut self, result: Result<diesel::QueryResult<T>, Elapsed>) -> Result<T, Fault> {
        let fault = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                let diagnosis = timeout(DIAGNOSE, self.diagnose()).await.ok().flatten();
                errors::mysql(&error, diagnosis.as_ref())
            }
            Err(_) => Fault::Down(format!("no answer within {} ms", self.statement_timeout.as_millis())),
        };
        self.broken |= matches!(fault, Fault::Down(_));
        Err(fault)
    }

    /// Number and SQLSTATE of the last error, which diesel leaves out; `None` when the connection is gone.
    async fn diagnose(&mut self) -> Option<Diagnosis> {
        let ask = "GET DIAGNOSTICS CONDITION 1 @coupon_number = MYSQL_ERRNO, @coupon_state = RETURNED_SQLSTATE";
        self.conn.batch_execute(ask).await.ok()?;
        let answer = "SELECT CAST(@coupon_number AS CHAR) AS error_number, CAST(@coupon_state AS CHAR) AS error_state";
        let row: Condition = diesel::sql_query(answer).get_result(&mut self.conn).await.ok()?;
        Some(Diagnosis { number: row.error_number?.parse().ok()?, sqlstate: row.error_state.unwrap_or_default() })
    }

    async fn run(&mut self, sql: &str) -> Result<(), Fault> {
        let result = timeout(self.statement_timeout, self.conn.batch_execute(sql)).await;
        self.finish(result).await
    }
}

impl Session for MysqlSession {
    fn control(&mut self, control: Control) -> Answer<'_, ()> {
        Box::pin(async move {
            match control {
                Control::BeginWrite => self.run("START TRANSACTION").await,
                Control::BeginRead => {
                    // For the next transaction only.
                    self.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
                    self.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await
                }
                Control::Commit => {
                    let result = self.run("COMMIT").await;
                    self.broken |= result.is_err();
                    result
                }
                // Closing the connection rolls back.
                Control::Rollback if self.broken => Ok(()),
                Control::Rollback => {
                    let result = self.run("ROLLBACK").await;
                    self.broken |= result.is_err();
                    result
                }
            }
        })
    }

    fn clock(&mut self) -> Answer<'_, EpochMillis> {
        let query = diesel::sql_query("SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) AS millis");
        Box::pin(async move {
            let result = timeout(self.statement_timeout, query.get_result::<Clock>(&mut self.conn)).await;
            self.finish(result).await.map(|row| row.millis)
        })
    }

    fn load<R: Send + 'static, Q: Query<R>>(&mut self, query: Q) -> Answer<'_, Vec<R>> {
        Box::pin(async move {
            let result = timeout(self.statement_timeout, RunQueryDsl::load::<R>(query, &mut self.conn)).await;
            self.finish(result).await
        })
    }

    fn execute<Q: Command>(&mut self, command: Q) -> Answer<'_, usize> {
        Box::pin(async move {
            let result = timeout(self.statement_timeout, RunQueryDsl::execute(command, &mut self.conn)).await;
            self.finish(result).await
        })
    }
}

/// At most `size` connections.
pub(super) struct Pool {
    opts: Opts,
    /// Where connections are made, whoever asks first: one made on the runtime of an HTTP worker would end with that worker.
    runtime: Handle,
    size: usize,
    connect_timeout: Duration,
    query_timeout: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<(MysqlSession, Instant)>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("host", &self.opts.ip_or_hostname()).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Pool {
    /// Needs a tokio runtime: the connections live on it.
    pub(super) fn new(options: MysqlOptions) -> Result<Self, LedgerError> {
        Self::with_defaults(options, &[])
    }

    /// As [`Pool::new`], on sessions that begin with `defaults`, as a server's own would be.
    pub(super) fn with_defaults(options: MysqlOptions, defaults: &[&str]) -> Result<Self, LedgerError> {
        // The error may quote the URL with its password: only its kind is told.
        let opts = Opts::from_url(options.url.expose_secret())
            .map_err(|_| LedgerError::Schema("mysql.url is not of the form mysql://user:password@host:port/database".to_owned()))?;
        let wants_tls = options.require_tls || options.tls_ca.is_some();
        let given = opts.ssl_opts().cloned();
        let mut builder = OptsBuilder::from_opts(opts)
            // The library runs the last one first.
            .init([&SETUP, defaults].concat())
            // diesel has its own
            .stmt_cache_size(0)
            // an UPDATE that changes nothing still found its row
            .client_found_rows(true)
            .prefer_socket(false)
            .tcp_nodelay(true);
        if wants_tls {
            let mut ssl = given.unwrap_or_else(SslOpts::default);
            if let Some(ca) = options.tls_ca {
                // Read again for every connection: a file that cannot be read is said now, not taken for a database that is away.
                tls::client_config(Some(&ca)).map_err(|error| LedgerError::Schema(format!("mysql.ca_file: {error}")))?;
                ssl = ssl.with_root_certs(vec![ca.into()]);
            }
            builder = builder.ssl_opts(ssl);
        }
        // Already installed in the service itself; a second time changes nothing.
        let _ignored = rustls::crypto::ring::default_provider().install_default();
        let size = options.pool.max(1);
        Ok(Self {
            opts: builder.into(),
            runtime: Handle::current(),
            size,
            connect_timeout: options.connect_timeout,
            query_timeout: options.query_timeout,
            permits: Semaphore::new(size),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// A new connection, outside the pool.
    pub(super) async fn open(&self) -> Result<MysqlSession, Fault> {
        let opts = self.opts.clone();
        let connect = AbortOnDropHandle::new(self.runtime.spawn(async move {
            let conn = mysql_async::Conn::new(opts).await.map_err(|error| Fault::Down(error.to_string()))?;
            AsyncMysqlConnection::try_from(conn).await.map_err(|error| Fault::Down(error.to_string()))
        }));
        let conn = timeout(self.connect_timeout, connect)
            .await
            .map_err(|_| Fault::Down(format!("no connection within {} ms", self.connect_timeout.as_millis())))?
            .map_err(|error| Fault::Down(error.to_string()))??;
        Ok(MysqlSession { conn, statement_timeout: self.query_timeout, broken: false })
    }

    /// A connection for one call.
    pub(super) async fn lease(&self) -> Result<Lease<'_>, Fault> {
        let permit = timeout(self.connect_timeout, self.permits.acquire())
            .await
            .map_err(|_| Fault::Down("every connection is in use".to_owned()))?
            .map_err(|error| Fault::Down(error.to_string()))?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((mut session, since)) = idle else { break };
            if since.elapsed() < TRUST || timeout(self.connect_timeout, session.run("DO 0")).await.is_ok_and(|result| result.is_ok()) {
                return Ok(Lease { pool: self, session, _permit: permit });
            }
        }
        Ok(Lease { pool: self, session: self.open().await?, _permit: permit })
    }

    pub(super) fn counts(&self) -> (u32, u32) {
        let used = self.size.saturating_sub(self.permits.available_permits());
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).len();
        (u32::try_from(used).unwrap_or(u32::MAX), u32::try_from(used + idle).unwrap_or(u32::MAX))
    }
}

/// A connection for the time of one call. Dropped before [`Lease::settle`] (a cancelled call) it is closed, not given back.
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    session: MysqlSession,
    _permit: SemaphorePermit<'a>,
}

impl Lease<'_> {
    pub(super) fn session(&mut self) -> &mut MysqlSession {
        &mut self.session
    }

    /// Ends the call: a sound connection goes back to the pool.
    pub(super) fn settle<T>(self, result: Result<Result<T, Fault>, Elapsed>) -> Result<T, LedgerError> {
        let result = result.unwrap_or_else(|_| Err(Fault::Down(format!("not done within {} ms", self.pool.query_timeout.as_millis()))));
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(result, Err(Fault::Down(_))) || self.session.broken {
            // The others were opened to the same server: whatever ails it, they are asked to prove themselves by being new.
            idle.clear();
        } else {
            idle.push((self.session, Instant::now()));
        }
        drop(idle);
        Ok(result?)
    }
}
