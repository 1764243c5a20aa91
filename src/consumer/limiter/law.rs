//! The law of an adaptive limit. `limiter.lua` takes the same steps over all consumers.
//!
//! ```text
//! measured = rows a second of commit time, summed over the workers that drain       what the database manages
//! rate     = share x measured, from floor to ceiling, smoothed                      share: 0.5 without a hurry, 0.95 with one
//! ```
//! A worker has one transaction open at a time, so a share of `measured` is that share of the time with a transaction open: the database
//! has the rest for others. (With full batches: small ones count as larger than they are, and are not held to it.) There is no search for a
//! limit, so nothing swings around it. What is measured does not depend on the rate either, or a low rate would measure itself: see
//! [`Speed`] and [`Speed::batch`].

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Of the time with a transaction open, while nothing waits for long.
const CALM_SHARE: f64 = 0.5;
/// The same while records wait: the rest is for whoever else uses the database.
const HURRIED_SHARE: f64 = 0.95;
/// A record waits about this long without any backlog, seconds.
const CALM_WAIT: f64 = 0.5;
/// From here on there is all the hurry there can be, seconds. Closer to [`CALM_WAIT`] the share would answer to its own delay.
const HURRIED_WAIT: f64 = 5.0;
/// A worker that asked for nothing this long does not drain: with it, those that do would have too much. Longer than a commit takes, in
/// which it asks for nothing either.
const FRESH: Duration = Duration::from_secs(10);
/// Time constant of the rate, seconds: a single slow commit is not yet a slow database.
const SMOOTHING: f64 = 0.5;
/// Time constant of a worker's memory of its commits, seconds.
const MEMORY: f64 = 0.5;
/// A commit counts as if it had at least so many rows.
const LEAST_ROWS: usize = 100;
/// A commit counts for at most this many seconds: one that hung for a minute would be remembered for as long.
const LONGEST_COMMIT: f64 = 2.0;
/// A batch is at most what a worker commits in this many seconds: a fixed cost of a commit that is longer (a database behind a slow line)
/// would make batches smaller and smaller, and statements that take longer would run into their deadline.
const BATCH_SECONDS: f64 = 3.0;

/// The script of the shared bucket, with the constants it has in common with this file.
pub(super) fn script() -> String {
    let fresh = FRESH.as_secs_f64();
    let names = "CALM_SHARE, HURRIED_SHARE, CALM_WAIT, HURRIED_WAIT, FRESH, SMOOTHING";
    let values = format!("{CALM_SHARE}, {HURRIED_SHARE}, {CALM_WAIT}, {HURRIED_WAIT}, {fresh}, {SMOOTHING}");
    format!("local {names} = {values}\n{}", include_str!("limiter.lua"))
}

/// From where to where an adaptive rate may go, permits a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Above 0: also the rate while nothing is measured yet.
    pub floor: f64,
    /// 0: none.
    pub ceiling: f64,
}

impl Range {
    fn clamp(self, rate: f64) -> f64 {
        let most = if self.ceiling > 0.0 { self.ceiling } else { f64::INFINITY };
        rate.min(most).max(self.floor)
    }

    /// One consumer's part of it.
    pub(super) fn among(self, consumers: u32) -> Self {
        let parts = f64::from(consumers.max(1));
        Self { floor: self.floor / parts, ceiling: self.ceiling / parts }
    }
}

/// The part of the time with a transaction open that is used, by how long the oldest record waits.
pub(super) fn share(waiting: f64) -> f64 {
    let hurry = ((waiting - CALM_WAIT) / (HURRIED_WAIT - CALM_WAIT)).clamp(0.0, 1.0);
    hurry.mul_add(HURRIED_SHARE - CALM_SHARE, CALM_SHARE)
}

/// The rate `elapsed` seconds on, towards its target.
fn follow(rate: f64, target: f64, elapsed: f64) -> f64 {
    (target - rate).mul_add(1.0 - (-elapsed / SMOOTHING).exp(), rate)
}

/// What one worker writes a second while it commits: rows and seconds of its latest commits, both forgotten alike.
///
/// Much of a small commit's time is not its rows'. Taken as it is, a drain of a few rows now and then would measure a slow
/// database, and be held to that when a crowd comes. So a small commit tells only that a database is fast.
#[derive(Debug)]
pub(super) struct Speed {
    rows: f64,
    seconds: f64,
    at: Instant,
}

impl Speed {
    pub(super) const fn new(now: Instant) -> Self {
        Self { rows: 0.0, seconds: 0.0, at: now }
    }

    pub(super) fn wrote(&mut self, rows: usize, took: Duration, now: Instant) {
        let kept = (-now.saturating_duration_since(self.at).as_secs_f64() / MEMORY).exp();
        let took = took.as_secs_f64().max(1e-6);
        let weight = (LONGEST_COMMIT / took).min(1.0);
        self.rows = self.rows.mul_add(kept, float(rows.max(LEAST_ROWS)) * weight);
        self.seconds = self.seconds.mul_add(kept, took * weight);
        self.at = now;
    }

    /// 0: nothing was measured yet.
    pub(super) fn rows_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.rows / self.seconds } else { 0.0 }
    }

    /// Most rows of this worker's next batch: long enough that the fixed cost of a commit does not count, short enough
    /// that a worker hears of a change within seconds. By what the database manages, not by the rate: a low rate that made small batches,
    /// which measure a slower database, would never come up again.
    pub(super) fn batch(&self, most: usize) -> usize {
        let room = self.rows_per_second() * BATCH_SECONDS;
        (LEAST_ROWS..most).find(|rows| float(*rows) >= room).unwrap_or(most)
    }
}

fn float(rows: usize) -> f64 {
    f64::from(u32::try_from(rows).unwrap_or(u32::MAX))
}

/// The latest word of one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    pub(super) rows_per_second: f64,
    /// Age of the oldest record it drains, seconds.
    pub(super) waiting: f64,
}

/// The state of the law over some workers.
#[derive(Debug)]
pub(super) struct Law {
    words: HashMap<usize, (Word, Instant)>,
    rate: Option<f64>,
    measured: f64,
    at: Instant,
}

impl Law {
    pub(super) fn new(now: Instant) -> Self {
        Self { words: HashMap::new(), rate: None, measured: 0.0, at: now }
    }

    /// Hears a worker, and says the rate from here on.
    pub(super) fn hear(&mut self, worker: usize, word: Word, range: Range, now: Instant) -> f64 {
        if word.rows_per_second > 0.0 {
            self.words.insert(worker, (word, now));
        }
        self.words.retain(|_, (_, at)| now.saturating_duration_since(*at) <= FRESH);
        self.measured = self.words.values().map(|(word, _)| word.rows_per_second).sum();
        let rate = if self.measured > 0.0 {
            let waiting = self.words.values().map(|(word, _)| word.waiting).fold(0.0, f64::max);
            let target = share(waiting) * self.measured;
            let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
            self.rate.map_or(target, |rate| follow(rate, target, elapsed))
        } else {
            self.rate.unwrap_or(range.floor)
        };
        let rate = range.clamp(rate);
        // The floor of the start is no measurement to be smoothed with.
        if self.rate.is_some() || self.measured > 0.0 {
            self.rate = Some(rate);
        }
        self.at = now;
        rate
    }

    /// Goes on from a rate that others found.
    pub(super) const fn start_at(&mut self, rate: f64, now: Instant) {
        self.rate = Some(rate);
        self.at = now;
    }

    /// Rows a second the database manages, 0 while that is not known.
    pub(super) const fn measured(&self) -> f64 {
        self.measured
    }
}
