//! What a guest is made of.

/// What a guest is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Virtual processors: 1 to [`MAX_PROCESSORS`](super::MAX_PROCESSORS). Each has an eventfd and a page of flags.
    pub processors: usize,
    /// Guest memory, whole pages; it takes room only where it is used. Rings and buffers come out of it.
    pub memory_bytes: u64,
}

impl Default for Settings {
    /// One processor, 256 MiB.
    fn default() -> Self {
        Self { processors: 1, memory_bytes: 256 << 20 }
    }
}
