//! What the registry tells: its devices with their states, and its counters. Copies, as of one moment.

use serde::{Serialize, Serializer};
use uuid::Uuid;
use vmbus::class::Class;
use vmbus_channels::ChannelId;

use super::Reason;

/// One device as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeviceEntry {
    /// Its primary channel.
    #[serde(serialize_with = "as_text")]
    pub channel: ChannelId,
    /// The number of that channel on the bus.
    pub relid: u32,
    /// What kind of device.
    pub class: Class,
    /// Which device of that kind.
    pub instance: Uuid,
    /// Whether the host offers it now. A device that departed is listed until its driver has let go of it.
    pub present: bool,
    /// The driver that has it, or is about to.
    pub driver: Option<String>,
    /// Where it is in its life.
    pub state: DeviceState,
    /// Why the last driver that was asked since it arrived does not drive it.
    pub failure: Option<String>,
}

/// Where a device is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeviceState {
    /// The same device is still being removed under its former channel; probed after that.
    Waiting,
    /// No registered driver matches.
    Unclaimed,
    /// Every driver that matches was asked, and none drives it.
    Failed,
    /// Its driver will be asked as soon as a worker is free.
    Queued,
    /// Its driver is being asked.
    Probing,
    /// Driven.
    Driven,
    /// Being taken from its driver.
    Removing(Reason),
}

fn as_text<S: Serializer>(channel: &ChannelId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(channel)
}

/// What happened so far, one field for each thing counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Primary channels that arrived.
    pub arrivals: u64,
    /// Primary channels that departed.
    pub departures: u64,
    /// Arrivals of a channel that was there, outside of a resynchronisation.
    pub duplicate_arrivals: u64,
    /// Departures of a channel that was not there.
    pub unknown_departures: u64,
    /// Announcements of subchannels, which belong to their device's driver.
    pub subchannels: u64,
    /// Times that the bus cut us off and told everything anew.
    pub resynchronisations: u64,
    /// Departures of a device before its driver was asked.
    pub departed_unprobed: u64,
    /// Probes begun.
    pub probes: u64,
    /// Probes that ended with an error.
    pub failed_probes: u64,
    /// Removals of running instances that were begun.
    pub removes: u64,
    /// Work items that ran.
    pub work_items: u64,
    /// Timers that ran.
    pub timers_fired: u64,
    /// Wake-ups that ran.
    pub wake_ups: u64,
    /// Work items, timers and wake-ups that were due and never ran, as a removal came first.
    pub discarded: u64,
    /// Callbacks that panicked.
    pub panics: u64,
    /// Drivers registered.
    pub registered: u64,
    /// Drivers unregistered, to the end.
    pub unregistered: u64,
}
