//! Partition claims: fair share among live members. For liveness only, so nothing here has to be exact.

use std::time::Duration;

use diesel::prelude::*;

use crate::domain::Partition;
use crate::kill_point::kill_point;
use crate::ledger::Position;
use crate::ledger::errors::Fault;
use crate::ledger::schema::{consumers, partition_claims, settings};
use crate::ledger::session::{Control, Session};

use super::reads;
use super::setup::PARTITIONS;

/// Attempts at a claim that deadlocks.
const ATTEMPTS: usize = 3;

pub(in crate::ledger) async fn claim<S: Session>(session: &mut S, owner: &str, lease: Duration) -> Result<Vec<Partition>, Fault> {
    let mut attempt = 1;
    loop {
        session.control(Control::BeginWrite).await?;
        let result = rebalance(session, owner, lease).await;
        match session.settle(result).await {
            Err(Fault::Retry(_)) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

async fn rebalance<S: Session>(session: &mut S, owner: &str, lease: Duration) -> Result<Vec<Partition>, Fault> {
    // Claims of all members one after the other: this row is their lock.
    let lock = settings::table.filter(settings::name.eq(PARTITIONS));
    if session.execute(diesel::update(lock).set(settings::value.eq(settings::value))).await? == 0 {
        return Err(Fault::Schema("the partition count is not recorded yet".to_owned()));
    }
    let now = session.clock().await?;
    let until = now.saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX));
    let me = consumers::table.filter(consumers::owner.eq(owner.to_owned()));
    if session.execute(diesel::update(me).set(consumers::expires_at.eq(until))).await? == 0 {
        let row = (consumers::owner.eq(owner.to_owned()), consumers::expires_at.eq(until));
        session.execute(diesel::insert_into(consumers::table).values(row)).await?;
    }
    session.execute(diesel::delete(consumers::table.filter(consumers::expires_at.le(now)))).await?;
    let members: Vec<String> = session.load(consumers::table.select(consumers::owner)).await?;
    let all = partition_claims::table.select((partition_claims::part, partition_claims::owner, partition_claims::expires_at));
    let claims: Vec<(Partition, Option<String>, i64)> = session.load(all.order(partition_claims::part)).await?;

    let share = claims.len().div_ceil(members.len().max(1));
    let mut mine: Vec<Partition> = claims.iter().filter(|(_, holder, _)| holder.as_deref() == Some(owner)).map(|claim| claim.0).collect();
    let surplus = mine.split_off(share.min(mine.len()));
    let open = claims.iter().filter(|(_, holder, expires_at)| match holder.as_deref() {
        None => true,
        Some(holder) => holder != owner && *expires_at <= now,
    });
    mine.extend(open.map(|claim| claim.0).take(share - mine.len()));
    mine.sort_unstable();
    if !surplus.is_empty() {
        free(session, partition_claims::part.eq_any(surplus)).await?;
    }
    if !mine.is_empty() {
        let rows = partition_claims::table.filter(partition_claims::part.eq_any(mine.clone()));
        let set = (partition_claims::owner.eq(owner.to_owned()), partition_claims::expires_at.eq(until));
        session.execute(diesel::update(rows).set(set)).await?;
        kill_point("ledger.claim.taken");
    }
    Ok(mine)
}

/// What [`free`] filters by.
type Parts = diesel::dsl::EqAny<partition_claims::part, Vec<Partition>>;

async fn free<S: Session>(session: &mut S, which: Parts) -> Result<(), Fault> {
    let set = (partition_claims::owner.eq(None::<String>), partition_claims::expires_at.eq(0));
    session.execute(diesel::update(partition_claims::table.filter(which)).set(set)).await?;
    Ok(())
}

pub(in crate::ledger) async fn unowned<S: Session>(session: &mut S) -> Result<Vec<Position>, Fault> {
    let now = session.clock().await?;
    // A free one has a lease that ran out long ago.
    let free = partition_claims::table.filter(partition_claims::expires_at.le(now)).select(partition_claims::part);
    let free: Vec<Partition> = session.load(free).await?;
    if free.is_empty() {
        return Ok(Vec::new());
    }
    let positions = reads::positions(session).await?;
    Ok(positions.into_iter().filter(|position| free.contains(&position.partition)).collect())
}

pub(in crate::ledger) async fn release<S: Session>(session: &mut S, owner: &str) -> Result<(), Fault> {
    let mut attempt = 1;
    loop {
        session.control(Control::BeginWrite).await?;
        let result = leave(session, owner).await;
        match session.settle(result).await {
            Err(Fault::Retry(_)) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

async fn leave<S: Session>(session: &mut S, owner: &str) -> Result<(), Fault> {
    let lock = settings::table.filter(settings::name.eq(PARTITIONS));
    session.execute(diesel::update(lock).set(settings::value.eq(settings::value))).await?;
    let mine = partition_claims::table.filter(partition_claims::owner.eq(owner.to_owned())).select(partition_claims::part);
    let mine: Vec<Partition> = session.load(mine).await?;
    if !mine.is_empty() {
        free(session, partition_claims::part.eq_any(mine)).await?;
        kill_point("ledger.release.freed");
    }
    session.execute(diesel::delete(consumers::table.filter(consumers::owner.eq(owner.to_owned())))).await?;
    Ok(())
}
