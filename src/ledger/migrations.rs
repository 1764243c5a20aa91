//! The migrations of both databases, as they are in this build.

use diesel::backend::Backend;
use diesel::connection::BoxableConnection;
use diesel::migration::{Migration, MigrationMetadata, MigrationName, MigrationSource, Result as MigrationResult};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::errors::Fault;
use crate::kill_point::kill_point;

pub(super) const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
pub(super) const MYSQL: EmbeddedMigrations = embed_migrations!("migrations/mysql");

/// The migrations of `source` as (version, name).
pub(super) fn embedded<DB: Backend>(source: &EmbeddedMigrations) -> Result<Vec<(String, String)>, Fault> {
    let migrations: Vec<Box<dyn Migration<DB>>> = source.migrations().map_err(|error| Fault::Schema(error.to_string()))?;
    Ok(migrations.iter().map(|migration| (migration.name().version().to_string(), migration.name().to_string())).collect())
}

/// Runs what is pending, oldest first; returns the names.
pub(super) fn run<DB: Backend>(harness: &mut impl MigrationHarness<DB>, source: EmbeddedMigrations) -> Result<Vec<String>, Fault> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| Fault::Down(format!("a migration failed: {error}"));
    let mut names = Vec::new();
    for migration in harness.pending_migrations(source).map_err(failed)? {
        let name = migration.name().to_string();
        harness.run_migration(&Watched(migration.as_ref())).map_err(failed)?;
        tracing::info!(migration = name, "migration run");
        names.push(name);
    }
    Ok(names)
}

/// A migration with a kill point between its statement and the record that it ran: on MySQL these are two transactions.
struct Watched<'a, DB: Backend>(&'a dyn Migration<DB>);

impl<DB: Backend> Migration<DB> for Watched<'_, DB> {
    fn run(&self, conn: &mut dyn BoxableConnection<DB>) -> MigrationResult<()> {
        self.0.run(conn)?;
        kill_point("ledger.migrate.ran");
        Ok(())
    }

    fn revert(&self, conn: &mut dyn BoxableConnection<DB>) -> MigrationResult<()> {
        self.0.revert(conn)
    }

    fn metadata(&self) -> &dyn MigrationMetadata {
        self.0.metadata()
    }

    fn name(&self) -> &dyn MigrationName {
        self.0.name()
    }
}
