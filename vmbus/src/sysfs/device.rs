//! What sysfs says about devices and channels, as plain data.
//!
//! Source of the formats: `Documentation/ABI/stable/sysfs-bus-vmbus` and the show functions of
//! `drivers/hv/vmbus_drv.c`. What an older kernel does not show is `None`.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::Error;
use crate::class::Class;

/// One device as it was when it was read; nothing in it changes afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Device {
    /// The name of the device's folder in sysfs: the instance GUID (`vmbus_N` on kernels before 4.16).
    pub name: String,
    /// The instance GUID, from `device_id`.
    pub instance: Uuid,
    /// The class GUID, from `class_id`.
    pub class: Class,
    /// The relid of the primary channel, from `id`.
    pub relid: u32,
    /// The life of the primary channel as the kernel sees it.
    pub state: Option<ChannelState>,
    /// The monitor page bit that signals the host, 0 to 127; `None` where the channel has none.
    pub monitor_id: Option<u8>,
    /// The vendor number, 0x1414 for Microsoft.
    pub vendor_id: Option<u32>,
    /// The kernel's own number for the class, from the file `device`.
    pub product_id: Option<u32>,
    /// The NUMA node of the CPU that takes the primary channel's interrupts; -1 where it is unknown.
    pub numa_node: Option<i32>,
    /// The kernel driver that the device is bound to.
    pub driver: Option<String>,
    /// The only driver that may bind the device, where that is set.
    pub driver_override: Option<String>,
    /// Whether the kernel has a `driver_override` file for the device (since 4.20).
    pub has_driver_override: bool,
    /// The UIO device, such as `uio0`, while the device is bound to `uio_hv_generic`.
    pub uio: Option<String>,
    /// Relid and CPU of each channel as the file `channel_vp_mapping` lists them, in its order.
    pub vp_mapping: Vec<VpMapping>,
    /// The channels, the primary first, then by relid.
    pub channels: Vec<Channel>,
    /// The primary channel's rings, while they are open.
    pub rings: Option<Rings>,
    /// The device's folder: `<root>/sys/bus/vmbus/devices/<name>`.
    pub path: PathBuf,
}

impl Device {
    /// The channel with this relid.
    #[must_use]
    pub fn channel(&self, relid: u32) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.relid == relid)
    }

    /// The primary channel; `None` on kernels before 4.14, which do not list channels.
    #[must_use]
    pub fn primary(&self) -> Option<&Channel> {
        self.channel(self.relid)
    }
}

/// One line of `channel_vp_mapping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VpMapping {
    /// The channel.
    pub relid: u32,
    /// The CPU that takes its interrupts.
    pub cpu: u32,
}

/// The kernel's number for where a channel is in its life (`enum vmbus_channel_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelState(pub u32);

impl ChannelState {
    /// Offered by the host.
    pub const OFFER: Self = Self(0);
    /// Being opened.
    pub const OPENING: Self = Self(1);
    /// Ready to be opened, which is also where a channel goes when it is closed.
    pub const OPEN: Self = Self(2);
    /// Opened: packets can flow.
    pub const OPENED: Self = Self(3);

    /// A word for what the state means, or `None` for one that this crate does not know. The kernel calls a closed
    /// channel "open" and an open one "opened"; these words are the plain ones.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::OFFER => Some("offered"),
            Self::OPENING => Some("opening"),
            Self::OPEN => Some("closed"),
            Self::OPENED => Some("open"),
            _ => None,
        }
    }
}

impl fmt::Display for ChannelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "state {}", self.0),
        }
    }
}

impl Serialize for ChannelState {
    /// As the word, or as `state N`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One channel of a device, from `channels/<relid>/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Channel {
    /// The channel's number on the bus.
    pub relid: u32,
    /// 0 for the primary channel.
    pub subchannel_index: u32,
    /// The CPU that takes its interrupts.
    pub cpu: u32,
    /// The monitor page bit that signals the host, 0 to 127; `None` where the channel has none.
    pub monitor_id: Option<u8>,
    /// Set pending bits of the channel's monitor group, where it has a monitor id.
    pub monitor_pending: Option<u32>,
    /// The host's polling interval for the monitor bit, in units of 100 ns.
    pub monitor_latency: Option<u32>,
    /// The mappable file with both rings, while the device is bound to `uio_hv_generic`.
    pub ring: Option<RingFile>,
    /// Masks and fill of the rings, while the channel is open.
    pub fill: Option<RingFill>,
    /// What the kernel counts.
    pub counters: Counters,
}

/// `channels/<relid>/ring`: the outgoing ring, then the incoming one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RingFile {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes. Kernels before 6.15 (and their stable copies) always say 4 MiB.
    pub bytes: u64,
}

/// The state of one channel's rings, from the files of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RingFill {
    /// The outgoing ring's interrupt mask, from `out_mask`.
    pub outgoing_mask: u32,
    /// The incoming ring's interrupt mask, from `in_mask`.
    pub incoming_mask: u32,
    /// Bytes waiting in the incoming ring, from `read_avail`.
    pub readable_bytes: u32,
    /// Bytes free in the outgoing ring, from `write_avail`.
    pub writable_bytes: u32,
}

/// The primary channel's rings, from the `out_*` and `in_*` files of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rings {
    /// Towards the host.
    pub outgoing: RingIndices,
    /// From the host.
    pub incoming: RingIndices,
}

/// One ring's indices, offsets in bytes into its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RingIndices {
    /// Whether the reader asked not to be interrupted.
    pub interrupt_mask: u32,
    /// Where the reader is.
    pub read_index: u32,
    /// Where the writer is.
    pub write_index: u32,
    /// Bytes waiting to be read.
    pub readable_bytes: u32,
    /// Bytes free.
    pub writable_bytes: u32,
}

/// Counters of one channel, since the kernel knows it. `uio_hv_generic` does not move most of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Interrupts that the host raised, from `interrupts`.
    pub interrupts: Option<u64>,
    /// Signals sent to the host, from `events`.
    pub signals: Option<u64>,
    /// Interrupts because the outgoing ring had room again, from `intr_in_full`.
    pub interrupts_incoming_full: Option<u64>,
    /// Signals because the outgoing ring was empty, from `intr_out_empty`.
    pub signals_outgoing_empty: Option<u64>,
    /// Times that the outgoing ring became full, from `out_full_first`.
    pub outgoing_full_first: Option<u64>,
    /// Writes that met a full outgoing ring, from `out_full_total`.
    pub outgoing_full_total: Option<u64>,
}

/// Everything a look at the bus brought: the devices, and those that could not be read.
#[derive(Debug, Default, Serialize)]
pub struct Scan {
    /// The devices, by relid.
    pub devices: Vec<Device>,
    /// Devices whose files hold something else than they should.
    pub broken: Vec<Broken>,
}

/// A device that is there and could not be read.
#[derive(Debug, Serialize)]
pub struct Broken {
    /// The name of its folder.
    pub name: String,
    /// What was wrong.
    pub error: Error,
}
