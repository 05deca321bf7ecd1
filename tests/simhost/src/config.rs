//! What a simulated host is like: versions, features, limits, how long it takes, what it offers.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{Features, OfferFlags, USER_DEFINED_BYTES, UserDefined, Version};

use crate::device::{Buffers, Device, DynamicMemory, DynamicMemorySettings, Echo, EchoSettings, Pipe, PipeSettings};
use crate::{Random, ViolationKind};

/// What a simulated host is like.
#[derive(Debug, Clone)]
pub struct Config {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Versions that it accepts.
    pub versions: Vec<Version>,
    /// Features that it knows (6.0).
    pub features: Features,
    /// Connection id that guests post messages to (from 5.0 on).
    pub message_connection: u32,
    /// Virtual processors of the guest: 0 to this.
    pub processors: u32,
    /// How long it takes over things.
    pub latency: Latency,
    /// How often it refuses.
    pub refusals: Refusals,
    /// What it bears.
    pub limits: Limits,
    /// What it offers from the start.
    pub devices: Vec<DeviceSpec>,
    /// hvsock services of the host that guests can connect to; each connection is a byte pipe that echoes.
    pub services: Vec<Uuid>,
    /// hvsock services of the host that take whatever they are sent, and answer the end of it by theirs.
    pub sinks: Vec<Uuid>,
    /// hvsock services of the host whose connections somebody else decides on: see
    /// [`Host::next_asked`](crate::Host::next_asked).
    pub decided_elsewhere: BTreeSet<Uuid>,
    /// It does what no honest host does when it is told to: offers an instance that is offered already, takes a primary
    /// channel back and leaves its subchannels. (Either breaks Linux.)
    pub careless: bool,
    /// What is counted but not held against the guest.
    pub tolerated: Vec<ViolationKind>,
}

impl Config {
    /// A prompt host with all versions and features, and no devices.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            versions: Version::ALL.to_vec(),
            features: Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS
                | Features::CHANNEL_INTERRUPT_REDIRECTION
                | Features::MODIFY_CONNECTION
                | Features::CLIENT_ID
                | Features::CONFIDENTIAL_CHANNELS
                | Features::PAUSE_RESUME,
            message_connection: 4,
            processors: 4,
            latency: Latency::default(),
            refusals: Refusals::default(),
            limits: Limits::default(),
            devices: Vec::new(),
            services: Vec::new(),
            sinks: Vec::new(),
            decided_elsewhere: BTreeSet::new(),
            careless: false,
            tolerated: Vec::new(),
        }
    }

    /// The same host, knowing one version only.
    #[must_use]
    pub fn with_version(mut self, version: Version) -> Self {
        self.versions = vec![version];
        self
    }

    /// The same host with one more device.
    #[must_use]
    pub fn with_device(mut self, device: DeviceSpec) -> Self {
        self.devices.push(device);
        self
    }
}

/// How long the host takes over things: each time between none and this, as the seed decides. All zero is at once,
/// before [`Host::message`](crate::Host::message) returns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// OPEN to OPEN_RESULT.
    pub open: Duration,
    /// GPADL header or last body to GPADL_CREATED.
    pub gpadl: Duration,
    /// GPADL_TEARDOWN to GPADL_TORNDOWN.
    pub teardown: Duration,
    /// MODIFYCHANNEL to its answer.
    pub modify: Duration,
}

/// How often the host says no to what makes sense, of a thousand times, as the seed decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// OPEN.
    pub open_permille: u16,
    /// A complete GPADL.
    pub gpadl_permille: u16,
}

/// What the host bears. Beyond it the guest is refused, and the checker told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Relids: 1 to this.
    pub relids: u32,
    /// GPADLs at a time.
    pub gpadls: usize,
    /// Pages of all GPADLs. Hosts of 2019 and later bear about 1280 MiB.
    pub gpadl_pages: usize,
    /// Messages that wait for the guest to take them.
    pub messages: usize,
    /// Violations kept in full.
    pub violations: usize,
    /// Packets a device takes in one turn.
    pub packets: usize,
    /// hvsock connections at a time.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            relids: 2047,
            gpadls: 16_384,
            gpadl_pages: 1280 * 256,
            messages: 65_536,
            violations: 256,
            packets: 1024,
            connections: 256,
        }
    }
}

/// Makes the device at the other end of a channel, anew for each offer.
pub type DeviceMaker = Arc<dyn Fn() -> Box<dyn Device> + Send + Sync>;

/// A channel to be offered.
#[derive(Clone)]
pub struct DeviceSpec {
    /// What kind of device.
    pub class: Class,
    /// Which.
    pub instance: Uuid,
    /// What the channel is like. The confidential flags are kept from guests that do not know them.
    pub flags: OfferFlags,
    /// Address space that it needs.
    pub mmio_megabytes: u16,
    /// Address space that it would like.
    pub mmio_megabytes_optional: u16,
    /// Of the class.
    pub user_defined: UserDefined,
    /// Zero is the primary channel.
    pub subchannel_index: u16,
    /// Whether it gets a monitor id, while there are any.
    pub monitored: bool,
    /// What speaks over it.
    pub maker: DeviceMaker,
}

impl DeviceSpec {
    /// A device of any class.
    pub fn new(class: Class, instance: Uuid, maker: impl Fn() -> Box<dyn Device> + Send + Sync + 'static) -> Self {
        Self {
            class,
            instance,
            flags: OfferFlags::ENUMERATE_DEVICE_INTERFACE,
            mmio_megabytes: 0,
            mmio_megabytes_optional: 0,
            user_defined: [0; USER_DEFINED_BYTES],
            subchannel_index: 0,
            monitored: false,
            maker: Arc::new(maker),
        }
    }

    /// The echo device whose instance is made of this number.
    #[must_use]
    pub fn echo(number: u64) -> Self {
        Self::echo_with(number, EchoSettings::default())
    }

    /// An echo device with settings of its own.
    #[must_use]
    pub fn echo_with(number: u64, settings: EchoSettings) -> Self {
        let instance = Random::new(number ^ 0x6563_686f).guid();
        Self::new(Echo::CLASS, instance, move || Box::new(Echo::new(settings)))
    }

    /// A byte pipe that is offered like any device (hvsock connections come by TL_CONNECT).
    #[must_use]
    pub fn pipe(number: u64, settings: PipeSettings) -> Self {
        let instance = Random::new(number ^ 0x7069_7065).guid();
        Self::new(Pipe::CLASS, instance, move || Box::new(Pipe::new(settings)))
    }

    /// A device that reads and writes the guest's buffers.
    #[must_use]
    pub fn buffers(number: u64) -> Self {
        let instance = Random::new(number ^ 0x6275_6666).guid();
        Self::new(Buffers::CLASS, instance, || Box::new(Buffers::default()))
    }

    /// Dynamic Memory.
    #[must_use]
    pub fn dynamic_memory(settings: DynamicMemorySettings) -> Self {
        let instance = Random::new(0x6d65_6d6f_7279).guid();
        Self::new(Class::DYNAMIC_MEMORY, instance, move || Box::new(DynamicMemory::new(settings.clone())))
    }

    /// The same with a monitor id.
    #[must_use]
    pub fn with_monitor(mut self) -> Self {
        self.monitored = true;
        self
    }

    /// The same with more flags.
    #[must_use]
    pub fn with_flags(mut self, flags: OfferFlags) -> Self {
        self.flags |= flags;
        self
    }

    /// The same device's subchannel of this number, from 1 on.
    #[must_use]
    pub fn subchannel(&self, index: u16) -> Self {
        Self { subchannel_index: index, ..self.clone() }
    }
}

impl fmt::Debug for DeviceSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeviceSpec")
            .field("class", &self.class)
            .field("instance", &self.instance)
            .field("flags", &self.flags)
            .field("subchannel_index", &self.subchannel_index)
            .field("monitored", &self.monitored)
            .finish_non_exhaustive()
    }
}
