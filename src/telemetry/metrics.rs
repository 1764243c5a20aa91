//! Every metric of the service, in one list; the help text is the documentation.

use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// The metrics, with a registry of their own so that a test can build many services in one process.
#[derive(Debug)]
pub struct Metrics {
    pub registry: Registry,
    /// `coupon_issue_total{result}`
    pub issue_total: IntCounterVec,
    pub issue_seconds: Histogram,
    pub gate_batch_size: Histogram,
    pub gate_fallback_total: IntCounter,
    /// `coupon_gate_verdicts_total{verdict}`
    pub gate_verdicts: GateVerdicts,
    pub journal_append_seconds: Histogram,
    pub follower_behind_records: IntGauge,
    pub follower_fresh_seconds: Gauge,
    pub open_coupons: IntGauge,
    /// `coupon_stock{coupon}`; which coupons, see [`crate::follower::Follower::observe`]
    pub stock: IntGaugeVec,
    /// `coupon_issued{coupon}`, of the same coupons
    pub issued: IntGaugeVec,
    pub ledger_rows_total: IntCounter,
    pub ledger_commit_seconds: Histogram,
    pub consumer_batch_seconds: Histogram,
    pub consumer_poll_interval_seconds: Histogram,
    /// `coupon_consumer_lag{partition}`
    pub consumer_lag: IntGaugeVec,
    pub consumer_oldest_seconds: Gauge,
    pub consumer_unowned_lag: IntGauge,
    pub limiter_rate: Gauge,
    pub limiter_measured: Gauge,
    pub limiter_wait_seconds_total: Counter,
    /// `coupon_dead_letters{state}`
    pub dead_letters: IntGaugeVec,
    /// `coupon_audit_violations{kind}`
    pub audit_violations: IntGaugeVec,
    pub audit_last_timestamp_seconds: Gauge,
    /// `coupon_pool_connections{state}`: `in_use`, `open`
    pub pool_connections: IntGaugeVec,
    /// `coupon_http_requests_total{route,status}`
    pub http_requests_total: IntCounterVec,
    /// `coupon_http_seconds{route}`
    pub http_seconds: HistogramVec,
    /// `coupon_reader_stopped{reader,partition}`: 1 where a reader stopped for good
    pub reader_stopped: IntGaugeVec,
    pub gate_reachable: IntGauge,
    pub ready: IntGauge,
}

/// What the gate said, each bound once: they are counted for everybody who comes to it.
#[derive(Debug, Clone)]
pub struct GateVerdicts {
    pub pass: IntCounter,
    pub seen: IntCounter,
    pub full: IntCounter,
}

impl GateVerdicts {
    fn of(counters: &IntCounterVec) -> Self {
        let counter = |verdict| counters.with_label_values(&[verdict]);
        Self { pass: counter("pass"), seen: counter("seen"), full: counter("full") }
    }
}

const LATENCY: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0];
const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

impl Metrics {
    /// A fresh set, registered.
    ///
    /// # Errors
    /// A name registered twice: a bug found by any test that builds one.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        macro_rules! add {
            ($metric:expr) => {{
                let metric = $metric?;
                registry.register(Box::new(metric.clone()))?;
                metric
            }};
        }
        let histogram =
            |name: &str, help: &str, buckets: &[f64]| Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()));
        Ok(Self {
            issue_total: add!(IntCounterVec::new(Opts::new("coupon_issue_total", "Issue calls by result"), &["result"])),
            issue_seconds: add!(histogram("coupon_issue_seconds", "Seconds from an issue call to its answer", LATENCY)),
            gate_batch_size: add!(histogram("coupon_gate_batch_size", "Users of one script call at the gate", SIZES)),
            gate_fallback_total: add!(IntCounter::new(
                "coupon_gate_fallback_total",
                "Users judged by the local gate because Redis was away"
            )),
            gate_verdicts: GateVerdicts::of(&add!(IntCounterVec::new(
                Opts::new("coupon_gate_verdicts_total", "What the gate, or the local one in its place, said of a user: pass, seen, full"),
                &["verdict"]
            ))),
            journal_append_seconds: add!(histogram(
                "coupon_journal_append_seconds",
                "Seconds from an append's queueing to its acknowledgement",
                LATENCY
            )),
            follower_behind_records: add!(IntGauge::new(
                "coupon_follower_behind_records",
                "Records below the high watermark this process has not applied"
            )),
            follower_fresh_seconds: add!(Gauge::new(
                "coupon_follower_fresh_seconds",
                "Age of the stalest partition's last caught-up fetch; above 1 'no' is answered 503"
            )),
            open_coupons: add!(IntGauge::new("coupon_open_coupons", "Coupons that give themselves out now, sold out or not")),
            stock: add!(IntGaugeVec::new(
                Opts::new("coupon_stock", "Stock of a coupon that is open now; of many, the 100 with the largest stock"),
                &["coupon"]
            )),
            issued: add!(IntGaugeVec::new(
                Opts::new("coupon_issued", "Coupons won by the log of one that is open now; the same ones as coupon_stock"),
                &["coupon"]
            )),
            ledger_rows_total: add!(IntCounter::new("coupon_ledger_rows_total", "Issued rows this process wrote")),
            ledger_commit_seconds: add!(histogram("coupon_ledger_commit_seconds", "Seconds of the transaction of one batch", LATENCY)),
            consumer_batch_seconds: add!(histogram(
                "coupon_consumer_batch_seconds",
                "Seconds to load, decide and commit one batch",
                LATENCY
            )),
            consumer_poll_interval_seconds: add!(histogram(
                "coupon_consumer_poll_interval_seconds",
                "Seconds between two batches of a worker, limiter waits included",
                LATENCY
            )),
            consumer_lag: add!(IntGaugeVec::new(
                Opts::new("coupon_consumer_lag", "Records of an owned partition not yet in the ledger"),
                &["partition"]
            )),
            consumer_oldest_seconds: add!(Gauge::new(
                "coupon_consumer_oldest_seconds",
                "Age of the oldest record of an owned partition not yet in the ledger"
            )),
            consumer_unowned_lag: add!(IntGauge::new(
                "coupon_consumer_unowned_lag",
                "Records not yet in the ledger of partitions that no living consumer owns, as this one sees it; 0 when all are owned"
            )),
            limiter_rate: add!(Gauge::new("coupon_limiter_rate", "Issuances a second the limiter allows over all consumers, 0 = no limit")),
            limiter_measured: add!(Gauge::new(
                "coupon_limiter_measured",
                "Rows a second of commit time over all workers that drain, by which an adaptive limit goes; 0 = not known or not adaptive"
            )),
            limiter_wait_seconds_total: add!(Counter::new("coupon_limiter_wait_seconds_total", "Seconds batches waited for permits")),
            dead_letters: add!(IntGaugeVec::new(Opts::new("coupon_dead_letters", "Dead letters by state"), &["state"])),
            audit_violations: add!(IntGaugeVec::new(
                Opts::new("coupon_audit_violations", "Violations by kind that the last check of each owned partition found"),
                &["kind"]
            )),
            audit_last_timestamp_seconds: add!(Gauge::new(
                "coupon_audit_last_timestamp_seconds",
                "When this process last finished an audit of all its partitions, seconds since the epoch"
            )),
            pool_connections: add!(IntGaugeVec::new(
                Opts::new("coupon_pool_connections", "Connections to the ledger's database"),
                &["state"]
            )),
            http_requests_total: add!(IntCounterVec::new(
                Opts::new("coupon_http_requests_total", "HTTP answers by route template and status"),
                &["route", "status"]
            )),
            http_seconds: add!(HistogramVec::new(
                HistogramOpts::new("coupon_http_seconds", "Seconds to answer by route template").buckets(LATENCY.to_vec()),
                &["route"]
            )),
            reader_stopped: add!(IntGaugeVec::new(
                Opts::new("coupon_reader_stopped", "1 where a reader of a partition stopped and needs an operator"),
                &["reader", "partition"]
            )),
            gate_reachable: add!(IntGauge::new("coupon_gate_reachable", "1 while the gate answers, 0 while the local gate stands in")),
            ready: add!(IntGauge::new("coupon_ready", "1 while /readyz answers 200, else 0")),
            registry,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Names of ours in a text, without what Prometheus adds to histograms.
    fn names(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("coupon_"));
        words.map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word)).collect()
    }

    #[test]
    fn every_metric_of_the_alerts_is_there() {
        let shipped = include_str!("metrics.rs").split("#[cfg(test)]\nmod tests").next().unwrap();
        let mut named = names(include_str!("../../dashboards/alerts.yml"));
        named.extend(names(include_str!("../../dashboards/rules.yml")));
        assert!(named.contains("coupon_audit_violations") && named.contains("coupon_dead_letters"), "{named:?}");
        let missing: Vec<_> = named.into_iter().filter(|name| !shipped.contains(&format!("\"{name}\""))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
