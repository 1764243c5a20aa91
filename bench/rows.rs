//! The rows over HTTP: the same call to a server that always says the same, and to the service in each of its states.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Answers, Pace, Work, run};
use crate::crowd::{coupon, issue_calls};
use crate::http::admin;
use crate::processes::{Process, cpu};
use crate::table::{Row, median};
use crate::world::World;

/// Connections of the client, the same for every row.
pub const CONNECTIONS: usize = 512;
const STOCK: i64 = 100_000_000;
const HOUR: i64 = 3_600_000;
/// A coupon for a server that does not look.
const NOBODYS: &str = "00000000-0000-4000-8000-000000000000";

/// One measurement: answers, and the processor time of each process meanwhile.
#[derive(Debug)]
pub struct Measured {
    pub answers: Answers,
    pub cpu: Vec<(String, Duration)>,
}

impl Measured {
    /// Microseconds of each process for one answer with `status`.
    pub fn micros(&self, status: u16) -> Vec<(String, f64)> {
        let count = self.answers.of(status).max(1) as f64;
        self.cpu.iter().map(|(name, time)| (name.clone(), time.as_secs_f64() * 1e6 / count)).collect()
    }
}

/// Runs `work`, watching these processes.
pub fn watch(work: &Work, watched: &[(String, u32)]) -> Measured {
    let before: Vec<_> = watched.iter().map(|(_, pid)| cpu(*pid)).collect();
    let own = cpu(std::process::id());
    let answers = run(work);
    let mut times: Vec<_> =
        watched.iter().zip(before).map(|((name, pid), before)| (name.clone(), cpu(*pid).saturating_sub(before))).collect();
    times.push(("client".to_owned(), cpu(std::process::id()).saturating_sub(own)));
    Measured { answers, cpu: times }
}

pub struct Bench<'a> {
    pub world: &'a World,
    pub tokens: Arc<Vec<String>>,
    pub lasts: Duration,
    pub rows: BTreeMap<&'static str, Row>,
    /// Says the same to everybody; idle while nothing is measured beside it.
    pub constant: Process,
}

/// What stands beside a measurement: constant answers a second, and the server's microseconds for one.
#[derive(Debug, Clone, Copy)]
struct Ceiling {
    rate: f64,
    micros: f64,
}

/// Name, share of the ceiling to reach.
const ROWS: [(&str, f64); 11] = [
    ("a sold out", 0.70),
    ("b closed", 0.70),
    ("c not open", 0.70),
    ("d accepted, embedded", 0.25),
    ("e accepted, distributed, one hot coupon", 0.25),
    ("f accepted, distributed, 60 coupons", 0.25),
    ("g accepted and drained, distributed", 0.15),
    ("h repeat of a holder", 0.40),
    ("i CPU of the API per accepted, distributed", 3.0),
    ("j p99 of accepted at half the load, embedded", 4.0),
    ("k p99 of accepted at half the load, distributed", 4.0),
];
/// A constant answer's p99 below this counts as this, milliseconds: four times as much is soon enough for anybody.
const SOON: f64 = 5.0;

impl<'a> Bench<'a> {
    pub fn new(world: &'a World, tokens: Arc<Vec<String>>, lasts: Duration) -> Self {
        let rows = ROWS.iter().map(|(name, goal)| {
            let unit = match &name[2..5] {
                "CPU" => "us",
                "p99" => "ms",
                _ => "/s",
            };
            (*name, Row { at_most: unit != "/s", ..Row::new(&name[2..], unit, *goal) })
        });
        Self { world, tokens, lasts, rows: rows.collect(), constant: world.constant() }
    }

    pub fn work(&self, address: &str, coupons: &[String]) -> Work {
        Work {
            address: address.to_owned(),
            before: issue_calls(coupons),
            tokens: Arc::clone(&self.tokens),
            connections: CONNECTIONS,
            pace: Pace::Closed,
            lasts: self.lasts,
        }
    }

    /// Measures one row between two short runs of the constant answer: how fast such a machine is changes within seconds.
    fn row(&mut self, name: &'static str, work: &Work, watched: &[(String, u32)], status: u16) -> (Measured, Ceiling) {
        let before = self.constant_answer(self.lasts / 4);
        let measured = watch(work, watched);
        let after = self.constant_answer(self.lasts / 4);
        let ceiling = Ceiling { rate: f64::midpoint(before.rate, after.rate), micros: f64::midpoint(before.micros, after.micros) };
        self.note(name, &measured, ceiling, status);
        (measured, ceiling)
    }

    fn note(&mut self, name: &'static str, measured: &Measured, ceiling: Ceiling, status: u16) {
        let answers = &measured.answers;
        // "Try again" is an answer the service may give; it earns nothing here.
        let again = answers.of(503) + answers.of(429);
        let strange = answers.total() - answers.of(status) - again + answers.failed;
        assert!(strange == 0, "{name}: {strange} answers are neither {status} nor \"try again\": {:?}", answers.statuses());
        let ours = answers.per_second(status);
        println!(
            "  {:<42} {ours:>8.0} /s  {:>4.0} % of {:>6.0}   p50 {:>6.1}  p99 {:>6.1} ms",
            &name[2..],
            100.0 * ours / ceiling.rate,
            ceiling.rate,
            answers.percentile(0.5),
            answers.percentile(0.99)
        );
        let row = self.rows.get_mut(name).unwrap();
        row.rounds.push((ours, ceiling.rate));
        row.cpu = measured.micros(status);
        if again > 0 {
            row.remark = format!("{} % of the answers were \"try again\" in round {}", again * 100 / answers.total(), row.rounds.len());
        }
    }

    fn note_cpu(&mut self, measured: &Measured, ceiling: Ceiling) {
        let name = "i CPU of the API per accepted, distributed";
        let api = measured.micros(202)[0].1;
        println!("  {:<42} {api:>8.1} us {:>4.2}x of {:.1}", &name[2..], api / ceiling.micros, ceiling.micros);
        self.rows.get_mut(name).unwrap().rounds.push((api, ceiling.micros));
    }

    /// Lets the broker's compiler see the work before any of it counts: a JVM that has just started needs several times the processor time a
    /// record that it needs a minute later, and a broker runs for months.
    pub fn warm_up(&self, lasts: Duration) {
        let deployment = self.world.deployment();
        let api = deployment.start("api");
        let watched: Vec<_> = self.world.servers.iter().filter(|(name, _)| name == "kafka").cloned().collect();
        for coupons in [1, 60] {
            let ids: Vec<_> = (0..coupons).map(|_| coupon(&api.address, STOCK, &[])).collect();
            let measured = watch(&Work { lasts, ..self.work(&api.address, &ids) }, &watched);
            let kafka = measured.micros(202)[0].1;
            println!("  warming up, {coupons} coupons: {:.0} accepted /s, Kafka {kafka:.0} us each", measured.answers.per_second(202));
        }
        api.stop();
    }

    /// How long those wait who come at half the pace that the service can keep, and at the same pace at a constant answer.
    fn note_half_load(&mut self, name: &'static str, address: &str, full: f64) {
        let id = coupon(address, STOCK, &[]);
        let pace = Pace::PerSecond(full / 2.0);
        let ours = run(&Work { pace, ..self.work(address, &[id]) });
        let constant = run(&Work { pace, ..self.work(&self.constant.address, &[NOBODYS.to_owned()]) });
        assert_eq!(ours.of(202), ours.total(), "{name}: {:?}", ours.statuses());
        let (mine, its) = (ours.percentile(0.99), constant.percentile(0.99));
        println!(
            "  {:<42} {:>8.0} /s          p50 {:>6.1}  p99 {mine:>6.1} ms, {its:.1} of a constant answer",
            &name[2..],
            full / 2.0,
            ours.percentile(0.5)
        );
        let row = self.rows.get_mut(name).unwrap();
        row.rounds.push((mine, its.max(SOON)));
        row.remark = format!("at {:.0} /s; p99 of the constant answer {its:.1} ms in the last round, {SOON} counts at least", full / 2.0);
    }

    /// One round over all rows of these parts.
    pub fn round(&mut self, embedded: bool, distributed: bool) {
        if embedded {
            self.embedded();
        }
        if distributed {
            self.distributed();
        }
    }

    fn constant_answer(&self, lasts: Duration) -> Ceiling {
        let work = Work { lasts, ..self.work(&self.constant.address, &[NOBODYS.to_owned()]) };
        let measured = watch(&work, &[("server".to_owned(), self.constant.pid())]);
        assert_eq!(measured.answers.of(202), measured.answers.total());
        Ceiling { rate: measured.answers.per_second(202), micros: measured.micros(202)[0].1 }
    }

    fn embedded(&mut self) {
        let service = self.world.embedded();
        let watched = [("service".to_owned(), service.pid())];
        let id = coupon(&service.address, STOCK, &[]);
        // Beforehand only: afterwards the service still writes rows.
        let ceiling = self.constant_answer(self.lasts);
        let measured = watch(&self.work(&service.address, &[id]), &watched);
        self.note("d accepted, embedded", &measured, ceiling, 202);
        self.note_half_load("j p99 of accepted at half the load, embedded", &service.address, measured.answers.per_second(202));
        service.stop();
    }

    fn distributed(&mut self) {
        let deployment = self.world.deployment();
        let api = deployment.start("api");
        let watched: Vec<_> = [("api".to_owned(), api.pid())].into_iter().chain(self.world.servers.iter().cloned()).collect();

        let hot = coupon(&api.address, STOCK, &[]);
        let work = self.work(&api.address, std::slice::from_ref(&hot));
        let (measured, ceiling) = self.row("e accepted, distributed, one hot coupon", &work, &watched, 202);
        self.note_cpu(&measured, ceiling);
        let holders = usize::try_from(measured.answers.of(202)).unwrap();
        let hot_rate = measured.answers.per_second(202);

        // Those who have it ask again, one of them after the other and from the first on when all have.
        let again = self.tokens[..holders].iter().cycle().take(self.tokens.len()).cloned().collect();
        let work = Work { tokens: Arc::new(again), ..self.work(&api.address, &[hot]) };
        self.row("h repeat of a holder", &work, &watched, 200);

        self.note_half_load("k p99 of accepted at half the load, distributed", &api.address, hot_rate);

        let many: Vec<_> = (0..60).map(|_| coupon(&api.address, STOCK, &[])).collect();
        self.row("f accepted, distributed, 60 coupons", &self.work(&api.address, &many), &watched, 202);

        let small = coupon(&api.address, 1, &[]);
        let first = Work {
            tokens: Arc::new(vec![self.tokens[0].clone()]),
            connections: 1,
            ..self.work(&api.address, std::slice::from_ref(&small))
        };
        assert_eq!(run(&first).of(202), 1);
        let others = Arc::new(self.tokens[1..].to_vec());
        let refused = |id: String| Work { tokens: Arc::clone(&others), ..self.work(&api.address, &[id]) };
        let work = refused(small);
        self.row("a sold out", &work, &watched, 409);

        let closed = coupon(&api.address, STOCK, &[]);
        admin(&api.address, "PATCH", &format!("/api/v1/coupons/{closed}"), &json!({"status": "CLOSED"}));
        let work = self.work(&api.address, &[closed]);
        self.row("b closed", &work, &watched, 409);

        let future = coupon(&api.address, STOCK, &[("opens_at", json!(in_the_future()))]);
        let work = self.work(&api.address, &[future]);
        self.row("c not open", &work, &watched, 409);
        api.stop();
    }

    /// A pace that all keep: the users who come are answered, and the lag of the last third is that of the first. The median of each third: a
    /// server that pauses for a second now and then is no backlog that grows.
    pub fn drained(&mut self, lasts: Duration) {
        let mut pace = None;
        loop {
            // For each pace an empty deployment: the rows of those before, millions of them, would be audited beside it.
            let deployment = self.world.deployment();
            let (api, consumer) = (deployment.start("api"), deployment.start("consumer"));
            let watched: Vec<_> = [("api".to_owned(), api.pid()), ("consumer".to_owned(), consumer.pid())]
                .into_iter()
                .chain(self.world.servers.iter().cloned())
                .collect();
            // How fast both go at full speed, for a first pace; and the caches have seen the work.
            let trial = watch(&self.work(&api.address, &[coupon(&api.address, STOCK, &[])]), &watched);
            let written = consumer.metric("coupon_ledger_rows_total");
            let first = || (written / trial.answers.seconds).min(trial.answers.per_second(202));
            let now = *pace.get_or_insert_with(first);
            wait_drained(&consumer);
            let id = coupon(&api.address, STOCK, &[]);
            let work = Work { pace: Pace::PerSecond(now), lasts, ..self.work(&api.address, &[id]) };
            let ceiling = self.constant_answer(self.lasts);
            let (measured, lags) = std::thread::scope(|scope| {
                let lags = scope.spawn(|| sample_lag(&consumer, lasts));
                (watch(&work, &watched), lags.join().unwrap())
            });
            let seconds = measured.answers.seconds;
            assert!(seconds > lasts.as_secs_f64() * 0.9, "there were users for {seconds:.0} s only: the lag afterwards says nothing");
            let third = (lags.len() / 3).max(1);
            let (early, late) = (median(lags[..third].to_vec()), median(lags[lags.len() - third..].to_vec()));
            let accepted = measured.answers.per_second(202);
            // A quarter of a second of records more, forty seconds later, is less than a hundredth of the pace.
            let holds = late <= early + now / 4.0 && accepted > 0.95 * now;
            println!("  at {now:.0} /s for {} s: lag {early:.0} early, {late:.0} late, {accepted:.0} accepted /s", lasts.as_secs());
            if holds {
                self.note("g accepted and drained, distributed", &measured, ceiling, 202);
                let row = self.rows.get_mut("g accepted and drained, distributed").unwrap();
                row.remark = format!("median lag {early:.0} in the first third, {late:.0} in the last");
            }
            consumer.stop();
            api.stop();
            if holds {
                break;
            }
            pace = Some(now * 0.85);
        }
    }
}

fn in_the_future() -> String {
    let at = time::OffsetDateTime::now_utc() + Duration::from_millis(u64::try_from(HOUR).unwrap());
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}

fn wait_drained(consumer: &Process) {
    let started = Instant::now();
    while consumer.metric("coupon_consumer_lag") > 0.0 {
        assert!(started.elapsed() < Duration::from_secs(300), "the consumer does not get through");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn sample_lag(consumer: &Process, lasts: Duration) -> Vec<f64> {
    let started = Instant::now();
    let mut lags = Vec::new();
    while started.elapsed() < lasts {
        lags.push(consumer.metric("coupon_consumer_lag"));
        std::thread::sleep(Duration::from_millis(500));
    }
    lags
}
