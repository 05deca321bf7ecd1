//! The crate's one error type.

use std::time::Duration;

use vmbus::ErrorKind;
use vmbus::message::{ConnectionState, Features, Status, Version};
use vmbus_ringbuf::{Corrupt, WriteError};

use crate::ChannelId;
use crate::control::Refusal;

/// What went wrong with a channel or with the bus, and what to try.
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
    /// The name is of an offer that was released. If the device comes back, it has another.
    #[error("channel {0} is gone; list the offers again, the device may be back under another name")]
    Gone(ChannelId),
    /// The channel is not in a state in which this can be asked for.
    #[error("device {device} is {state}; {hint}")]
    State {
        /// The device, by its instance id.
        device: String,
        /// In which state it is.
        state: &'static str,
        /// What to try.
        hint: &'static str,
    },
    /// The channel was closed while this handle still used it.
    #[error("device {device}: the channel was closed; open it again")]
    Closed {
        /// The device, by its instance id.
        device: String,
    },
    /// The host said no.
    #[error("device {device}: the host refused to {what}: status {:#010x}", status.0)]
    Host {
        /// The device, by its instance id, or the bus.
        device: String,
        /// What it was asked for.
        what: &'static str,
        /// Its reason, an NTSTATUS or a Win32 code.
        status: Status,
    },
    /// The host said nothing.
    #[error("device {device}: the host did not {what} within {} ms; it may be hung or overloaded, try again", waited.as_millis())]
    Silent {
        /// The device, by its instance id, or the bus.
        device: String,
        /// What it was asked for.
        what: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The other side was silent for too long and answered no keep-alive. Every later call says the same.
    #[error(
        "device {device}: the other side has said nothing for {} ms and answered no keep-alive; close the channel and open it again",
        silent.as_millis()
    )]
    Dead {
        /// The device, by its instance id.
        device: String,
        /// How long nothing came.
        silent: Duration,
    },
    /// The host speaks none of the protocol's versions that we do.
    #[error(
        "the host speaks no version of the protocol from {oldest} to {newest}; it is older or newer than this driver"
    )]
    Version {
        /// The first that was offered.
        newest: Version,
        /// The last.
        oldest: Version,
    },
    /// The host speaks a version that we know, and does not take the connection all the same.
    #[error("the host does not take the connection (state {}); it may lack resources, try again later", state.0)]
    Contact {
        /// Its reason.
        state: ConnectionState,
    },
    /// That is in newer versions of the protocol only.
    #[error("can't {what}: this needs version {needed} of the protocol, and the host speaks {spoken}")]
    TooOld {
        /// What was asked for.
        what: &'static str,
        /// The first version that has it.
        needed: Version,
        /// The one agreed on.
        spoken: Version,
    },
    /// That was not agreed on with the host.
    #[error("can't {what}: the host did not agree to {features:?}")]
    Feature {
        /// What was asked for.
        what: &'static str,
        /// What it needs.
        features: Features,
    },
    /// As many of these are there already as may be.
    #[error("device {device}: too many {what} at the same time (at most {most}); give some back first")]
    TooMany {
        /// The device, by its instance id, or the bus.
        device: String,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// There is no such buffer, or no longer.
    #[error("device {device}: there is no such buffer; it was given back already")]
    NoBuffer {
        /// The device, by its instance id.
        device: String,
    },
    /// Memory that the host can reach could not be had.
    #[error("device {device}: no memory to share with the host; use smaller rings or buffers, or close channels")]
    Memory {
        /// The device, by its instance id.
        device: String,
    },
    /// There is no connection to the host now.
    #[error("there is no connection to the host; connect or resume first")]
    NotConnected,
    /// What was asked for makes no sense.
    #[error("{0}")]
    Argument(&'static str),
    /// No channel that the host offers answers to this.
    #[error("no offered channel is {0}; the list of offers shows what there is")]
    NotFound(String),
    /// The connection to the host is gone for good, and all channels with it.
    #[error("the connection to the host is lost: {why}; start anew")]
    Lost {
        /// What was noticed.
        why: String,
    },
    /// The bus was shut down, and all channels with it.
    #[error("the bus was shut down; start anew")]
    Ended,
    /// A bug in this crate or in a link, which ended the bus and all channels.
    #[error("the control thread ended by a panic: {why}; this is a bug, please report it")]
    Panicked {
        /// The panic's words.
        why: String,
    },
    /// A call that waits was made by a thread that what it would wait for needs.
    #[error(
        "{what} waits and was called from a callback of this bus, which would never end; call it from another thread"
    )]
    Callback {
        /// The call.
        what: &'static str,
    },
    /// Users of the channel are left, so that it is not closed yet; it will be with the last of them.
    #[error("device {device}: the channel is still in use (buffers, a handler); it closes when they are dropped")]
    InUse {
        /// The device, by its instance id.
        device: String,
    },
    /// A subscriber did not read for too long and was cut off. What follows is everything that is present, anew.
    #[error("announcements were not read in time and are lost; read on, everything present follows anew")]
    Lagged,
    /// A thread could not be started.
    #[error("can't start the thread {name}: {source}")]
    Thread {
        /// Which.
        name: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the device was taken back by the host or unbound.
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        matches!(self, Self::Link(vmbus::Error::Rescinded { .. }))
    }

    /// Whether the bus as a whole has ended: every later call on it or on its channels fails likewise.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Ended | Self::Panicked { .. })
    }

    /// The kind that a command's exit code is made of.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Link(error) => error.kind(),
            Self::Argument(_) => ErrorKind::Usage,
            Self::NotFound(_) => ErrorKind::NoDevice,
            Self::Gone(_) => ErrorKind::Rescinded,
            Self::State { .. } | Self::InUse { .. } | Self::TooMany { .. } => ErrorKind::Busy,
            _ => ErrorKind::Failed,
        }
    }

    /// A refusal of the control plane, about `device`, which was asked to do `what`.
    pub(crate) fn refused(refusal: Refusal, device: &str, what: &'static str) -> Self {
        let device = device.to_owned();
        match refusal {
            Refusal::Gone(id) => Self::Gone(id),
            Refusal::Rescinded(_) => Self::Link(vmbus::Error::Rescinded { device }),
            Refusal::State(_, state) => {
                Self::State { device, state, hint: "wait for its end, or look for who else has it in this process" }
            }
            Refusal::Host(status) => Self::Host { device, what, status },
            Refusal::Silent(ms) => Self::Silent { device, what, waited: Duration::from_millis(ms) },
            Refusal::Version { newest, oldest } => Self::Version { newest, oldest },
            Refusal::Contact(state) => Self::Contact { state },
            Refusal::TooOld { needed, spoken } => Self::TooOld { what, needed, spoken },
            Refusal::Feature(features) => Self::Feature { what, features },
            Refusal::Connection(state) => {
                Self::State { device, state, hint: "wait for its end, or look who else uses this bus" }
            }
            Refusal::TooMany(what, most) => Self::TooMany { device, what, most },
            Refusal::NoBuffer(_) => Self::NoBuffer { device },
            Refusal::Memory => Self::Memory { device },
            Refusal::NotConnected => Self::NotConnected,
            Refusal::Argument(why) => Self::Argument(why),
        }
    }
}
