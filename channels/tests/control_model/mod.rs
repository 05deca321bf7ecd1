//! What the core's tests share: a ghost that watches every input and every action from the outside, and a world of
//! model host, model dispatchers and model applications in one thread. All of it speaks the public API alone.

mod applications;
pub(crate) mod ghost;
mod host;
mod posts;
pub(crate) mod random;
mod settle;
pub(crate) mod world;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{HostMessage, OfferChannel, OfferFlags};

/// An offer of a primary channel: the relid makes the device.
pub(crate) fn offer(relid: u32) -> OfferChannel {
    subchannel(relid, u128::from(relid), 0)
}

/// An offer of the device's channel with this index.
pub(crate) fn subchannel(relid: u32, device: u128, index: u16) -> OfferChannel {
    OfferChannel {
        class: Class(Uuid::from_u128(1)),
        instance: Uuid::from_u128(device),
        flags: OfferFlags::empty(),
        mmio_megabytes: 0,
        mmio_megabytes_optional: 0,
        user_defined: [0; 120],
        subchannel_index: index,
        relid,
        monitor_id: None,
        is_dedicated: true,
        connection_id: relid.wrapping_add(0x1_0000),
    }
}

/// The message that carries an offer.
pub(crate) fn offered(offer: OfferChannel) -> HostMessage {
    HostMessage::Offer(Box::new(offer))
}
