//! Which threads must not wait for the bus, because what they would wait for needs them.

use std::cell::Cell;

use crate::Error;

thread_local! {
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread serves the bus: the executor's thread, and the dispatchers'.
pub(crate) fn serves_the_bus() {
    SERVES.set(true);
}

/// Whether this thread may wait for the bus.
///
/// # Errors
/// [`Error::Callback`].
pub(crate) fn may_wait(what: &'static str) -> Result<(), Error> {
    if SERVES.get() { Err(Error::Callback { what }) } else { Ok(()) }
}
