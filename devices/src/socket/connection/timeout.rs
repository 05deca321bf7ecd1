//! How long a side of a connection waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A limit that clones of a stream share; none at first.
#[derive(Debug, Default)]
pub(in crate::socket) struct Timeout {
    /// Zero is no limit.
    nanoseconds: AtomicU64,
}

impl Timeout {
    pub(in crate::socket) fn set(&self, timeout: Option<Duration>) {
        let nanoseconds = timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).max(1));
        self.nanoseconds.store(nanoseconds, Ordering::Relaxed);
    }

    pub(in crate::socket) fn get(&self) -> Option<Duration> {
        match self.nanoseconds.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    /// When a wait that begins now is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.get().and_then(|timeout| Instant::now().checked_add(timeout))
    }
}
