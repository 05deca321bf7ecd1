//! The name of one offer of one channel: never reused, unlike relids.

use std::fmt;

/// A slot of the channel table and the generation of its content. An offer has one from its arrival to its release;
/// when the host offers the same relid again, that is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ChannelId {
    /// A name that no table gave: for doubles of the bus in tests of those above it.
    #[must_use]
    pub const fn made_up(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.index, self.generation)
    }
}
