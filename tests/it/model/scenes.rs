//! The configurations: each looks at one part of the protocol closely enough to be searched to the end.

use super::api::Wish;
use super::guards::Guards;
use super::rule::{Life, Number, Record, Terms, User};
use super::scene::Scene;
use super::state::Left;

const fn terms(version: Number, total: Number) -> Record {
    Record::Terms(Terms { version, total, status: Life::Open })
}

const fn issue(user: User) -> Record {
    Record::Issue(user)
}

fn scene(name: &'static str) -> Scene {
    Scene {
        name,
        guards: Guards::ALL,
        log: vec![terms(1, 1)],
        in_flight: Vec::new(),
        asking: [0, 0],
        apis: 1,
        up: true,
        wishes: Vec::new(),
        drains: true,
        consumers: 0,
        left: Left::default(),
        blind_to: Vec::new(),
    }
}

/// Two users at two APIs, a gate that says what it likes, appends that are late, lost and doubled.
pub fn answers() -> Scene {
    Scene { apis: 2, asking: [2, 2], drains: false, left: Left { appends: 2, copies: 1, ..Left::default() }, ..scene("answers") }
}

/// Three users and a stock of two at one API.
pub fn crowd() -> Scene {
    Scene {
        log: vec![terms(1, 2)],
        asking: [3, 0],
        drains: false,
        left: Left { appends: 4, copies: 1, ..Left::default() },
        ..scene("crowd")
    }
}

/// A user asks at two APIs, one of which dies and starts from the ledger.
pub fn deaths() -> Scene {
    Scene {
        apis: 2,
        asking: [1, 1],
        in_flight: vec![issue(1)],
        left: Left { appends: 1, copies: 1, crashes: 1, ..Left::default() },
        ..scene("deaths")
    }
}

/// Time passes while others append and restock: is every "no" true?
pub fn freshness() -> Scene {
    Scene {
        asking: [1, 0],
        in_flight: vec![issue(0), issue(1), terms(2, 2)],
        drains: false,
        left: Left { appends: 1, half_seconds: 3, ..Left::default() },
        ..scene("freshness")
    }
}

/// A coupon that is just being created while it is asked for at two APIs.
pub fn creation() -> Scene {
    Scene {
        log: Vec::new(),
        in_flight: vec![terms(1, 1)],
        apis: 2,
        asking: [1, 1],
        left: Left { appends: 2, copies: 1, crashes: 1, ..Left::default() },
        ..scene("creation")
    }
}

/// An API starts from the ledger at any time, while it is being written.
pub fn starts() -> Scene {
    Scene {
        up: false,
        asking: [2, 0],
        in_flight: vec![issue(0), issue(1), terms(2, 2)],
        left: Left { appends: 1, refusals: 1, ..Left::default() },
        ..scene("starts")
    }
}

/// Two owners of the partition at once, and rows that the database refuses.
pub fn owners() -> Scene {
    Scene {
        log: vec![terms(1, 2)],
        apis: 0,
        in_flight: vec![issue(0), issue(0), issue(1), terms(2, 3)],
        consumers: 2,
        left: Left { appends: 1, refusals: 1, ..Left::default() },
        ..scene("owners")
    }
}

/// Dead letters are replayed and abandoned while a late copy lands.
pub fn dead_letters() -> Scene {
    Scene {
        asking: [1, 0],
        in_flight: vec![issue(0), issue(1)],
        left: Left { appends: 1, copies: 1, refusals: 1, ..Left::default() },
        ..scene("dead letters")
    }
}

/// One user's win is taken back while everything lands twice.
pub fn revocations() -> Scene {
    Scene {
        asking: [1, 0],
        in_flight: vec![issue(0)],
        left: Left { appends: 1, copies: 2, refusals: 1, ..Left::default() },
        ..scene("revocations")
    }
}

/// Admins change one coupon at two APIs at once, both somewhere behind in the log.
pub fn changes() -> Scene {
    Scene {
        log: vec![terms(1, 2), issue(0), issue(1)],
        apis: 2,
        wishes: vec![Wish::Pause, Wish::Open, Wish::Close, Wish::Restock, Wish::LowerToOne],
        drains: false,
        left: Left { appends: 2, copies: 1, ..Left::default() },
        ..scene("changes")
    }
}

/// A closed coupon is unloaded while a late copy of its first terms lands.
pub fn unloading() -> Scene {
    Scene {
        asking: [1, 0],
        in_flight: vec![issue(1)],
        wishes: vec![Wish::Close],
        left: Left { appends: 2, copies: 1, crashes: 1, unloads: 1, ..Left::default() },
        ..scene("unloading")
    }
}
