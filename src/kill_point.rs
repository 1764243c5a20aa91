//! Named steps of the path where a test ends the process as SIGKILL does, or freezes it: nothing is flushed, nothing is dropped.
//!
//! Built in by the feature `kill-points` alone; without it [`kill_point`] is nothing. With it, `COUPON_KILL_POINT=NAME` in the environment kills
//! the process at the first pass of that point, `NAME:3` at the third; `NAME:stop` freezes it there (SIGSTOP) until it gets SIGCONT.

/// Every point, in the order of a coupon's path. `tests/it/kill_points` dies at each.
pub const POINTS: &[&str] = &[
    // A process starts.
    "start.locked",
    "ledger.migrate.locked",
    "ledger.migrate.ran",
    "ledger.partitions.recorded",
    "ledger.snapshot.positions",
    "ledger.snapshot.coupons",
    "ledger.snapshot.users",
    "follower.start.after",
    // A request on its way to the answer.
    "issuer.terms.before",
    "issuer.terms.after",
    "issuer.gate.before",
    "issuer.gate.after",
    "issuer.append.before",
    "issuer.append.sent",
    "journal.append.before",
    "journal.append.after",
    "follower.apply.before",
    "follower.wake.before",
    "follower.apply.after",
    "issuer.answer.before",
    // A win on its way to its row.
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
    // A row that the database refuses, and the two ways out.
    "ledger.bury.before",
    "ledger.bury.after",
    "ledger.replay.marked",
    "ledger.replay.written",
    "ledger.abandon.marked",
    "abandon.revoke.before",
    "abandon.revoke.after",
    "consumer.revoke.again",
    "ledger.revoke.marked",
    // A coupon that is over, and a process that ends.
    "unload.before",
    "unload.after",
    "shutdown.begin",
    "shutdown.stage",
    "ledger.release.freed",
    "shutdown.end",
];

#[cfg(feature = "kill-points")]
pub use armed::kill_point;

/// Nothing: the feature `kill-points` is off.
#[cfg(not(feature = "kill-points"))]
pub const fn kill_point(_name: &str) {}

#[cfg(feature = "kill-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::POINTS;

    /// What the environment asks for.
    struct Armed {
        point: String,
        /// Passes up to the one that counts.
        left: AtomicU64,
        stops: bool,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| std::env::var("COUPON_KILL_POINT").ok().map(|text| parse(&text)));

    fn parse(text: &str) -> Armed {
        let mut words = text.split(':');
        let point = words.next().unwrap_or_default().to_owned();
        assert!(POINTS.contains(&point.as_str()), "there is no kill point {point:?}");
        let mut armed = Armed { point, left: AtomicU64::new(1), stops: false };
        for word in words {
            match word.parse() {
                Ok(pass) => armed.left = AtomicU64::new(pass),
                Err(_) => armed.stops = word == "stop",
            }
        }
        armed
    }

    /// Ends or freezes the process here, if the environment asks for this point and pass.
    #[expect(clippy::print_stderr, reason = "the last word of a process that is killed")]
    #[expect(clippy::disallowed_methods, reason = "no other thread of the process runs on either")]
    pub fn kill_point(name: &str) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.point == name) else { return };
        if armed.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        let (signal, what) = if armed.stops { (Signal::Stop, "stopped") } else { (Signal::Kill, "killed") };
        eprintln!("{what} at {name}");
        let sent = kill_process(getpid(), signal);
        assert!(sent.is_ok(), "a process may signal itself: {sent:?}");
        // The signal may reach this thread a moment after the call returned.
        std::thread::sleep(Duration::from_millis(100));
    }
}
