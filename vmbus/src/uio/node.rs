//! `/dev/uioN`: opening it, holding it alone, its event count, and its one way to signal the host.
//!
//! The crate `uio` is left out: it maps as it opens, with 4 KiB pages assumed, and panics in Drop; what remains of it
//! here are five system calls, which rustix has.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_getfl, fcntl_setfl, flock};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::Error;
use crate::holders;
use crate::sysfs::{Bus, ChannelState, Device};

/// An open `/dev/uioN` that this process holds alone.
#[derive(Debug)]
pub(super) struct Node {
    file: OwnedFd,
    pub(super) path: PathBuf,
}

/// What a read of the node gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The number of interrupts since the device was bound, for all its channels together; it wraps.
    Interrupts(u32),
    /// Nothing since the last read.
    Nothing,
    /// The kernel says that the device is gone.
    Gone,
}

impl Node {
    /// Opens the node and locks it. The first open of a device opens its channel with the host; that may take a
    /// while, and its indices start at zero.
    pub(super) fn open(path: PathBuf, bus: &Bus, device: &Device) -> Result<Self, Error> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(error) => return Err(refused(error, &path, bus, device)),
        };
        Self { file: behind_all_others(file), path }.locked(bus, device)
    }

    /// Takes a node that somebody else opened, and locks it.
    pub(super) fn adopt(file: OwnedFd, path: PathBuf, bus: &Bus, device: &Device) -> Result<Self, Error> {
        let flags = fcntl_getfl(&file).map_err(|error| Error::io("inspect", &path, error))?;
        fcntl_setfl(&file, flags | OFlags::NONBLOCK).map_err(|error| Error::io("configure", &path, error))?;
        Self { file, path }.locked(bus, device)
    }

    fn locked(self, bus: &Bus, device: &Device) -> Result<Self, Error> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(self),
            Err(Errno::WOULDBLOCK) => {
                let mut holders = holders::of(bus, device).unwrap_or_default();
                // This process has it open just now, too; it matters only if it is the only one.
                if holders.iter().any(|holder| holder.pid != std::process::id()) {
                    holders.retain(|holder| holder.pid != std::process::id());
                }
                let list: Vec<_> = holders.iter().map(ToString::to_string).collect();
                let who =
                    if list.is_empty() { "a process that is not visible here".to_owned() } else { list.join(", ") };
                let why = format!("{} is held by {who}; end it first", self.path.display());
                Err(Error::Busy { device: device.name.clone(), why })
            }
            Err(error) => Err(Error::io("lock", &self.path, error)),
        }
    }

    /// Reads the event count, without waiting. (`read` of exactly 4 bytes; Documentation/driver-api/uio-howto.rst.)
    pub(super) fn read(&self) -> Result<Reading, Error> {
        let mut count = [0_u8; 4];
        loop {
            return match rustix::io::read(&self.file, &mut count) {
                Ok(4) => Ok(Reading::Interrupts(u32::from_ne_bytes(count))),
                // A UIO node has no end; whatever stands in for one and ends is gone.
                Ok(0) | Err(Errno::IO) => Ok(Reading::Gone),
                Ok(bytes) => Err(Error::malformed(&self.path, "a 4-byte event count", format!("{bytes} bytes"))),
                Err(Errno::AGAIN) => Ok(Reading::Nothing),
                Err(Errno::INTR) => continue,
                Err(error) => Err(Error::io("read", &self.path, error)),
            };
        }
    }

    /// Writes a 1: the kernel unmasks the incoming rings of *all* channels of the device and signals the host on each
    /// that has no monitor id.
    pub(super) fn write_one(&self) -> io::Result<()> {
        let one = 1_i32.to_ne_bytes();
        loop {
            return match rustix::io::write(&self.file, &one) {
                Ok(4) => Ok(()),
                Ok(_) => Err(io::ErrorKind::WriteZero.into()),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

/// Why a node could not be opened.
fn refused(error: Errno, path: &Path, bus: &Bus, device: &Device) -> Error {
    let is_bound = device.path.join("uio").exists();
    let state = bus.refresh(device).ok().and_then(|device| device.state);
    match what_it_means(error, is_bound, state) {
        Refused::Going => Error::Rescinded { device: device.name.clone() },
        Refused::Stuck => Error::Unsupported {
            device: device.name.clone(),
            what: format!("the kernel won't open its channel again ({error})"),
            hint: "it was probably unbound while a process had it open; only a reboot helps".to_owned(),
        },
        Refused::Otherwise => Error::io("open", path, error),
    }
}

/// What an error of `open` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// The device is gone, or about to.
    Going,
    /// The channel will never be opened again.
    Stuck,
    Otherwise,
}

/// Whether the device has a UIO folder, and the state of its channel, tell apart what has the same number.
fn what_it_means(error: Errno, is_bound: bool, state: Option<ChannelState>) -> Refused {
    match error {
        // The minor number is nobody's any more; or the host took the channel back while the kernel opened it, which has
        // not unregistered the device yet.
        Errno::NODEV => Refused::Going,
        Errno::NOENT | Errno::NXIO | Errno::INVAL if !is_bound => Refused::Going,
        // The kernel opens only a channel that it knows as closed, and it forgets to close one whose device is unbound
        // while it is open: the last release finds no driver any more that would do it. With a channel that is closed
        // it is the node that has lost its device, a moment before its folder goes.
        Errno::INVAL => match state {
            Some(state) if state != ChannelState::OPENED => Refused::Going,
            _ => Refused::Stuck,
        },
        _ => Refused::Otherwise,
    }
}

/// Gives the descriptor a number behind those that a program opens early. When a process is killed, the kernel closes
/// its files in the reverse order of these numbers; so the channel closes before, say, memory that the host may still
/// use is given back. With few descriptors allowed it stays where it is.
fn behind_all_others(file: OwnedFd) -> OwnedFd {
    const FIRST: i32 = 512;
    fcntl_dupfd_cloexec(&file, FIRST).unwrap_or(file)
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_that_fails_because_the_device_goes_is_told_from_others() {
        let (closed, open) = (Some(ChannelState::OPEN), Some(ChannelState::OPENED));
        #[rustfmt::skip]
        let table = [
            (Errno::NODEV, true, open, Refused::Going),
            (Errno::NODEV, false, None, Refused::Going),
            (Errno::NOENT, false, None, Refused::Going),
            (Errno::NOENT, true, closed, Refused::Otherwise),
            (Errno::NXIO, true, closed, Refused::Otherwise),
            (Errno::INVAL, false, None, Refused::Going),
            (Errno::INVAL, true, closed, Refused::Going),
            (Errno::INVAL, true, open, Refused::Stuck),
            (Errno::INVAL, true, None, Refused::Stuck),
            (Errno::ACCESS, true, closed, Refused::Otherwise),
            (Errno::AGAIN, true, closed, Refused::Otherwise),
        ];
        for (error, is_bound, state, expected) in table {
            assert_eq!(what_it_means(error, is_bound, state), expected, "{error} {is_bound} {state:?}");
        }
    }
}
