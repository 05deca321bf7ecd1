//! The crate's one error type.

use std::time::Duration;

use vmbus::ErrorKind;
use vmbus_ringbuf::{Corrupt, WriteError};

/// What went wrong with a channel, and what to try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The link below: the device is gone, busy, not permitted; or a system call failed.
    #[error(transparent)]
    Link(#[from] vmbus::Error),
    /// The host broke the protocol of the rings. Every later call says the same; close the channel.
    #[error("device {device}: {source}")]
    Corrupt {
        /// The device, by its sysfs name.
        device: String,
        /// What was found.
        source: Corrupt,
    },
    /// The outgoing ring has no room now, and the caller did not want to wait.
    #[error("device {device}: the ring is full ({free} bytes free, {needed} needed); receive, then try again")]
    Full {
        /// The device, by its sysfs name.
        device: String,
        /// Bytes of ring that the packet takes.
        needed: u32,
        /// Bytes that are free.
        free: u32,
    },
    /// The outgoing ring had no room for as long as the caller wanted to wait.
    #[error("device {device}: the host made no room for {needed} bytes in {} ms", waited.as_millis())]
    Stalled {
        /// The device, by its sysfs name.
        device: String,
        /// Bytes of ring that the packet takes.
        needed: u32,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The channel's [`Waker`](crate::Waker) was used while a send waited for room. Nothing was sent.
    #[error("device {device}: woken while waiting for room in the ring")]
    Woken {
        /// The device, by its sysfs name.
        device: String,
    },
    /// The packet can't be sent through this ring.
    #[error("device {device}: {source}")]
    Packet {
        /// The device, by its sysfs name.
        device: String,
        /// Why.
        source: WriteError,
    },
}

impl Error {
    /// Whether the device was taken back by the host or unbound.
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        matches!(self, Self::Link(vmbus::Error::Rescinded { .. }))
    }

    /// The kind that a command's exit code is made of.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Link(error) => error.kind(),
            _ => ErrorKind::Failed,
        }
    }
}
