//! The comparison of a log with the tables. Pure.

use std::collections::{HashMap, HashSet};

use super::FromLog;
use super::report::{CouponReport, Report, Violation};
use crate::domain::{CouponId, Offset, Partition, Roster, Sequence, UserId, UserState};
use crate::ledger::{AuditView, CouponRow, DeadLetterState, IssuedRow};

/// The rosters the ledger had at `offset`, from its rows and histories.
pub fn state_at(view: &AuditView, offset: Offset) -> HashMap<CouponId, Roster<UserId>> {
    let mut wins: HashMap<CouponId, Vec<(&UserId, UserState)>> = HashMap::new();
    for row in view.issued.iter().filter(|row| row.log_offset < offset) {
        wins.entry(row.coupon).or_default().push((&row.user, UserState::Holder(row.sequence)));
    }
    for row in view.revocations.iter().filter(|row| row.won_offset < offset) {
        let state = if row.log_offset < offset { UserState::Revoked(row.sequence) } else { UserState::Holder(row.sequence) };
        wins.entry(row.coupon).or_default().push((&row.user, state));
    }
    for letter in view.dead_letters.iter().filter(|letter| letter.log_offset < offset) {
        if let (Some(win), true) = (&letter.win, holds(letter.state)) {
            wins.entry(win.coupon).or_default().push((&win.user, UserState::Holder(win.sequence)));
        }
    }
    let mut rosters = HashMap::new();
    for row in view.terms.iter().filter(|row| row.log_offset < offset) {
        let users = wins.get(&row.coupon).map_or(&[][..], Vec::as_slice);
        let holders = users.iter().filter(|(_, state)| matches!(state, UserState::Holder(_))).count();
        let next = users.iter().map(|(_, state)| sequence_of(*state)).max().unwrap_or(0) + 1;
        let mut roster = Roster::restore(row.terms.clone(), i64::try_from(holders).unwrap_or(i64::MAX), next);
        for (user, state) in users {
            roster.remember((*user).clone(), *state);
        }
        // Terms come in offset order: the newest below the offset stays.
        rosters.insert(row.coupon, roster);
    }
    rosters
}

const fn sequence_of(state: UserState) -> Sequence {
    match state {
        UserState::Holder(sequence) | UserState::Revoked(sequence) => sequence,
    }
}

const fn holds(state: DeadLetterState) -> bool {
    matches!(state, DeadLetterState::Open | DeadLetterState::Abandoning)
}

/// Compares one partition and adds what it finds to the report.
pub fn compare(partition: Partition, view: &AuditView, log: &FromLog, only: Option<CouponId>, report: &mut Report) {
    let next = view.position.next;
    if log.end < next || log.begin > next {
        let detail = format!("partition {partition} holds [{}, {}), the ledger read up to {next}", log.begin, log.end);
        report.journal.push(Violation { kind: "journal_truncated".to_owned(), user_id: None, detail });
    } else if let Some(found) = log.fingerprint
        && found != view.position.fingerprint
    {
        let detail = format!("partition {partition}: the record at offset {} is not the one the ledger read", next - 1);
        report.journal.push(Violation { kind: "journal_replaced".to_owned(), user_id: None, detail });
    }
    let known: HashSet<CouponId> = view.coupons.iter().map(|row| row.coupon).collect();
    let mut rows: HashMap<CouponId, Vec<&IssuedRow>> = HashMap::new();
    for row in &view.issued {
        rows.entry(row.coupon).or_default().push(row);
    }
    for row in &view.coupons {
        report.coupons.push(check_coupon(row, &rows.remove(&row.coupon).unwrap_or_default(), view, log));
    }
    for (coupon, roster) in &log.rosters {
        if roster.terms().is_some() && !known.contains(coupon) && only.is_none_or(|only| only == *coupon) {
            let detail = format!("coupon {coupon} is in the log below offset {next} and not in the ledger");
            report.journal.push(Violation { kind: "coupon_missing".to_owned(), user_id: None, detail });
        }
    }
}

fn check_coupon(row: &CouponRow, rows: &[&IssuedRow], view: &AuditView, log: &FromLog) -> CouponReport {
    let coupon = row.coupon;
    let letters: Vec<_> = view
        .dead_letters
        .iter()
        .filter(|l| holds(l.state))
        .filter_map(|l| Some((l.log_offset, l.win.as_ref()?)))
        .filter(|(_, win)| win.coupon == coupon)
        .collect();
    let mut found = Vec::new();
    let mut fault = |kind: &str, user: Option<&UserId>, detail: String| {
        found.push(Violation { kind: kind.to_owned(), user_id: user.map(ToString::to_string), detail })
    };

    let mut users = HashSet::new();
    let mut sequences = HashSet::new();
    let mut holders: HashMap<&UserId, (Sequence, Offset)> = HashMap::new();
    let claimed =
        rows.iter().map(|r| (&r.user, r.sequence, r.log_offset)).chain(letters.iter().map(|(at, win)| (&win.user, win.sequence, *at)));
    for (user, sequence, offset) in claimed {
        if !users.insert(user) {
            fault("double_user", Some(user), format!("{user} holds coupon {coupon} twice"));
        }
        if !sequences.insert(sequence) {
            fault("double_sequence", Some(user), format!("sequence {sequence} of coupon {coupon} is given twice, also to {user}"));
        }
        holders.insert(user, (sequence, offset));
    }
    let held = i64::try_from(rows.len() + letters.len()).unwrap_or(i64::MAX);
    if held > row.terms.total_quantity {
        fault("over_issue", None, format!("coupon {coupon}: {held} issued of {}", row.terms.total_quantity));
    }
    if held != row.issued {
        fault("count_wrong", None, format!("coupon {coupon}: counted {held}, the coupon row says {}", row.issued));
    }
    let revoked: HashSet<(&UserId, Sequence)> =
        view.revocations.iter().filter(|r| r.coupon == coupon).map(|r| (&r.user, r.sequence)).collect();
    let expected = log.rosters.get(&coupon);
    match expected {
        None => fault("coupon_without_record", None, format!("coupon {coupon} is in the ledger and not in the log below its offset")),
        Some(roster) => {
            if roster.terms() != Some(&row.terms) {
                fault("terms_differ", None, format!("coupon {coupon}: the log says {:?}, the ledger {:?}", roster.terms(), row.terms));
            }
            if roster.issued() != row.issued || roster.next_sequence() != row.next_sequence {
                let (issued, next) = (roster.issued(), roster.next_sequence());
                fault(
                    "counters_differ",
                    None,
                    format!(
                        "coupon {coupon}: the log says {issued} issued, next sequence {next}; the ledger {} and {}",
                        row.issued, row.next_sequence
                    ),
                );
            }
            for (user, state) in roster.users() {
                let sequence = match state {
                    UserState::Holder(sequence) => sequence,
                    UserState::Revoked(sequence) => {
                        if !revoked.contains(&(user, sequence)) {
                            fault(
                                "revocation_missing",
                                Some(user),
                                format!("{user} lost sequence {sequence} of coupon {coupon} in the log, not in the ledger"),
                            );
                        }
                        continue;
                    }
                };
                match holders.get(user) {
                    None => fault("row_missing", Some(user), format!("{user} won coupon {coupon} with sequence {sequence} and has no row")),
                    Some((found, _)) if *found != sequence => {
                        fault(
                            "sequence_wrong",
                            Some(user),
                            format!("{user} won coupon {coupon} with sequence {sequence}, the row says {found}"),
                        );
                    }
                    Some((_, at)) => {
                        let won = log.wins.get(&(coupon, user.clone()));
                        if won.is_some_and(|won| won != at) {
                            fault("offset_wrong", Some(user), format!("{user} won coupon {coupon} at offset {won:?}, the row says {at}"));
                        }
                    }
                }
            }
            for (user, sequence) in &revoked {
                if roster.user(*user) != Some(UserState::Revoked(*sequence)) {
                    fault(
                        "revocation_without_record",
                        Some(user),
                        format!("{user} lost sequence {sequence} of coupon {coupon} in the ledger, not in the log"),
                    );
                }
            }
            for (user, (sequence, _)) in &holders {
                if !matches!(roster.user(*user), Some(UserState::Holder(_))) {
                    fault(
                        "row_without_record",
                        Some(user),
                        format!("{user} has sequence {sequence} of coupon {coupon} and did not win it in the log"),
                    );
                }
            }
        }
    }
    CouponReport {
        coupon_id: coupon,
        name: row.terms.name.clone(),
        status: row.terms.status.as_str(),
        total_quantity: row.terms.total_quantity,
        issued: i64::try_from(rows.len()).unwrap_or(i64::MAX),
        dead_letters: i64::try_from(letters.len()).unwrap_or(i64::MAX),
        unwritten: log.unwritten.get(&coupon).copied().unwrap_or(0),
        last_issued_at_ms: rows.iter().map(|r| r.issued_at).max(),
        gate_members: None,
        violations: found,
    }
}
