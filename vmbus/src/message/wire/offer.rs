//! Layout of an offer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

use super::super::OfferChannel;
use super::super::value::{OfferFlags, USER_DEFINED_BYTES, UserDefined};
use super::{Guid, HEADER_BYTES};
use crate::class::Class;

/// Body of message 1.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct OfferBody {
    class: Guid,
    instance: Guid,
    reserved: [u8; 16],
    flags: le::U16,
    mmio_megabytes: le::U16,
    user_defined: [u8; USER_DEFINED_BYTES],
    subchannel_index: le::U16,
    mmio_megabytes_optional: le::U16,
    relid: le::U32,
    monitor_id: u8,
    /// Lowest bit: `monitor_id` means something.
    monitor_flags: u8,
    /// Lowest bit: the channel's signals have a connection of their own.
    interrupt_flags: le::U16,
    connection_id: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<OfferBody>() == 196);

/// In both flag fields.
const SET: u8 = 1;

impl From<OfferBody> for OfferChannel {
    fn from(body: OfferBody) -> Self {
        let user_defined: UserDefined = body.user_defined;
        Self {
            class: Class(body.class.into()),
            instance: body.instance.into(),
            flags: OfferFlags::from_bits_retain(body.flags.get()),
            mmio_megabytes: body.mmio_megabytes.get(),
            mmio_megabytes_optional: body.mmio_megabytes_optional.get(),
            user_defined,
            subchannel_index: body.subchannel_index.get(),
            relid: body.relid.get(),
            monitor_id: (body.monitor_flags & SET != 0).then_some(body.monitor_id),
            is_dedicated: body.interrupt_flags.get() & u16::from(SET) != 0,
            connection_id: body.connection_id.get(),
        }
    }
}

impl From<&OfferChannel> for OfferBody {
    fn from(offer: &OfferChannel) -> Self {
        Self {
            class: offer.class.0.into(),
            instance: offer.instance.into(),
            reserved: [0; 16],
            flags: offer.flags.bits().into(),
            mmio_megabytes: offer.mmio_megabytes.into(),
            user_defined: offer.user_defined,
            subchannel_index: offer.subchannel_index.into(),
            mmio_megabytes_optional: offer.mmio_megabytes_optional.into(),
            relid: offer.relid.into(),
            monitor_id: offer.monitor_id.unwrap_or_default(),
            monitor_flags: if offer.monitor_id.is_some() { SET } else { 0 },
            interrupt_flags: u16::from(offer.is_dedicated).into(),
            connection_id: offer.connection_id.into(),
        }
    }
}
