//! How dispatchers behave.

use std::time::Duration;

/// How dispatchers behave.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Packets that a channel may have handled before it is the next one's turn.
    pub budget: usize,
    /// How long a dispatcher goes on looking before it sleeps. Zero: not at all.
    pub busy_poll: Duration,
    /// Whether each dispatcher is bound to the CPU of its processor's number, where the affinity mask allows.
    pub pinned: bool,
    /// So many of the link's processors, the last ones, get no dispatcher: each is for one channel at a time, whose owner
    /// sleeps on the interrupt itself ([`Placement::Direct`](crate::Placement)). One dispatcher is left in any case.
    /// Nothing on links whose channels have descriptors of their own.
    pub direct: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { budget: 64, busy_poll: Duration::ZERO, pinned: true, direct: 0 }
    }
}
