//! The follower's gauges: how far it is, and the coupons that are open now.

use std::cmp::Reverse;

use super::Follower;
use crate::domain::{CouponId, EpochMillis, Status, Terms, now_millis};

/// Most coupons with a series of their own: an admin may open any number, and whoever stores the series pays for each.
const MOST_SERIES: usize = 100;

struct Open {
    coupon: CouponId,
    stock: i64,
    issued: i64,
}

impl Follower {
    /// Sets the follower's gauges; called at a scrape. Of many open coupons those with the largest stock have series: that choice
    /// stays the same from scrape to scrape, and the large ones are those that a crowd comes for.
    pub fn observe(&self) {
        let behind: i64 = self.shards.iter().map(|shard| shard.lock()).map(|shard| (shard.high_watermark - shard.next).max(0)).sum();
        self.metrics.follower_behind_records.set(behind);
        self.metrics.follower_fresh_seconds.set(self.freshness().map_or(f64::INFINITY, |age| age.as_secs_f64()));

        let mut open = self.open_at(now_millis());
        self.metrics.open_coupons.set(i64::try_from(open.len()).unwrap_or(i64::MAX));
        open.sort_unstable_by_key(|open| (Reverse(open.stock), open.coupon));
        open.truncate(MOST_SERIES);
        // All anew: whatever ended since the last scrape has no series any more.
        self.metrics.stock.reset();
        self.metrics.issued.reset();
        for Open { coupon, stock, issued } in open {
            let coupon = coupon.to_string();
            self.metrics.stock.with_label_values(&[&coupon]).set(stock);
            self.metrics.issued.with_label_values(&[&coupon]).set(issued);
        }
    }

    fn open_at(&self, now: EpochMillis) -> Vec<Open> {
        let mut open = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let entries = shard.coupons.iter().filter(|(_, entry)| !entry.over);
            open.extend(entries.filter_map(|(coupon, entry)| {
                let terms = entry.roster.terms().filter(|terms| is_open(terms, now))?;
                Some(Open { coupon: *coupon, stock: terms.total_quantity, issued: entry.roster.issued() })
            }));
        }
        open
    }
}

fn is_open(terms: &Terms, now: EpochMillis) -> bool {
    terms.status == Status::Open && terms.opens_at.is_none_or(|at| at <= now) && terms.closes_at.is_none_or(|at| now < at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::testing::terms;
    use crate::domain::{Body, encode};
    use crate::follower::tests::{World, issue, soon};
    use crate::journal::Journal;

    /// The series of a gauge by their coupon.
    fn series(follower: &Follower, name: &str) -> BTreeMap<String, i64> {
        let families = follower.metrics.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "whole numbers that a test chose")]
        let of = |metric: &prometheus::proto::Metric| (metric.get_label()[0].value().to_owned(), metric.get_gauge().get_value() as i64);
        metrics.iter().map(of).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn open_coupons_have_their_stock_and_those_that_ended_have_no_series() {
        let world = World::new().await;
        let (follower, _tailing) = world.tail().await;
        world.append(&Body::Terms(terms(1, 5, Status::Open))).await;
        world.append(&issue("alice")).await;
        follower.barrier(world.coupon, soon()).await.unwrap();
        follower.observe();
        let coupon = world.coupon.to_string();
        assert_eq!(follower.metrics.open_coupons.get(), 1);
        assert_eq!(series(&follower, "coupon_stock"), BTreeMap::from([(coupon.clone(), 5)]));
        assert_eq!(series(&follower, "coupon_issued"), BTreeMap::from([(coupon, 1)]));

        world.append(&Body::Terms(terms(2, 5, Status::Closed))).await;
        follower.barrier(world.coupon, soon()).await.unwrap();
        follower.observe();
        assert_eq!(follower.metrics.open_coupons.get(), 0);
        assert!(series(&follower, "coupon_stock").is_empty() && series(&follower, "coupon_issued").is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_open_coupons_the_largest_have_series() {
        let world = World::new().await;
        let (follower, _tailing) = world.tail().await;
        for stock in 1..=120 {
            let value = encode(&Body::Terms(terms(1, stock, Status::Open))).unwrap();
            world.journal.append(0, CouponId::random(), value).await.unwrap();
        }
        follower.barrier(world.coupon, soon()).await.unwrap();
        follower.observe();
        assert_eq!(follower.metrics.open_coupons.get(), 120);
        let mut stocks: Vec<i64> = series(&follower, "coupon_stock").into_values().collect();
        stocks.sort_unstable();
        assert_eq!(stocks, (21..=120).collect::<Vec<_>>());
        assert_eq!(series(&follower, "coupon_issued").len(), MOST_SERIES);
    }

    #[test]
    fn open_is_what_its_window_says() {
        let at = |opens_at, closes_at| is_open(&Terms { opens_at, closes_at, ..terms(1, 1, Status::Open) }, 10);
        assert!(at(None, None) && at(Some(10), Some(11)));
        assert!(!at(Some(11), None) && !at(None, Some(10)));
        assert!(!is_open(&terms(1, 1, Status::Paused), 10));
    }
}
