//! One server away, cut off or silent: every call is answered in time and rightly, probes tell the truth, and all is well soon after.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Deployment, Parts, Process, Proxy, ask, crowd, eventually, users};

/// Longest answer of the API with a server away.
const ANSWER: Duration = Duration::from_secs(2);
/// How soon everything is well again.
const RETURN: Duration = Duration::from_secs(10);
/// How long a server is away.
const AWAY: Duration = Duration::from_secs(7);

/// Status and JSON of one call, which must be answered in time; a 503 says when to ask again.
async fn call(deployment: &Deployment, service: &Process, method: Method, path: &str, user: &str, body: Option<Value>) -> (u16, Value) {
    let what = format!("{method} {path}");
    let mut request = deployment.http.request(method, format!("{}{path}", service.api)).header("X-User-Id", user).header("X-Admin", "true");
    if let Some(body) = body {
        request = request.json(&body);
    }
    let asked = Instant::now();
    let answer = request.send().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(asked.elapsed() < ANSWER, "{what} was answered after {:?}", asked.elapsed());
    let status = answer.status().as_u16();
    assert!(status != 503 || answer.headers().contains_key("retry-after"), "{what}: 503 without Retry-After");
    (status, answer.json().await.unwrap())
}

async fn readiness(service: &Process) -> (u16, Value) {
    let answer = reqwest::get(format!("{}/readyz", service.ops)).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Whether the named check of `/readyz` is met.
async fn check(service: &Process, name: &str) -> bool {
    let (_, body) = readiness(service).await;
    let checks = body["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}: {body}"))["ok"] == true
}

/// What the API has to do with a server away.
struct Expected {
    /// A new user gets the coupon all the same.
    issues: bool,
    /// Whether the API stays ready, and the consumer.
    ready: (bool, bool),
}

struct Scene {
    deployment: Deployment,
    proxy: Proxy,
    api: Process,
    consumer: Process,
    /// With stock, and with `held` holding it.
    coupon: String,
}

impl Scene {
    async fn set(deployment: Deployment, proxy: Proxy) -> Self {
        let (api, consumer) = (deployment.start("api").await, deployment.start("consumer").await);
        let coupon = deployment.create(&api.api, 10_000).await;
        assert_eq!(ask(&deployment.http, &api.api, &coupon, "held").await.result, "ACCEPTED");
        deployment.settles(&coupon, 1).await;
        Self { deployment, proxy, api, consumer, coupon }
    }

    /// Every call of the interface once, with the server away.
    async fn ask_everything(&self, expected: &Expected, user: &str) {
        let Self { deployment, api, coupon, .. } = self;
        let path = format!("/api/v1/coupons/{coupon}");
        let draft = json!({"name": "later", "kind": "FIRST_COME", "discount": {"type": "FIXED", "value": 1}, "total_quantity": 5});
        let issue = format!("{path}/issue");
        let unknown = format!("/api/v1/coupons/{}/issue", uuid::Uuid::new_v4());
        let ((held, _), (new, _), (created, _), (changed, _), (one, _), (list, _), (mine, mine_body), (me, _), (nothing, _), (letters, _)) = tokio::join!(
            call(deployment, api, Method::POST, &issue, "held", None),
            call(deployment, api, Method::POST, &issue, user, None),
            call(deployment, api, Method::POST, "/api/v1/coupons", "root", Some(draft)),
            call(deployment, api, Method::PATCH, &path, "root", Some(json!({"total_quantity": 10_000}))),
            call(deployment, api, Method::GET, &path, user, None),
            call(deployment, api, Method::GET, "/api/v1/coupons?limit=5", user, None),
            call(deployment, api, Method::GET, &issue, "held", None),
            call(deployment, api, Method::GET, "/api/v1/me/coupons", "held", None),
            call(deployment, api, Method::POST, &unknown, user, None),
            call(deployment, api, Method::GET, "/api/v1/admin/dead-letters", "root", None),
        );
        assert_eq!(held, 200, "a holder is a holder whatever is away");
        assert_eq!((one, list), (200, 200), "terms are known from memory");
        assert!(matches!((mine, mine_body["result"].as_str()), (200, Some("ISSUED" | "PENDING"))), "{mine} {mine_body}");
        if expected.issues {
            assert_eq!((new, created, changed, nothing), (202, 201, 200, 404), "the log is there, so issuing goes on");
        } else {
            assert_eq!((new, created, changed, nothing), (503, 503, 503, 503), "what only the log knows is not known");
        }
        assert!(matches!(me, 200 | 503) && matches!(letters, 200 | 503), "{me} {letters}");
    }

    async fn go_through(&self, how: &str, expected: &Expected) {
        match how {
            "cut" => self.proxy.cut(),
            _ => self.proxy.stall(),
        }
        let away = Instant::now();
        let mut turn = 0;
        // The first answers may still rest on what was heard a moment ago.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        while away.elapsed() < AWAY {
            self.ask_everything(expected, &format!("{how}-{turn}")).await;
            turn += 1;
        }
        let ready = (readiness(&self.api).await.0 == 200, readiness(&self.consumer).await.0 == 200);
        assert_eq!(ready, expected.ready, "{how}: {:?} {:?}", readiness(&self.api).await, readiness(&self.consumer).await);
        self.proxy.restore();
        let back = Instant::now();
        let left = || RETURN.saturating_sub(back.elapsed());
        eventually("new users are served", left(), async || {
            (ask(&self.deployment.http, &self.api.api, &self.coupon, &format!("{how}-back")).await.status < 300).then_some(())
        })
        .await;
        eventually("both are ready", left(), async || {
            (readiness(&self.api).await.0 == 200 && readiness(&self.consumer).await.0 == 200).then_some(())
        })
        .await;
        eventually("the row is written", left(), async || {
            let path = format!("/api/v1/coupons/{}/issue", self.coupon);
            (self.deployment.get(&self.api.api, &path, &format!("{how}-back")).await.1["result"] == "ISSUED").then_some(())
        })
        .await;
    }

    /// All who were there during the outages ask once more; the books must agree.
    async fn end(mut self, direct: &[(&str, &str)]) {
        let everybody = users("last", 50);
        let tally = crowd(&self.deployment.http, std::slice::from_ref(&self.api.api), &self.coupon, &everybody, true).await;
        assert_eq!(tally.counts().get("ACCEPTED"), Some(&50), "{:?}", tally.counts());
        for (key, value) in direct {
            self.deployment.env.insert((*key).to_owned(), (*value).to_owned());
        }
        let issued = self.deployment.get(&self.api.api, &format!("/api/v1/coupons/{}", self.coupon), "root").await.1["issued"].clone();
        self.deployment.settles(&self.coupon, issued.as_i64().unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_database_away_issuing_goes_on_and_rows_follow_later() {
    let mut deployment = Deployment::new(Parts::Distributed).await;
    let direct = deployment.env["COUPON__MYSQL__URL"].clone();
    let server = direct.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
    let proxy = Proxy::start(server.clone()).await;
    deployment.env.insert("COUPON__MYSQL__URL".into(), direct.replace(&server, &format!("127.0.0.1:{}", proxy.port)));
    let scene = Scene::set(deployment, proxy).await;
    for how in ["cut", "stall"] {
        scene.go_through(how, &Expected { issues: true, ready: (true, false) }).await;
    }
    scene.end(&[("COUPON__MYSQL__URL", &direct)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_away_issuing_and_draining_go_on() {
    let mut deployment = Deployment::new(Parts::Distributed).await;
    let direct = deployment.env["COUPON__REDIS__URL"].clone();
    let proxy = Proxy::start(direct.trim_start_matches("redis://").to_owned()).await;
    deployment.env.insert("COUPON__REDIS__URL".into(), format!("redis://127.0.0.1:{}", proxy.port));
    deployment.env.insert("COUPON__LIMITER__RATE".into(), "500".into());
    let scene = Scene::set(deployment, proxy).await;
    for how in ["cut", "stall"] {
        scene.go_through(how, &Expected { issues: true, ready: (true, true) }).await;
        eventually("the gate is back", RETURN, async || check(&scene.api, "gate").await.then_some(())).await;
    }
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kafka_away_what_is_not_known_is_503_and_known_soon_after() {
    let mut deployment = Deployment::new(Parts::Distributed).await;
    let proxy = Proxy::kafka().await;
    let direct = deployment.env.insert("COUPON__KAFKA__BROKERS".into(), format!("127.0.0.1:{}", proxy.port)).unwrap();
    let scene = Scene::set(deployment, proxy).await;
    for how in ["cut", "stall"] {
        scene.go_through(how, &Expected { issues: false, ready: (false, false) }).await;
    }
    scene.end(&[("COUPON__KAFKA__BROKERS", &direct)]).await;
}
