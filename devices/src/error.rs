//! The crate's one error type.

use crate::balloon::state::Failure;
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
            Self::Negotiation { .. } => ErrorKind::Failed,
        }
    }
}
