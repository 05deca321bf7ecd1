//! What applications are told: kinds as sockets have them, and words that say what happened and what to do.

use std::io::{Error, ErrorKind};

use vmbus_channels::group::{Over, Refused};

use super::wire::Reason;

/// A stream is over, for this reason.
pub(super) fn over(reason: Reason) -> Error {
    let (kind, words) = match reason {
        Reason::ABORTED => (ErrorKind::ConnectionReset, "the stream was given up; connect anew"),
        Reason::UNKNOWN => (ErrorKind::ConnectionReset, "the other side has lost the stream; connect anew"),
        Reason::REFUSED => (ErrorKind::ConnectionRefused, "nobody takes the stream on the other side"),
        Reason::NONSENSE => (ErrorKind::InvalidData, "the other side broke the protocol of the stream; connect anew"),
        Reason::LOST => (
            ErrorKind::ConnectionAborted,
            "the stream's channel ended, and with it what was under way; connect anew, or use numbered streams",
        ),
        Reason::ENDED => (
            ErrorKind::ConnectionAborted,
            "the device's channels have ended, and the stream with them; open the device again when it is back",
        ),
        Reason::DONE => (ErrorKind::BrokenPipe, "both ends of the stream were said"),
        _ => (ErrorKind::ConnectionReset, "the other side has ended the stream; connect anew"),
    };
    Error::new(kind, words)
}

/// The group refuses.
pub(super) fn refused(refused: Refused) -> Error {
    let kind = match refused {
        Refused::NeverConnected => ErrorKind::NotConnected,
        Refused::WasConnected(Over::LinkLost) => return over(Reason::LOST),
        Refused::WasConnected(Over::PrimaryLost | Over::NoLink) => return over(Reason::ENDED),
        Refused::WasConnected(_) | Refused::Ended(_) => ErrorKind::ConnectionAborted,
        Refused::TimedOut => return timed_out(),
        Refused::Full => ErrorKind::QuotaExceeded,
        Refused::Connected => ErrorKind::InvalidInput,
        _ => ErrorKind::NotConnected,
    };
    Error::new(kind, refused)
}

/// A timeout of a socket.
pub(super) fn timed_out() -> Error {
    Error::new(ErrorKind::WouldBlock, "nothing happened on the stream within its timeout")
}
