//! What a dispatcher can be told. Orders about one channel come in their order, also across a move (see `apply`).

use super::Entry;
use crate::ChannelId;

/// One thing that a dispatcher is told. Relids are in range: below the map's size, and not zero.
#[derive(Debug)]
pub enum Order {
    /// Put a channel into the map.
    Insert(usize, ChannelId, Entry),
    /// Take it out, first out of the maps of processors where it was (`via`, in order), then where it is.
    Retire(usize, ChannelId, Vec<usize>),
    /// It will arrive from another processor; orders about it wait until then.
    Expect(usize, ChannelId),
    /// It leaves for this processor, which expects it.
    Leave(usize, ChannelId, usize),
    /// Here it comes.
    Arrive(usize, ChannelId, Entry),
    /// The host interrupts only the new processor now.
    Settle(usize, ChannelId),
    /// Look after it as if it were flagged.
    Poke(usize, ChannelId),
    /// End.
    Stop,
}

impl Order {
    /// The relid that it is about.
    pub(super) fn relid(&self) -> Option<usize> {
        match self {
            Self::Insert(relid, ..)
            | Self::Retire(relid, ..)
            | Self::Expect(relid, ..)
            | Self::Leave(relid, ..)
            | Self::Arrive(relid, ..)
            | Self::Settle(relid, ..)
            | Self::Poke(relid, ..) => Some(*relid),
            Self::Stop => None,
        }
    }
}
