//! How a controller is opened.

use std::time::Duration;

/// How a controller is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of pages for data on their way, rounded up to whole ones: at least four times what one request moves is best.
    pub pool_bytes: usize,
    /// The most that one request moves, in bytes. The host may allow less.
    pub max_transfer_bytes: u32,
    /// Requests under way at a time.
    pub depth: usize,
    /// From guest to host, for each channel: control page and data, in bytes.
    pub outgoing_bytes: u32,
    /// From host to guest, likewise.
    pub incoming_bytes: u32,
    /// Subchannels that are asked for, where the host allows any.
    pub subchannels: u16,
    /// How long the host may take over each step of the beginning, over a reset, and over offering subchannels.
    pub host_timeout: Duration,
    /// How long a command may take, unless it is said otherwise. Clouds stall for a minute now and then.
    pub command_timeout: Duration,
    /// How long the close waits for what is under way, before it resets the bus.
    pub drain_timeout: Duration,
    /// Buses to look for units on.
    pub paths: u8,
    /// Devices to look for on each bus.
    pub targets: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pool_bytes: 8 << 20,
            max_transfer_bytes: 512 * 1024,
            depth: 256,
            outgoing_bytes: 256 * 1024,
            incoming_bytes: 64 * 1024,
            subchannels: 3,
            host_timeout: Duration::from_secs(10),
            command_timeout: Duration::from_secs(180),
            drain_timeout: Duration::from_secs(5),
            paths: 1,
            targets: 1,
        }
    }
}
