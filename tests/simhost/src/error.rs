//! What can go wrong around the simulated host. What the guest does wrong is a violation, not an error.

use vmbus_ringbuf::{Corrupt, WriteError};

/// What can go wrong around the simulated host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Every relid is taken.
    #[error("all {limit} relids are taken; rescind something, or wait for the guest to release")]
    Full {
        /// How many there are.
        limit: u32,
    },
    /// Another channel has this instance.
    #[error("instance {instance} is offered already; take that back first")]
    Duplicate {
        /// Which.
        instance: uuid::Uuid,
    },
    /// There is no such offer, or not any more.
    #[error("there is no such offer (any more)")]
    NoOffer,
    /// The channel is not in a state in which this makes sense.
    #[error("the channel with relid {relid} is {state}")]
    State {
        /// Which channel.
        relid: u32,
        /// What it is.
        state: &'static str,
    },
    /// The guest broke a ring.
    #[error("the guest broke a ring: {0}")]
    Corrupt(#[from] Corrupt),
    /// A packet was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The guest is gone.
    #[error("the guest is gone")]
    GuestGone,
    /// The server can't be reached: its thread has ended.
    #[error("the server has ended")]
    Ended,
    /// Bytes are no Dynamic Memory message, or another text that can't be understood.
    #[error("{0}")]
    Nonsense(&'static str),
    /// The link to the guest.
    #[error(transparent)]
    Link(#[from] vmbus::Error),
    /// A socket can't be listened on.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// Where.
        addr: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The system said no.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: std::io::Error,
    },
}
