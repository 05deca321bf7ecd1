//! The kernel's announcements of devices that come, change and go.

mod wait;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::Error;

/// What happened to a kernel object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// It is there now.
    Add,
    /// It is gone.
    Remove,
    /// It changed.
    Change,
    /// It has another name.
    Move,
    /// Back in use.
    Online,
    /// Out of use.
    Offline,
    /// A driver took it.
    Bind,
    /// A driver gave it up.
    Unbind,
    /// Anything newer.
    Other(String),
}

/// One announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uevent {
    /// What happened.
    pub action: Action,
    /// The object's path below `/sys`, beginning with a slash.
    pub devpath: String,
    /// The object's subsystem: `vmbus` for devices, `uio` for UIO devices; channels have none of their own.
    pub subsystem: Option<String>,
    /// All the `KEY=value` pairs, the ones above included.
    pub properties: BTreeMap<String, String>,
}

/// What [`Monitor::next`] brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An announcement.
    Uevent(Uevent),
    /// The kernel dropped announcements because they were not taken in time: look at sysfs again.
    Lost,
}

/// A subscription to the kernel's announcements.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
}

impl Monitor {
    /// Subscribes; what happens from here on is not missed (or is reported as [`Event::Lost`]).
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Permission`] where the kernel refuses the socket.
    pub fn open() -> Result<Self, Error> {
        Err(Error::io("open", "netlink", std::io::Error::from(std::io::ErrorKind::Unsupported)))
    }

    /// The next event; `None` when `timeout` passed without one. A timeout of `None` waits forever.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event>, Error> {
        let _ = timeout;
        Ok(None)
    }
}

impl AsFd for Monitor {
    /// Readable when [`next`](Monitor::next) has something; it never blocks with a timeout of zero.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
