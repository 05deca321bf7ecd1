//! Tells a thread that its channel needs it: a flag, and an eventfd to sleep on, written once for any number of raises.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::Error;

/// Tells a thread that its channel needs it. Clones are the same notifier; any thread may raise it.
#[derive(Debug, Clone)]
pub struct Notifier {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    raised: AtomicBool,
    event: OwnedFd,
}

impl Notifier {
    /// A notifier that is not raised.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn new() -> Result<Self, Error> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let event = event.map_err(|error| vmbus::Error::io("create", "an eventfd", error))?;
        Ok(Self { shared: Arc::new(Shared { raised: AtomicBool::new(false), event }) })
    }

    /// Raises it. Everything that this thread has done before is seen by whoever clears it next.
    pub fn raise(&self) {
        // Between what happened and the look at the flag; the other half is in `clear`.
        fence(Ordering::SeqCst);
        if self.shared.raised.load(Ordering::Relaxed) {
            return;
        }
        self.shared.raised.store(true, Ordering::Release);
        // Refused only when 2^64 - 2 are outstanding, and then the event is readable anyway.
        let _ = rustix::io::write(&self.shared.event, &1_u64.to_ne_bytes());
    }

    /// Takes note of all raises so far. Look at what they were about *behind* it; what comes later raises it again.
    pub fn clear(&self) {
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.shared.event, &mut count);
        self.shared.raised.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether it is raised, without a system call.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.shared.raised.load(Ordering::Acquire)
    }

    /// Sleeps until it is raised, or for so long. Does not clear it. Whether it is raised.
    ///
    /// # Errors
    /// The system call failed.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut waited = [PollFd::new(&self.shared.event, PollFlags::IN)];
        match poll(&mut waited, timeout.as_ref()) {
            Ok(ready) => Ok(ready != 0),
            Err(Errno::INTR) => Ok(self.is_raised()),
            Err(error) => Err(vmbus::Error::io("wait for", "an eventfd", error).into()),
        }
    }
}

impl AsFd for Notifier {
    /// Readable while it is raised (and perhaps once more than that).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}
