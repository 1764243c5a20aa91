//! How much is in flight: counted with guards, so nothing that ends badly stays counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests in flight over all workers, up to a limit.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    now: Arc<AtomicUsize>,
    limit: usize,
}

/// One request in flight, until dropped.
#[derive(Debug)]
pub(super) struct Guard(Arc<AtomicUsize>);

impl InFlight {
    pub(super) fn new(limit: usize) -> Self {
        Self { now: Arc::default(), limit }
    }

    /// `None`: the limit is reached.
    pub(super) fn enter(&self) -> Option<Guard> {
        if self.now.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.now.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Guard(Arc::clone(&self.now)))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_guard_gives_its_place_back() {
        let in_flight = InFlight::new(2);
        let first = in_flight.enter();
        let second = in_flight.enter();
        assert!(first.is_some() && second.is_some() && in_flight.enter().is_none());
        drop(first);
        assert!(in_flight.enter().is_some());
    }
}
