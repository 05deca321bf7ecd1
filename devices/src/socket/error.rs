//! What goes wrong below a socket, as std's kinds of errors have it.

use std::io;

use vmbus::message::Status;
use vmbus_channels::Error;

use super::endpoint::Refused;
use super::frame::NoFrame;

/// The kind of a channel's error, as a socket's user knows it.
fn kind(error: &Error) -> io::ErrorKind {
    match error {
        error if error.is_rescinded() => io::ErrorKind::ConnectionReset,
        Error::Gone(_) => io::ErrorKind::ConnectionReset,
        Error::Host { status: Status::CONNECTION_REFUSED, .. } => io::ErrorKind::ConnectionRefused,
        Error::Host { .. } => io::ErrorKind::ConnectionRefused,
        Error::Silent { .. } | Error::Stalled { .. } => io::ErrorKind::TimedOut,
        Error::TooOld { .. } | Error::Feature { .. } => io::ErrorKind::Unsupported,
        Error::NotFound(_) => io::ErrorKind::ConnectionRefused,
        Error::State { .. } | Error::InUse { .. } => io::ErrorKind::ResourceBusy,
        Error::TooMany { .. } | Error::Memory { .. } => io::ErrorKind::OutOfMemory,
        Error::NotConnected => io::ErrorKind::NetworkDown,
        Error::Ended | Error::Lost { .. } | Error::Panicked { .. } => io::ErrorKind::NetworkDown,
        Error::Closed { .. } => io::ErrorKind::ConnectionAborted,
        Error::Corrupt { .. } => io::ErrorKind::InvalidData,
        Error::Argument(_) | Error::Packet { .. } => io::ErrorKind::InvalidInput,
        Error::Callback { .. } => io::ErrorKind::Deadlock,
        Error::Full { .. } | Error::Woken { .. } => io::ErrorKind::WouldBlock,
        _ => io::ErrorKind::Other,
    }
}

/// A channel's error as a socket's.
pub(super) fn of_channel(error: Error) -> io::Error {
    match error {
        Error::Link(vmbus::Error::Io { source, .. }) if source.raw_os_error().is_some() => source,
        error => io::Error::new(kind(&error), error),
    }
}

/// What a peer sent that is no pipe's packet.
pub(super) fn of_frame(error: NoFrame) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        let kind = match refused {
            Refused::Taken => io::ErrorKind::AddrInUse,
            Refused::Full => io::ErrorKind::OutOfMemory,
            Refused::Ended => io::ErrorKind::NetworkDown,
            Refused::Bound | Refused::NotListening => io::ErrorKind::InvalidInput,
            Refused::Closed => io::ErrorKind::ConnectionAborted,
            Refused::TimedOut => io::ErrorKind::WouldBlock,
        };
        Self::new(kind, refused)
    }
}
