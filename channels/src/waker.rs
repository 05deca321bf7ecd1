//! Ends a wait from another thread: an eventfd that the channel polls next to the device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use vmbus::Error;

/// Wakes the thread that waits in a [`Channel`](crate::Channel). Clones wake the same channel, from any thread, also
/// from a signal handler's thread; after the channel is closed a wake does nothing.
#[derive(Debug, Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Ends a sleep.
    event: OwnedFd,
    /// Tells a thread that does not sleep, because the host keeps it busy, without a system call.
    woken: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> Result<Self, Error> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let event = event.map_err(|error| Error::io("create", "an eventfd", error))?;
        Ok(Self { shared: Arc::new(Shared { event, woken: AtomicBool::new(false) }) })
    }

    /// Ends the current wait, or the next one if nobody waits now. Several wakes before that count as one.
    pub fn wake(&self) {
        // The flag first: whoever takes note of the event alone finds the flag the next time.
        self.shared.woken.store(true, Ordering::Release);
        // Refused only when 2^64 - 2 wakes are outstanding, and then the event is readable anyway.
        let _ = rustix::io::write(&self.shared.event, &1_u64.to_ne_bytes());
    }

    /// Ends the current sleep and all later ones, without a wake: the channel has ended, which whoever sleeps finds.
    pub(crate) fn interrupt(&self) {
        let _ = rustix::io::write(&self.shared.event, &1_u64.to_ne_bytes());
    }

    /// Whether a wake is outstanding, as far as a load tells.
    pub(crate) fn is_woken(&self) -> bool {
        self.shared.woken.load(Ordering::Acquire)
    }

    /// Takes note of all wakes so far. One that comes meanwhile leaves its flag or its event behind.
    pub(crate) fn clear(&self) {
        self.shared.woken.store(false, Ordering::Relaxed);
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.shared.event, &mut count);
    }
}

impl AsFd for Waker {
    /// Readable while a wake is outstanding.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}
