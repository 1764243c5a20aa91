//! One server away, cut or empty at a time: no answer changes, nothing is lost.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Deployment, Parts, Proxy, ask, crowd, eventually, free_port, users};

#[tokio::test(flavor = "multi_thread")]
async fn the_database_away_for_ten_seconds_loses_nothing() {
    let mut deployment = Deployment::new(Parts::Distributed).await;
    let direct = deployment.env["COUPON__MYSQL__URL"].clone();
    let server = direct.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
    let proxy = Proxy::start(server.clone()).await;
    deployment.env.insert("COUPON__MYSQL__URL".into(), direct.replace(&server, &format!("127.0.0.1:{}", proxy.port)));
    let service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 600).await;
    let apis = [service.api.clone()];
    crowd(&deployment.http, &apis, &coupon, &users("a", 200), false).await;
    proxy.cut();
    let cut = Instant::now();
    let during = crowd(&deployment.http, &apis, &coupon, &users("b", 200), false).await;
    assert_eq!(during.counts().get("ACCEPTED"), Some(&200), "issuing goes on without the database: {:?}", during.counts());
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(cut.elapsed())).await;
    proxy.restore();
    let after = crowd(&deployment.http, &apis, &coupon, &users("c", 300), false).await;
    assert_eq!((after.counts().get("ACCEPTED"), after.counts().get("SOLD_OUT")), (Some(&200), Some(&100)), "{:?}", after.counts());
    deployment.settles(&coupon, 600).await;
}

/// A Redis of this test alone; ends when dropped.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    fn start(port: u16) -> Self {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server must be installed: make stack-up");
        Self { child, port }
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_flushed_and_stopped_in_mid_crowd_changes_no_answer() {
    let mut redis = Redis::start(free_port());
    let mut deployment = Deployment::new(Parts::Distributed).await;
    deployment.env.insert("COUPON__REDIS__URL".into(), format!("redis://127.0.0.1:{}", redis.port));
    let service = deployment.start("all").await;
    for fault in ["flushed", "stopped"] {
        let coupon = deployment.create(&service.api, 1_000).await;
        let (http, api, id) = (deployment.http.clone(), service.api.clone(), coupon.clone());
        let asking = tokio::spawn(async move { crowd(&http, &[api], &id, &users("u", 5_000), false).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        if fault == "flushed" {
            for _ in 0..5 {
                let flushed =
                    Command::new("redis-cli").args(["-p", &redis.port.to_string(), "FLUSHALL"]).stdout(Stdio::null()).status().unwrap();
                assert!(flushed.success());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        } else {
            redis.stop();
        }
        let tally = asking.await.unwrap();
        let counts = tally.counts();
        assert_eq!((counts.get("ACCEPTED"), counts.get("SOLD_OUT")), (Some(&1_000), Some(&4_000)), "{fault}: {counts:?}");
        deployment.settles(&coupon, 1_000).await;
    }
    assert!(service.metrics().await.contains("coupon_gate_fallback_total"));
    let port = redis.port;
    drop(redis);
    let _again = Redis::start(port);
    eventually("the gate is back", Duration::from_secs(10), async || {
        let coupon = deployment.create(&service.api, 1).await;
        ask(&deployment.http, &service.api, &coupon, "x").await;
        service.metrics().await.contains("coupon_gate_reachable 1").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_away_is_answered_503_within_two_seconds_and_the_repeat_gets_the_coupon() {
    // The broker advertises this port on its second listener.
    let proxy = Proxy::kafka().await;
    let mut deployment = Deployment::new(Parts::Distributed).await;
    deployment.env.insert("COUPON__KAFKA__BROKERS".into(), "127.0.0.1:19095".into());
    let service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 100).await;
    let apis = [service.api.clone()];
    assert_eq!(crowd(&deployment.http, &apis, &coupon, &users("a", 20), false).await.counts()["ACCEPTED"], 20);
    proxy.cut();
    let cut = Instant::now();
    while cut.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        let answer = ask(&deployment.http, &service.api, &coupon, "b-0").await;
        assert_eq!((answer.status, answer.result.as_str()), (503, "UNAVAILABLE"), "{answer:?}");
        assert!(asked.elapsed() < Duration::from_secs(2), "answered after {:?}", asked.elapsed());
    }
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "a-0").await.result, "ALREADY_ISSUED", "a holder is a holder without Kafka");
    proxy.restore();
    let restored = Instant::now();
    let tally = crowd(&deployment.http, &apis, &coupon, &users("b", 20), true).await;
    assert!(restored.elapsed() < Duration::from_secs(20), "service returned after {:?}", restored.elapsed());
    assert!(tally.answers.iter().all(|answer| ["ACCEPTED", "ALREADY_ISSUED"].contains(&answer.result.as_str())), "{:?}", tally.counts());
    // Settle over the direct listener.
    deployment.env.insert("COUPON__KAFKA__BROKERS".into(), "127.0.0.1:19092".into());
    deployment.settles(&coupon, 40).await;
}
