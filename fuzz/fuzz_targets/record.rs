//! A partition as anybody with access to the topic may write it: one message a line, all of one coupon.
//!
//! No bytes panic a reader, every reader reads them alike, what is read can be written and read again, and the rule keeps its promise.
#![no_main]

#[path = "../../src/domain/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the target needs a part of the room")]
mod domain;

use domain::{Body, Decision, Decoded, Roster, UserId, decode, encode};
use libfuzzer_sys::fuzz_target;

const KEY: &[u8] = b"7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a";

fuzz_target!(|log: &[u8]| {
    let mut roster: Roster<UserId> = Roster::default();
    for value in log.split(|byte| *byte == b'\n') {
        let decoded = decode(0, 1, KEY, value);
        assert_eq!(decoded, decode(0, 1, KEY, value), "every reader reads alike");
        // The same bytes as a key: only a coupon's id is one.
        let _any = decode(0, 1, value, value);
        let Ok(Decoded::Record(record)) = decoded else { continue };
        let again = encode(&record.body).expect("what was read can be written");
        assert_eq!(decode(0, 1, KEY, &again), Ok(Decoded::Record(record.clone())), "and read again");
        apply(&mut roster, &record.body);
    }
});

fn apply(roster: &mut Roster<UserId>, body: &Body) {
    let before = (roster.issued(), roster.next_sequence());
    let decision = roster.apply(body, Clone::clone);
    let (won, revoked) = (i64::from(matches!(decision, Decision::Won(_))), i64::from(decision == Decision::RevokeApplied));
    assert_eq!((roster.issued(), roster.next_sequence()), (before.0 + won - revoked, before.1 + won), "{decision:?}");
    let total = roster.terms().map_or(0, |terms| terms.total_quantity);
    assert!((0..=total).contains(&roster.issued()), "{} of {total}", roster.issued());
    assert_eq!(roster.remaining(), total - roster.issued());
    // What waits behind the rule: the closing of ended windows adds to an instant, a summary adds up stocks.
    if let Some(terms) = roster.terms() {
        assert!(terms.closes_at.unwrap_or(0).checked_add(1 << 40).is_some() && total.checked_mul(1 << 32).is_some());
    }
}
