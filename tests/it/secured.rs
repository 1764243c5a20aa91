//! TLS and passwords to every server, and what happens when they are wrong.

use std::time::Duration;

use crate::support::{Deployment, Parts, ask, crowd, eventually, users};

/// A certificate authority that vouches for none of the servers.
const STRANGER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls/testdata/stranger-ca.pem");

async fn secured() -> Deployment {
    let mut deployment = Deployment::new(Parts::Distributed).await;
    deployment.secure();
    deployment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_gets_its_coupons_with_every_server_over_tls() {
    let deployment = secured().await;
    let service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 300).await;
    let tally = crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 1_000), true).await;
    let counts = tally.counts();
    assert_eq!((counts.get("ACCEPTED"), counts.get("SOLD_OUT")), (Some(&300), Some(&700)), "{counts:?}");
    assert!(service.metrics().await.lines().any(|line| line == "coupon_gate_reachable 1"));
    deployment.settles(&coupon, 300).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka.sh");
    // One partition holds the coupon: everything of it was read, so its committed offset is its end.
    eventually("the group shows that nothing is left", Duration::from_secs(60), async || {
        let output = std::process::Command::new(script).args(["groups", "--describe", "--group", &deployment.topic]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut offsets =
            rows.filter(|row| row.get(1) == Some(&deployment.topic.as_str())).map(|row| (row[3].parse::<u64>(), row[4].parse::<u64>()));
        offsets.any(|offset| matches!(offset, (Ok(committed), Ok(end)) if committed == end && end > 300)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_nobody_vouches_for_is_a_gate_that_is_away_with_the_reason_in_the_log() {
    let mut deployment = secured().await;
    deployment.env.insert("COUPON__REDIS__CA_FILE".into(), STRANGER.into());
    let service = deployment.start("all").await;
    let coupon = deployment.create(&service.api, 10).await;
    let tally = crowd(&deployment.http, std::slice::from_ref(&service.api), &coupon, &users("u", 30), true).await;
    let counts = tally.counts();
    assert_eq!((counts.get("ACCEPTED"), counts.get("SOLD_OUT")), (Some(&10), Some(&20)), "{counts:?}");
    assert!(service.metrics().await.lines().any(|line| line == "coupon_gate_reachable 0"));
    // Two lines: the start waits half a second, the first handshake may take longer.
    service.logs(&["redis is away at start"], Duration::from_secs(30)).await;
    service.logs(&["redis cannot be connected to", "UnknownIssuer"], Duration::from_secs(30)).await;
    deployment.settles(&coupon, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_process_out_of_kafka_and_mysql_is_in_its_log_and_no_password_is() {
    for (key, value, words) in [
        ("COUPON__KAFKA__SASL_PASSWORD", "hunter2", ["SCRAM-SHA-512 as user", "uthentication failed"]),
        ("COUPON__KAFKA__CA_FILE", STRANGER, ["connecting to kafka", "UnknownIssuer"]),
        ("COUPON__MYSQL__CA_FILE", STRANGER, ["the database is not available", "UnknownIssuer"]),
    ] {
        let deployment = secured().await;
        let mut process = deployment.spawn("all", &[(key, value)]);
        process.logs(&words, Duration::from_secs(30)).await;
        let text = process.log_text();
        assert!(!text.contains("hunter2"), "{text}");
        process.kill();
        // As it should be, the same deployment starts.
        let service = deployment.start("all").await;
        let coupon = deployment.create(&service.api, 1).await;
        assert_eq!(ask(&deployment.http, &service.api, &coupon, "u").await.result, "ACCEPTED");
        deployment.settles(&coupon, 1).await;
    }
}
