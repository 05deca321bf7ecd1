//! A channel that the host offers, as applications and drivers see it.

use vmbus::class::Class;
use vmbus::message::{OfferFlags, UserDefined};

use crate::ChannelId;

/// What is known of an offered channel. A copy: it stays as it is when the channel goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// Its name here.
    pub id: ChannelId,
    /// Its number on the bus, which the host may give to another channel after this one's release.
    pub relid: u32,
    /// What kind of device.
    pub class: Class,
    /// Which device of that kind; the same again after a rescind or a resume.
    pub instance: uuid::Uuid,
    /// Zero is the primary channel.
    pub subchannel_index: u16,
    /// The primary channel of a subchannel.
    pub primary: Option<ChannelId>,
    /// Monitor bit, if it has one.
    pub monitor_id: Option<u8>,
    /// What the guest signals.
    pub connection_id: u32,
    /// What the channel is like.
    pub flags: OfferFlags,
    /// Of the device's class.
    pub user_defined: UserDefined,
}

impl Offer {
    /// A primary channel that no host offered: for doubles of the bus in tests of those above it.
    #[must_use]
    pub fn made_up(id: ChannelId, class: Class, instance: uuid::Uuid) -> Self {
        Self {
            id,
            relid: 0,
            class,
            instance,
            subchannel_index: 0,
            primary: None,
            monitor_id: None,
            connection_id: 0,
            flags: OfferFlags::empty(),
            user_defined: [0; vmbus::message::USER_DEFINED_BYTES],
        }
    }
}

/// A change of the bus, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Announcement {
    /// A channel is there, fully built.
    Arrived(Offer),
    /// A channel has been taken back. Whoever has it open should close it.
    Departed(Offer),
    /// All channels that were there at the time of the connection (or resume) have arrived.
    AllArrived,
}
