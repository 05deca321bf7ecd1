//! Why a command failed.

use vmbus::message::{ConnectionState, Features, GpadlId, Status, Version};

use crate::ChannelId;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The channel was released: its name is of the past.
    #[error("channel {0} is gone")]
    Gone(ChannelId),
    /// The host has taken the channel back.
    #[error("channel {0} was taken back by the host")]
    Rescinded(ChannelId),
    /// The channel is in a state in which this can't be asked for.
    #[error("channel {0} is {1}")]
    State(ChannelId, &'static str),
    /// The host said no.
    #[error("the host refused: status {:#x}", .0.0)]
    Host(Status),
    /// The host said nothing for as long as was waited.
    #[error("the host did not answer in {0} ms")]
    Silent(u64),
    /// The host knows none of the versions we do.
    #[error("the host speaks no version from {oldest} to {newest}")]
    Version {
        /// The first that was offered.
        newest: Version,
        /// The last.
        oldest: Version,
    },
    /// The host speaks the version and still does not take the connection.
    #[error("the host did not take the connection: state {}", .0.0)]
    Contact(ConnectionState),
    /// That is only in newer versions of the protocol than the one agreed on.
    #[error("this needs version {needed} of the protocol, and the host speaks {spoken}")]
    TooOld {
        /// The first that has it.
        needed: Version,
        /// The one agreed on.
        spoken: Version,
    },
    /// That was not agreed on with the host.
    #[error("the host did not agree to {0:?}")]
    Feature(Features),
    /// The connection is in a state in which this can't be asked for.
    #[error("the connection is {0}")]
    Connection(&'static str),
    /// As many of these are there already as may be.
    #[error("too many {0} at the same time (at most {1})")]
    TooMany(&'static str, usize),
    /// There is no such buffer.
    #[error("there is no buffer {}", .0.0)]
    NoBuffer(GpadlId),
    /// Memory could not be shared.
    #[error("memory for the host could not be had")]
    Memory,
    /// There is no connection.
    #[error("there is no connection to the host")]
    NotConnected,
    /// Numbers that make no sense.
    #[error("{0}")]
    Argument(&'static str),
}
