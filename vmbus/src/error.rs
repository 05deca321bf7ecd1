//! The crate's one error type, and the few kinds that a command's exit code is made of.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use serde::{Serialize, Serializer};

/// What went wrong, on which device, and what to try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel shows no VMBus here.
    #[error(
        "no VMBus: {} does not exist; this machine is not a Hyper-V guest, or the module hv_vmbus is not loaded",
        path.display()
    )]
    NoBus {
        /// The folder that should be there.
        path: PathBuf,
    },
    /// No device answers to the selector.
    #[error("no VMBus device matches {selector:?}; `vmbusctl list` shows what there is")]
    NotFound {
        /// What was asked for.
        selector: String,
    },
    /// The selector is ambiguous or makes no sense.
    #[error("{selector:?} {why}")]
    Selector {
        /// What was asked for.
        selector: String,
        /// Why it selects no single device, and what would.
        why: String,
    },
    /// The kernel does not let this process do it.
    #[error("cannot {action} {}: permission denied; run as root with its usual capabilities", path.display())]
    Permission {
        /// What was being done, such as `write`.
        action: &'static str,
        /// The file it was done to.
        path: PathBuf,
    },
    /// Another process uses the device or the binder's lock.
    #[error("device {device} is busy: {why}")]
    Busy {
        /// The device, by its sysfs name, or what else is busy.
        device: String,
        /// Who holds it, and what to do.
        why: String,
    },
    /// The host took the device back, or it was unbound.
    #[error(
        "device {device} is gone: the host rescinded it or it was unbound; wait for a new offer, then open it again"
    )]
    Rescinded {
        /// The device, by its sysfs name.
        device: String,
    },
    /// Something did not happen in time.
    #[error("device {device}: {waiting_for} did not appear within {} ms; {hint}", timeout.as_millis())]
    Timeout {
        /// The device, by its sysfs name or by the selector it was waited for.
        device: String,
        /// What was waited for.
        waiting_for: String,
        /// How long.
        timeout: Duration,
        /// What to try.
        hint: &'static str,
    },
    /// A file does not hold what its format says.
    #[error("{} holds {found:?} where {expected} should be; nothing but a bug or an editor puts that there", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the format asks for.
        expected: &'static str,
        /// What was there, shortened.
        found: String,
    },
    /// It would harm the machine, and was not forced.
    #[error("device {device} stays as it is: {why}")]
    Refused {
        /// The device, by its sysfs name.
        device: String,
        /// What would be lost, and how to insist where that is possible.
        why: String,
    },
    /// A driver that is needed is not registered with the bus.
    #[error("device {device} needs the driver {driver}, which is not loaded; try `modprobe {driver}`")]
    NoDriver {
        /// The device, by its sysfs name.
        device: String,
        /// The driver's name.
        driver: String,
    },
    /// The kernel's driver refused the device.
    #[error("the kernel refused to bind device {device} to {driver}: {source}; {hint}")]
    BindFailed {
        /// The device, by its sysfs name.
        device: String,
        /// The driver's name.
        driver: String,
        /// What the kernel answered.
        source: io::Error,
        /// What to try.
        hint: String,
    },
    /// The other side of a ring broke the protocol.
    #[error("device {device}: {what}; the channel is closed, open the device again to start over")]
    Corrupt {
        /// The device, by its sysfs name.
        device: String,
        /// What was wrong, with the values found.
        what: String,
    },
    /// The kernel lacks something that is needed.
    #[error("device {device}: {what}; {hint}")]
    Unsupported {
        /// The device, by its sysfs name.
        device: String,
        /// What is missing.
        what: String,
        /// What to try.
        hint: String,
    },
    /// The other end of a wire is gone.
    #[error("the connection is gone: {why}; connect again")]
    Disconnected {
        /// What was seen of it.
        why: String,
    },
    /// A wire never became a connection.
    #[error("no connection was made: {why}; check that guest and host are of one version")]
    Handshake {
        /// Who refused what.
        why: String,
    },
    /// The operating system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, such as `read`.
        action: &'static str,
        /// The file it was done to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The kinds of [`Error`] that a caller, or a command's exit code, tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// Anything not named below. Exit code 1.
    Failed,
    /// The request itself makes no sense. Exit code 2.
    Usage,
    /// No VMBus, or no such device. Exit code 3.
    NoDevice,
    /// Rights are missing. Exit code 4.
    Permission,
    /// Somebody else uses the device. Exit code 5.
    Busy,
    /// The device was taken back. Exit code 6.
    Rescinded,
}

impl ErrorKind {
    /// The exit code of a command that ends with an error of this kind.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoDevice => 3,
            Self::Permission => 4,
            Self::Busy => 5,
            Self::Rescinded => 6,
        }
    }
}

impl Error {
    /// An error of the operating system about `path`; `EACCES` and `EPERM` become [`Error::Permission`].
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.as_ref().to_owned(), source.into());
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { action, path },
            _ => Self::Io { action, path, source },
        }
    }

    /// A file that does not hold what it should; `found` is shortened to what fits a line.
    pub fn malformed(path: impl AsRef<Path>, expected: &'static str, found: impl fmt::Display) -> Self {
        const LONGEST: usize = 80;
        let found = found.to_string();
        let mut short: String = found.chars().take(LONGEST).collect();
        if short.len() < found.len() {
            short.push('…');
        }
        Self::Malformed { path: path.as_ref().to_owned(), expected, found: short }
    }

    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoBus { .. } | Self::NotFound { .. } => ErrorKind::NoDevice,
            Self::Selector { .. } => ErrorKind::Usage,
            Self::Permission { .. } => ErrorKind::Permission,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Rescinded { .. } => ErrorKind::Rescinded,
            _ => ErrorKind::Failed,
        }
    }

    /// The device that the error is about, by its sysfs name, where there is one.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        match self {
            Self::Busy { device, .. }
            | Self::Rescinded { device }
            | Self::Timeout { device, .. }
            | Self::Refused { device, .. }
            | Self::NoDriver { device, .. }
            | Self::BindFailed { device, .. }
            | Self::Corrupt { device, .. }
            | Self::Unsupported { device, .. } => Some(device),
            _ => None,
        }
    }

    /// Whether a file was missing, or its device is being removed (`ENOENT`, `ENODEV`, `ENXIO`).
    #[must_use]
    pub(crate) fn is_vanished(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_vanished(source),
            _ => false,
        }
    }
}

/// Whether an answer of the kernel means that the file, or the device behind it, is not there any more.
pub(crate) fn is_vanished(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOTDIR))
}

impl Serialize for Error {
    /// As `{"kind", "device", "message"}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            kind: ErrorKind,
            device: Option<&'a str>,
            message: String,
        }
        Shape { kind: self.kind(), device: self.device(), message: self.to_string() }.serialize(serializer)
    }
}
