//! Eventfds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read};

/// A new eventfd that does not block.
pub(crate) fn new() -> rustix::io::Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

/// Takes the count of an eventfd that does not block; whether there was one.
pub(crate) fn take(event: BorrowedFd<'_>) -> bool {
    loop {
        match read(event.as_fd(), &mut [0_u8; 8]) {
            Err(Errno::INTR) => {}
            outcome => return outcome.is_ok(),
        }
    }
}
