//! The primitives that groups are made of: those of std, or of a model checker that stands in for them.

use std::time::Instant;

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(loom)]
pub(super) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
#[cfg(all(shuttle, not(loom)))]
pub(super) use shuttle::sync::atomic::{AtomicU32, Ordering};
#[cfg(all(shuttle, not(loom)))]
pub(super) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
#[cfg(not(any(loom, shuttle)))]
pub(super) use std::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(any(loom, shuttle)))]
pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Locks; what a panicking holder left is sound, as nothing here panics between two changes that belong together.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits for a change until a deadline; `false` when the time is over.
#[cfg(not(any(loom, shuttle)))]
pub(super) fn wait<'a, T>(
    changed: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> (MutexGuard<'a, T>, bool) {
    let Some(deadline) = deadline else {
        return (changed.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner), true);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return (guard, false);
    }
    let (guard, _) = changed.wait_timeout(guard, left).unwrap_or_else(std::sync::PoisonError::into_inner);
    (guard, true)
}

/// The same in a model, where no time passes.
#[cfg(any(loom, shuttle))]
pub(super) fn wait<'a, T>(
    changed: &Condvar,
    guard: MutexGuard<'a, T>,
    _deadline: Option<Instant>,
) -> (MutexGuard<'a, T>, bool) {
    (changed.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner), true)
}

/// Whether a model has found something: its primitives can't be used while the thread unwinds.
#[cfg(any(loom, shuttle))]
pub(super) fn is_unwinding() -> bool {
    std::thread::panicking()
}

/// Outside of models nothing is amiss with them.
#[cfg(not(any(loom, shuttle)))]
pub(super) const fn is_unwinding() -> bool {
    false
}
