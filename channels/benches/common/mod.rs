//! What is measured, and the yardsticks.

pub(crate) mod control;
pub(crate) mod events;

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A contestant: does it so often, and says how long that took.
pub(crate) type Race = Box<dyn FnMut(u64) -> Duration>;

/// Times a body that does one at a time.
pub(crate) fn each(mut body: impl FnMut() + 'static) -> Race {
    Box::new(move |times| {
        let start = Instant::now();
        for _ in 0..times {
            body();
        }
        start.elapsed()
    })
}

/// An uncontended mutex, locked and unlocked.
pub(crate) fn mutex() -> Race {
    let mutex = Mutex::new(0_u64);
    each(move || {
        if let Ok(mut value) = black_box(&mutex).lock() {
            *value += 1;
        }
    })
}

/// An atomic addition.
pub(crate) fn atomic_add() -> Race {
    let value = AtomicU64::new(0);
    each(move || {
        black_box(&value).fetch_add(1, Ordering::SeqCst);
    })
}

/// A reference taken and given back.
pub(crate) fn arc_clone() -> Race {
    let value = Arc::new(0_u64);
    each(move || drop(black_box(Arc::clone(black_box(&value)))))
}
