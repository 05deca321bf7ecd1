//! What the control plane is allowed, and what it says of itself when it meets the host.

use std::time::Duration;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{Features, Version};

/// Channel numbers end below this: an interrupt source has that many event flags.
pub const MAX_RELIDS: u32 = 2048;

/// Classes that an isolated (confidential) machine takes from its host; hvsock offers come on top.
/// The rest widens what a hostile host can reach. The same choice as Linux makes.
pub const ISOLATED_CLASSES: [Class; 6] =
    [Class::SCSI, Class::NIC, Class::PCIE, Class::TIME_SYNC, Class::HEARTBEAT, Class::SHUTDOWN];

/// Features that the control plane can make use of (6.0). Unknown ones are never asked for.
pub const FEATURES: Features = Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS
    .union(Features::MODIFY_CONNECTION)
    .union(Features::CLIENT_ID)
    .union(Features::CONFIDENTIAL_CHANNELS)
    .union(Features::PAUSE_RESUME);

/// Bounds, waiting times and the guest's half of the first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long one answer of the host is waited for.
    pub host_timeout: Duration,
    /// How long the answer to a goodbye is waited for: a host may have to write its caches back first.
    pub unload_timeout: Duration,
    /// The best version that is offered to the host.
    pub newest: Version,
    /// The least that is spoken at all.
    pub oldest: Version,
    /// Features that are asked for (6.0). That of the client's id only with [`Contact::client`].
    pub features: Features,
    /// Classes that may be announced; others are released at once. `None`: all. With a list, versions before 5.2
    /// are refused.
    pub allowed: Option<Vec<Class>>,
    /// Channels at the same time, the departed that are still referenced included.
    pub channels: usize,
    /// GPADLs of one channel at the same time, its ring included.
    pub gpadls_per_channel: usize,
    /// Close commands that may wait for one channel.
    pub closers_per_channel: usize,
    /// Connection requests to hvsock services at the same time.
    pub connects: usize,
    /// Processors: targets from 0 to this are taken.
    pub processors: u32,
    /// What the guest says of itself.
    pub contact: Contact,
}

/// The guest's half of the first message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contact {
    /// Which processor hears the host's messages.
    pub target_vp: u32,
    /// Which interrupt source (from 5.0 on); the usual one is 2.
    pub sint: u8,
    /// Trust level (from 5.0 on).
    pub vtl: u8,
    /// Guest physical address of the interrupt page (before 5.0).
    pub interrupt_page: u64,
    /// Guest physical address of the monitor page from host to guest.
    pub parent_to_child_monitor: u64,
    /// Guest physical address of the monitor page from guest to host.
    pub child_to_parent_monitor: u64,
    /// Who the guest is (6.0, with that feature).
    pub client: Option<Uuid>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            host_timeout: Duration::from_secs(10),
            unload_timeout: Duration::from_secs(100),
            newest: Version::V6_0,
            oldest: Version::V2_4,
            features: FEATURES,
            allowed: None,
            channels: MAX_RELIDS as usize,
            gpadls_per_channel: 256,
            closers_per_channel: 64,
            connects: 256,
            processors: u32::MAX,
            contact: Contact { sint: 2, ..Contact::default() },
        }
    }
}
