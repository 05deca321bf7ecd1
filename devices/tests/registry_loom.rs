//! Model check of the drain: users that enter and leave while the removal begins, every interleaving and every value
//! that a load may see. R4.1 and R4.2 at their smallest.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p vmbus-devices --release --test registry_loom`. The `mutant_*` tests
//! check two drains that are nearly right: each must fail the same model.
#![cfg(loom)]

use std::panic::catch_unwind;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::thread;
use vmbus_devices::registry::Operable;

const CLOSED: u64 = 1 << 63;

trait Drain: Default + Send + Sync + 'static {
    fn enter(&self) -> bool;
    fn leave(&self) -> bool;
    fn close(&self) -> bool;
}

impl Drain for Operable {
    fn enter(&self) -> bool {
        Self::enter(self)
    }
    fn leave(&self) -> bool {
        Self::leave(self)
    }
    fn close(&self) -> bool {
        Self::close(self)
    }
}

/// Looks whether it is closed, and counts in a second step.
#[derive(Default)]
struct LooksThenCounts(AtomicU64);

impl Drain for LooksThenCounts {
    fn enter(&self) -> bool {
        let open = self.0.load(Ordering::Acquire) & CLOSED == 0;
        if open {
            self.0.fetch_add(1, Ordering::Acquire);
        }
        open
    }
    fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1
    }
    fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::AcqRel) == 0
    }
}

/// Counts right, and orders nothing.
#[derive(Default)]
struct RelaxedWord(AtomicU64);

impl Drain for RelaxedWord {
    fn enter(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| (word & CLOSED == 0).then(|| word + 1)).is_ok()
    }
    fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) == CLOSED | 1
    }
    fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::Relaxed) == 0
    }
}

/// What two users write, each its own, and who goes on with the removal reads: loom finds an access that is not
/// ordered before it.
struct Device<D> {
    drain: D,
    state: [UnsafeCell<u32>; 2],
    removals: AtomicUsize,
}

impl<D: Drain> Device<D> {
    fn user(&self, index: usize) {
        if !self.drain.enter() {
            return;
        }
        self.state[index].with_mut(|_| ());
        if self.drain.leave() {
            self.remove();
        }
    }

    fn remove(&self) {
        self.removals.fetch_add(1, Ordering::Relaxed);
        for state in &self.state {
            // A write, so that a user that is still inside conflicts with it.
            state.with_mut(|_| ());
        }
        assert!(!self.drain.enter(), "entered after it was drained");
    }
}

fn model<D: Drain>() {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(4);
    builder.check(|| {
        let state = [UnsafeCell::new(0), UnsafeCell::new(0)];
        let device = Arc::new(Device { drain: D::default(), state, removals: AtomicUsize::new(0) });
        let users = [0, 1].map(|index| {
            let device = Arc::clone(&device);
            thread::spawn(move || device.user(index))
        });
        if device.drain.close() {
            device.remove();
        }
        for user in users {
            user.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        assert_eq!(device.removals.load(Ordering::Relaxed), 1, "exactly one hears that it is drained");
    });
}

#[test]
fn r4_1_exactly_one_goes_on_and_nobody_is_inside() {
    model::<Operable>();
}

#[test]
fn r4_1_mutant_that_looks_then_counts_is_caught() {
    assert!(catch_unwind(model::<LooksThenCounts>).is_err());
}

#[test]
fn r4_1_mutant_that_orders_nothing_is_caught() {
    assert!(catch_unwind(model::<RelaxedWord>).is_err());
}
