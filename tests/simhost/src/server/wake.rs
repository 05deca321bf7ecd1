//! An eventfd that wakes a thread of the server.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};

use crate::Error;

/// Wakes one thread.
#[derive(Debug)]
pub(super) struct Wake(OwnedFd);

impl Wake {
    pub(super) fn new() -> Result<Self, Error> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        event.map(Self).map_err(|error| Error::System { what: "create an eventfd", error: error.into() })
    }

    pub(super) fn wake(&self) {
        // A counter that is full wakes as well.
        while write(&self.0, &1_u64.to_ne_bytes()) == Err(Errno::INTR) {}
    }

    /// Takes note: until the next `wake` it does not wake.
    pub(super) fn clear(&self) {
        while read(&self.0, &mut [0_u8; 8]) == Err(Errno::INTR) {}
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for one of these, or the time.
pub(super) fn wait(on: &mut [PollFd<'_>], timeout: Option<std::time::Duration>) {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(on, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => log::error!(target: "vmbus::simhost", "poll: {error}"),
    }
}
