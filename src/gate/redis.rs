//! The gate over all APIs: one set a coupon in Redis, asked by `gate.lua`.
//!
//! Asks go through one bounded queue. A few workers each take what waits there, so the busier Redis is, the larger the batches: one
//! script call for up to `batch` users, of whatever coupons, costs a fraction of as many calls.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use prometheus::Histogram;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::{Ask, Away, Gate, Verdict};
use crate::domain::CouponId;
use crate::redis::{BadRedis, Lane, Redis, RedisAway, RedisOptions, Script, connect};

/// Batches a worker takes out of the queue at once; they are in flight together on one connection.
const BATCHES_AT_ONCE: usize = 8;

/// How to reach the gate and how much may wait for it.
#[derive(Debug, Clone)]
pub struct RedisGateOptions {
    /// One worker a connection.
    pub redis: RedisOptions,
    /// In front of every key: `<prefix><coupon id>:members`.
    pub key_prefix: String,
    /// Asks that may wait; one more is told [`Away`].
    pub queue: usize,
    /// Most users of one script call.
    pub batch: usize,
    /// Observes the users of every script call.
    pub batch_size: Option<Histogram>,
}

impl RedisGateOptions {
    /// The defaults: prefix `coupon:`, 8192 waiting asks, 50 users a call, no histogram.
    #[must_use]
    pub fn new(redis: RedisOptions) -> Self {
        Self { redis, key_prefix: "coupon:".to_owned(), queue: 8192, batch: 50, batch_size: None }
    }
}

/// The gate in Redis. Dropping it ends its workers and connections.
#[derive(Debug)]
pub struct RedisGate {
    queue: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    redis: Redis,
    script: Script,
    key_prefix: String,
    batch: usize,
    batch_size: Option<Histogram>,
}

#[derive(Debug)]
struct Job {
    ask: Ask,
    queued: Instant,
    reply: oneshot::Sender<Result<Verdict, Away>>,
}

impl From<RedisAway> for Away {
    fn from(away: RedisAway) -> Self {
        Self(away.to_string())
    }
}

impl RedisGate {
    /// Starts the connections and workers. A Redis that is away is no error: the gate says [`Away`] until it comes.
    ///
    /// Needs a tokio runtime; returns within about half a second.
    ///
    /// # Errors
    /// The address can never work.
    pub async fn connect(options: RedisGateOptions) -> Result<Self, Away> {
        let redis = connect(&options.redis).await.map_err(|error: BadRedis| Away(error.to_string()))?;
        let (queue, waiting) = mpsc::channel(options.queue.max(1));
        let waiting = Arc::new(Mutex::new(waiting));
        let shared = Arc::new(Shared {
            redis,
            script: Script::new(include_str!("gate.lua")),
            key_prefix: options.key_prefix,
            batch: options.batch.max(1),
            batch_size: options.batch_size,
        });
        for _ in 0..options.redis.connections.max(1) {
            // Ends by itself when the gate, and so the queue's only sender, is dropped.
            tokio::spawn(work(Arc::clone(&shared), Arc::clone(&waiting)));
        }
        Ok(Self { queue, shared })
    }
}

#[async_trait]
impl Gate for RedisGate {
    async fn admit(&self, ask: Ask) -> Result<Verdict, Away> {
        if !self.shared.redis.reachable() {
            return Err(away_already());
        }
        let (reply, verdict) = oneshot::channel();
        let job = Job { ask, queued: Instant::now(), reply };
        self.queue.try_send(job).map_err(|_| Away("too many users wait for the gate".to_owned()))?;
        // Bounded without a timer of its own: a call ends when its oldest ask has waited long enough, and those in the queue are younger.
        verdict.await.unwrap_or_else(|_| Err(Away("the gate is shutting down".to_owned())))
    }

    async fn members(&self, coupon: CouponId) -> Result<i64, Away> {
        Ok(self.shared.redis.lane()?.set_len(&self.shared.key(coupon)).await?)
    }

    async fn forget(&self, coupon: CouponId) -> Result<(), Away> {
        Ok(self.shared.redis.lane()?.remove(&self.shared.key(coupon)).await?)
    }

    fn reachable(&self) -> bool {
        self.shared.redis.reachable()
    }
}

fn away_already() -> Away {
    Away("redis did not answer a moment ago".to_owned())
}

async fn work(shared: Arc<Shared>, waiting: Arc<Mutex<mpsc::Receiver<Job>>>) {
    let limit = shared.batch.saturating_mul(BATCHES_AT_ONCE);
    let mut jobs = Vec::with_capacity(limit);
    loop {
        // The lock is held while the queue is empty: the other workers wait for it as they would for an ask.
        if waiting.lock().await.recv_many(&mut jobs, limit).await == 0 {
            return;
        }
        shared.serve(&mut jobs).await;
    }
}

impl Shared {
    fn key(&self, coupon: CouponId) -> String {
        format!("{}{coupon}:members", self.key_prefix)
    }

    /// Answers every job and leaves the list empty.
    async fn serve(&self, jobs: &mut Vec<Job>) {
        // Adding a user who has given up would only take room.
        jobs.retain(|job| !job.reply.is_closed());
        let Some(oldest) = jobs.first().map(|job| job.queued) else { return };
        if oldest.elapsed() >= self.redis.command_timeout() {
            self.redis.mark_away("no verdict from redis in time");
        }
        let lane = match self.redis.lane() {
            Ok(lane) => lane.since(oldest),
            Err(away) => {
                let away = Away::from(away);
                for job in jobs.drain(..) {
                    job.answer(Err(away.clone()));
                }
                return;
            }
        };
        // Those of a coupon side by side, each as they came.
        jobs.sort_by_key(|job| job.ask.coupon);
        let mut calls = Vec::with_capacity(jobs.len().div_ceil(self.batch));
        while !jobs.is_empty() {
            calls.push(jobs.drain(..jobs.len().min(self.batch)).collect::<Vec<_>>());
        }
        join_all(calls.into_iter().map(|batch| self.ask(lane, batch))).await;
    }

    /// One script call for users who are sorted by their coupons.
    async fn ask(&self, lane: Lane<'_>, batch: Vec<Job>) {
        if let Some(histogram) = &self.batch_size {
            #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^52")]
            histogram.observe(batch.len() as f64);
        }
        let mut keys = Vec::new();
        let mut args = Vec::with_capacity(3 + batch.len());
        for asks in batch.chunk_by(|one, next| one.ask.coupon == next.ask.coupon) {
            let Some(newest) = asks.last() else { continue };
            // Asks come from one roster moments apart: the newest knows the stock (it may have been changed), and the gate is to count
            // at least what any of them counts.
            let issued = asks.iter().map(|job| job.ask.issued).max().unwrap_or(0);
            keys.push(self.key(newest.ask.coupon));
            args.extend([newest.ask.total.to_string(), issued.to_string(), asks.len().to_string()]);
            args.extend(asks.iter().map(|job| job.ask.user.as_str().to_owned()));
        }
        match lane.run(&self.script, keys, args).await {
            Ok(codes) => {
                let mut codes = codes.into_iter();
                for job in batch {
                    job.answer(
                        codes.next().and_then(verdict).ok_or_else(|| Away("redis gave an answer the gate does not know".to_owned())),
                    );
                }
            }
            Err(away) => {
                let away = Away::from(away);
                for job in batch {
                    job.answer(Err(away.clone()));
                }
            }
        }
    }
}

impl Job {
    fn answer(self, verdict: Result<Verdict, Away>) {
        // Nobody waits any more when the caller ran out of time or was dropped.
        let _ignored = self.reply.send(verdict);
    }
}

/// The numbers of `gate.lua`.
const fn verdict(code: i64) -> Option<Verdict> {
    match code {
        0 => Some(Verdict::Pass),
        1 => Some(Verdict::Seen),
        2 => Some(Verdict::Full),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::redis::testing::Server;

    /// Gives one ask that waited so long to a worker, and waits for its end: how long that took, and what it was told.
    async fn served_after(gate: &RedisGate, waited: Duration) -> (Duration, Result<Verdict, Away>) {
        let (reply, verdict) = oneshot::channel();
        let ask = Ask { coupon: CouponId::random(), user: crate::domain::testing::user("alice"), total: 10, issued: 0 };
        let started = Instant::now();
        gate.shared.serve(&mut vec![Job { ask, queued: started.checked_sub(waited).unwrap(), reply }]).await;
        (started.elapsed(), verdict.await.unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_time_in_the_queue_counts_for_the_deadline() {
        const DEADLINE: Duration = Duration::from_millis(800);
        for (stalls, waited, at_most, is_told) in
            [(false, Duration::ZERO, DEADLINE, true), (false, DEADLINE, DEADLINE, false), (true, DEADLINE * 3 / 4, DEADLINE * 3 / 4, false)]
        {
            let server = Server::start().await;
            let options = RedisOptions { command_timeout: DEADLINE, ..RedisOptions::new(server.url()) };
            let gate = RedisGate::connect(RedisGateOptions::new(options)).await.unwrap();
            assert!(gate.reachable());
            if stalls {
                server.signal("-STOP");
            }
            let (took, told) = served_after(&gate, waited).await;
            server.signal("-CONT");
            assert_eq!(told.is_ok(), is_told, "{waited:?}: {told:?}");
            assert!(took < at_most, "{waited:?}: {took:?}");
            // What was sent to a server that stood still is carried out when it goes on.
            if !stalls {
                assert_eq!(server.cli(&["DBSIZE"]).trim(), if is_told { "1" } else { "0" }, "who waited too long is not asked for");
            }
        }
    }
}
