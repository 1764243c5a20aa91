//! A model of the protocol, searched to the end: no order of steps breaks the promise, and every guard of the design is needed.
//!
//! **What is in it.** One coupon in one partition. The log and what is on its way there: an append lands at once, late, twice or never. Two
//! APIs: their requests, a gate that may say anything (whatever it says, the issuer appends sooner or later, and a request may always
//! wait longer), their followers that read record by record, start from the ledger, unload a closed coupon, die. Admins who create,
//! pause, reopen, close, restock and lower. Two consumers that both hold the partition: they load, fold and commit in separate steps and forget
//! at any time. The ledger with rows, revocations and dead letters: refused, replayed, abandoned. Time, in half seconds, where freshness
//! is asked about. Stalling is not a step: whoever is not chosen stalls.
//!
//! **What is checked** in every state is in [`promise`]: P1, P2, P3, P5 and P7, the ledger as the fold of the log, every "no" true at some
//! instant of its request (or within the second before it, which freshness allows), changes that admins were told about, CLOSED as final; in
//! quiet states also P4: everybody asks once more, gets an answer, and no slot is left over.
//!
//! **What is not in it.** Bytes, versions of the format and fingerprints of the log; several coupons or partitions in a transaction; windows
//! and clocks; the rate limit; claims (they are for liveness, here two owners are always possible); a journal or database that loses what it
//! acknowledged. Those have tests of their own or are outside the failure model.
//!
//! **How to read it.** [`rule`] is the rule in a few bytes (a test holds it against the real one), [`state`] what there is, [`scene`] every step,
//! carried out in [`api`] and [`drain`], [`search`] the breadth-first search, [`scenes`] the small configurations, [`guards`] the switches
//! and what happens without them. Each scene bounds its appends, copies, crashes and refusals; within these bounds the search is complete.

mod api;
mod drain;
mod guards;
mod promise;
mod rule;
mod scene;
mod scenes;
mod search;
mod state;
mod story;

use search::{search, tell};

macro_rules! nothing_breaks {
    ($($name:ident in $scene:ident;)+) => {
        $(#[test]
        fn $name() {
            let scene = scenes::$scene();
            let started = std::time::Instant::now();
            let searched = search(&scene);
            if let Some((broken, steps)) = searched.broken {
                panic!("{}", tell(&scene, broken, &steps));
            }
            eprintln!("scene \"{}\": {} states, {} steps deep, {:?}", scene.name, searched.states, searched.depth, started.elapsed());
        })+
    };
}

nothing_breaks! {
    answers_at_two_apis_are_kept in answers;
    three_users_fill_a_stock_of_two in crowd;
    an_api_dies_and_starts_from_the_ledger in deaths;
    every_no_was_true_within_its_request in freshness;
    a_coupon_being_created_is_asked_for in creation;
    an_api_starts_from_the_ledger_at_any_time in starts;
    two_owners_write_once in owners;
    dead_letters_are_replayed_or_abandoned_once in dead_letters;
    a_win_is_taken_back_once in revocations;
    changes_at_two_apis_apply_in_turn in changes;
    a_closed_coupon_is_unloaded_for_good in unloading;
}
