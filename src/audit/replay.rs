//! What the log says, up to where the ledger read it.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use super::checks;
use crate::domain::{Body, CouponId, Decision, Decoded, Offset, Partition, Roster, Sequence, UserId, decode, fingerprint};
use crate::journal::{Bounds, Journal, JournalError};
use crate::ledger::{AuditView, Position};

/// Some thousand records, decided without a pause.
const FETCH_BYTES: usize = 256 << 10;
/// How long the log's end may lie below the ledger's offset: a new leader may lag for a moment.
const END_REGRESS: Duration = Duration::from_secs(5);

/// How a partition is read.
#[derive(Debug)]
pub(super) struct Reading {
    pub only: Option<CouponId>,
    /// Also what the ledger has not read yet, to count what is unwritten.
    pub to_end: bool,
    pub most_rows: usize,
    pub pace: Pace,
}

impl Reading {
    pub const fn all(only: Option<CouponId>) -> Self {
        Self { only, to_end: true, most_rows: usize::MAX, pace: Pace { rate: None, due: None } }
    }
}

/// Spreads reads over time: at most so many records and rows a second. What is read in one go is made up for by a pause.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u32>,
    due: Option<Instant>,
}

impl Pace {
    pub const fn new(records_per_second: u32) -> Self {
        Self { rate: Some(records_per_second), due: None }
    }

    /// Returns when `records` more may have been read.
    pub async fn take(&mut self, records: usize) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let cost = Duration::from_secs(1) / rate.max(1) * u32::try_from(records).unwrap_or(u32::MAX);
        let due = self.due.map_or(now, |due| due.max(now)) + cost;
        self.due = Some(due);
        tokio::time::sleep_until(due).await;
    }
}

/// How the log stands to the ledger's next offset, by the fingerprint of the record below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// The record is the one that the ledger read.
    Agrees,
    /// The ledger's tables are of this offset, not of the one it names.
    Moved(Offset),
    /// Records between are not there (any more).
    Truncated,
    /// Another record is there.
    Replaced,
    /// The log has gaps.
    Damaged(String),
}

/// What the log says, in two cuts: up to where the ledger read (must equal the tables), and to its end (what is still unwritten).
#[derive(Debug)]
pub(super) struct FromLog {
    pub standing: Standing,
    pub bounds: Bounds,
    pub rosters: HashMap<CouponId, Roster<UserId>>,
    /// Where each win below the cut lies, in the order of sequences.
    pub wins: HashMap<CouponId, Wins>,
    /// Wins at or above the cut, by coupon.
    pub unwritten: HashMap<CouponId, i64>,
}

/// Offsets of consecutive sequences.
#[derive(Debug)]
pub(super) struct Wins {
    first: Sequence,
    offsets: Vec<Offset>,
}

impl Wins {
    /// `None`: that win is older than what is retained.
    pub fn offset(&self, sequence: Sequence) -> Option<Offset> {
        self.offsets.get(usize::try_from(sequence - self.first).ok()?).copied()
    }
}

pub(super) async fn replay(
    journal: &dyn Journal,
    partition: Partition,
    view: &AuditView,
    reading: &mut Reading,
) -> anyhow::Result<FromLog> {
    let position = view.position;
    let bounds = settled_bounds(journal, partition, position.next).await?;
    let (mut log, twin) = read(journal, view, bounds, position.next, reading).await?;
    if log.standing == Standing::Agrees {
        return Ok(log);
    }
    if let Some(offset) = twin {
        (log, _) = read(journal, view, bounds, offset, reading).await?;
        log.standing = Standing::Moved(offset);
    }
    Ok(log)
}

async fn settled_bounds(journal: &dyn Journal, partition: Partition, next: Offset) -> anyhow::Result<Bounds> {
    let started = Instant::now();
    loop {
        let bounds = journal.bounds(partition).await.context("failed to ask the journal for its range")?;
        if bounds.end >= next || started.elapsed() > END_REGRESS {
            return Ok(bounds);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Reads the log with the cut at `cut`. Where the record below the ledger's offset is another one, also says up to where the
/// record lies that the ledger did read.
async fn read(
    journal: &dyn Journal,
    view: &AuditView,
    bounds: Bounds,
    cut: Offset,
    reading: &mut Reading,
) -> anyhow::Result<(FromLog, Option<Offset>)> {
    let Position { partition, next: named, fingerprint: print } = view.position;
    let mut log = FromLog {
        standing: standing_without_record(view.position, bounds),
        bounds,
        rosters: if bounds.begin > 0 { checks::state_at(view, bounds.begin) } else { HashMap::new() },
        wins: HashMap::new(),
        unwritten: HashMap::new(),
    };
    let mut twin: Option<Offset> = None;
    let mut ahead: Option<HashMap<CouponId, Roster<UserId>>> = None;
    let mut next = bounds.begin;
    // Past the cut only for what is unwritten, or for the record that the ledger did read.
    while next < bounds.end && (next < cut || reading.to_end || log.standing != Standing::Agrees) {
        let fetched = match journal.fetch(partition, next, FETCH_BYTES, Duration::from_secs(1)).await {
            Err(JournalError::Damaged(reason)) => {
                log.standing = Standing::Damaged(reason);
                return Ok((log, None));
            }
            outcome => outcome.context("failed to read the journal")?,
        };
        if fetched.records.is_empty() {
            bail!("partition {partition}: no record at offset {next} below the end {}", bounds.end);
        }
        reading.pace.take(fetched.records.len()).await;
        for raw in fetched.records {
            next = raw.offset + 1;
            let is_the_one = fingerprint(&raw.key, &raw.value) == print;
            if next == named {
                log.standing = if is_the_one { Standing::Agrees } else { Standing::Replaced };
            } else if is_the_one && twin.is_none_or(|twin| next.abs_diff(named) < twin.abs_diff(named)) {
                twin = Some(next);
            }
            let below = raw.offset < cut;
            if !below && !reading.to_end {
                continue;
            }
            let decoded = decode(partition, journal.partitions(), &raw.key, &raw.value)
                .with_context(|| format!("partition {partition}, offset {}", raw.offset))?;
            let Decoded::Record(record) = decoded else { continue };
            if reading.only.is_some_and(|only| only != record.coupon) {
                continue;
            }
            // From the cut on, a copy goes ahead.
            let rosters = if below { &mut log.rosters } else { ahead.get_or_insert_with(|| log.rosters.clone()) };
            let decision = rosters.entry(record.coupon).or_default().apply(&record.body, Clone::clone);
            if let (Decision::Won(sequence), Body::Issue { .. }) = (decision, record.body) {
                if below {
                    log.wins.entry(record.coupon).or_insert_with(|| Wins { first: sequence, offsets: Vec::new() }).offsets.push(raw.offset);
                } else {
                    *log.unwritten.entry(record.coupon).or_default() += 1;
                }
            }
        }
    }
    Ok((log, twin))
}

/// The standing as long as the record below the ledger's offset was not met.
const fn standing_without_record(position: Position, bounds: Bounds) -> Standing {
    let next = position.next;
    if bounds.begin > next || bounds.end < next {
        Standing::Truncated
    } else if (next == 0 && position.fingerprint == 0) || (next > 0 && next == bounds.begin) {
        // Nothing was read yet; or that record is deleted by now.
        Standing::Agrees
    } else {
        Standing::Replaced
    }
}
