//! The rule under every order of records, and the format under its golden log.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use serde::Deserialize;

use super::testing::terms;
use super::*;

fn user(number: u8) -> UserId {
    format!("user-{number}").parse().unwrap()
}

fn issue(user_id: UserId) -> Body {
    Body::Issue { user_id, at: 1, trace_id: String::new() }
}

fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![4 => Just(Status::Open), 2 => Just(Status::Paused), 1 => Just(Status::Closed)]
}

fn any_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        8 => (0..12_u8).prop_map(|number| issue(user(number))),
        3 => (1..6_i64, 1..8_i64, any_status()).prop_map(|(version, total, status)| Body::Terms(terms(version, total, status))),
        2 => (0..12_u8, 1..10_i64).prop_map(|(number, sequence)| Body::Revoke {
            user_id: user(number), sequence, reason: "test".into(), at: 1
        }),
    ]
}

/// Any records in any order with repeats: creation first in most runs, so that something happens.
fn any_log() -> impl Strategy<Value = Vec<Body>> {
    (any::<bool>(), 1..6_i64, prop::collection::vec(any_body(), 0..120)).prop_map(|(created, total, mut log)| {
        if created {
            log.insert(0, Body::Terms(terms(1, total, Status::Open)));
        }
        log
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_log_keeps_the_promise(log in any_log()) {
        let mut roster: Roster<UserId> = Roster::default();
        let mut holders: HashMap<UserId, Sequence> = HashMap::new();
        let mut revoked: HashSet<UserId> = HashSet::new();
        let mut used: HashSet<Sequence> = HashSet::new();
        let mut closed = false;
        for body in &log {
            let before = roster.clone();
            let decision = roster.apply(body, Clone::clone);
            match (body, decision) {
                (Body::Issue { user_id, .. }, Decision::Won(sequence)) => {
                    prop_assert!(!closed && !revoked.contains(user_id));
                    prop_assert!(used.insert(sequence), "a sequence is never used twice");
                    prop_assert!(holders.insert(user_id.clone(), sequence).is_none(), "one each");
                }
                (Body::Issue { user_id, .. }, Decision::Already(sequence)) => prop_assert_eq!(holders.get(user_id), Some(&sequence)),
                (Body::Issue { user_id, .. }, Decision::Refused(refusal)) => {
                    prop_assert!(!holders.contains_key(user_id));
                    prop_assert_eq!(refusal == Refusal::Revoked, revoked.contains(user_id));
                    // Nobody is refused while there is room.
                    if refusal == Refusal::SoldOut { prop_assert_eq!(before.remaining(), 0); }
                }
                (Body::Revoke { user_id, sequence, .. }, Decision::RevokeApplied) => {
                    prop_assert_eq!(holders.remove(user_id), Some(*sequence));
                    revoked.insert(user_id.clone());
                }
                (Body::Terms(terms), Decision::TermsApplied) => {
                    prop_assert!(!closed, "closed is final");
                    prop_assert_eq!(terms.version, before.terms().map_or(0, |terms| terms.version) + 1);
                    closed = terms.status == Status::Closed;
                }
                (Body::Terms(_), Decision::TermsIgnored) | (Body::Revoke { .. }, Decision::RevokeIgnored) => {
                    prop_assert_eq!(before.terms(), roster.terms());
                    prop_assert_eq!(before.issued(), roster.issued());
                }
                other => prop_assert!(false, "impossible {:?}", other),
            }
            prop_assert_eq!(roster.issued(), i64::try_from(holders.len()).unwrap());
            prop_assert!(roster.issued() <= roster.terms().map_or(0, |terms| terms.total_quantity), "never more than the stock");
        }
    }

    #[test]
    fn every_replay_decides_the_same_from_any_point(log in any_log(), cut in 0..120_usize) {
        let mut whole: Roster<UserId> = Roster::default();
        let decisions: Vec<_> = log.iter().map(|body| whole.apply(body, Clone::clone)).collect();
        let mut first: Roster<UserId> = Roster::default();
        let cut = cut.min(log.len());
        let mut again: Vec<_> = log[..cut].iter().map(|body| first.apply(body, Clone::clone)).collect();
        // What a ledger keeps of a roster is enough to go on.
        let mut restored: Roster<UserId> = match first.terms() {
            Some(terms) => Roster::restore(terms.clone(), first.issued(), first.next_sequence()),
            None => Roster::default(),
        };
        for (user, state) in first.users() { restored.remember(user.clone(), state); }
        again.extend(log[cut..].iter().map(|body| restored.apply(body, Clone::clone)));
        prop_assert_eq!(decisions, again);
    }

    #[test]
    fn a_permutation_of_requests_fills_the_stock_exactly(order in Just((0..40_u8).chain(0..20).collect::<Vec<_>>()).prop_shuffle(), total in 1..60_i64) {
        let mut roster: Roster<UserId> = Roster::default();
        roster.apply(&Body::Terms(terms(1, total, Status::Open)), Clone::clone);
        for number in order { roster.apply(&issue(user(number)), Clone::clone); }
        prop_assert_eq!(roster.issued(), total.min(40));
    }

    #[test]
    fn records_survive_the_journal(body in any_body()) {
        let coupon = CouponId::random();
        let value = encode(&body).unwrap();
        prop_assert!(value.len() < 1_000);
        let partition = partition_of(coupon, 60);
        prop_assert_eq!(decode(partition, 60, coupon.to_string().as_bytes(), &value), Ok(Decoded::Record(Record { coupon, body })));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(key in prop::collection::vec(any::<u8>(), 0..50), value in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(matches!(decode(0, 1, &key, &value), Ok(Decoded::Skip(_))));
        let coupon = CouponId::random().to_string();
        prop_assert!(matches!(decode(0, 1, coupon.as_bytes(), &value), Ok(Decoded::Skip(_)) | Err(_)));
    }
}

#[derive(Deserialize)]
struct Golden {
    key: String,
    value: String,
    decision: String,
}

/// Changing what a version-1 record does is a new version, never an edit of this file.
#[test]
fn the_golden_log_is_decided_as_ever() {
    let mut roster: Roster<UserId> = Roster::default();
    for (number, line) in include_str!("golden/v1.jsonl").lines().enumerate() {
        let golden: Golden = serde_json::from_str(line).unwrap();
        let decision = match decode(0, 1, golden.key.as_bytes(), golden.value.as_bytes()) {
            Ok(Decoded::Record(record)) => format!("{:?}", roster.apply(&record.body, Clone::clone)),
            Ok(Decoded::Skip(_)) => "skip".to_owned(),
            Err(_) => "stop".to_owned(),
        };
        assert_eq!(decision, golden.decision, "line {}: {}", number + 1, golden.value);
    }
    assert_eq!((roster.issued(), roster.next_sequence()), (3, 6));
}

#[test]
fn a_record_in_the_wrong_partition_is_skipped() {
    let coupon = CouponId::random();
    let right = partition_of(coupon, 60);
    let value = encode(&issue(user(1))).unwrap();
    let wrong = (right + 1) % 60;
    assert_eq!(decode(wrong, 60, coupon.to_string().as_bytes(), &value), Ok(Decoded::Skip(SkipReason::WrongPartition { expected: right })));
}

#[test]
fn coupons_spread_over_all_partitions() {
    let mut hits = vec![0_u32; 60];
    for _ in 0..6_000 {
        hits[usize::try_from(partition_of(CouponId::random(), 60)).unwrap()] += 1;
    }
    assert!(hits.iter().all(|hits| (40..200).contains(hits)), "{hits:?}");
}

#[test]
fn a_draft_names_every_fault() {
    let draft = TermsDraft {
        name: " ".into(),
        kind: "x".repeat(33),
        discount: Discount::Percentage(101),
        total_quantity: 0,
        opens_at: Some(10),
        closes_at: Some(10),
    };
    let fields: Vec<_> = draft.check().into_iter().map(|fault| fault.field).collect();
    assert_eq!(fields, ["name", "kind", "discount.value", "total_quantity", "closes_at"]);
}
