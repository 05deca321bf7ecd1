//! How the bus is started, how a channel is opened, and what was counted.

use serde::Serialize;
use vmbus::message::{USER_DEFINED_BYTES, UserDefined};

use crate::control::{self, Limits};
use crate::dispatch;

/// How the bus is started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Versions, waiting times, and how many of everything. Its processors are at most those of the link.
    pub limits: Limits,
    /// The threads that interrupts go to.
    pub dispatch: dispatch::Settings,
    /// Host messages that may wait for the executor. A host that sends faster is not heard until there is room.
    pub backlog: usize,
    /// Announcements that a [`Subscription`](crate::Subscription) may leave unread before it is cut off.
    pub unread: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limits: Limits::default(), dispatch: dispatch::Settings::default(), backlog: 4096, unread: 4096 }
    }
}

/// How a channel is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// From guest to host: control page and data, in bytes, whole pages.
    pub outgoing_bytes: u32,
    /// From host to guest: control page and data, in bytes, whole pages.
    pub incoming_bytes: u32,
    /// Where the host's interrupts go: a processor that has a dispatcher.
    pub processor: u32,
    /// Whether a processor of the channel's own is tried first.
    pub placement: Placement,
    /// Of the device's class.
    pub user_defined: UserDefined,
}

/// On which kind of processor a channel is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// On one with a dispatcher, beside others.
    #[default]
    Shared,
    /// On one of its own without a dispatcher, if one is free ([`dispatch::Settings::direct`]); otherwise shared. Whoever
    /// waits for the channel sleeps on the interrupt itself, which saves a wake-up. Such a channel can't be moved. Not for
    /// channels whose packets go to a handler.
    Direct,
}

impl Default for OpenOptions {
    /// 64 KiB in each direction, processor 0, shared.
    fn default() -> Self {
        Self {
            outgoing_bytes: 65536,
            incoming_bytes: 65536,
            processor: 0,
            placement: Placement::default(),
            user_defined: [0; USER_DEFINED_BYTES],
        }
    }
}

/// What was counted, and what is alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// What the control plane counted since the start.
    #[serde(flatten)]
    pub control: control::Counters,
    /// What the dispatchers counted since the start.
    #[serde(flatten)]
    pub dispatch: dispatch::Counters,
    /// Subscribers that were cut off because they did not read.
    pub lagged: u64,
    /// Channels in the table now, those included that the host has taken back and that are still in use here.
    pub channels: u64,
    /// GPADLs now whose memory is not freed.
    #[serde(rename = "live_gpadls")]
    pub gpadls: u64,
    /// Channels now that have users here.
    pub open: u64,
    /// Commands now that wait for their answer.
    pub waiting: u64,
}
