//! Who leads which partition, and connections to the leaders.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::super::JournalError;
use super::access::Access;
use super::topics::Topics;
use super::wire::Wire;
use super::{KafkaOptions, lock, unknown, worth_a_line};
use crate::domain::Partition;

/// A broker's number.
pub type Broker = i32;
/// The leader of a partition that has none.
pub const NOBODY: Broker = -1;

/// The leaders are looked up so often while nobody doubts them: a leader that changed is left before a request to the old one fails.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two look-ups when there is doubt.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections for single calls that are kept open to a broker while nobody uses them.
const IDLE_LINKS: usize = 4;

/// Who leads what, at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaders {
    /// By partition: the leader, or [`NOBODY`], and the epoch of its leadership.
    pub partitions: Vec<(Broker, i32)>,
    /// Of the topic of dead letters.
    pub dead_letters: Broker,
    /// `host:port` of every broker.
    pub addresses: HashMap<Broker, String>,
}

impl Leaders {
    pub fn of(&self, partition: Partition) -> Broker {
        usize::try_from(partition).ok().and_then(|index| self.partitions.get(index)).map_or(NOBODY, |leader| leader.0)
    }

    /// Takes over what is newer: a broker that hears of nothing may tell of leaders of the past.
    fn replaced_by(&self, mut newer: Self) -> Self {
        for (known, told) in self.partitions.iter().zip(&mut newer.partitions) {
            // A broker that does not see the leader alive says nobody, without a new epoch.
            if told.1 < known.1 || (told.1 == known.1 && told.0 == NOBODY) {
                *told = *known;
            }
        }
        newer
    }
}

/// The brokers as this process knows them.
pub struct Cluster {
    options: Arc<KafkaOptions>,
    access: Access,
    leaders: watch::Sender<Arc<Leaders>>,
    doubted: Notify,
    /// Connections for single calls: one call at a time on each.
    links: Mutex<HashMap<Broker, Vec<Wire>>>,
    /// Where connections are made: on the runtime of the HTTP worker that asked first they would end with it.
    runtime: Handle,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("brokers", &self.options.brokers).finish_non_exhaustive()
    }
}

impl Cluster {
    pub fn new(options: Arc<KafkaOptions>, access: Access, leaders: Leaders) -> Self {
        Self {
            options,
            access,
            leaders: watch::Sender::new(Arc::new(leaders)),
            doubted: Notify::new(),
            links: Mutex::default(),
            runtime: Handle::current(),
        }
    }

    pub const fn access(&self) -> &Access {
        &self.access
    }

    pub const fn options(&self) -> &Arc<KafkaOptions> {
        &self.options
    }

    pub const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub fn leaders(&self) -> Arc<Leaders> {
        Arc::clone(&self.leaders.borrow())
    }

    pub fn watch(&self) -> watch::Receiver<Arc<Leaders>> {
        self.leaders.subscribe()
    }

    /// Something went wrong that other leaders would explain: they are looked up again, soon.
    pub fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Keeps the leaders up to date until dropped.
    pub async fn keep(self: Arc<Self>) {
        let mut link = None;
        let mut failures = 0;
        loop {
            let leaderless = self.leaders().partitions.iter().any(|leader| leader.0 == NOBODY);
            if timeout(if leaderless { PAUSE } else { LOOK_AGAIN }, self.doubted.notified()).await.is_ok() {
                // Another broker may know better.
                link = None;
            }
            match timed("looking for leaders", self.options.call_timeout, self.look(&mut link)).await {
                Ok(told) => {
                    failures = 0;
                    self.learn(told);
                }
                Err(error) => {
                    link = None;
                    failures += 1;
                    if worth_a_line(failures) {
                        tracing::warn!(%error, failures, "the leaders of the partitions could not be looked up");
                    }
                    self.doubt();
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub fn learn(&self, told: Leaders) {
        self.leaders.send_if_modified(|known| {
            let told = known.replaced_by(told);
            let news = **known != told;
            if news {
                *known = Arc::new(told);
            }
            news
        });
    }

    async fn look(&self, link: &mut Option<Wire>) -> Result<Leaders, JournalError> {
        let mut wire = match link.take() {
            Some(wire) => wire,
            None => {
                let mut brokers = self.options.brokers.clone();
                brokers.extend(self.leaders().addresses.values().cloned());
                brokers.sort_unstable();
                brokers.dedup();
                Wire::connect(&brokers, &self.access).await?
            }
        };
        let told = Topics::of(&self.options).leaders(&mut wire).await?;
        *link = Some(wire);
        Ok(told)
    }

    /// A new connection to a broker, within the call timeout.
    pub async fn connect(self: &Arc<Self>, broker: Broker) -> Result<Wire, JournalError> {
        let Some(address) = self.leaders().addresses.get(&broker).cloned() else {
            return Err(JournalError::Unknown(format!("broker {broker} is not known, or a partition has no leader")));
        };
        let cluster = Arc::clone(self);
        let entering = async move { timed("connecting", cluster.options.call_timeout, cluster.access.enter(&address)).await };
        AbortOnDropHandle::new(self.runtime.spawn(entering)).await.map_err(|error| unknown("connecting", &error))?
    }

    /// Runs one call at a broker on a connection that is kept for the next call unless this one failed. `limit` bounds both together.
    pub async fn at<T, F>(self: &Arc<Self>, broker: Broker, what: &str, limit: Duration, call: F) -> Result<T, JournalError>
    where
        F: AsyncFnOnce(&mut Wire) -> Result<T, JournalError>,
    {
        let attempt = async {
            let kept = || lock(&self.links).get_mut(&broker).and_then(Vec::pop);
            let mut wire = loop {
                let Some(mut wire) = kept() else { break self.connect(broker).await? };
                if !wire.is_gone() {
                    break wire;
                }
            };
            let answer = call(&mut wire).await?;
            let mut links = lock(&self.links);
            let idle = links.entry(broker).or_default();
            if idle.len() < IDLE_LINKS {
                idle.push(wire);
            }
            Ok(answer)
        };
        let outcome = timed(what, limit, attempt).await;
        if outcome.is_err() {
            // The others are as old as the one that failed.
            lock(&self.links).remove(&broker);
            self.doubt();
        }
        outcome
    }
}

/// Runs a call that has no deadline of its own.
pub async fn timed<T>(what: &str, limit: Duration, call: impl Future<Output = Result<T, JournalError>>) -> Result<T, JournalError> {
    match timeout(limit, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(JournalError::Unknown(format!("{what}: no answer within {limit:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_of_the_past_is_not_believed() {
        let leaders = |partitions: &[(Broker, i32)]| Leaders { partitions: partitions.to_vec(), ..Leaders::default() };
        let known = leaders(&[(1, 5), (2, 5), (3, 5)]);
        let told = leaders(&[(2, 4), (NOBODY, 5), (NOBODY, 6)]);
        assert_eq!(known.replaced_by(told).partitions, [(1, 5), (2, 5), (NOBODY, 6)]);
    }
}
