//! What a group has now.

/// What a group has now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Links that connections can be put on.
    pub links: usize,
    /// Links somebody holds, those included that are not ready yet or are cleared.
    pub held_links: usize,
    /// Connections that are on a link.
    pub connected: usize,
    /// Connections somebody holds, connected or not.
    pub held_connections: usize,
    /// Moves of connections from one link to another, since the start.
    pub moves: u64,
}
