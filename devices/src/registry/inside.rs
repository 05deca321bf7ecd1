//! Which thread is in a driver's callback: so that a call that waits for callbacks is refused there.

use std::cell::RefCell;
use std::marker::PhantomData;

use super::sync::thread_local;

thread_local! {
    /// The registries in whose callbacks this thread is, by number.
    static INSIDE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// This thread is in a callback of a registry while this lives.
#[derive(Debug)]
pub(super) struct Inside {
    registry: u64,
    /// It belongs to its thread.
    thread: PhantomData<*const ()>,
}

impl Inside {
    pub(super) fn enter(registry: u64) -> Self {
        let _ = INSIDE.try_with(|inside| inside.borrow_mut().push(registry));
        Self { registry, thread: PhantomData }
    }

    /// Whether this thread is in a callback of the registry.
    pub(super) fn is(registry: u64) -> bool {
        INSIDE.try_with(|inside| inside.borrow().contains(&registry)).unwrap_or(false)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // A thread that ends may drop this after its local values.
        let _ = INSIDE.try_with(|inside| {
            let mut inside = inside.borrow_mut();
            if let Some(at) = inside.iter().rposition(|registry| *registry == self.registry) {
                inside.remove(at);
            }
        });
    }
}
