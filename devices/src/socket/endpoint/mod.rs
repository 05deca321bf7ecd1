//! Endpoints: what has a name, listens, or connects. Looked up held, bound in one step, closed from anywhere.
//!
//! A share of an endpoint (`Arc`) keeps its memory and its slot; whether it is operable is its [`Phase`]. The names are
//! behind one lock, each endpoint's state behind another, and no callback runs under either.

#[cfg(any(test, feature = "mutations"))]
pub mod mutation;
#[cfg(not(any(test, feature = "mutations")))]
mod mutation;
mod shared;
mod state;
mod sync;
mod table;
#[cfg(test)]
mod tests;

pub use shared::{Endpoint, Endpoints, Held, Owner};
pub use state::{Phase, Remains};
pub use table::{EndpointId, Table};

/// Why an endpoint does not do what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Another endpoint has the name.
    #[error("the address is in use; close who has it, or bind to another")]
    Taken,
    /// There are as many endpoints as may be.
    #[error("too many endpoints; close some first")]
    Full,
    /// The sockets were shut down.
    #[error("the sockets of this bus were shut down")]
    Ended,
    /// It listens, connects or is connected already.
    #[error("the endpoint is in use already; make another one")]
    Bound,
    /// It is closed, or was while it was waited for.
    #[error("the endpoint was closed")]
    Closed,
    /// It has nothing to wait for.
    #[error("the endpoint neither listens nor connects; bind it first")]
    NotListening,
    /// Nothing came in time.
    #[error("nothing came in time")]
    TimedOut,
}

/// What endpoints are made of: the types that pass through them.
pub trait Kind: 'static {
    /// What comes in for who listens.
    type Incoming: Send;
    /// What comes of a connect.
    type Outcome: Send;
    /// What shows others that something waits.
    type Bell: Bell;
}

/// Shows that something waits to be accepted, that a connect has ended, or the close: a descriptor that event loops watch.
pub trait Bell: Send + Sync {
    /// From now on something waits, or nothing does. Called in the order in which it came so.
    fn ring(&self, waits: bool);
}

impl Bell for () {
    fn ring(&self, _: bool) {}
}
