//! A model of the protocol, searched to the end: no order of steps breaks the promise, and each guard is needed.

mod api;
mod drain;
mod guards;
mod promise;
mod rule;
mod scene;
mod scenes;
mod search;
mod state;

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
            println!("scene \"{}\": {} states, {} steps deep, {:?}", scene.name, searched.states, searched.depth, started.elapsed());
        })+
    };
}

nothing_breaks! {
    answers_at_two_apis_are_kept in answers;
    three_users_fill_a_stock_of_two in crowd;
    every_no_was_true_within_its_request in freshness;
    a_coupon_being_created_is_asked_for in creation;
    an_api_starts_from_the_ledger_at_any_time in starts;
    two_owners_write_once in owners;
    dead_letters_are_replayed_or_abandoned_once in dead_letters;
    changes_at_two_apis_apply_in_turn in changes;
    a_closed_coupon_is_unloaded_for_good in unloading;
}
