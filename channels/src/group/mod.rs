//! Groups: one primary channel and its subchannels, the links, and the connections that are spread over them.
//!
//! ```text
//!   creator --holds--> group <--holds-- each link  <--holds-- each connection that is on it
//!                        ^                 ^
//!                        +--- table -------+   one lock; a link's own hold, who is on which link
//! ```
//!
//! A [`Group`] knows neither channels nor payloads: what a link and a connection carry is of a [`Kind`]. [`ChannelGroup`] is
//! a group over a bus. When a link dies its connections move to one that is left: the new link is held before the old
//! one is put, both in one step under the lock. Nothing waits for anybody there: whoever waits *for* a link is woken.

mod channels;
mod counts;
mod handles;
pub mod mutation;
mod policy;
mod port;
mod shared;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod turnstile;

pub use channels::{Carried, ChannelGroup, GroupOptions, Protocol};
pub use counts::Counts;
pub use handles::{Connection, Held, Link, Placed};
pub use policy::Policy;
pub use port::Port;
pub use shared::{Cleared, Group};
pub use turnstile::Turnstile;

/// What links and connections of a group carry.
pub trait Kind: 'static {
    /// What a link carries: dropped when the last hold on the link is given back.
    type Link: Send + Sync + 'static;
    /// What a connection carries: dropped when its last handle is.
    type Connection: Send + Sync + 'static;
}

/// Why a connection, or the whole group, is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Over {
    /// It was closed here.
    #[error("it was closed")]
    Closed,
    /// Its link died, and it is of a kind that can't move to another.
    #[error("its link ended, and what was under way on it is lost")]
    LinkLost,
    /// The last link died.
    #[error("the last link ended")]
    NoLink,
    /// The primary channel has ended, and with it the device.
    #[error("the device's primary channel ended")]
    PrimaryLost,
}

/// Why something can't be done with a group or a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The connection was never connected.
    #[error("the connection was never connected; connect it first")]
    NeverConnected,
    /// The connection was connected, and is no more.
    #[error("the connection is over: {0}; connect anew")]
    WasConnected(Over),
    /// The connection is connected already.
    #[error("the connection is connected already; use it, or make another")]
    Connected,
    /// The group has ended.
    #[error("the group of channels has ended: {0}; open the device again")]
    Ended(Over),
    /// There is no link to put a connection on.
    #[error("the group has no link now; wait for a channel to be offered")]
    NoLink,
    /// The link was cleared before it was ready.
    #[error("the link ended before it was ready")]
    Cleared,
    /// There are as many connections as may be.
    #[error("the group has as many connections as it may have; close some, or allow more")]
    Full,
    /// Nothing happened in time.
    #[error("nothing happened in time")]
    TimedOut,
}
