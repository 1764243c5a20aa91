//! Writing a batch: the offsets first, by compare-and-set, then what the batch decided.

use std::collections::HashMap;

use diesel::prelude::*;

use super::UNSETTLED;
use crate::domain::{Partition, now_millis};
use crate::kill_point::kill_point;
use crate::ledger::errors::Fault;
use crate::ledger::rows::{CouponRaw, IssuedRaw, NewDeadLetter, RevocationRaw, TermsRaw};
use crate::ledger::schema::{coupon_terms, coupons, dead_letters, issued_coupons, partition_offsets, revocations};
use crate::ledger::session::{Control, Session};
use crate::ledger::{Batch, Committed, CouponRow, DEAD_LETTER_BYTES, DeadLetter, DeadLetterState, DeadWin, IssuedRow, Move, RevocationRow};

/// Rows a statement: far below the 65,535 placeholders of MySQL and the 32,766 of SQLite.
const CHUNK: usize = 1_000;

/// Issued rows a statement that is prepared once for a connection, which needs their number to be fixed.
const BLOCK: usize = 250;

/// How the issued rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// In large statements; refused data fails the transaction.
    Together,
    /// A refused statement is taken apart row by row; refused rows become dead letters.
    Apart,
}

/// Writes `batch` in one transaction. Refused data: once more, taken apart.
pub(in crate::ledger) async fn commit<S: Session>(session: &mut S, batch: &Batch) -> Result<Committed, Fault> {
    match transaction(session, batch, Rows::Together).await {
        Err(Fault::Data(error)) if !batch.issued.is_empty() => {
            tracing::warn!(%error, rows = batch.issued.len(), "the database refuses data of a batch, writing it row by row");
            transaction(session, batch, Rows::Apart).await
        }
        result => result,
    }
}

async fn transaction<S: Session>(session: &mut S, batch: &Batch, rows: Rows) -> Result<Committed, Fault> {
    session.control(Control::BeginWrite).await?;
    let result = write(session, batch, rows).await;
    session.settle(result).await
}

async fn write<S: Session>(session: &mut S, batch: &Batch, rows: Rows) -> Result<Committed, Fault> {
    let mut moves = batch.moves.clone();
    moves.sort_by_key(|step| step.partition);
    for step in moves {
        move_offset(session, step).await?;
    }
    kill_point("ledger.commit.moved");
    let mut touched: Vec<&CouponRow> = batch.coupons.iter().collect();
    touched.sort_by_key(|row| row.coupon);
    for row in touched {
        put_coupon(session, row).await?;
    }
    kill_point("ledger.commit.coupons");
    let mut terms: Vec<TermsRaw> = batch.terms.iter().map(TermsRaw::from).collect();
    terms.sort_by(|a, b| (&a.coupon_id, a.version).cmp(&(&b.coupon_id, b.version)));
    for chunk in terms.chunks(CHUNK) {
        session.execute(diesel::insert_into(coupon_terms::table).values(chunk.to_vec())).await?;
    }
    kill_point("ledger.commit.terms");
    let committed = put_issued(session, batch, rows).await?;
    kill_point("ledger.commit.rows");
    let mut letters: Vec<NewDeadLetter> = batch.dead_letters.iter().map(NewDeadLetter::from).collect();
    letters.sort_by_key(|letter| (letter.part, letter.log_offset));
    // Raw bytes of 8 KiB each: smaller statements.
    for chunk in letters.chunks(CHUNK / 10) {
        session.execute(diesel::insert_into(dead_letters::table).values(chunk.to_vec())).await?;
    }
    for revocation in &batch.revocations {
        revoke(session, revocation).await?;
    }
    kill_point("ledger.commit.written");
    Ok(committed)
}

async fn move_offset<S: Session>(session: &mut S, step: Move) -> Result<(), Fault> {
    let row =
        partition_offsets::table.filter(partition_offsets::part.eq(step.partition)).filter(partition_offsets::next_offset.eq(step.from));
    let set = (partition_offsets::next_offset.eq(step.to), partition_offsets::fingerprint.eq(step.fingerprint));
    match session.execute(diesel::update(row).set(set)).await? {
        0 => Err(Fault::Fenced(step.partition)),
        _ => Ok(()),
    }
}

async fn put_coupon<S: Session>(session: &mut S, row: &CouponRow) -> Result<(), Fault> {
    let raw = CouponRaw::from(row);
    let there = coupons::table.filter(coupons::coupon_id.eq(raw.coupon_id.clone()));
    if session.execute(diesel::update(there).set(raw.clone())).await? == 0 {
        session.execute(diesel::insert_into(coupons::table).values(raw)).await?;
    }
    Ok(())
}

async fn put_issued<S: Session>(session: &mut S, batch: &Batch, rows: Rows) -> Result<Committed, Fault> {
    let mut sorted: Vec<&IssuedRow> = batch.issued.iter().collect();
    sorted.sort_by_key(|row| (row.coupon, row.sequence));
    let partitions: HashMap<_, _> = batch.coupons.iter().map(|row| (row.coupon, row.partition)).collect();
    let mut committed = Committed::default();
    for chunk in sorted.chunks(BLOCK) {
        let now = now_millis();
        let raws: Vec<IssuedRaw> = chunk.iter().map(|row| IssuedRaw::new(row, now)).collect();
        if rows == Rows::Together {
            match <Box<[IssuedRaw; BLOCK]>>::try_from(raws) {
                Ok(block) => session.execute(diesel::insert_into(issued_coupons::table).values(block)).await?,
                Err(rest) => session.execute(diesel::insert_into(issued_coupons::table).values(rest)).await?,
            };
            committed.rows += chunk.len();
            continue;
        }
        // Halved until the refused rows stand alone: a few statements for each of them, not one for every row.
        let pairs: Vec<(&IssuedRow, IssuedRaw)> = chunk.iter().copied().zip(raws).collect();
        let mut untried = vec![pairs.as_slice()];
        while let Some(part) = untried.pop() {
            match insert(session, part.iter().map(|(_, raw)| raw.clone()).collect()).await? {
                None => committed.rows += part.len(),
                Some(error) => {
                    if let [(row, _)] = part {
                        let partition = partition_of(session, &partitions, row).await?;
                        let message = message_of(batch, row);
                        kill_point("ledger.bury.before");
                        committed.dead.push(bury(session, partition, row, message, error).await?);
                        kill_point("ledger.bury.after");
                    } else {
                        let (first, second) = part.split_at(part.len() / 2);
                        untried.extend([second, first]);
                    }
                }
            }
        }
    }
    Ok(committed)
}

/// `Some`: the database refused the data, with its words. Nothing of a failed statement stays, and the transaction goes on.
async fn insert<S: Session>(session: &mut S, raws: Vec<IssuedRaw>) -> Result<Option<String>, Fault> {
    match session.execute(diesel::insert_into(issued_coupons::table).values(raws)).await {
        Ok(_) => Ok(None),
        Err(Fault::Data(error)) => Ok(Some(error)),
        Err(fault) => Err(fault),
    }
}

/// A win's partition is its coupon's; a batch with a win has its coupon, so the table is rarely asked.
async fn partition_of<S: Session>(
    session: &mut S,
    known: &HashMap<crate::domain::CouponId, Partition>,
    row: &IssuedRow,
) -> Result<Partition, Fault> {
    if let Some(partition) = known.get(&row.coupon) {
        return Ok(*partition);
    }
    let query = coupons::table.filter(coupons::coupon_id.eq(row.coupon.to_string())).select(coupons::part);
    session.first(query).await?.ok_or_else(|| Fault::Guard(format!("a win of coupon {}, which has no row", row.coupon)))
}

/// Writes a refused win as a dead letter, which keeps its slot and sequence.
async fn bury<S: Session>(
    session: &mut S,
    partition: Partition,
    row: &IssuedRow,
    mut message: Vec<u8>,
    error: String,
) -> Result<DeadLetter, Fault> {
    message.truncate(DEAD_LETTER_BYTES);
    let win = DeadWin { coupon: row.coupon, user: row.user.clone(), sequence: row.sequence, requested_at: row.requested_at };
    let now = now_millis();
    let letter = DeadLetter {
        id: 0,
        partition,
        log_offset: row.log_offset,
        win: Some(win),
        error,
        key: row.coupon.to_string().into_bytes(),
        value: message,
        state: DeadLetterState::Open,
        created_at: now,
        updated_at: now,
    };
    session.execute(diesel::insert_into(dead_letters::table).values(NewDeadLetter::from(&letter))).await?;
    Ok(letter)
}

fn message_of(batch: &Batch, row: &IssuedRow) -> Vec<u8> {
    let index = batch.issued.iter().position(|other| other.coupon == row.coupon && other.sequence == row.sequence);
    index.and_then(|index| batch.messages.get(index)).map(|message| message.to_vec()).unwrap_or_default()
}

/// Takes a win back. The dead letter first: a replay of it holds its lock until the issued row can be seen.
async fn revoke<S: Session>(session: &mut S, row: &RevocationRow) -> Result<(), Fault> {
    let coupon = row.coupon.to_string();
    let user = row.user.as_str().to_owned();
    let letter = dead_letters::table
        .filter(dead_letters::coupon_id.eq(coupon.clone()))
        .filter(dead_letters::sequence.eq(row.sequence))
        .filter(dead_letters::user_id.eq(user.clone()));
    let set = (dead_letters::state.eq(DeadLetterState::Abandoned.as_str()), dead_letters::updated_at.eq(now_millis()));
    let abandoned = session.execute(diesel::update(letter.clone().filter(dead_letters::state.eq_any(UNSETTLED))).set(set)).await?;
    kill_point("ledger.revoke.marked");
    let won_offset = if abandoned > 0 {
        session.first(letter.select(dead_letters::log_offset)).await?
    } else {
        let issued = issued_coupons::table
            .filter(issued_coupons::coupon_id.eq(coupon.clone()))
            .filter(issued_coupons::sequence.eq(row.sequence))
            .filter(issued_coupons::user_id.eq(user));
        let won_offset = session.first(issued.clone().select(issued_coupons::log_offset)).await?;
        session.execute(diesel::delete(issued)).await?;
        won_offset
    };
    let Some(won_offset) = won_offset else {
        return Err(Fault::Guard(format!("coupon {coupon}: sequence {} is revoked, but there is no such win", row.sequence)));
    };
    session.execute(diesel::insert_into(revocations::table).values(RevocationRaw::new(row, won_offset))).await?;
    Ok(())
}
