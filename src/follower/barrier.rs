//! The barrier: "is there really nothing?" asked of the log's end, once for everybody who asks meanwhile.
//!
//! Who arrives while a look-up is in flight needs one that is sent later; all of those share the next one. The lock around the look-up
//! makes that batching by itself: the first who gets it looks up, the others find an answer sent after they arrived.

use std::time::Instant;

use thiserror::Error;
use tokio::time::timeout_at;

use super::shard::Shard;
use crate::domain::Partition;
use crate::journal::Journal;

/// The barrier was not passed in time: what is not there may only be not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the log did not tell its end in time")]
pub struct BarrierFailed;

pub async fn pass(journal: &dyn Journal, partition: Partition, shard: &Shard, deadline: tokio::time::Instant) -> Result<(), BarrierFailed> {
    let arrived = Instant::now();
    let passing = async {
        let end = {
            let mut log_end = shard.log_end.lock().await;
            match *log_end {
                Some((sent_at, end)) if sent_at >= arrived => end,
                _ => {
                    let sent_at = Instant::now();
                    let end = journal.bounds(partition).await.map_err(|_| BarrierFailed)?.end;
                    *log_end = Some((sent_at, end));
                    end
                }
            }
        };
        shard.applied.subscribe().wait_for(|applied| *applied >= end).await.map(drop).map_err(|_| BarrierFailed)
    };
    timeout_at(deadline, passing).await.map_err(|_| BarrierFailed)?
}
