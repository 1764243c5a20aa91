//! Several APIs and consumers on real Redis, Kafka and MySQL.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use serde_json::json;

use crate::operations::{count, rows};
use crate::support::{Deployment, Parts, SOON, ask, crowd, eventually, users};

#[tokio::test(flavor = "multi_thread")]
async fn one_user_a_hundred_times_over_two_apis_gives_one_coupon_and_one_answer() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let (one, two, _consumer) = (deployment.start("api").await, deployment.start("api").await, deployment.start("consumer").await);
    let coupon = deployment.create(&one.api, 10).await;
    let same = vec!["alice".to_owned(); 100];
    let tally = crowd(&deployment.http, &[one.api.clone(), two.api.clone()], &coupon, &same, true).await;
    let given: HashSet<_> =
        tally.answers.iter().map(|answer| (answer.body["issue_id"].to_string(), answer.body["sequence"].to_string())).collect();
    assert_eq!(given.len(), 1, "{:?}", tally.counts());
    assert!(tally.answers.iter().all(|answer| ["ACCEPTED", "ALREADY_ISSUED"].contains(&answer.result.as_str())), "{:?}", tally.counts());
    deployment.settles(&coupon, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_issued_and_restocked_at_every_api_at_once() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let (one, two, _consumer) = (deployment.start("api").await, deployment.start("api").await, deployment.start("consumer").await);
    let coupon = deployment.create(&one.api, 3).await;
    let first = ask(&deployment.http, &two.api, &coupon, "first").await;
    assert_eq!(first.result, "ACCEPTED", "created at one API, issued at another at once: {first:?}");
    let apis = [one.api.clone(), two.api.clone()];
    let counts_before = crowd(&deployment.http, &apis, &coupon, &users("u", 20), false).await;
    assert_eq!(counts_before.counts()["ACCEPTED"], 2);
    deployment.patch(&one.api, &coupon, json!({"total_quantity": 6})).await;
    let restocked = Instant::now();
    for (api, user) in [(&two.api, "late-two"), (&one.api, "late-one")] {
        eventually("restock is visible", Duration::from_secs(1).saturating_sub(restocked.elapsed()), async || {
            (ask(&deployment.http, api, &coupon, user).await.result == "ACCEPTED").then_some(())
        })
        .await;
    }
    deployment.settles(&coupon, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_consumers_share_and_a_killed_one_is_taken_over_within_ten_seconds() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let api = deployment.start("api").await;
    let mut one = deployment.start("consumer").await;
    let two = deployment.start("consumer").await;
    let owned = async |ops: &str| -> usize {
        let text = reqwest::get(format!("{ops}/metrics")).await.unwrap().text().await.unwrap();
        text.lines().filter(|line| line.starts_with("coupon_consumer_lag{")).count()
    };
    eventually("both own three partitions", Duration::from_secs(15), async || {
        (owned(&one.ops).await == 3 && owned(&two.ops).await == 3).then_some(())
    })
    .await;
    let mut coupons = Vec::new();
    for _ in 0..12 {
        coupons.push(deployment.create(&api.api, 20).await);
    }
    for coupon in &coupons {
        crowd(&deployment.http, std::slice::from_ref(&api.api), coupon, &users("a", 10), true).await;
    }
    one.kill();
    let killed = Instant::now();
    for coupon in &coupons {
        let tally = crowd(&deployment.http, std::slice::from_ref(&api.api), coupon, &users("b", 10), true).await;
        assert_eq!(tally.counts()["ACCEPTED"], 10);
    }
    eventually("the other owns all six", Duration::from_secs(10).saturating_sub(killed.elapsed()), async || {
        (owned(&two.ops).await == 6).then_some(())
    })
    .await;
    for coupon in &coupons {
        deployment.settles(coupon, 20).await;
    }
    // The trace id travels to the consumer's log.
    two.logs(&["trace-b-7"], SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_does_not_stop_its_neighbours() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 10).await;
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "before").await.result, "ACCEPTED");
    let brokers = vec![deployment.env["COUPON__KAFKA__BROKERS"].clone()];
    let client = ClientBuilder::new(brokers).build().await.unwrap();
    for partition in 0..6 {
        let partition = client.partition_client(&deployment.topic, partition, UnknownTopicHandling::Error).await.unwrap();
        let garbage = |key: &str, value: &[u8]| Record {
            key: Some(key.as_bytes().to_vec()),
            value: Some(value.to_vec()),
            headers: std::collections::BTreeMap::new(),
            timestamp: rskafka::chrono::DateTime::from_timestamp_millis(1_767_225_600_000).unwrap(),
        };
        partition
            .produce(vec![garbage(&coupon, b"\xff\xfe not json"), garbage("nobody", b"{}")], Compression::NoCompression)
            .await
            .unwrap();
    }
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "after").await.result, "ACCEPTED");
    deployment.settles(&coupon, 2).await;
    eventually("the records are dead letters", Duration::from_secs(10), async || {
        let (status, list) = deployment.get(&service.api, "/api/v1/admin/dead-letters?state=open", "root").await;
        (status == 200 && list["items"].as_array().is_some_and(|items| items.len() == 12)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_shows_the_lag_to_operators() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 10).await;
    crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 10), true).await;
    deployment.settles(&coupon, 10).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka.sh");
    let shown = eventually("the group has offsets", Duration::from_secs(60), async || {
        let output = std::process::Command::new(script).args(["groups", "--describe", "--group", &deployment.topic]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // 11 records: the terms and ten users, in one partition.
        text.lines().any(|line| line.split_whitespace().any(|word| word == "11")).then_some(text)
    })
    .await;
    assert!(shown.contains("LAG"), "{shown}");
}

/// The connections of the ledger's pool may have been opened by requests: they outlive the threads that answered those.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_gives_back_the_claims_over_connections_that_requests_opened() {
    let deployment = Deployment::new(Parts::Distributed).await;
    let mut service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 5).await;
    crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 5), true).await;
    let asking = (0..40).map(|number| {
        let user = format!("u-{}", number % 5);
        let (deployment, api) = (&deployment, &service.api);
        async move { deployment.get(api, "/api/v1/me/coupons", &user).await.0 }
    });
    assert!(futures_util::future::join_all(asking).await.iter().all(|status| *status == 200));
    service.signal("TERM");
    assert_eq!(service.ends(Duration::from_secs(20)).await, Some(0));
    let log = service.log_text();
    assert!(!log.contains("cannot release claims"), "{log}");
    assert_eq!(count(&deployment, "partition_claims WHERE owner IS NOT NULL").await, 0, "nobody has to wait for its claims to run out");
    deployment.settles(&coupon, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_consumers_share_one_rate_and_lose_nobody() {
    let mut deployment = Deployment::new(Parts::Distributed).await;
    deployment.env.insert("COUPON__LIMITER__RATE".into(), "50".into());
    let (api, _one, _two) = (deployment.start("api").await, deployment.start("consumer").await, deployment.start("consumer").await);
    let mut coupons = Vec::new();
    // Over all partitions, so that both have work.
    for _ in 0..10 {
        coupons.push(deployment.create(&api.api, 20).await);
    }
    let started = Instant::now();
    for coupon in &coupons {
        let tally = crowd(&deployment.http, std::slice::from_ref(&api.api), coupon, &users("u", 20), true).await;
        assert_eq!(tally.counts()["ACCEPTED"], 20, "the limit is the ledger's, not the user's");
    }
    eventually("all rows are written", Duration::from_secs(60), async || (rows(&deployment).await == 200).then_some(())).await;
    let took = started.elapsed();
    assert!(took > Duration::from_secs(3), "200 rows at 50 a second in {took:?}");
    for coupon in &coupons {
        deployment.settles(coupon, 20).await;
    }
}
