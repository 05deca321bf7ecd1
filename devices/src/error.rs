//! The crate's one error type.

use crate::balloon::state::Failure;
use crate::storage;
use vmbus::ErrorKind;

/// What went wrong with a device, and what to try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The channel to the host: the device is gone, busy or not permitted; the host broke the rings.
    #[error(transparent)]
    Channel(#[from] vmbus_channels::Error),
    /// This system: a file of `/proc`, or what pinning memory needs.
    #[error(transparent)]
    System(#[from] vmbus::Error),
    /// Host and guest can't agree.
    #[error("device {device}: {failure}; see that Dynamic Memory is enabled for this virtual machine")]
    Negotiation {
        /// The device, by its sysfs name.
        device: String,
        /// On what.
        failure: Failure,
    },
    /// A network adapter's host and this guest can't agree, or the host refuses something.
    #[error("network adapter {device}: {failure}")]
    Network {
        /// The device, by its instance id.
        device: String,
        /// On what.
        failure: crate::net::Failure,
    },
    /// A call that waits for callbacks of drivers was made from one.
    #[error(
        "{what} waits for drivers' callbacks and was called from one, which would never end; call it from a thread of \
         your own, or drop the registration, which waits for nobody"
    )]
    Callback {
        /// The call.
        what: &'static str,
    },
    /// The instance is being removed, or was: nothing new begins for it.
    #[error("device {device} is being removed from its driver; give back what you hold of it and end")]
    Removed {
        /// The device, by its instance id.
        device: String,
    },
    /// No such device is there, or no longer.
    #[error("no device is at channel {0}; list the devices again, it may be back under another name")]
    NoDevice(vmbus_channels::ChannelId),
    /// The registry was made without a bus.
    #[error("this registry has no bus to open channels on; start it over one")]
    NoBus,
    /// The registry was shut down.
    #[error("the driver registry has ended; start another")]
    RegistryEnded,
    /// What was asked for makes no sense.
    #[error("{0}")]
    Argument(&'static str),
    /// A thread could not be started.
    #[error("can't start the thread {name}: {source}; see this process's limits")]
    Thread {
        /// Which.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A storage controller, or a disk on it.
    #[error("device {device}: {failure}")]
    Storage {
        /// The controller, by its instance id.
        device: String,
        /// What went wrong and what to try.
        failure: storage::Failure,
    },
    /// What a driver says of its device; for drivers outside this crate.
    #[error("device {device}: {why}")]
    Driver {
        /// The device, by its instance id.
        device: String,
        /// What went wrong and what to try.
        why: String,
    },
}

impl Error {
    /// Whether the device was taken back by the host or unbound.
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        self.kind() == ErrorKind::Rescinded
    }

    /// The kind that a command's exit code is made of.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Channel(error) => error.kind(),
            Self::System(error) => error.kind(),
            Self::Storage { failure: storage::Failure::NoUnit(_), .. } => ErrorKind::NoDevice,
            Self::Storage { failure: storage::Failure::Busy { .. }, .. } => ErrorKind::Busy,
            Self::Removed { .. } => ErrorKind::Rescinded,
            Self::NoDevice(_) => ErrorKind::NoDevice,
            Self::Argument(_) => ErrorKind::Usage,
            _ => ErrorKind::Failed,
        }
    }
}
