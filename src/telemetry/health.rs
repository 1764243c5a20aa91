//! Readiness that means it: named conditions, each set by the part that knows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// The registry of conditions of one process.
#[derive(Debug, Default)]
pub struct Health {
    conditions: Mutex<Vec<Condition>>,
    stopping: AtomicBool,
}

/// A handle on one condition; clones speak of the same one.
#[derive(Debug, Clone)]
pub struct Condition(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    required: bool,
    ok: AtomicBool,
    reason: Mutex<String>,
}

/// One condition as `/readyz` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// Whether readiness depends on it.
    pub required: bool,
    pub detail: String,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub ready: bool,
    pub stopping: bool,
    pub checks: Vec<Check>,
}

impl Health {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A condition readiness depends on; not met until set. The same name gives the same condition.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.register(name, true)
    }

    /// A condition that is shown and nothing else, such as a filter with a stand-in.
    pub fn advisory(&self, name: &'static str) -> Condition {
        self.register(name, false)
    }

    fn register(&self, name: &'static str, required: bool) -> Condition {
        let mut conditions = lock(&self.conditions);
        if let Some(known) = conditions.iter().find(|known| known.0.name == name) {
            return known.clone();
        }
        let reason = Mutex::new("starting".to_owned());
        let condition = Condition(Arc::new(Inner { name, required, ok: AtomicBool::new(false), reason }));
        conditions.push(condition.clone());
        condition
    }

    /// From now on not ready, whatever the conditions say: the first step of a shutdown.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether every required condition is met and the process is not stopping.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.stopping.load(Ordering::Acquire) && lock(&self.conditions).iter().all(|condition| condition.is_ok() || !condition.0.required)
    }

    /// All there is to say.
    #[must_use]
    pub fn report(&self) -> Report {
        let checks: Vec<Check> = lock(&self.conditions).iter().map(Condition::check).collect();
        let stopping = self.stopping.load(Ordering::Acquire);
        Report { ready: !stopping && checks.iter().all(|check| check.ok || !check.required), stopping, checks }
    }
}

impl Condition {
    /// Says whether it is met, and why (not). Cheap when nothing changed; a change is logged.
    pub fn set(&self, ok: bool, reason: &str) {
        let mut known = lock(&self.0.reason);
        let before = self.0.ok.swap(ok, Ordering::AcqRel);
        if before != ok {
            if ok {
                tracing::info!(condition.name = self.0.name, reason, "condition is met");
            } else {
                tracing::warn!(condition.name = self.0.name, reason, "condition is no longer met");
            }
        }
        if *known != reason {
            reason.clone_into(&mut known);
        }
    }

    /// Whether it is met.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.0.ok.load(Ordering::Acquire)
    }

    fn check(&self) -> Check {
        // Under the lock `ok` and the reason belong together.
        let reason = lock(&self.0.reason);
        Check { name: self.0.name, ok: self.is_ok(), required: self.0.required, detail: reason.clone() }
    }
}

/// A panic elsewhere leaves these values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_every_required_condition() {
        let health = Health::new();
        assert!(health.is_ready(), "nothing is asked for");
        let follower = health.condition("follower");
        let gate = health.advisory("gate");
        assert!(!health.is_ready());
        follower.set(true, "caught up");
        gate.set(false, "redis is away");
        assert!(health.is_ready());
        health.condition("follower").set(false, "stale");
        assert!(!follower.is_ok());
        let report = health.report();
        assert!(!report.ready);
        assert_eq!(report.checks.len(), 2);
        assert_eq!(report.checks[0].detail, "stale");
    }

    #[test]
    fn a_stopping_process_is_not_ready() {
        let health = Health::new();
        health.condition("follower").set(true, "caught up");
        health.stop();
        assert!(!health.is_ready());
        assert!(health.report().stopping);
    }
}
