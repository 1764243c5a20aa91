//! The contract of [`Journal`], run on every implementation. The journal given must be empty.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{Bounds, Journal, JournalError, RawRecord};
use crate::domain::{CouponId, Offset, Partition, now_millis, partition_of};

const BYTES: usize = 256 * 1024;
/// Long enough for a slow test machine, short enough for a failing test to end.
const LONG: Duration = Duration::from_secs(10);

/// Everything, in turn.
pub async fn run(journal: &dyn Journal) {
    reads_back_in_order(journal).await;
    takes_a_big_record(journal).await;
    an_empty_fetch_waits_and_tells_the_end(journal).await;
    a_fetch_is_woken_by_an_append(journal).await;
    two_fetches_at_once(journal).await;
    offsets_outside_are_errors(journal).await;
    keeps_coupons_apart(journal).await;
    lands_exactly_what_it_acknowledges(journal).await;
    refuses_an_unknown_partition(journal).await;
    tools_are_told(journal).await;
}

async fn end(journal: &dyn Journal, partition: Partition) -> Offset {
    journal.bounds(partition).await.unwrap().end
}

/// Reads `count` records from `from` on, checking that they have no gap.
pub async fn read(journal: &dyn Journal, partition: Partition, from: Offset, count: usize) -> Vec<RawRecord> {
    let mut records: Vec<RawRecord> = Vec::new();
    let started = Instant::now();
    let mut next = from;
    while records.len() < count && started.elapsed() < LONG {
        let fetched = journal.fetch(partition, next, BYTES, Duration::from_secs(1)).await.unwrap();
        for record in fetched.records {
            assert_eq!(record.offset, next, "offsets have no gap");
            assert!(record.offset < fetched.high_watermark);
            next += 1;
            records.push(record);
        }
    }
    assert_eq!(records.len(), count);
    records
}

async fn reads_back_in_order(journal: &dyn Journal) {
    let coupon = CouponId::random();
    assert_eq!(journal.bounds(0).await.unwrap(), Bounds { begin: 0, end: 0 });
    let before = now_millis();
    for number in 0..20_u8 {
        // Whether or not somebody waits for it.
        if number % 2 == 0 {
            journal.send(0, coupon, vec![number; 3]).unwrap();
        } else {
            journal.append(0, coupon, vec![number; 3]).await.unwrap();
        }
    }
    let records = read(journal, 0, 0, 20).await;
    for (number, record) in (0..20_u8).zip(&records) {
        assert_eq!(record.value, vec![number; 3]);
        assert_eq!(record.key, coupon.to_string().into_bytes());
        assert!((before - 1_000..=now_millis() + 1_000).contains(&record.at));
    }
    let middle = read(journal, 0, 7, 13).await;
    assert_eq!(middle, records[7..]);
    assert_eq!(journal.bounds(0).await.unwrap(), Bounds { begin: 0, end: 20 });
    // One record comes even when it is larger than what was asked for.
    assert!(!journal.fetch(0, 0, 1, Duration::ZERO).await.unwrap().records.is_empty());
}

async fn takes_a_big_record(journal: &dyn Journal) {
    let from = end(journal, 0).await;
    let value: Vec<u8> = (0..7_168_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    journal.append(0, CouponId::random(), value.clone()).await.unwrap();
    let larger = vec![7_u8; 20_000];
    journal.append(0, CouponId::random(), larger.clone()).await.unwrap();
    let records = read(journal, 0, from, 2).await;
    assert_eq!(records[0].value, value);
    assert_eq!(records[1].value, larger);
}

async fn an_empty_fetch_waits_and_tells_the_end(journal: &dyn Journal) {
    let from = end(journal, 0).await;
    let started = Instant::now();
    let fetched = journal.fetch(0, from, BYTES, Duration::from_millis(300)).await.unwrap();
    assert!(fetched.records.is_empty());
    assert_eq!(fetched.high_watermark, from);
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(fetched.sent_at >= started);
}

async fn a_fetch_is_woken_by_an_append(journal: &dyn Journal) {
    let from = end(journal, 0).await;
    let started = Instant::now();
    let append = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        journal.append(0, CouponId::random(), b"wake".to_vec()).await
    };
    let (fetched, appended) = tokio::join!(journal.fetch(0, from, BYTES, LONG), append);
    appended.unwrap();
    let fetched = fetched.unwrap();
    assert_eq!(fetched.records[0].value, "wake");
    assert_eq!(fetched.high_watermark, from + 1);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

async fn two_fetches_at_once(journal: &dyn Journal) {
    let from = end(journal, 0).await;
    let read_old = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let started = Instant::now();
        assert!(!journal.fetch(0, 0, BYTES, LONG).await.unwrap().records.is_empty());
        started.elapsed()
    };
    let (waited, took) = tokio::join!(journal.fetch(0, from, BYTES, Duration::from_secs(2)), read_old);
    assert!(waited.unwrap().records.is_empty());
    assert!(took < Duration::from_millis(1_500), "a reader waited for the long poll of another: {took:?}");
}

async fn offsets_outside_are_errors(journal: &dyn Journal) {
    let bounds = journal.bounds(0).await.unwrap();
    for asked in [bounds.end + 5, bounds.begin - 1] {
        match journal.fetch(0, asked, BYTES, Duration::from_millis(100)).await {
            Err(JournalError::OffsetOutOfRange { partition: 0, asked: told, bounds: Some(range) }) => {
                assert_eq!((told, range), (asked, bounds));
            }
            other => panic!("{asked}: {other:?}"),
        }
    }
}

async fn keeps_coupons_apart(journal: &dyn Journal) {
    let partitions = journal.partitions();
    let mut starts = Vec::new();
    for partition in 0..partitions {
        starts.push(end(journal, partition).await);
    }
    let coupons: Vec<CouponId> = (0..40).map(|_| CouponId::random()).collect();
    let outcomes = join_all(coupons.iter().map(|coupon| journal.append(partition_of(*coupon, partitions), *coupon, b"one".to_vec()))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let mut seen = HashSet::new();
    for (partition, start) in (0..partitions).zip(starts) {
        let last = end(journal, partition).await;
        for record in read(journal, partition, start, usize::try_from(last - start).unwrap()).await {
            let coupon: CouponId = String::from_utf8(record.key.into()).unwrap().parse().unwrap();
            assert_eq!(partition_of(coupon, partitions), partition);
            assert!(seen.insert(coupon));
        }
    }
    assert_eq!(seen, coupons.into_iter().collect::<HashSet<_>>());
}

async fn lands_exactly_what_it_acknowledges(journal: &dyn Journal) {
    const COUNT: u32 = 2_000;
    let partition = journal.partitions() - 1;
    let from = end(journal, partition).await;
    let coupon = CouponId::random();
    let value = |number: u32| {
        let mut value = vec![b'.'; 200];
        value[..4].copy_from_slice(&number.to_be_bytes());
        value
    };
    let outcomes = join_all((0..COUNT).map(|number| journal.append(partition, coupon, value(number)))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{:?}", outcomes.iter().find(|outcome| outcome.is_err()));
    let count = usize::try_from(COUNT).unwrap();
    let records = read(journal, partition, from, count).await;
    let seen: HashSet<Vec<u8>> = records.into_iter().map(|record| record.value.into()).collect();
    assert_eq!(seen, (0..COUNT).map(value).collect::<HashSet<_>>());
    assert_eq!(end(journal, partition).await, from + i64::from(COUNT));
}

async fn refuses_an_unknown_partition(journal: &dyn Journal) {
    let beyond = journal.partitions();
    assert!(journal.append(beyond, CouponId::random(), vec![1]).await.is_err());
    assert!(journal.send(beyond, CouponId::random(), vec![1]).is_err());
    assert!(journal.fetch(beyond, 0, BYTES, Duration::ZERO).await.is_err());
    assert!(journal.bounds(-1).await.is_err());
}

async fn tools_are_told(journal: &dyn Journal) {
    journal.report_progress(&[(0, 1)]).await.unwrap();
    journal.copy_dead_letter(b"key".to_vec(), b"value".to_vec()).await.unwrap();
}
