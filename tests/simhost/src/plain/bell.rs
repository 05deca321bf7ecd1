//! What ends the waits of other threads, once and for all.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

/// Ends the waits of other threads: those that wait, and those that will.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A bell that has not rung.
    ///
    /// # Errors
    /// There are no descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Rings for good.
    pub fn ring(&self) {
        // A counter that is full has rung, too.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until a descriptor is ready.
    ///
    /// # Errors
    /// `ConnectionAborted` once the bell has rung; a system call failed.
    pub fn wait(&self, descriptor: impl AsFd, for_what: PollFlags) -> io::Result<()> {
        loop {
            let mut on = [PollFd::new(&self.0, PollFlags::IN), PollFd::new(&descriptor, for_what)];
            match poll(&mut on, None) {
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            let [rung, _] = &on;
            return if rung.revents().is_empty() { Ok(()) } else { Err(io::ErrorKind::ConnectionAborted.into()) };
        }
    }
}
