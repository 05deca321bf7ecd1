//! The kernel's announcements of devices that come, change and go.
//!
//! An announcement is a hint to look at sysfs, nothing more: sysfs is the truth, and announcements can get lost.

mod parse;
mod wait;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with, sockopt};

use crate::Error;

pub use parse::{NotUevent, parse};
pub(crate) use wait::hints;
pub use watch::{Change, Seen, Watch, What};

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
    /// The object's subsystem: `vmbus` for devices, `channels` for their channels, `uio` for UIO devices.
    pub subsystem: Option<String>,
    /// All the `KEY=value` pairs, the ones above included.
    pub properties: BTreeMap<String, String>,
}

impl Uevent {
    /// Whether it is about a VMBus device, a channel or a UIO device.
    #[must_use]
    pub fn concerns_vmbus(&self) -> bool {
        matches!(self.subsystem.as_deref(), Some("vmbus" | "channels" | "uio"))
    }

    /// Whether it is about the device with this sysfs name, or about something in its folder.
    #[must_use]
    pub fn concerns(&self, device: &str) -> bool {
        self.devpath.split('/').any(|part| part == device)
    }
}

/// What [`Monitor::next`] brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An announcement.
    Uevent(Uevent),
    /// Announcements were dropped or unreadable: look at sysfs again.
    Lost,
}

/// The multicast group that the kernel speaks to; udev's own is 2.
const KERNEL_GROUP: u32 = 1;
/// More than the kernel's 2 KiB of pairs and a page of path.
const LONGEST_MESSAGE: usize = 16 * 1024;
/// Room for about a thousand announcements, as when a host offers hundreds of channels at once.
const QUEUE_BYTES: usize = 4 << 20;
const SOCKET: &str = "the uevent socket (NETLINK_KOBJECT_UEVENT)";

/// A subscription to the kernel's announcements.
///
/// They reach only the network namespaces of the initial user namespace: in others this stays silent.
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
        let failed = |error: Errno| Error::io("open", SOCKET, error);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT));
        let socket = socket.map_err(failed)?;
        if sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES).is_err() {
            // Without CAP_NET_ADMIN the system's limit holds; overruns are reported in any case.
            let _ = sockopt::set_socket_recv_buffer_size(&socket, QUEUE_BYTES);
        }
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP)).map_err(failed)?;
        Ok(Self { socket })
    }

    /// The next event; `None` when `timeout` passed without one. A timeout of `None` waits forever.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event>, Error> {
        // A timeout too long for the clock is no timeout.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.receive()? {
                return Ok(Some(event));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) || !self.wait(left)? {
                return Ok(None);
            }
        }
    }

    /// Takes one message off the queue; `None` where there is none, or where it is not the kernel's.
    fn receive(&mut self) -> Result<Option<Event>, Error> {
        let mut buffer = [0_u8; LONGEST_MESSAGE];
        match recvfrom(&self.socket, &mut buffer, RecvFlags::TRUNC) {
            Ok((taken, length, sender)) => {
                let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
                Ok(classify(buffer.get(..taken).unwrap_or_default(), length, sender.map(|sender| sender.pid())))
            }
            Err(Errno::NOBUFS) => Ok(Some(Event::Lost)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(Error::io("read from", SOCKET, error)),
        }
    }

    /// Whether there is something to receive before `left` has passed.
    fn wait(&self, left: Option<Duration>) -> Result<bool, Error> {
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(Error::io("wait for", SOCKET, io::Error::from(error))),
        }
    }
}

/// Where announcements come from: the kernel ([`Monitor`]), or a double of it. The descriptor is readable when
/// [`next_now`](Self::next_now) has something.
pub trait Announcements: AsFd + Send + fmt::Debug {
    /// The next event, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing more will come.
    fn next_now(&mut self) -> Result<Option<Event>, Error>;
}

impl Announcements for Monitor {
    fn next_now(&mut self) -> Result<Option<Event>, Error> {
        self.next(Some(Duration::ZERO))
    }
}

impl AsFd for Monitor {
    /// Readable when [`next`](Monitor::next) has something; it never blocks with a timeout of zero.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What a message of `length` bytes, of which `bytes` fitted, means. `sender` is the netlink address it came from.
///
/// Any process may send to this socket's own address; the kernel alone has the address 0.
fn classify(bytes: &[u8], length: usize, sender: Option<u32>) -> Option<Event> {
    if sender != Some(0) {
        log::debug!(target: "vmbus::uevent", "ignored a message that is not the kernel's");
        return None;
    }
    if length > bytes.len() {
        return Some(Event::Lost);
    }
    match parse(bytes) {
        Ok(event) => Some(Event::Uevent(event)),
        Err(error) => {
            log::debug!(target: "vmbus::uevent", "unreadable announcement: {error}");
            Some(Event::Lost)
        }
    }
}

#[cfg(test)]
mod tests;
