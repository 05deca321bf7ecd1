//! The name of one offer of one channel: never reused, unlike relids.

use std::fmt;

/// A slot of the channel table and the generation of its content. An offer has one from its arrival to its release;
/// when the host offers the same relid again, that is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl fmt::Display for ChannelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.index, self.generation)
    }
}
