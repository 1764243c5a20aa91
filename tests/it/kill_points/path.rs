//! From the request to its answer, from the win to its row, and the change of a coupon.

use serde_json::{Value, json};

use super::{STOCK, USERS, deployment, dies_at, doomed, everybody_asks_once, everybody_has_an_answer, yes};
use crate::support::Parts;

/// At the third pass: the first two users have their answers.
pub const REQUEST: &[&str] = &[
    "issuer.gate.before:3",
    "issuer.gate.after:3",
    "issuer.append.before:3",
    "issuer.append.sent:3",
    "journal.append.before:3",
    "journal.append.after:3",
    "follower.apply.before:3",
    "follower.wake.before:3",
    "follower.apply.after:3",
    "issuer.answer.before:3",
];

pub const ROW: &[&str] = &[
    "consumer.claim.before",
    "ledger.claim.taken",
    "consumer.claim.after",
    "consumer.feed.before",
    "consumer.load.before",
    "consumer.fold.after",
    "consumer.commit.before",
    "ledger.commit.moved",
    "ledger.commit.coupons",
    "ledger.commit.terms",
    "ledger.commit.rows",
    "ledger.commit.written",
    "consumer.commit.after",
    "consumer.batch.after",
];

pub const TERMS: &[&str] = &["issuer.terms.before", "issuer.terms.after"];

/// A process of `role` dies at each of `points` while everybody asks for a new coupon, and is started again; one of role `beside` lives on.
async fn one_after_the_other(parts: Parts, role: &str, beside: Option<&str>, points: &[&str]) {
    let deployment = deployment(parts).await;
    let mut calm = deployment.start(role).await;
    let companion = match beside {
        Some(role) => Some(deployment.start(role).await),
        None => None,
    };
    let lives_on = companion.as_ref().filter(|_| role == "consumer").map(|companion| companion.api.clone());
    for point in points {
        let coupon = deployment.create(lives_on.as_ref().unwrap_or(&calm.api), STOCK).await;
        // What is read and written from here on is of the crowd.
        deployment.settles(&coupon, 0).await;
        calm.kill();
        let mut process = doomed(&deployment, role, point).await;
        let before = everybody_asks_once(&deployment, lives_on.as_ref().unwrap_or(&process.api), &coupon).await;
        dies_at(&mut process, point).await;
        if REQUEST.contains(point) {
            let told = yes(&before).len();
            assert!((2..STOCK.try_into().unwrap()).contains(&told), "{point}: {told} were told yes before the third pass");
        }
        calm = deployment.start(role).await;
        everybody_has_an_answer(&deployment, lives_on.as_ref().unwrap_or(&calm.api), &coupon, STOCK, &before).await;
        deployment.settles(&coupon, STOCK).await;
    }
}

/// Two deployments side by side.
async fn all_of(parts: Parts, role: &str, beside: Option<&str>, points: &[&str]) {
    let (first, second) = points.split_at(points.len() / 2);
    tokio::join!(one_after_the_other(parts, role, beside, first), one_after_the_other(parts, role, beside, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_embedded_parts_survives_a_kill_at_every_step() {
    all_of(Parts::Embedded, "all", None, REQUEST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_distributed_parts_survives_a_kill_at_every_step() {
    all_of(Parts::Distributed, "api", Some("consumer"), REQUEST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_on_embedded_parts_is_written_once_after_a_kill_at_every_step() {
    all_of(Parts::Embedded, "all", None, ROW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_on_distributed_parts_is_written_once_after_a_kill_at_every_step() {
    all_of(Parts::Distributed, "consumer", Some("api"), ROW).await;
}

/// One attempt at an admin call; `None`: no answer.
async fn admin(request: reqwest::RequestBuilder, body: &Value) -> Option<(u16, Value)> {
    let answer = request.header("X-User-Id", "root").header("X-Admin", "true").json(body).send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.json().await.ok()?))
}

async fn a_change_survives(parts: Parts) {
    let deployment = deployment(parts).await;
    for point in TERMS {
        let id = uuid::Uuid::new_v4().to_string();
        let wish = json!({"coupon_id": id, "name": "launch", "kind": "FIRST_COME", "discount": {"type": "FIXED", "value": 5}, "total_quantity": STOCK});
        let create = async |api: &str| admin(deployment.http.post(format!("{api}/api/v1/coupons")), &wish).await;
        let mut process = doomed(&deployment, "all", point).await;
        assert_eq!(create(&process.api).await, None, "{point}: no answer");
        dies_at(&mut process, point).await;
        let mut calm = deployment.start("all").await;
        let (status, coupon) = create(&calm.api).await.unwrap();
        assert!(matches!(status, 200 | 201), "{point}: asking again is the same coupon: {status} {coupon}");
        assert_eq!((&coupon["coupon_id"], &coupon["version"]), (&json!(id), &json!(1)), "{point}");
        deployment.settles(&id, 0).await;
        calm.kill();

        let stock = STOCK + 2;
        let restock = json!({"total_quantity": stock});
        let change = async |api: &str| admin(deployment.http.patch(format!("{api}/api/v1/coupons/{id}")), &restock).await;
        let mut process = doomed(&deployment, "all", point).await;
        let before = everybody_asks_once(&deployment, &process.api, &id).await;
        assert_eq!(yes(&before).len(), usize::try_from(STOCK).unwrap());
        assert_eq!(change(&process.api).await, None, "{point}: no answer");
        dies_at(&mut process, point).await;
        let calm = deployment.start("all").await;
        let (status, coupon) = change(&calm.api).await.unwrap();
        assert_eq!((status, &coupon["total_quantity"], &coupon["version"]), (200, &json!(stock), &json!(2)), "{point}: changed once");
        // Sold out was true then: now two more have it.
        let told_yes: Vec<_> = before.into_iter().filter(super::is_yes).collect();
        everybody_has_an_answer(&deployment, &calm.api, &id, stock, &told_yes).await;
        deployment.settles(&id, stock).await;
        assert!(usize::try_from(stock).unwrap() < USERS, "somebody is turned away");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_terms_applies_once_after_a_kill_around_its_append() {
    tokio::join!(a_change_survives(Parts::Embedded), a_change_survives(Parts::Distributed));
}
