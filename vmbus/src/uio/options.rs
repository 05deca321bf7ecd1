//! How a link is opened: the layout of its rings, how long to wait for them, and who watches.

use std::time::Duration;

/// How rings are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Mirrored, or contiguous where the kernel shows no `ring` file for the primary channel in time.
    #[default]
    Auto,
    /// Data mapped twice through the channel's `ring` file, or an error.
    Mirrored,
    /// Data mapped once through `/dev/uioN`. Subchannels are mirrored all the same; they have no other way.
    Contiguous,
}

/// How to open a [`OpenDevice`](super::OpenDevice).
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How the primary channel's rings are mapped.
    pub layout: Layout,
    /// How long to wait for a `ring` file that appears late.
    pub ring_wait: Duration,
    /// Whether a thread watches for the end of the device, so that
    /// [`OpenDevice::is_rescinded`](super::OpenDevice::is_rescinded) turns true although nobody waits or touches a ring. There is
    /// always one where the kernel does not take the rings' mappings back by itself: contiguous rings, and older kernels
    /// ([`Kernel::withdraws_ring_files`](crate::kernel::Kernel::withdraws_ring_files)).
    pub watch: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { layout: Layout::Auto, ring_wait: Duration::from_secs(1), watch: false }
    }
}
