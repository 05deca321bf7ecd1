//! One descriptor for what several show: the channel's own, and what waits behind the ring.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::PoisonError;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// Readable while any of them is.
#[derive(Debug)]
pub(super) struct Readiness {
    set: OwnedFd,
    event: OwnedFd,
    /// Whether the event is raised.
    shows: Mutex<bool>,
}

impl Readiness {
    pub(super) fn new(receiver: BorrowedFd<'_>, sender: BorrowedFd<'_>) -> Result<Self, Errno> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        for (number, descriptor) in (0..).zip([receiver, sender, event.as_fd()]) {
            epoll::add(&set, descriptor, EventData::new_u64(number), EventFlags::IN)?;
        }
        Ok(Self { set, event, shows: Mutex::new(false) })
    }

    /// Whether something waits that the channel's descriptors do not show.
    pub(super) fn show(&self, there: bool) {
        let mut shows = self.shows.lock().unwrap_or_else(PoisonError::into_inner);
        if *shows == there {
            return;
        }
        *shows = there;
        // Neither can fail: the count is zero or one.
        let _ = if there {
            rustix::io::write(&self.event, &1_u64.to_ne_bytes())
        } else {
            rustix::io::read(&self.event, &mut [0; 8])
        };
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}
