//! For the tests of other rooms.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Bounds, Fetched, Journal, JournalError, SqliteJournal};
use crate::domain::{CouponId, Offset, Partition};

/// Carries out statements on the file of a [`super::SqliteJournal`], behind its back.
pub(crate) fn damage(path: &Path, statements: &str) {
    super::sqlite::damage(path, statements);
}

/// How a [`Moody`] journal answers its readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// A fetch waits for another mood.
    Silent,
    /// The log ends here for now, as at a leader that lags.
    EndsAt(Offset),
    /// The next fetch panics; then it is well.
    Panics,
}

/// A real journal whose reads can be spoiled for a while.
#[derive(Debug)]
pub(crate) struct Moody {
    journal: Arc<SqliteJournal>,
    mood: watch::Sender<Mood>,
    /// Questions answered in the mood of their time, since it began.
    answers: watch::Sender<u64>,
}

impl Moody {
    pub(crate) fn new(journal: Arc<SqliteJournal>, mood: Mood) -> Arc<Self> {
        Arc::new(Self { journal, mood: watch::Sender::new(mood), answers: watch::Sender::new(0) })
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
        self.answers.send_replace(0);
    }

    /// Waits until so many questions were answered in this mood; generous, because nothing is measured.
    pub(crate) async fn answered(&self, count: u64) {
        let mut answers = self.answers.subscribe();
        let enough = answers.wait_for(|answers| *answers >= count);
        assert!(tokio::time::timeout(Duration::from_secs(60), enough).await.is_ok(), "the journal is not asked {count} times");
    }

    fn answer(&self) -> Mood {
        self.answers.send_modify(|answers| *answers += 1);
        *self.mood.borrow()
    }
}

#[async_trait]
impl Journal for Moody {
    fn partitions(&self) -> Partition {
        self.journal.partitions()
    }

    fn send(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError> {
        self.journal.send(partition, coupon, value)
    }

    async fn append(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError> {
        self.journal.append(partition, coupon, value).await
    }

    async fn fetch(&self, partition: Partition, from: Offset, max_bytes: usize, max_wait: Duration) -> Result<Fetched, JournalError> {
        match self.answer() {
            Mood::Well => {}
            Mood::Silent => {
                self.mood
                    .subscribe()
                    .wait_for(|mood| *mood != Mood::Silent)
                    .await
                    .map_err(|_| JournalError::Unknown("the test ended".into()))?;
            }
            Mood::EndsAt(end) => {
                let bounds = Bounds { begin: 0, end };
                return Err(JournalError::OffsetOutOfRange { partition, asked: from, bounds: Some(bounds) });
            }
            Mood::Panics => {
                self.set(Mood::Well);
                panic!("as the test asked for");
            }
        }
        self.journal.fetch(partition, from, max_bytes, max_wait).await
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, JournalError> {
        let mood = self.answer();
        let bounds = self.journal.bounds(partition).await?;
        Ok(if let Mood::EndsAt(end) = mood { Bounds { end, ..bounds } } else { bounds })
    }

    async fn report_progress(&self, next: &[(Partition, Offset)]) -> Result<(), JournalError> {
        self.journal.report_progress(next).await
    }

    async fn copy_dead_letter(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), JournalError> {
        self.journal.copy_dead_letter(key, value).await
    }
}

/// Journals of one partition side by side, as one journal.
#[derive(Debug)]
pub(crate) struct SideBySide(pub(crate) Vec<Arc<dyn Journal>>);

impl SideBySide {
    fn at(&self, partition: Partition) -> &dyn Journal {
        &*self.0[usize::try_from(partition).unwrap()]
    }
}

#[async_trait]
impl Journal for SideBySide {
    fn partitions(&self) -> Partition {
        Partition::try_from(self.0.len()).unwrap()
    }

    fn send(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError> {
        self.at(partition).send(0, coupon, value)
    }

    async fn append(&self, partition: Partition, coupon: CouponId, value: Vec<u8>) -> Result<(), JournalError> {
        self.at(partition).append(0, coupon, value).await
    }

    async fn fetch(&self, partition: Partition, from: Offset, max_bytes: usize, max_wait: Duration) -> Result<Fetched, JournalError> {
        self.at(partition).fetch(0, from, max_bytes, max_wait).await
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, JournalError> {
        self.at(partition).bounds(0).await
    }

    async fn report_progress(&self, _next: &[(Partition, Offset)]) -> Result<(), JournalError> {
        Ok(())
    }

    async fn copy_dead_letter(&self, _key: Vec<u8>, _value: Vec<u8>) -> Result<(), JournalError> {
        Ok(())
    }
}
