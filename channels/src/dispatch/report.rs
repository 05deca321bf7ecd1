//! What dispatchers tell the executor.

use std::time::Duration;

use vmbus_ringbuf::Corrupt;

use crate::ChannelId;

/// What a dispatcher tells the executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The channel is out of every map: its entry is dropped, nothing of it runs, its event flags are clear.
    Retired(ChannelId),
    /// An entry has ended by itself and is dropped: close the channel. It stays to be retired.
    Ended(ChannelId, Ending),
}

/// Why a dispatched channel gets no more packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It was closed here.
    Closed,
    /// The host took it back, or it was unbound.
    Rescinded,
    /// The host broke the protocol of the ring.
    Corrupt(Corrupt),
    /// Its callback panicked.
    Panicked,
    /// The other side has said nothing for so long, and answered no [keep-alive](crate::KeepAlive).
    Dead(Duration),
}

/// What dispatchers have counted since they were started. Events are flags of an event page and descriptors that
/// became readable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Events that led to a callback.
    pub events: u64,
    /// Events for a channel that is in no map.
    pub stray_events: u64,
    /// Events that arrived at a processor that the channel had left, and were sent after it.
    pub forwarded_events: u64,
    /// Orders and forwarded events for a channel whose relid has a new owner or none.
    pub stale: u64,
    /// Entries that ended because their callback panicked.
    pub panics: u64,
    /// Entries that ended because of a ring full of nonsense.
    pub corrupt: u64,
    /// Entries that ended because their other side was silent.
    pub dead: u64,
    /// Packets handled by dispatched channels.
    pub packets: u64,
    /// Timers of channels that were due and called.
    pub timers: u64,
    /// Times that dispatchers slept.
    pub sleeps: u64,
    /// Channels that are in the maps now.
    pub entries: u64,
    /// Forward markers that are in the maps now.
    pub markers: u64,
}
