//! The fold: records and the state before them give the batch to write. Pure.

use std::collections::HashMap;

use tokio_util::bytes::Bytes;

use super::known::Known;
use crate::domain::{
    Body, CouponId, Decision, Decoded, EpochMillis, Offset, Partition, Record, Roster, SkipReason, StopReason, UserId, UserState, decode,
    fingerprint, now_millis,
};
use crate::journal::RawRecord;
use crate::ledger::{Batch, CouponRow, DEAD_LETTER_BYTES, DeadLetter, DeadLetterState, IssuedRow, Loaded, Move, RevocationRow, TermsRow};

/// The records of one partition, read but not decided.
#[derive(Debug)]
pub struct Run {
    pub partition: Partition,
    pub from: Offset,
    pub to: Offset,
    pub fingerprint: i64,
    /// When the log took the first record.
    pub oldest_at: EpochMillis,
    entries: Vec<(Offset, Entry)>,
    /// A record this build must not pass: the run ends before it.
    pub stop: Option<(Offset, StopReason)>,
}

#[derive(Debug)]
enum Entry {
    /// With its message, kept in case the database refuses the row.
    Record {
        record: Record,
        message: Bytes,
    },
    Skipped {
        reason: SkipReason,
        raw: RawRecord,
    },
}

impl Run {
    /// Decodes consecutive records; `None` when there are none.
    pub fn read(partition: Partition, partitions: Partition, records: Vec<RawRecord>) -> Option<Self> {
        let (from, oldest_at) = records.first().map(|record| (record.offset, record.at))?;
        let mut run = Self { partition, from, to: from, fingerprint: 0, oldest_at, entries: Vec::with_capacity(records.len()), stop: None };
        for raw in records {
            let offset = raw.offset;
            let print = fingerprint(&raw.key, &raw.value);
            let entry = match decode(partition, partitions, &raw.key, &raw.value) {
                Ok(Decoded::Record(record)) => Entry::Record { record, message: raw.value },
                Ok(Decoded::Skip(reason)) => Entry::Skipped { reason, raw },
                Err(reason) => {
                    run.stop = Some((offset, reason));
                    break;
                }
            };
            run.entries.push((offset, entry));
            run.to = offset + 1;
            run.fingerprint = print;
        }
        Some(run)
    }

    pub const fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// The users whose state must be asked for, by coupon.
    pub fn wants(&self, known: &Known, wanted: &mut HashMap<CouponId, Vec<UserId>>) {
        for (_, entry) in &self.entries {
            if let Entry::Record { record: Record { coupon, body }, .. } = entry {
                if known.has(*coupon) {
                    continue;
                }
                let users = wanted.entry(*coupon).or_default();
                match body {
                    Body::Issue { user_id, .. } | Body::Revoke { user_id, .. } => users.push(user_id.clone()),
                    Body::Terms(_) => {}
                }
            }
        }
    }
}

/// A win and the trace id of the request that made it, for the log.
#[derive(Debug)]
pub struct Trace {
    pub coupon: CouponId,
    pub user: UserId,
    pub trace_id: String,
}

/// Decides `runs` on the state they start from, which is `known` or was asked for; what is known afterwards is the state behind them.
pub fn fold(runs: &[Run], loaded: &mut Loaded, known: &mut Known) -> (Batch, Vec<Trace>) {
    let mut batch = Batch::default();
    let mut traces = Vec::new();
    for run in runs {
        batch.moves.push(Move { partition: run.partition, from: run.from, to: run.to, fingerprint: run.fingerprint });
        let mut rosters: HashMap<CouponId, Held> = HashMap::new();
        for (offset, entry) in &run.entries {
            match entry {
                Entry::Skipped { reason, raw } => batch.dead_letters.push(unreadable(run.partition, reason, raw)),
                Entry::Record { record, message } => {
                    let Held { roster, .. } = rosters.entry(record.coupon).or_insert_with(|| hold(record.coupon, loaded, known));
                    let decision = roster.apply(&record.body, Clone::clone);
                    write(&mut batch, &mut traces, record, *offset, roster, decision);
                    if let Decision::Won(_) = decision {
                        batch.messages.push(message.clone());
                    }
                }
            }
        }
        for (coupon, Held { roster, whole }) in rosters {
            // A coupon that was never created leaves no row.
            if let Some(terms) = roster.terms() {
                batch.coupons.push(CouponRow {
                    coupon,
                    partition: run.partition,
                    terms: terms.clone(),
                    issued: roster.issued(),
                    next_sequence: roster.next_sequence(),
                });
            }
            if whole {
                known.put(coupon, roster);
            }
        }
        known.decided(run.partition, run.to);
    }
    batch.moves.sort_unstable_by_key(|moved| moved.partition);
    batch.coupons.sort_unstable_by_key(|row| row.coupon);
    (batch, traces)
}

/// Makes `loaded` the state once `batch` is written, whether or not it was when the state was read.
pub fn overlay(loaded: &mut Loaded, batch: &Batch) {
    for moved in &batch.moves {
        if let Some(position) = loaded.positions.get_mut(&moved.partition)
            && position.next == moved.from
        {
            position.next = moved.to;
            position.fingerprint = moved.fingerprint;
        }
    }
    for row in &batch.coupons {
        loaded.coupons.insert(row.coupon, row.clone());
    }
    for row in &batch.issued {
        loaded.users.entry(row.coupon).or_default().insert(row.user.clone(), UserState::Holder(row.sequence));
    }
    for row in &batch.revocations {
        loaded.users.entry(row.coupon).or_default().insert(row.user.clone(), UserState::Revoked(row.sequence));
    }
}

/// A roster at work.
struct Held {
    roster: Roster<UserId>,
    /// It has all users of the coupon, not only those of these records.
    whole: bool,
}

fn hold(coupon: CouponId, loaded: &mut Loaded, known: &mut Known) -> Held {
    if let Some(roster) = known.take(coupon) {
        return Held { roster, whole: true };
    }
    let mut roster =
        loaded.coupons.remove(&coupon).map_or_else(Roster::default, |row| Roster::restore(row.terms, row.issued, row.next_sequence));
    for (user, state) in loaded.users.remove(&coupon).unwrap_or_default() {
        roster.remember(user, state);
    }
    // Whom nobody has won has no users.
    let whole = roster.next_sequence() == 1;
    Held { roster, whole }
}

fn write(batch: &mut Batch, traces: &mut Vec<Trace>, record: &Record, offset: Offset, roster: &Roster<UserId>, decision: Decision) {
    let coupon = record.coupon;
    match (&record.body, decision) {
        (Body::Issue { user_id, at, trace_id }, Decision::Won(sequence)) => {
            batch.issued.push(IssuedRow { coupon, user: user_id.clone(), sequence, log_offset: offset, requested_at: *at, issued_at: 0 });
            traces.push(Trace { coupon, user: user_id.clone(), trace_id: trace_id.clone() });
        }
        (Body::Terms(_), Decision::TermsApplied) => {
            if let Some(terms) = roster.terms() {
                batch.terms.push(TermsRow { coupon, terms: terms.clone(), log_offset: offset });
            }
        }
        (Body::Revoke { user_id, sequence, reason, at }, Decision::RevokeApplied) => batch.revocations.push(RevocationRow {
            coupon,
            user: user_id.clone(),
            sequence: *sequence,
            won_offset: 0,
            log_offset: offset,
            reason: reason.clone(),
            at: *at,
        }),
        _ => {}
    }
}

fn unreadable(partition: Partition, reason: &SkipReason, raw: &RawRecord) -> DeadLetter {
    let cut = |bytes: &[u8]| bytes[..bytes.len().min(DEAD_LETTER_BYTES)].to_vec();
    let now = now_millis();
    DeadLetter {
        id: 0,
        partition,
        log_offset: raw.offset,
        win: None,
        error: reason.to_string(),
        key: cut(&raw.key),
        value: cut(&raw.value),
        state: DeadLetterState::Open,
        created_at: now,
        updated_at: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CouponId;
    use crate::ledger::{Ledger, SqliteLedger};

    fn terms(version: i64, total: i64, status: &str) -> String {
        format!(
            r#"{{"v":1,"type":"terms","version":{version},"change_id":"{}","name":"n","kind":"k","discount":{{"type":"FIXED","value":1}},"total_quantity":{total},"status":"{status}"}}"#,
            uuid::Uuid::from_u128(u128::from(version.unsigned_abs()))
        )
    }

    /// Records of two coupons as a busy day has them, some of them senseless.
    fn records(random: &mut fastrand::Rng) -> Vec<RawRecord> {
        let coupons = [CouponId::random(), CouponId::random()];
        (0..60)
            .map(|offset| {
                let user = random.u8(..12);
                let value = match random.u8(..10) {
                    _ if offset < 2 => terms(1, 5, "OPEN"),
                    0 => terms(random.i64(2..4), random.i64(3..9), random.choice(["OPEN", "PAUSED"]).unwrap_or("OPEN")),
                    1 => "not a record".to_owned(),
                    2 => format!(r#"{{"v":1,"type":"revoke","user_id":"u{user}","sequence":{},"reason":"r","at":2}}"#, random.i64(1..6)),
                    _ => format!(r#"{{"v":1,"type":"issue","user_id":"u{user}","at":1}}"#),
                };
                let coupon = if offset < 2 { coupons[usize::from(offset == 1)] } else { coupons[random.usize(..2)] };
                RawRecord { offset, key: coupon.to_string().into(), value: value.into(), at: 1 }
            })
            .collect()
    }

    /// What a batch decides, without the clock's time in its dead letters.
    fn told(batch: &Batch) -> String {
        let letters: Vec<_> = batch.dead_letters.iter().map(|letter| letter.log_offset).collect();
        format!("{:?} {:?} {:?} {:?} {:?} {letters:?}", batch.moves, batch.coupons, batch.terms, batch.issued, batch.revocations)
    }

    fn decide(runs: &[Run], mut loaded: Loaded) -> Batch {
        fold(runs, &mut loaded, &mut Known::default()).0
    }

    fn decisions(runs: &[Run], loaded: Loaded) -> String {
        told(&decide(runs, loaded))
    }

    /// An empty ledger, and batches of records to come.
    async fn world(seed: u64) -> (tempfile::TempDir, SqliteLedger, Vec<Vec<Run>>) {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&folder.path().join("ledger.db")).unwrap();
        ledger.migrate().await.unwrap();
        ledger.fix_partitions(1).await.unwrap();
        let mut records = records(&mut random);
        let mut batches = Vec::new();
        while !records.is_empty() {
            let rest = records.split_off(random.usize(1..=20).min(records.len()));
            batches.push(vec![Run::read(0, 1, std::mem::replace(&mut records, rest)).unwrap()]);
        }
        (folder, ledger, batches)
    }

    async fn state(ledger: &SqliteLedger, runs: &[Run], known: &Known) -> Loaded {
        let mut wanted = HashMap::new();
        runs[0].wants(known, &mut wanted);
        ledger.load(&[0], &wanted).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_known_is_what_would_be_asked_for() {
        for seed in 0..40 {
            let (_folder, ledger, batches) = world(seed).await;
            let (mut known, mut asked) = (Known::default(), 0);
            for (number, runs) in batches.iter().enumerate() {
                let full = state(&ledger, runs, &Known::default()).await;
                // In every other world a write fails: the same records are decided again.
                for _ in 0..=usize::from(seed % 2 == 1 && number == 2) {
                    known.goes_on(0, runs[0].from);
                    let mut loaded = state(&ledger, runs, &known).await;
                    asked += loaded.coupons.len();
                    let (batch, _) = fold(runs, &mut loaded, &mut known);
                    assert_eq!(told(&batch), decisions(runs, full.clone()), "seed {seed}, batch {number}");
                }
                ledger.commit(&decide(runs, full)).await.unwrap();
            }
            assert!(seed % 2 == 1 || asked == 0, "seed {seed}: every record was seen");
        }
    }

    #[tokio::test]
    async fn deciding_ahead_is_deciding_after() {
        let nothing = Known::default();
        for seed in 0..40 {
            let (_folder, ledger, batches) = world(seed).await;
            for pair in batches.windows(2) {
                let [now, next] = pair else { continue };
                let batch = decide(now, state(&ledger, now, &nothing).await);
                let mut before = state(&ledger, next, &nothing).await;
                ledger.commit(&batch).await.unwrap();
                let after = state(&ledger, next, &nothing).await;
                let mut twice = after.clone();
                overlay(&mut before, &batch);
                overlay(&mut twice, &batch);
                for state in [&before, &twice] {
                    assert_eq!(state.positions.get(&0), after.positions.get(&0), "seed {seed}");
                }
                let expected = decisions(next, after);
                assert_eq!(decisions(next, before), expected, "seed {seed}: read before it was written");
                assert_eq!(decisions(next, twice), expected, "seed {seed}: read after it was written");
            }
        }
    }
}
