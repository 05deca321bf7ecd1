//! A protection that tests can remove, to see what it is for. In an ordinary build there is no way to do so.

#[cfg(feature = "mutations")]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "mutations")]
static LEAVES_MAPPINGS: AtomicBool = AtomicBool::new(false);

/// From here on, and for the whole process, a revocation leaves all mappings as they are: whoever still writes to the
/// memory of a device that is gone writes to memory that the kernel has given to somebody else. (What answers bus
/// errors stays.) For a machine that is about to be thrown away.
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub fn leave_mappings() {
    LEAVES_MAPPINGS.store(true, Ordering::SeqCst);
}

/// Whether a revocation takes mappings away.
#[cfg(feature = "mutations")]
pub(crate) fn revokes() -> bool {
    !LEAVES_MAPPINGS.load(Ordering::SeqCst)
}

/// Whether a revocation takes mappings away.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn revokes() -> bool {
    true
}
