//! How the bus is started and how a channel is opened.

use std::time::Duration;

use vmbus::message::{USER_DEFINED_BYTES, UserDefined};

/// How the bus is started.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long the host has for each answer before the caller is told that it is silent.
    pub host_timeout: Duration,
    /// Host messages that may wait for the executor. A host that sends faster is not heard until there is room.
    pub backlog: usize,
    /// Announcements that a [`Subscription`](crate::Subscription) may leave unread before it is cut off.
    pub unread: usize,
    /// Whether the dispatcher of processor N runs on CPU N only.
    pub pin: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { host_timeout: Duration::from_secs(10), backlog: 4096, unread: 4096, pin: true }
    }
}

/// How a channel is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// From guest to host: control page and data, in bytes, whole pages.
    pub outgoing_bytes: u32,
    /// From host to guest: control page and data, in bytes, whole pages.
    pub incoming_bytes: u32,
    /// Where the host's interrupts go.
    pub processor: u32,
    /// Of the device's class.
    pub user_defined: UserDefined,
}

impl Default for OpenOptions {
    /// 64 KiB in each direction, processor 0.
    fn default() -> Self {
        Self { outgoing_bytes: 65536, incoming_bytes: 65536, processor: 0, user_defined: [0; USER_DEFINED_BYTES] }
    }
}
