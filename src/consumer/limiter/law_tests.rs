//! The law with simulated databases: what runs in a process, with a clock that is made up. The script takes the same steps.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::law::{Range, share};
use super::local::Own;
use super::{Ask, Limit};

const STEP: f64 = 0.005;
const BATCH_ROWS: usize = 1_000;
const WORKERS: usize = 2;

/// A commit costs `fixed` seconds of waiting and `per_row` of work for each row; that many works at a time do not slow each other.
#[derive(Clone, Copy)]
struct Database {
    fixed: f64,
    per_row: f64,
    at_a_time: f64,
}

impl Database {
    /// About how many rows a second there can be, with full batches only.
    fn capacity(self, consumers: usize) -> f64 {
        let commits = workers(consumers) * 1_000.0 / (self.fixed + self.per_row * 1_000.0);
        commits.min(self.at_a_time / self.per_row)
    }
}

/// On two connections as fast as a small server with its disk is.
const PLAIN: Database = Database { fixed: 0.005, per_row: 0.000_1, at_a_time: 2.0 };
/// Far away: rows cost nothing against the round trips.
const FAR: Database = Database { fixed: 0.1, per_row: 0.000_02, at_a_time: 2.0 };

struct Batch {
    rows: usize,
    missing: usize,
    ask_at: f64,
    oldest: f64,
}

struct Commit {
    rows: usize,
    began: f64,
    /// Seconds left at full speed: of waiting first, then of work.
    fixed: f64,
    work: f64,
}

#[derive(Default)]
struct Worker {
    /// When they came, and how many: a part of one is the rest of a row on its way.
    waiting: VecDeque<(f64, f64)>,
    deciding: Option<Batch>,
    writing: Option<Commit>,
}

impl Worker {
    fn backlog(&self) -> f64 {
        self.waiting.iter().map(|(_, rows)| rows).sum()
    }

    fn draw(&mut self, most: usize) -> usize {
        let mut rows = 0;
        while rows < most {
            let Some((_, left)) = self.waiting.front_mut() else { break };
            if *left < 1.0 {
                let (_, left) = self.waiting.pop_front().unwrap();
                match self.waiting.front_mut() {
                    Some((_, next)) => *next += left,
                    None => {
                        self.waiting.push_front((0.0, left));
                        break;
                    }
                }
                continue;
            }
            *left -= 1.0;
            rows += 1;
        }
        rows
    }
}

#[derive(Clone, Copy)]
struct Sample {
    at: f64,
    rate: f64,
    backlog: f64,
    written: usize,
    busy: f64,
}

struct Run(Vec<Sample>);

impl Run {
    fn between(&self, from: f64, to: f64) -> impl Iterator<Item = Sample> {
        self.0.iter().copied().filter(move |sample| (from..to).contains(&sample.at))
    }

    fn at(&self, at: f64) -> Sample {
        self.between(at, f64::INFINITY).next().unwrap()
    }

    fn throughput(&self, from: f64, to: f64) -> f64 {
        f64::from(u32::try_from(self.at(to).written - self.at(from).written).unwrap()) / (to - from)
    }

    fn mean_rate(&self, from: f64, to: f64) -> f64 {
        let rates: Vec<f64> = self.between(from, to).map(|sample| sample.rate).collect();
        rates.iter().sum::<f64>() / f64::from(u32::try_from(rates.len()).unwrap())
    }

    /// Between the highest and the lowest rate, as a part of the mean.
    fn swing(&self, from: f64, to: f64) -> f64 {
        let most = self.between(from, to).map(|sample| sample.rate).fold(0.0, f64::max);
        let least = self.between(from, to).map(|sample| sample.rate).fold(f64::INFINITY, f64::min);
        (most - least) / self.mean_rate(from, to)
    }

    fn share_of_time(&self, from: f64, to: f64) -> f64 {
        (self.at(to).busy - self.at(from).busy) / (to - from)
    }
}

/// Runs the drain for `seconds` with an inflow (rows a second) and a speed of the database (1: as it is) that change with time.
fn simulate(
    database: Database,
    consumers: usize,
    range: Range,
    seconds: f64,
    inflow: impl Fn(f64) -> f64,
    speed: impl Fn(f64) -> f64,
) -> Run {
    let start = Instant::now();
    let parts = workers(consumers);
    let mut workers: Vec<Worker> = (0..consumers * WORKERS).map(|_| Worker::default()).collect();
    let mut limiter = Own::new(Limit::Adaptive(range), start);
    let (mut samples, mut written, mut busy) = (Vec::new(), 0, 0.0);
    let mut at = 0.0;
    while at < seconds {
        let now = start + Duration::from_secs_f64(at);
        for (index, worker) in workers.iter_mut().enumerate() {
            worker.waiting.push_back((at, inflow(at) * STEP / parts));
            if worker.deciding.is_none() {
                let oldest = worker.waiting.front().map_or(at, |(came, _)| *came);
                let rows = worker.draw(limiter.batch(index, BATCH_ROWS));
                worker.deciding = (rows > 0).then_some(Batch { rows, missing: rows, ask_at: at, oldest });
            }
            if let Some(batch) = &mut worker.deciding
                && batch.missing > 0
                && batch.ask_at <= at
            {
                let wanted = u32::try_from(batch.missing).unwrap();
                let grant = limiter.take(Ask { wanted, worker: index, waiting: Duration::from_secs_f64(at - batch.oldest) }, now);
                batch.missing -= usize::try_from(grant.permits).unwrap();
                batch.ask_at = at + grant.wait.as_secs_f64().clamp(0.001, 1.0);
            }
            if worker.writing.is_none()
                && let Some(batch) = worker.deciding.take_if(|batch| batch.missing == 0)
            {
                let rows = f64::from(u32::try_from(batch.rows).unwrap());
                worker.writing = Some(Commit { rows: batch.rows, began: at, fixed: database.fixed, work: rows * database.per_row });
            }
        }
        let count = |is_counted: fn(&Commit) -> bool| {
            f64::from(u32::try_from(workers.iter().filter_map(|worker| worker.writing.as_ref()).filter(|c| is_counted(c)).count()).unwrap())
        };
        busy += count(|_| true) / parts * STEP;
        let crowding = (count(|commit| commit.fixed <= 0.0) / database.at_a_time).max(1.0);
        for (index, worker) in workers.iter_mut().enumerate() {
            let Some(commit) = &mut worker.writing else { continue };
            let passed = STEP * speed(at);
            if commit.fixed > 0.0 {
                commit.fixed -= passed;
            } else {
                commit.work -= passed / crowding;
            }
            if commit.fixed <= 0.0 && commit.work <= 0.0 {
                let took = Duration::from_secs_f64(at + STEP - commit.began);
                limiter.wrote(index, commit.rows, took, now + Duration::from_secs_f64(STEP));
                written += commit.rows;
                worker.writing = None;
            }
        }
        at += STEP;
        samples.push(Sample { at, rate: limiter.rate(), backlog: workers.iter().map(Worker::backlog).sum(), written, busy });
    }
    Run(samples)
}

const FREE: Range = Range { floor: 50.0, ceiling: 0.0 };

fn workers(consumers: usize) -> f64 {
    f64::from(u32::try_from(consumers * WORKERS).unwrap())
}

/// A tenth from second 20 to second 40.
fn slowed(at: f64) -> f64 {
    if (20.0..40.0).contains(&at) { 0.1 } else { 1.0 }
}

#[test]
fn a_slow_down_is_followed_and_so_is_the_recovery() {
    for database in [PLAIN, FAR] {
        for consumers in [1, 2, 4] {
            let capacity = database.capacity(consumers);
            // A third of what it manages at its best, three times what it manages at its worst.
            let run = simulate(database, consumers, FREE, 100.0, |_| capacity * 0.3, slowed);
            let of = format!("{consumers} consumers, fixed cost {} s", database.fixed);

            assert!(run.at(19.0).backlog < capacity * 0.3, "{of}: nothing piles up before");
            let slow = run.mean_rate(32.0, 40.0);
            assert!((0.85..1.35).contains(&(slow / capacity / 0.095)), "{of}: {slow} of {}", capacity / 10.0);
            // The first slow commits have to end before anybody can know; the more at a time, the longer each takes.
            let commit = 10.0 * 1_000.0 * workers(consumers) / capacity;
            let followed = run.at(20.0 + 1.5 + commit * 2.0).rate;
            assert!(followed < slow * 1.5, "{of}: {followed} soon after, {slow} in the end");
            assert!(run.throughput(25.0, 40.0) > capacity * 0.1 * 0.8, "{of}: {} a second while it is slow", run.throughput(25.0, 40.0));
            assert!(run.swing(32.0, 40.0) < 0.3, "{of}: {}", run.swing(32.0, 40.0));

            assert!(run.at(45.0).rate > capacity * 0.6, "{of}: {} after the recovery", run.at(45.0).rate);
            // All of it is written, though records keep coming.
            assert!(run.at(70.0).backlog < capacity * 0.3, "{of}: {} records wait", run.at(70.0).backlog);
            assert!(run.swing(80.0, 100.0) < 0.3, "{of}: {}", run.swing(80.0, 100.0));
        }
    }
}

#[test]
fn without_a_hurry_the_database_is_left_to_others_half_of_the_time() {
    for consumers in [1, 2, 4] {
        // More than half at first, and all at once: what waits is drained in a hurry, and then in calm.
        let run = simulate(PLAIN, consumers, FREE, 60.0, |at| PLAIN.capacity(consumers) * if at < 15.0 { 0.7 } else { 0.3 }, |_| 1.0);
        assert!(run.at(14.0).backlog < PLAIN.capacity(consumers) * 5.0, "{consumers}: the backlog ends: {}", run.at(14.0).backlog);
        assert!(run.at(40.0).backlog < PLAIN.capacity(consumers) * 0.3, "{consumers}: {}", run.at(40.0).backlog);
        // With commits of a few rows the time goes to their fixed cost; at most what they need is used, never more than asked.
        assert!(run.throughput(40.0, 60.0) > PLAIN.capacity(consumers) * 0.29, "{consumers}: {}", run.throughput(40.0, 60.0));
    }
    // One worker at a time, no inflow that makes batches small: half of the time and no more.
    let run = simulate(PLAIN, 1, FREE, 10.0, |at| if at < 0.5 { 20_000.0 } else { 0.0 }, |_| 1.0);
    assert!(run.share_of_time(0.6, 1.0) < 0.75, "{}", run.share_of_time(0.6, 1.0));
}

#[test]
fn in_a_hurry_nearly_all_of_the_database_is_used_and_not_all() {
    for consumers in [1, 2, 4] {
        let run = simulate(PLAIN, consumers, FREE, 40.0, |_| PLAIN.capacity(consumers) * 1.5, |_| 1.0);
        // More workers than it takes to keep the database busy do that with any share of their time.
        assert!(run.throughput(20.0, 40.0) > PLAIN.capacity(consumers) * 0.85, "{consumers}: {}", run.throughput(20.0, 40.0));
        assert!(run.share_of_time(20.0, 40.0) < 0.97, "{consumers}: {}", run.share_of_time(20.0, 40.0));
        assert!(run.swing(20.0, 40.0) < 0.3, "{consumers}: {}", run.swing(20.0, 40.0));
    }
}

/// A drain of single rows measures only fixed costs; held to that, a crowd would wait.
#[test]
fn a_trickle_does_not_hold_up_the_crowd_after_it() {
    for database in [PLAIN, FAR] {
        let run = simulate(database, 2, FREE, 70.0, |at| if (60.0..61.0).contains(&at) { 10_000.0 } else { 5.0 }, |_| 1.0);
        assert!(run.at(63.0).backlog < 100.0, "{} records wait", run.at(63.0).backlog);
    }
}

#[test]
fn a_database_that_hung_is_trusted_again_soon() {
    let hung = |at: f64| if (10.0..40.0).contains(&at) { 1e-6 } else { 1.0 };
    let run = simulate(PLAIN, 2, FREE, 70.0, |_| 2_000.0, hung);
    assert!(run.at(47.0).rate > PLAIN.capacity(2) * 0.3, "{} a while after", run.at(47.0).rate);
    assert!(run.at(60.0).backlog < 2_000.0, "{} records wait", run.at(60.0).backlog);
}

#[test]
fn the_rate_stays_between_floor_and_ceiling() {
    let range = Range { floor: 3_000.0, ceiling: 4_000.0 };
    let run = simulate(PLAIN, 2, range, 60.0, |_| 6_000.0, slowed);
    for sample in run.between(0.0, 60.0) {
        assert!((2_999.9..=4_000.1).contains(&sample.rate), "{} at {}", sample.rate, sample.at);
    }
    assert!((run.at(19.0).rate - 4_000.0).abs() < 1.0 && (run.at(39.0).rate - 3_000.0).abs() < 1.0, "both are reached");
}

#[test]
fn the_share_grows_with_the_wait() {
    assert!((share(0.0) - 0.5).abs() < 1e-9 && (share(0.5) - 0.5).abs() < 1e-9);
    assert!((share(2.75) - 0.725).abs() < 1e-9);
    assert!((share(5.0) - 0.95).abs() < 1e-9 && (share(3_600.0) - 0.95).abs() < 1e-9);
}
