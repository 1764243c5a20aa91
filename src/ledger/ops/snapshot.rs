//! Everything at one instant: the start of a follower, and what the audit compares with the log.

use std::collections::HashSet;

use diesel::prelude::*;

use super::{UNSETTLED, reads};
use crate::domain::{CouponId, Partition, Sequence, Status, UserState};
use crate::kill_point::kill_point;
use crate::ledger::errors::Fault;
use crate::ledger::rows::{CouponRaw, DeadLetterRaw, IssuedRaw, RevocationRaw, TermsRaw, convert, coupon_id};
use crate::ledger::schema::{coupon_terms, coupons, dead_letters, issued_coupons, revocations};
use crate::ledger::session::{Control, Session};
use crate::ledger::{AuditView, CouponRow, SnapshotSink};

/// Rows of a page: a statement's deadline counts for each.
const PAGE: usize = 50_000;
const LIMIT: i64 = 50_000;

pub(in crate::ledger) async fn snapshot<S: Session>(session: &mut S, sink: &mut dyn SnapshotSink) -> Result<(), Fault> {
    session.control(Control::BeginRead).await?;
    let result = stream(session, sink).await;
    session.settle(result).await
}

async fn stream<S: Session>(session: &mut S, sink: &mut dyn SnapshotSink) -> Result<(), Fault> {
    for position in reads::positions(session).await? {
        sink.position(position);
    }
    kill_point("ledger.snapshot.positions");
    let unsettled = dead_letters::table
        .filter(dead_letters::state.eq_any(UNSETTLED))
        .filter(dead_letters::sequence.is_not_null())
        .select((dead_letters::coupon_id, dead_letters::user_id, dead_letters::sequence));
    let unsettled: Vec<(Option<String>, Option<String>, Option<i64>)> = session.load(unsettled).await?;
    let held: HashSet<&str> = unsettled.iter().filter_map(|(coupon, _, _)| coupon.as_deref()).collect();

    let mut live = Vec::new();
    let mut after = String::new();
    loop {
        let query =
            coupons::table.filter(coupons::coupon_id.gt(after.clone())).order(coupons::coupon_id).limit(LIMIT).select(coupons::all_columns);
        let page: Vec<CouponRaw> = session.load(query).await?;
        let last = page.len() < PAGE;
        for raw in page {
            after.clone_from(&raw.coupon_id);
            let over = raw.status == Status::Closed.as_str() && !held.contains(raw.coupon_id.as_str());
            let row = CouponRow::try_from(raw)?;
            if !over {
                live.push(row.coupon);
            }
            sink.coupon(row, over);
            kill_point("ledger.snapshot.coupons");
        }
        if last {
            break;
        }
    }
    for (coupon, user, sequence) in &unsettled {
        if let (Some(coupon), Some(user), Some(sequence)) = (coupon, user, sequence) {
            sink.user(coupon_id(coupon)?, user, UserState::Holder(*sequence));
        }
    }
    for coupon in live {
        stream_users(session, sink, coupon).await?;
    }
    Ok(())
}

async fn stream_users<S: Session>(session: &mut S, sink: &mut dyn SnapshotSink, coupon: CouponId) -> Result<(), Fault> {
    // In the order of the unique key, which holds all that is read here.
    let mut after = String::new();
    loop {
        let query = issued_coupons::table
            .filter(issued_coupons::coupon_id.eq(coupon.to_string()))
            .filter(issued_coupons::user_id.gt(after.clone()))
            .order(issued_coupons::user_id)
            .limit(LIMIT)
            .select((issued_coupons::user_id, issued_coupons::sequence));
        let mut page: Vec<(String, i64)> = session.load(query).await?;
        let last = page.len() < PAGE;
        for (user, sequence) in &page {
            sink.user(coupon, user, UserState::Holder(*sequence));
            kill_point("ledger.snapshot.users");
        }
        match page.pop() {
            Some((user, _)) if !last => after = user,
            _ => break,
        }
    }
    let query =
        revocations::table.filter(revocations::coupon_id.eq(coupon.to_string())).select((revocations::user_id, revocations::sequence));
    for (user, sequence) in session.load::<(String, i64), _>(query).await? {
        sink.user(coupon, &user, UserState::Revoked(sequence));
    }
    Ok(())
}

pub(in crate::ledger) async fn audit_view<S: Session>(
    session: &mut S,
    partition: Partition,
    coupon: Option<CouponId>,
    most: usize,
) -> Result<Option<AuditView>, Fault> {
    session.control(Control::BeginRead).await?;
    let result = view(session, partition, coupon, most).await;
    session.settle(result).await
}

async fn view<S: Session>(session: &mut S, partition: Partition, only: Option<CouponId>, most: usize) -> Result<Option<AuditView>, Fault> {
    let position = reads::positions(session).await?.into_iter().find(|position| position.partition == partition);
    let position = position.ok_or_else(|| Fault::Schema(format!("partition {partition} is not one of this ledger")))?;
    let query = coupons::table.filter(coupons::part.eq(partition)).order(coupons::coupon_id).select(coupons::all_columns);
    let letters = dead_letters::table.filter(dead_letters::part.eq(partition)).order(dead_letters::id).select(dead_letters::all_columns);
    let (rows, letters) = match only.map(|coupon| coupon.to_string()) {
        None => (session.load(query).await?, session.load(letters).await?),
        Some(id) => (
            session.load(query.filter(coupons::coupon_id.eq(id.clone()))).await?,
            session.load(letters.filter(dead_letters::coupon_id.eq(id))).await?,
        ),
    };
    let mut view = AuditView {
        position,
        coupons: convert::<CouponRaw, _>(rows)?,
        terms: Vec::new(),
        issued: Vec::new(),
        revocations: Vec::new(),
        dead_letters: convert::<DeadLetterRaw, _>(letters)?,
    };
    let ids: Vec<String> = view.coupons.iter().map(|row| row.coupon.to_string()).collect();
    for id in ids {
        if !view_coupon(session, &mut view, id, most).await? {
            return Ok(None);
        }
    }
    Ok(Some(view))
}

/// False: the view would hold more than `most` issued rows.
async fn view_coupon<S: Session>(session: &mut S, view: &mut AuditView, id: String, most: usize) -> Result<bool, Fault> {
    let query =
        coupon_terms::table.filter(coupon_terms::coupon_id.eq(id.clone())).order(coupon_terms::version).select(coupon_terms::all_columns);
    view.terms.extend(convert(session.load::<TermsRaw, _>(query).await?)?);
    let query =
        revocations::table.filter(revocations::coupon_id.eq(id.clone())).order(revocations::sequence).select(revocations::all_columns);
    view.revocations.extend(convert(session.load::<RevocationRaw, _>(query).await?)?);
    let mut after: Sequence = i64::MIN;
    loop {
        let query = issued_coupons::table
            .filter(issued_coupons::coupon_id.eq(id.clone()))
            .filter(issued_coupons::sequence.gt(after))
            .order(issued_coupons::sequence)
            .limit(LIMIT)
            .select(issued_coupons::all_columns);
        let page: Vec<IssuedRaw> = session.load(query).await?;
        let last = page.len() < PAGE;
        after = page.last().map_or(after, |row| row.sequence);
        view.issued.extend(convert(page)?);
        if view.issued.len() > most {
            return Ok(false);
        }
        if last {
            return Ok(true);
        }
    }
}
