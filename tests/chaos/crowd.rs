//! Users that keep asking until they have a final answer, and the admin who changes coupons meanwhile. Every answer is recorded.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::report::Findings;

/// Longer than the service's own deadline of 1.8 s: who hears nothing until then is not answered.
const PATIENCE: Duration = Duration::from_secs(4);
/// One at a time of each of these.
const ASKING: usize = 48;

/// What one call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Accepted,
    Already,
    SoldOut,
    Closed,
    Paused,
    /// 503 with Retry-After.
    Unavailable,
    /// 429.
    TooMany,
    NoAnswer,
    /// Nothing the interface knows; reported when it comes.
    Wrong,
}

impl Kind {
    pub const fn is_yes(self) -> bool {
        matches!(self, Self::Accepted | Self::Already)
    }

    /// Settles the user's question for now.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Accepted | Self::Already | Self::SoldOut | Self::Closed)
    }

    /// A 2xx or 409.
    pub const fn is_service(self) -> bool {
        self.is_final() || matches!(self, Self::Paused)
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub asked: Instant,
    pub answered: Instant,
    pub coupon: usize,
    pub user: Arc<str>,
    pub api: usize,
    /// The user had a final answer before: says nothing about whether the way through the log is open.
    pub repeat: bool,
    pub kind: Kind,
    pub sequence: i64,
    pub issue_id: Option<Arc<str>>,
}

/// A coupon of this run.
#[derive(Debug)]
pub struct Coupon {
    pub id: String,
    pub embedded: bool,
    /// Asked for by new users.
    pub active: AtomicBool,
    pub closed: AtomicBool,
    /// The largest stock an admin was told (201 or 200).
    pub total: AtomicI64,
    /// When the stock was raised last; a "sold out" before says nothing about after.
    pub restocked: AtomicBool,
    pub sold_out_answers: AtomicU64,
}

impl Coupon {
    /// Closed: no new user asks for it.
    pub fn over(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.active.store(false, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct Crowd {
    pub apis: Vec<String>,
    pub embedded_api: String,
    pub coupons: RwLock<Vec<Arc<Coupon>>>,
    pub answers: Mutex<Vec<Answer>>,
    pub findings: Findings,
    pub http: reqwest::Client,
    pub stop: AtomicBool,
    /// Users that have no final answer yet.
    pub waiting: AtomicUsize,
}

impl Crowd {
    pub fn new(apis: Vec<String>, embedded_api: String, findings: Findings) -> Arc<Self> {
        let http = reqwest::Client::builder().timeout(PATIENCE).connect_timeout(Duration::from_secs(1)).build().unwrap();
        Arc::new(Self {
            apis,
            embedded_api,
            coupons: RwLock::default(),
            answers: Mutex::default(),
            findings,
            http,
            stop: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        })
    }

    pub fn coupon(&self, index: usize) -> Arc<Coupon> {
        Arc::clone(&self.coupons.read().unwrap()[index])
    }

    pub fn active(&self) -> Vec<usize> {
        let coupons = self.coupons.read().unwrap();
        (0..coupons.len()).filter(|index| coupons[*index].active.load(Ordering::Relaxed)).collect()
    }

    pub fn url(&self, coupon: &Coupon, turn: usize) -> (usize, &str) {
        if coupon.embedded {
            return (self.apis.len(), &self.embedded_api);
        }
        let api = turn % self.apis.len();
        (api, &self.apis[api])
    }

    /// Asks once and records the answer.
    pub async fn ask(&self, index: usize, user: &Arc<str>, turn: usize, repeat: bool) -> Kind {
        let coupon = self.coupon(index);
        let (api, url) = self.url(&coupon, turn);
        let asked = Instant::now();
        let request = self.http.post(format!("{url}/api/v1/coupons/{}/issue", coupon.id)).header("X-User-Id", &**user);
        let (kind, body) = match request.send().await {
            Err(_) => (Kind::NoAnswer, Value::Null),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let retry = answer.headers().contains_key("retry-after");
                match answer.json::<Value>().await {
                    Err(_) => (Kind::NoAnswer, Value::Null),
                    Ok(body) => (self.kind(&coupon, status, retry, &body), body),
                }
            }
        };
        if kind == Kind::SoldOut {
            coupon.sold_out_answers.fetch_add(1, Ordering::Relaxed);
        }
        let answer = Answer {
            asked,
            answered: Instant::now(),
            coupon: index,
            user: Arc::clone(user),
            api,
            repeat,
            kind,
            sequence: body["sequence"].as_i64().unwrap_or(0),
            issue_id: body["issue_id"].as_str().map(Arc::from),
        };
        self.answers.lock().unwrap().push(answer);
        kind
    }

    fn kind(&self, coupon: &Coupon, status: u16, retry_after: bool, body: &Value) -> Kind {
        let whole = body["sequence"].as_i64().is_some_and(|sequence| sequence > 0) && body["issue_id"].is_string();
        match (status, body["result"].as_str().unwrap_or("")) {
            (202, "ACCEPTED") if whole => Kind::Accepted,
            (200, "ALREADY_ISSUED") if whole => Kind::Already,
            (409, "SOLD_OUT") => Kind::SoldOut,
            (409, "CLOSED") => Kind::Closed,
            (409, "PAUSED") => Kind::Paused,
            (503, "UNAVAILABLE") if retry_after => Kind::Unavailable,
            (429, "TOO_MANY_REQUESTS") => Kind::TooMany,
            _ => {
                self.findings.violation("P6", &format!("coupon {}: an answer that must not be: {status} {body}", coupon.id));
                Kind::Wrong
            }
        }
    }

    /// Asks until the answer is final; `give_up` ends it where it never comes.
    pub async fn insist(&self, index: usize, user: &Arc<str>, mut turn: usize, repeat: bool, give_up: Duration) -> Option<Kind> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let mut found = None;
        while started.elapsed() < give_up {
            let kind = self.ask(index, user, turn, repeat).await;
            if kind.is_final() {
                found = Some(kind);
                break;
            }
            turn += 1;
            sleep(Duration::from_millis(if kind == Kind::NoAnswer { 50 } else { 200 })).await;
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        found
    }

    /// Lets the crowd loose until `stop`; each finishes with a final answer.
    pub fn start(self: &Arc<Self>, seed: u64) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for number in 0..ASKING {
            let crowd = Arc::clone(self);
            tasks.spawn(async move { crowd.one_after_another(number, Rng::with_seed(seed.wrapping_add(number as u64))).await });
        }
        tasks
    }

    async fn one_after_another(self: Arc<Self>, number: usize, mut rng: Rng) {
        let mut past: Vec<(usize, Arc<str>)> = Vec::new();
        let mut serial = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            let active = self.active();
            // The first one is the hot one.
            let coupon = if rng.u8(..10) < 5 { active.first().copied() } else { rng.choice(active) };
            let Some(coupon) = coupon else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let turn = rng.usize(..2);
            let again = if rng.u8(..10) < 2 { rng.choice(&past).cloned() } else { None };
            let (coupon, user, repeat) = match again {
                Some((coupon, user)) => (coupon, user, true),
                None => {
                    serial += 1;
                    (coupon, Arc::from(format!("u{number}.{serial}")), false)
                }
            };
            // Some are impatient: they press the button twice.
            if !repeat && rng.u8(..10) == 0 {
                tokio::join!(self.ask(coupon, &user, turn, false), self.ask(coupon, &user, turn + 1, false));
            }
            // Who has an answer asks again out of curiosity: a coupon that is over may need the database for it.
            let patience = if repeat { Duration::from_millis(500) } else { Duration::from_secs(300) };
            let found = self.insist(coupon, &user, turn, repeat, patience).await;
            if found.is_none() && !repeat {
                self.findings.violation("P6", &format!("{user} had no final answer within 300 s"));
            }
            if past.len() < 400 {
                past.push((coupon, user));
            }
            sleep(Duration::from_millis(rng.u64(20..150))).await;
        }
    }

    pub fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// Whether `api` gave a first-time user a 2xx or 409 to a question asked after `since`; when.
    pub fn served_since(&self, api: usize, since: Instant) -> Option<Instant> {
        let answers = self.answers.lock().unwrap();
        let recent = answers.iter().rev().take_while(|answer| answer.answered >= since);
        recent
            .filter(|answer| answer.api == api && answer.asked >= since && !answer.repeat && answer.kind.is_service())
            .map(|a| a.answered)
            .min()
    }
}
