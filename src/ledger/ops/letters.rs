//! Dead letters: what could not be written, and the two ways out.

use std::collections::HashMap;

use diesel::prelude::*;

use super::UNSETTLED;
use crate::domain::{CouponId, now_millis};
use crate::kill_point::kill_point;
use crate::ledger::errors::Fault;
use crate::ledger::rows::{DeadLetterRaw, IssuedRaw, convert};
use crate::ledger::schema::{dead_letters, issued_coupons};
use crate::ledger::session::{Control, Session};
use crate::ledger::{DeadLetter, DeadLetterState, IssuedRow, Page, ReplayOutcome};

pub(in crate::ledger) async fn list<S: Session>(
    session: &mut S,
    state: Option<DeadLetterState>,
    page: &Page<i64>,
) -> Result<Vec<DeadLetter>, Fault> {
    let query = dead_letters::table
        .filter(dead_letters::id.gt(page.after.unwrap_or(i64::MIN)))
        .order(dead_letters::id)
        .limit(page.limit)
        .select(dead_letters::all_columns);
    let rows: Vec<DeadLetterRaw> = match state {
        Some(state) => session.load(query.filter(dead_letters::state.eq(state.as_str()))).await?,
        None => session.load(query).await?,
    };
    convert(rows)
}

pub(in crate::ledger) async fn get<S: Session>(session: &mut S, id: i64) -> Result<Option<DeadLetter>, Fault> {
    let query = dead_letters::table.filter(dead_letters::id.eq(id)).select(dead_letters::all_columns);
    session.first::<DeadLetterRaw, _>(query).await?.map(DeadLetter::try_from).transpose()
}

pub(in crate::ledger) async fn counts<S: Session>(session: &mut S) -> Result<HashMap<DeadLetterState, i64>, Fault> {
    let query = dead_letters::table.group_by(dead_letters::state).select((dead_letters::state, diesel::dsl::count_star()));
    let mut counts: HashMap<DeadLetterState, i64> = DeadLetterState::ALL.into_iter().map(|state| (state, 0)).collect();
    for (state, count) in session.load::<(String, i64), _>(query).await? {
        if let Some(state) = DeadLetterState::parse(&state) {
            counts.insert(state, count);
        }
    }
    Ok(counts)
}

pub(in crate::ledger) async fn unsettled<S: Session>(session: &mut S, coupon: CouponId) -> Result<i64, Fault> {
    let query =
        dead_letters::table.filter(dead_letters::coupon_id.eq(coupon.to_string())).filter(dead_letters::state.eq_any(UNSETTLED)).count();
    Ok(session.first(query).await?.unwrap_or(0))
}

/// From `open` to `to`; false: it was not open.
async fn leave_open<S: Session>(session: &mut S, id: i64, to: DeadLetterState) -> Result<bool, Fault> {
    let row = dead_letters::table.filter(dead_letters::id.eq(id)).filter(dead_letters::state.eq(DeadLetterState::Open.as_str()));
    let set = (dead_letters::state.eq(to.as_str()), dead_letters::updated_at.eq(now_millis()));
    Ok(session.execute(diesel::update(row).set(set)).await? > 0)
}

pub(in crate::ledger) async fn replay<S: Session>(session: &mut S, id: i64) -> Result<ReplayOutcome, Fault> {
    session.control(Control::BeginWrite).await?;
    let result = replay_within(session, id).await;
    match session.settle(result).await {
        Err(Fault::Data(reason) | Fault::Guard(reason)) => Ok(ReplayOutcome::Refused(reason)),
        settled => settled,
    }
}

async fn replay_within<S: Session>(session: &mut S, id: i64) -> Result<ReplayOutcome, Fault> {
    let Some(letter) = get(session, id).await? else {
        return Ok(ReplayOutcome::NotFound);
    };
    let Some(win) = letter.win else {
        return Ok(if letter.state == DeadLetterState::Open { ReplayOutcome::NotAWin } else { ReplayOutcome::State(letter.state) });
    };
    if !leave_open(session, id, DeadLetterState::Replayed).await? {
        let now = get(session, id).await?;
        return Ok(now.map_or(ReplayOutcome::NotFound, |letter| ReplayOutcome::State(letter.state)));
    }
    kill_point("ledger.replay.marked");
    let row = IssuedRow {
        coupon: win.coupon,
        user: win.user,
        sequence: win.sequence,
        log_offset: letter.log_offset,
        requested_at: win.requested_at,
        issued_at: 0,
    };
    session.execute(diesel::insert_into(issued_coupons::table).values(IssuedRaw::new(&row, now_millis()))).await?;
    kill_point("ledger.replay.written");
    Ok(ReplayOutcome::Replayed)
}

pub(in crate::ledger) async fn abandon<S: Session>(session: &mut S, id: i64) -> Result<Option<DeadLetter>, Fault> {
    session.control(Control::BeginWrite).await?;
    let result = abandon_within(session, id).await;
    session.settle(result).await
}

async fn abandon_within<S: Session>(session: &mut S, id: i64) -> Result<Option<DeadLetter>, Fault> {
    let Some(letter) = get(session, id).await? else { return Ok(None) };
    let to = if letter.win.is_some() { DeadLetterState::Abandoning } else { DeadLetterState::Abandoned };
    if leave_open(session, id, to).await? {
        kill_point("ledger.abandon.marked");
    }
    get(session, id).await
}
