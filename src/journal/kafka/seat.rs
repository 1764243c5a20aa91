//! The workers of one broker's queue, counted.

use std::sync::{Arc, MutexGuard};

/// How many workers a queue has, and what they do.
#[derive(Debug, Default)]
pub struct Staff {
    pub workers: usize,
    /// Workers that have not had a connection yet.
    pub starting: usize,
    /// Workers whose request is in flight.
    pub flying: usize,
}

impl Staff {
    /// One more; its [`Seat`] gives it back.
    pub fn hire(&mut self) {
        self.workers += 1;
        self.starting += 1;
    }
}

/// A queue with workers.
pub trait Desk: Send + Sync + 'static {
    type State: AsMut<Staff>;
    fn state(&self) -> MutexGuard<'_, Self::State>;
    /// Sees to it that somebody looks at what waits: a worker that is there, or a new one.
    fn attend(self: &Arc<Self>);
}

/// A worker's place in the count, given back also when it panics.
pub struct Seat<D: Desk> {
    pub desk: Arc<D>,
    starting: bool,
    flying: bool,
    released: bool,
}

impl<D: Desk> Seat<D> {
    /// Of a worker that was hired.
    pub const fn new(desk: Arc<D>) -> Self {
        Self { desk, starting: true, flying: false, released: false }
    }

    pub fn has_started(&mut self, state: &mut D::State) {
        if std::mem::take(&mut self.starting) {
            state.as_mut().starting -= 1;
        }
    }

    pub fn took_off(&mut self, state: &mut D::State) {
        self.flying = true;
        state.as_mut().flying += 1;
    }

    pub fn landed(&mut self, state: &mut D::State) {
        if std::mem::take(&mut self.flying) {
            state.as_mut().flying -= 1;
        }
    }

    pub fn release(&mut self, state: &mut D::State) {
        self.has_started(state);
        self.landed(state);
        state.as_mut().workers -= 1;
        self.released = true;
    }
}

impl<D: Desk> Drop for Seat<D> {
    fn drop(&mut self) {
        if !self.released {
            let desk = Arc::clone(&self.desk);
            self.release(&mut desk.state());
            // Dropped otherwise, the runtime ends: a successor would be dropped at once, and its successor.
            if std::thread::panicking() {
                desk.attend();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counted {
        staff: Mutex<Staff>,
        attended: AtomicUsize,
    }

    impl AsMut<Self> for Staff {
        fn as_mut(&mut self) -> &mut Self {
            self
        }
    }

    impl Desk for Counted {
        type State = Staff;

        fn state(&self) -> MutexGuard<'_, Staff> {
            self.staff.lock().unwrap()
        }

        fn attend(self: &Arc<Self>) {
            self.attended.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_panics_leaves_the_place_and_the_work_to_another() {
        let desk = Arc::new(Counted::default());
        let take_off = || {
            desk.state().hire();
            let mut seat = Seat::new(Arc::clone(&desk));
            seat.has_started(&mut desk.state());
            seat.took_off(&mut desk.state());
            seat
        };
        let is_nobody_there = || matches!(*desk.state(), Staff { workers: 0, starting: 0, flying: 0 });
        let seat = take_off();
        assert!(
            std::thread::scope(|threads| threads
                .spawn(move || {
                    let _seat = seat;
                    panic!("as a test wants");
                })
                .join())
            .is_err()
        );
        assert!(is_nobody_there());
        assert_eq!(desk.attended.load(Ordering::Relaxed), 1);
        drop(take_off());
        assert!(is_nobody_there());
        assert_eq!(desk.attended.load(Ordering::Relaxed), 1, "the runtime ends");
    }
}
