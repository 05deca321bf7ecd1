//! What comes from the kernel: interrupts, and the end of the device. The end always revokes before it is reported.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::node::Reading;
use super::shared::Shared;
use crate::Error;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A channel of the device raised an interrupt, and it is acknowledged: look into the rings of all of them. The
    /// number of interrupts since the device was bound; it wraps.
    Interrupt(u32),
    /// The waker is readable. It was not read.
    Woken,
    /// The time is over.
    TimedOut,
}

impl Shared {
    pub(super) fn wait(&self, waker: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Result<Event, Error> {
        // A timeout beyond what the clock can hold is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if self.is_rescinded() {
                return Err(self.gone());
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Rounded by the kernel to its clock, never shortened.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let node = PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN);
            // The node twice where there is no waker: then both entries say the same.
            let second = waker.unwrap_or_else(|| self.as_fd());
            let mut waited = [node, PollFd::from_borrowed_fd(second, PollFlags::IN)];
            match poll(&mut waited, left.as_ref()) {
                Ok(0) => return Ok(Event::TimedOut),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(Error::io("wait for", &self.node.path, error)),
            }
            let [node, second] = &waited;
            if let Some(count) = self.consume(node.revents())? {
                return Ok(Event::Interrupt(count));
            }
            if waker.is_some() && !second.revents().is_empty() {
                return Ok(Event::Woken);
            }
        }
    }

    pub(super) fn acknowledge(&self) -> Result<Option<u32>, Error> {
        self.consume(PollFlags::IN)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.is_rescinded() {
            return Err(self.gone());
        }
        let mut node = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::empty())];
        match poll(&mut node, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(Error::io("wait for", &self.node.path, error)),
        }
        let [node] = &node;
        self.consume(node.revents()).map(|_| ())
    }

    /// Reads the event count if `revents` says that there is something, and answers the end of the device.
    ///
    /// The kernel's poll returns an errno where a set of events should be, so once the device is gone many bits are
    /// set, `IN` among them, and read says `EIO`. Either is enough: nothing undoes an error bit of this node.
    fn consume(&self, revents: PollFlags) -> Result<Option<u32>, Error> {
        if revents.is_empty() {
            return Ok(None);
        }
        let ended = revents.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
        match self.node.read()? {
            Reading::Interrupts(count) if !ended => Ok(Some(count)),
            Reading::Nothing if !ended => Ok(None),
            _ => {
                self.end();
                Err(self.gone())
            }
        }
    }
}
