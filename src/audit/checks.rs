//! The comparison of a log with the tables. Pure.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::kind::Kind;
use super::replay::{FromLog, Standing};
use super::report::{CouponReport, Report, Violation};
use crate::domain::{CouponId, Offset, Partition, Roster, Sequence, UserId, UserState};
use crate::ledger::{AuditView, CouponRow, DeadLetterState, DeadWin, IssuedRow};

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

/// Compares one partition.
pub fn compare(partition: Partition, view: &AuditView, log: &FromLog, only: Option<CouponId>) -> Report {
    let mut report = Report::default();
    let (next, begin, end) = (view.position.next, log.bounds.begin, log.bounds.end);
    let standing = match &log.standing {
        Standing::Agrees => None,
        Standing::Moved(offset) => {
            let kind = if next > *offset { Kind::OffsetAhead } else { Kind::OffsetBehind };
            Some((kind, format!("partition {partition}: the ledger's next offset is {next}, its tables are of offset {offset}")))
        }
        Standing::Truncated => {
            Some((Kind::JournalTruncated, format!("partition {partition} holds [{begin}, {end}), the ledger read up to {next}")))
        }
        Standing::Replaced => {
            Some((Kind::JournalReplaced, format!("partition {partition}: the record below offset {next} is not the one the ledger read")))
        }
        Standing::Damaged(reason) => Some((Kind::JournalDamaged, format!("partition {partition}: {reason}"))),
    };
    report.journal.extend(standing.map(|(kind, detail)| Violation { kind, coupon_id: None, user_id: None, detail }));
    // Another log proves nothing about these rows.
    let comparable = matches!(log.standing, Standing::Agrees | Standing::Moved(_));
    let known: HashSet<CouponId> = view.coupons.iter().map(|row| row.coupon).collect();
    let mut rows: HashMap<CouponId, Vec<&IssuedRow>> = HashMap::new();
    for row in &view.issued {
        rows.entry(row.coupon).or_default().push(row);
    }
    for row in &view.coupons {
        let rows = rows.remove(&row.coupon).unwrap_or_default();
        report.coupons.push(CouponCheck::of(row, &rows, view).run(log, comparable));
    }
    for (coupon, roster) in log.rosters.iter().filter(|_| comparable) {
        if roster.terms().is_some() && !known.contains(coupon) && only.is_none_or(|only| only == *coupon) {
            let detail = format!("coupon {coupon} is in the log below offset {next} and not in the ledger");
            report.journal.push(Violation { kind: Kind::CouponMissing, coupon_id: Some(*coupon), user_id: None, detail });
        }
    }
    report
}

/// One coupon's rows, and what is found wrong with them.
struct CouponCheck<'a> {
    row: &'a CouponRow,
    rows: &'a [&'a IssuedRow],
    /// Open and abandoning dead letters: wins that keep their slot.
    letters: Vec<(Offset, &'a DeadWin)>,
    /// Users whose dead letter is replayed or abandoned.
    settled: HashSet<&'a UserId>,
    revoked: HashSet<(&'a UserId, Sequence)>,
    holders: HashMap<&'a UserId, (Sequence, Offset)>,
    found: Vec<Violation>,
}

impl<'a> CouponCheck<'a> {
    fn of(row: &'a CouponRow, rows: &'a [&'a IssuedRow], view: &'a AuditView) -> Self {
        let mut letters = Vec::new();
        let mut settled = HashSet::new();
        for letter in &view.dead_letters {
            match &letter.win {
                Some(win) if win.coupon == row.coupon && holds(letter.state) => letters.push((letter.log_offset, win)),
                Some(win) if win.coupon == row.coupon => drop(settled.insert(&win.user)),
                _ => {}
            }
        }
        let revoked = view.revocations.iter().filter(|r| r.coupon == row.coupon).map(|r| (&r.user, r.sequence)).collect();
        Self { row, rows, letters, settled, revoked, holders: HashMap::new(), found: Vec::new() }
    }

    fn fault(&mut self, kind: Kind, user: Option<&UserId>, detail: String) {
        self.found.push(Violation { kind, coupon_id: Some(self.row.coupon), user_id: user.map(ToString::to_string), detail });
    }

    fn run(mut self, log: &FromLog, comparable: bool) -> CouponReport {
        let coupon = self.row.coupon;
        self.check_rows();
        match log.rosters.get(&coupon) {
            _ if !comparable => {}
            Some(roster) => {
                self.check_terms(roster);
                self.check_wins(roster, log);
                self.check_claims(roster);
            }
            None => {
                let detail = format!("coupon {coupon} is in the ledger and not in the log below its offset");
                self.fault(Kind::CouponWithoutRecord, None, detail);
            }
        }
        let Self { row, rows, letters, mut found, .. } = self;
        found.sort_unstable_by(|a, b| (a.kind, &a.user_id).cmp(&(b.kind, &b.user_id)));
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

    /// The coupon's tables against themselves.
    fn check_rows(&mut self) {
        let (row, rows, coupon) = (self.row, self.rows, self.row.coupon);
        let mut sequences = HashSet::new();
        let written = rows.iter().map(|r| (&r.user, r.sequence, r.log_offset));
        let claimed: Vec<_> = written.chain(self.letters.iter().map(|(at, win)| (&win.user, win.sequence, *at))).collect();
        let held = i64::try_from(claimed.len()).unwrap_or(i64::MAX);
        for (user, sequence, offset) in claimed {
            // The first of a double is the one to compare with the log.
            match self.holders.entry(user) {
                Entry::Vacant(vacant) => drop(vacant.insert((sequence, offset))),
                Entry::Occupied(held) => {
                    let (first, _) = held.get();
                    let detail = format!("{user} holds coupon {coupon} twice, with sequences {first} and {sequence}");
                    self.fault(Kind::DoubleUser, Some(user), detail);
                }
            }
            if !sequences.insert(sequence) {
                let detail = format!("sequence {sequence} of coupon {coupon} is given twice, also to {user}");
                self.fault(Kind::DoubleSequence, Some(user), detail);
            }
        }
        if held > row.terms.total_quantity {
            self.fault(Kind::OverIssue, None, format!("coupon {coupon}: {held} issued of {}", row.terms.total_quantity));
        }
        if held != row.issued {
            self.fault(Kind::CountWrong, None, format!("coupon {coupon}: counted {held}, the coupon row says {}", row.issued));
        }
    }

    fn check_terms(&mut self, roster: &Roster<UserId>) {
        let (row, coupon) = (self.row, self.row.coupon);
        if roster.terms() != Some(&row.terms) {
            let detail = format!("coupon {coupon}: the log says {:?}, the ledger {:?}", roster.terms(), row.terms);
            self.fault(Kind::TermsDiffer, None, detail);
        }
        let (issued, next) = (roster.issued(), roster.next_sequence());
        if (issued, next) != (row.issued, row.next_sequence) {
            let detail = format!(
                "coupon {coupon}: the log says {issued} issued, next sequence {next}; the ledger {} and {}",
                row.issued, row.next_sequence
            );
            self.fault(Kind::CountersDiffer, None, detail);
        }
    }

    /// Everybody whom the log knows is in the tables as the log says.
    fn check_wins(&mut self, roster: &Roster<UserId>, log: &FromLog) {
        let coupon = self.row.coupon;
        let wins = log.wins.get(&coupon);
        for (user, state) in roster.users() {
            let sequence = match state {
                UserState::Holder(sequence) => sequence,
                UserState::Revoked(sequence) => {
                    if !self.revoked.contains(&(user, sequence)) {
                        let detail = format!("{user} lost sequence {sequence} of coupon {coupon} in the log, not in the ledger");
                        self.fault(Kind::RevocationMissing, Some(user), detail);
                    }
                    continue;
                }
            };
            let fault = match self.holders.get(user).copied() {
                None if self.settled.contains(user) => Some((
                    Kind::DeadLetterWithoutRow,
                    format!("{user} won coupon {coupon} with sequence {sequence}; the dead letter is settled and there is no row"),
                )),
                None => Some((Kind::RowMissing, format!("{user} won coupon {coupon} with sequence {sequence} and has no row"))),
                Some((found, _)) if found != sequence => {
                    Some((Kind::SequenceWrong, format!("{user} won coupon {coupon} with sequence {sequence}, the row says {found}")))
                }
                Some((_, at)) => wins
                    .and_then(|wins| wins.offset(sequence))
                    .filter(|won| *won != at)
                    .map(|won| (Kind::OffsetWrong, format!("{user} won coupon {coupon} at offset {won}, the row says {at}"))),
            };
            if let Some((kind, detail)) = fault {
                self.fault(kind, Some(user), detail);
            }
        }
    }

    /// Everybody in the tables is there by the log's word.
    fn check_claims(&mut self, roster: &Roster<UserId>) {
        let coupon = self.row.coupon;
        let mut found = Vec::new();
        for (user, sequence) in &self.revoked {
            if roster.user(*user) != Some(UserState::Revoked(*sequence)) {
                let detail = format!("{user} lost sequence {sequence} of coupon {coupon} in the ledger, not in the log");
                found.push((Kind::RevocationWithoutRecord, *user, detail));
            }
        }
        for (user, (sequence, _)) in &self.holders {
            let kind = match roster.user(*user) {
                Some(UserState::Holder(_)) => continue,
                Some(UserState::Revoked(_)) => Kind::RevokedHolds,
                None => Kind::RowWithoutRecord,
            };
            found.push((kind, *user, format!("{user} has sequence {sequence} of coupon {coupon} and does not hold it by the log")));
        }
        for (kind, user, detail) in found {
            self.fault(kind, Some(user), detail);
        }
    }
}
