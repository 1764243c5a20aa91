//! One fetch loop a partition, at most one answer ahead of its worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Consumer;
use crate::domain::{Offset, Partition};
use crate::journal::{Fetched, JournalError, RawRecord};

/// Records of one partition on their way to its worker.
#[derive(Debug)]
pub struct Parcel {
    pub partition: Partition,
    /// Of the feed that sent it: a parcel of a feed that was replaced is thrown away.
    pub epoch: u64,
    pub records: Vec<RawRecord>,
}

/// A running fetch loop; ends when dropped.
#[derive(Debug)]
pub struct Feed {
    pub epoch: u64,
    task: JoinHandle<()>,
}

impl Feed {
    pub fn start(consumer: Arc<Consumer>, partition: Partition, from: Offset, epoch: u64, parcels: mpsc::Sender<Parcel>) -> Self {
        Self { epoch, task: tokio::spawn(run(consumer, partition, from, epoch, parcels)) }
    }
}

impl Feed {
    /// False after a panic, or once the partition was stopped.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(consumer: Arc<Consumer>, partition: Partition, mut from: Offset, epoch: u64, parcels: mpsc::Sender<Parcel>) {
    let mut back_off = Duration::from_millis(50);
    let mut regressed_since: Option<Instant> = None;
    loop {
        match consumer.journal.fetch(partition, from, consumer.options.fetch_bytes, consumer.options.fetch_wait).await {
            Ok(Fetched { records, high_watermark, .. }) => {
                back_off = Duration::from_millis(50);
                regressed_since = None;
                consumer.note_fetch();
                consumer.note_progress(partition, |progress| progress.high_watermark = high_watermark);
                let Some(last) = records.last() else { continue };
                from = last.offset + 1;
                if parcels.send(Parcel { partition, epoch, records }).await.is_err() {
                    return;
                }
            }
            Err(JournalError::OffsetOutOfRange { bounds: Some(bounds), .. }) if bounds.begin > from => {
                consumer.stop_partition(partition, &format!("the log begins at {} above the next offset {from}", bounds.begin));
                return;
            }
            // A new leader may lag for a moment; records are lost when it lasts.
            Err(JournalError::OffsetOutOfRange { bounds: Some(bounds), .. }) if bounds.end < from => {
                if regressed_since.get_or_insert_with(Instant::now).elapsed() > consumer.options.end_regress {
                    consumer.stop_partition(partition, &format!("the log ends at {} below the next offset {from}", bounds.end));
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(JournalError::Damaged(reason)) => {
                consumer.stop_partition(partition, &reason);
                return;
            }
            Err(error) => {
                regressed_since = None;
                tracing::debug!(partition, %error, "fetch failed");
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(Duration::from_secs(1));
            }
        }
    }
}
