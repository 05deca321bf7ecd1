//! Ends a wait from another thread: an eventfd that the channel polls next to the device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use vmbus::Error;

/// Wakes the thread that waits in a [`Channel`](crate::Channel). Clones wake the same channel, from any thread, also
/// from a signal handler's thread; after the channel is closed a wake does nothing.
#[derive(Debug, Clone)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    pub(crate) fn new() -> Result<Self, Error> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self { event: Arc::new(event.map_err(|error| Error::io("create", "an eventfd", error))?) })
    }

    /// Ends the current wait, or the next one if nobody waits now. Several wakes before that count as one.
    pub fn wake(&self) {
        // Refused only when 2^64 - 2 wakes are outstanding, and then the event is readable anyway.
        let _ = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
    }

    /// Takes note of all wakes so far.
    pub(crate) fn clear(&self) {
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&*self.event, &mut count);
    }
}

impl AsFd for Waker {
    /// Readable while a wake is outstanding.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
