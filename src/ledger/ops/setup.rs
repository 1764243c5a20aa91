//! What is decided at first start.

use std::collections::HashSet;

use diesel::prelude::*;

use crate::domain::Partition;
use crate::kill_point::kill_point;
use crate::ledger::errors::Fault;
use crate::ledger::rows::OffsetRaw;
use crate::ledger::schema::{partition_claims, partition_offsets, settings};
use crate::ledger::session::{Control, Session};

/// The setting that holds the partition count.
pub(super) const PARTITIONS: &str = "partitions";

/// Processes that start together insert the same rows: the one that comes second looks again.
const ATTEMPTS: usize = 5;

pub(in crate::ledger) async fn fix_partitions<S: Session>(session: &mut S, partitions: Partition) -> Result<Partition, Fault> {
    let mut attempt = 1;
    loop {
        session.control(Control::BeginWrite).await?;
        let result = fix(session, partitions).await;
        match session.settle(result).await {
            Err(Fault::Guard(_) | Fault::Retry(_)) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

async fn fix<S: Session>(session: &mut S, wanted: Partition) -> Result<Partition, Fault> {
    let query = settings::table.filter(settings::name.eq(PARTITIONS)).select(settings::value);
    let recorded: Option<String> = session.first(query).await?;
    let count = match recorded {
        Some(text) => {
            text.parse::<Partition>().map_err(|_| Fault::Schema(format!("the recorded partition count {text:?} is not a number")))?
        }
        None => {
            let row = (settings::name.eq(PARTITIONS), settings::value.eq(wanted.to_string()));
            session.execute(diesel::insert_into(settings::table).values(row)).await?;
            kill_point("ledger.partitions.recorded");
            wanted
        }
    };
    let offsets: HashSet<Partition> = session.load(partition_offsets::table.select(partition_offsets::part)).await?.into_iter().collect();
    let missing: Vec<OffsetRaw> =
        (0..count).filter(|part| !offsets.contains(part)).map(|part| OffsetRaw { part, next_offset: 0, fingerprint: 0 }).collect();
    for chunk in missing.chunks(1_000) {
        session.execute(diesel::insert_into(partition_offsets::table).values(chunk.to_vec())).await?;
    }
    let claims: HashSet<Partition> = session.load(partition_claims::table.select(partition_claims::part)).await?.into_iter().collect();
    for part in (0..count).filter(|part| !claims.contains(part)) {
        let row = (partition_claims::part.eq(part), partition_claims::expires_at.eq(0));
        session.execute(diesel::insert_into(partition_claims::table).values(row)).await?;
    }
    Ok(count)
}

#[derive(Debug, QueryableByName)]
struct Applied {
    #[diesel(sql_type = diesel::sql_types::Text)]
    version: String,
}

/// Compares the migrations that ran with those of this build, without writing anything.
pub(in crate::ledger) async fn check_schema<S: Session>(session: &mut S, embedded: &[(String, String)]) -> Result<(), Fault> {
    let rows: Vec<Applied> = match session.load(diesel::sql_query("SELECT version FROM __diesel_schema_migrations")).await {
        // No such table: nothing ran yet.
        Err(Fault::Schema(_)) => Vec::new(),
        result => result?,
    };
    let applied: HashSet<String> = rows.into_iter().map(|row| row.version).collect();
    let pending: Vec<&str> = embedded.iter().filter(|(version, _)| !applied.contains(version)).map(|(_, name)| name.as_str()).collect();
    if pending.is_empty() {
        return Ok(());
    }
    Err(Fault::Schema(format!("the tables are older than this build ({} is missing): run coupon-svc migrate", pending.join(", "))))
}
