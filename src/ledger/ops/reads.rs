//! Reads of a few rows.

use std::collections::HashMap;

use diesel::prelude::*;

use super::UNSETTLED;
use crate::domain::{CouponId, EpochMillis, Partition, Terms, UserId, UserState};
use crate::ledger::errors::Fault;
use crate::ledger::rows::{CouponRaw, IssuedRaw, OffsetRaw, convert, coupon_id, user_id};
use crate::ledger::schema::{coupons, dead_letters, issued_coupons, partition_offsets, revocations};
use crate::ledger::session::{Control, Session};
use crate::ledger::{CouponRow, IssuedRow, Loaded, Page, Position};

/// Values in one IN list.
const CHUNK: usize = 1_000;

pub(in crate::ledger) async fn positions<S: Session>(session: &mut S) -> Result<Vec<Position>, Fault> {
    let query = partition_offsets::table.order(partition_offsets::part).select((
        partition_offsets::part,
        partition_offsets::next_offset,
        partition_offsets::fingerprint,
    ));
    let rows: Vec<OffsetRaw> = session.load(query).await?;
    Ok(rows.into_iter().map(Position::from).collect())
}

pub(in crate::ledger) async fn coupon<S: Session>(session: &mut S, coupon: CouponId) -> Result<Option<CouponRow>, Fault> {
    let query = coupons::table.filter(coupons::coupon_id.eq(coupon.to_string())).select(coupons::all_columns);
    session.first::<CouponRaw, _>(query).await?.map(CouponRow::try_from).transpose()
}

pub(in crate::ledger) async fn issued<S: Session>(session: &mut S, coupon: CouponId, user: &UserId) -> Result<Option<IssuedRow>, Fault> {
    let query = issued_coupons::table
        .filter(issued_coupons::coupon_id.eq(coupon.to_string()))
        .filter(issued_coupons::user_id.eq(user.as_str().to_owned()))
        .select(issued_coupons::all_columns);
    session.first::<IssuedRaw, _>(query).await?.map(IssuedRow::try_from).transpose()
}

pub(in crate::ledger) async fn coupons_of<S: Session>(
    session: &mut S,
    user: &UserId,
    page: &Page<(EpochMillis, CouponId)>,
) -> Result<Vec<(IssuedRow, Terms)>, Fault> {
    let query = issued_coupons::table
        .inner_join(coupons::table.on(coupons::coupon_id.eq(issued_coupons::coupon_id)))
        .filter(issued_coupons::user_id.eq(user.as_str().to_owned()))
        .order((issued_coupons::issued_at.desc(), issued_coupons::coupon_id.desc()))
        .limit(page.limit)
        .select((issued_coupons::all_columns, coupons::all_columns));
    let rows: Vec<(IssuedRaw, CouponRaw)> = match &page.after {
        None => session.load(query).await?,
        Some((at, coupon)) => {
            let same = issued_coupons::issued_at.eq(*at).and(issued_coupons::coupon_id.lt(coupon.to_string()));
            session.load(query.filter(issued_coupons::issued_at.lt(*at).or(same))).await?
        }
    };
    rows.into_iter().map(|(row, coupon)| Ok((IssuedRow::try_from(row)?, CouponRow::try_from(coupon)?.terms))).collect()
}

pub(in crate::ledger) async fn load<S: Session>(
    session: &mut S,
    partitions: &[Partition],
    wanted: &HashMap<CouponId, Vec<UserId>>,
) -> Result<Loaded, Fault> {
    session.control(Control::BeginRead).await?;
    let result = load_within(session, partitions, wanted).await;
    session.settle(result).await
}

async fn load_within<S: Session>(
    session: &mut S,
    partitions: &[Partition],
    wanted: &HashMap<CouponId, Vec<UserId>>,
) -> Result<Loaded, Fault> {
    let mut loaded = Loaded::default();
    for position in positions(session).await? {
        if partitions.contains(&position.partition) {
            loaded.positions.insert(position.partition, position);
        }
    }
    let ids: Vec<String> = wanted.keys().map(CouponId::to_string).collect();
    for chunk in ids.chunks(CHUNK) {
        let query = coupons::table.filter(coupons::coupon_id.eq_any(chunk.to_vec())).select(coupons::all_columns);
        let rows: Vec<CouponRow> = convert(session.load::<CouponRaw, _>(query).await?)?;
        loaded.coupons.extend(rows.into_iter().map(|row| (row.coupon, row)));
    }
    // Holders by dead letter: few in all, so all of the coupon, sorted out here.
    for chunk in ids.chunks(CHUNK) {
        let query = dead_letters::table
            .filter(dead_letters::coupon_id.eq_any(chunk.to_vec()))
            .filter(dead_letters::state.eq_any(UNSETTLED))
            .select((dead_letters::coupon_id, dead_letters::user_id, dead_letters::sequence));
        for row in session.load::<(Option<String>, Option<String>, Option<i64>), _>(query).await? {
            let (Some(coupon), Some(user), Some(sequence)) = row else {
                continue;
            };
            let (coupon, user) = (coupon_id(&coupon)?, user_id(user)?);
            if wanted.get(&coupon).is_some_and(|users| users.contains(&user)) {
                loaded.users.entry(coupon).or_default().insert(user, UserState::Holder(sequence));
            }
        }
    }
    for (coupon, users) in wanted {
        // A coupon without a row has no users.
        if !loaded.coupons.contains_key(coupon) {
            continue;
        }
        let states = loaded.users.entry(*coupon).or_default();
        for chunk in users.chunks(CHUNK) {
            let names: Vec<String> = chunk.iter().map(|user| user.as_str().to_owned()).collect();
            let query = issued_coupons::table
                .filter(issued_coupons::coupon_id.eq(coupon.to_string()))
                .filter(issued_coupons::user_id.eq_any(names.clone()))
                .select((issued_coupons::user_id, issued_coupons::sequence));
            for (user, sequence) in session.load::<(String, i64), _>(query).await? {
                states.insert(user_id(user)?, UserState::Holder(sequence));
            }
            let query = revocations::table
                .filter(revocations::coupon_id.eq(coupon.to_string()))
                .filter(revocations::user_id.eq_any(names))
                .select((revocations::user_id, revocations::sequence));
            for (user, sequence) in session.load::<(String, i64), _>(query).await? {
                states.insert(user_id(user)?, UserState::Revoked(sequence));
            }
        }
    }
    loaded.users.retain(|_, states| !states.is_empty());
    Ok(loaded)
}
