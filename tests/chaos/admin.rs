//! The admin of a run: creates coupons, pauses, restocks and closes them, and insists until told what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::crowd::{Coupon, Crowd};

/// A change that was answered 200 or 201: the log must have this version, saying this.
#[derive(Debug, Clone)]
pub struct Change {
    pub coupon: usize,
    pub version: i64,
    pub total: i64,
    pub status: String,
}

#[derive(Debug)]
pub struct Admin {
    crowd: Arc<Crowd>,
    rng: Rng,
    pub changes: Vec<Change>,
}

/// How many coupons are asked for at a time, and the stock of each: the first is the hot one, the last is embedded.
const STOCKS: [i64; 6] = [300, 60, 60, 20, 1, 60];

impl Admin {
    pub fn new(crowd: Arc<Crowd>, seed: u64) -> Self {
        Self { crowd, rng: Rng::with_seed(seed ^ 0xad31), changes: Vec::new() }
    }

    /// The first coupons.
    pub async fn open(&mut self) {
        for (slot, stock) in STOCKS.into_iter().enumerate() {
            self.create(stock, slot + 1 == STOCKS.len()).await;
        }
    }

    /// Changes something every second or so until the crowd stops.
    pub async fn work(mut self) -> Self {
        while !self.crowd.stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(self.rng.u64(300..1_200))).await;
            let active = self.crowd.active();
            let Some(index) = self.rng.choice(active) else { continue };
            let coupon = self.crowd.coupon(index);
            let sold_out = coupon.sold_out_answers.load(Ordering::Relaxed) > 0;
            match (sold_out, self.rng.u8(..10)) {
                (true, 0..=5) => self.restock(index).await,
                (true, _) => self.patch(index, json!({"status": "CLOSED"})).await,
                (false, 0..=2) => {
                    self.patch(index, json!({"status": "PAUSED"})).await;
                    sleep(Duration::from_millis(self.rng.u64(100..1_500))).await;
                    self.patch(index, json!({"status": "OPEN"})).await;
                }
                // Lower than what is issued perhaps: the rule keeps it at that.
                (false, 3) => self.patch(index, json!({"total_quantity": 5})).await,
                // A change that a paused API carries out when it wakes up, long after this admin gave up on it, may have paused it.
                (false, _) => self.patch(index, json!({"status": "OPEN"})).await,
            }
            if coupon.closed.load(Ordering::Relaxed) {
                let stock = coupon.total.load(Ordering::Relaxed).min(300);
                self.create(stock, coupon.embedded).await;
            }
        }
        self
    }

    /// Opens what is not closed, for the end.
    pub async fn resume_all(&mut self) {
        let count = self.crowd.coupons.read().unwrap().len();
        for index in 0..count {
            if !self.crowd.coupon(index).closed.load(Ordering::Relaxed) {
                self.patch(index, json!({"status": "OPEN"})).await;
            }
        }
    }

    async fn restock(&mut self, index: usize) {
        let coupon = self.crowd.coupon(index);
        let total = coupon.total.load(Ordering::Relaxed) + self.rng.i64(1..100);
        self.patch(index, json!({"total_quantity": total})).await;
        coupon.sold_out_answers.store(0, Ordering::Relaxed);
    }

    async fn create(&mut self, stock: i64, embedded: bool) {
        let id = uuid::Uuid::from_u128(self.rng.u128(..)).to_string();
        let coupon = Arc::new(Coupon {
            id: id.clone(),
            embedded,
            active: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            total: AtomicI64::new(stock),
            restocked: AtomicBool::new(false),
            sold_out_answers: AtomicU64::new(0),
        });
        let index = {
            let mut coupons = self.crowd.coupons.write().unwrap();
            coupons.push(Arc::clone(&coupon));
            coupons.len() - 1
        };
        let body = json!({"coupon_id": id, "name": "chaos", "kind": "FIRST_COME",
            "discount": {"type": "FIXED", "value": 5000}, "total_quantity": stock});
        self.insist(index, reqwest::Method::POST, "", &body).await;
        coupon.active.store(true, Ordering::Relaxed);
    }

    async fn patch(&mut self, index: usize, body: Value) {
        let coupon = self.crowd.coupon(index);
        let Some(now) = self.insist(index, reqwest::Method::PATCH, &format!("/{}", coupon.id), &body).await else { return };
        if now["status"] == "CLOSED" {
            coupon.over();
        }
        let total = now["total_quantity"].as_i64().unwrap_or(0);
        if coupon.total.swap(total, Ordering::Relaxed) < total {
            coupon.restocked.store(true, Ordering::Relaxed);
        }
    }

    /// Repeats a change until it is answered, and keeps what was promised. `None`: refused because the coupon is closed.
    async fn insist(&mut self, index: usize, method: reqwest::Method, path: &str, body: &Value) -> Option<Value> {
        let coupon = self.crowd.coupon(index);
        let started = Instant::now();
        let mut turn = self.rng.usize(..2);
        while started.elapsed() < Duration::from_secs(300) {
            let (_, url) = self.crowd.url(&coupon, turn);
            turn += 1;
            let request = self.crowd.http.request(method.clone(), format!("{url}/api/v1/coupons{path}"));
            let answer = request.header("X-User-Id", "admin").header("X-Admin", "true").json(body).send().await;
            if let Ok(answer) = answer {
                let status = answer.status().as_u16();
                let text = answer.json::<Value>().await.unwrap_or_default();
                match status {
                    200 | 201 => {
                        let change = Change {
                            coupon: index,
                            version: text["version"].as_i64().unwrap_or(0),
                            total: text["total_quantity"].as_i64().unwrap_or(0),
                            status: text["status"].as_str().unwrap_or("").to_owned(),
                        };
                        self.changes.push(change);
                        return Some(text);
                    }
                    409 if text["code"] == "CLOSED" => {
                        coupon.over();
                        return None;
                    }
                    0 | 503 | 429 => {}
                    _ => {
                        self.crowd.findings.violation("P6", &format!("admin {method} {path} {body}: {status} {text}"));
                        return None;
                    }
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.crowd.findings.violation("P6", &format!("admin {method} {path} {body} had no answer within 300 s"));
        None
    }
}
