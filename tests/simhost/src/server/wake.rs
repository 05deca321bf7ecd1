//! An eventfd that wakes a thread of the server.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};

use crate::Error;

/// Wakes one thread. The eventfd is written only while that thread may be asleep: each side sets its own flag, and then
/// looks at the other's.
#[derive(Debug)]
pub struct Wake {
    event: OwnedFd,
    /// Somebody wants the thread's attention.
    wanted: AtomicBool,
    /// The thread sleeps, or is about to.
    asleep: AtomicBool,
}

impl Wake {
    /// Nobody sleeps, and nobody is wanted.
    ///
    /// # Errors
    /// [`Error::System`] when there are no descriptors.
    pub fn new() -> Result<Self, Error> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let event = event.map_err(|error| Error::System { what: "create an eventfd", error: error.into() })?;
        Ok(Self { event, wanted: AtomicBool::new(false), asleep: AtomicBool::new(false) })
    }

    /// Ends the thread's sleep, or the next one. What was done before is there for it to find.
    pub fn wake(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            // A counter that is full wakes as well.
            while write(&self.event, &1_u64.to_ne_bytes()) == Err(Errno::INTR) {}
        }
    }

    /// Waits for one of these, of which the first is this one, or for the time. Takes note of all wakes so far.
    pub fn sleep(&self, on: &mut [PollFd<'_>], timeout: Option<Duration>) {
        self.sleep_by(timeout, |timeout| {
            wait(on, timeout);
            on.first().is_some_and(|own| !own.revents().is_empty())
        });
    }

    /// The same, by whatever waits for so long and says whether this one's descriptor was readable.
    pub(super) fn sleep_by(&self, timeout: Option<Duration>, wait: impl FnOnce(Option<Duration>) -> bool) {
        self.asleep.store(true, Ordering::SeqCst);
        let timeout = if self.wanted.load(Ordering::SeqCst) { Some(Duration::ZERO) } else { timeout };
        let rang = wait(timeout);
        self.asleep.store(false, Ordering::SeqCst);
        // Before the thread looks at what it is wanted for: who wants it later says so again.
        self.wanted.swap(false, Ordering::SeqCst);
        if rang {
            while read(&self.event, &mut [0_u8; 8]) == Err(Errno::INTR) {}
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Waits for one of these, or the time.
fn wait(on: &mut [PollFd<'_>], timeout: Option<Duration>) {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(on, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => log::error!(target: "vmbus::simhost", "poll: {error}"),
    }
}
