//! How streams are multiplexed.

use uuid::{Uuid, uuid};
use vmbus::class::Class;
use vmbus_channels::group::GroupOptions;

use super::Mode;

/// How streams are multiplexed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How the channels are opened, how streams are spread over them, and how a silent one is found.
    pub group: GroupOptions,
    /// Whether streams survive the link that they are on.
    pub mode: Mode,
    /// Bytes that a stream keeps for each direction, at most: sent and not acknowledged, received and not read.
    pub buffer_bytes: usize,
}

impl Settings {
    /// The class of devices that speak it: private to this project.
    pub const CLASS: Class = Class(CLASS);
}

const CLASS: Uuid = uuid!("c1b3d0e2-5a77-4f0e-9a3c-2b6f48d95e10");

impl Default for Settings {
    /// Numbered streams with 64 KiB for each direction; the group as it is by default.
    fn default() -> Self {
        Self { group: GroupOptions::default(), mode: Mode::default(), buffer_bytes: 64 * 1024 }
    }
}
