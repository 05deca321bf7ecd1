//! Hostile values: a valid message of which one field holds what it should not.

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{
    ConnectionState, Features, GpadlId, HostMessage, OfferChannel, OfferFlags, Status, VersionResponse,
};

use crate::Random;

/// Changes one field, to a neighbour of its value, a limit, or anything.
pub fn mutate(message: &mut HostMessage, random: &mut Random) {
    match message {
        HostMessage::Offer(offer) => mutate_offer(offer, random),
        HostMessage::Rescind { relid } | HostMessage::CloseReservedResponse { relid } => word(relid, random),
        HostMessage::OpenResult { relid, open_id, status } => match random.below(3) {
            0 => word(relid, random),
            1 => word(open_id, random),
            _ => mutate_status(status, random),
        },
        HostMessage::GpadlCreated { relid, gpadl: GpadlId(gpadl), status } => match random.below(3) {
            0 => word(relid, random),
            1 => word(gpadl, random),
            _ => mutate_status(status, random),
        },
        HostMessage::GpadlTorndown { gpadl: GpadlId(gpadl) } => word(gpadl, random),
        HostMessage::VersionResponse(response) => mutate_version(response, random),
        HostMessage::TlConnectResult { endpoint, service, status } => match random.below(3) {
            0 => guid(endpoint, random),
            1 => guid(service, random),
            _ => mutate_status(status, random),
        },
        HostMessage::ModifyChannelResponse { relid, status } => match random.below(2) {
            0 => word(relid, random),
            _ => mutate_status(status, random),
        },
        HostMessage::ModifyConnectionResponse { state } => mutate_state(state, random),
        // Those without fields, and whatever may come.
        _ => {}
    }
}

fn mutate_offer(offer: &mut OfferChannel, random: &mut Random) {
    match random.below(11) {
        0 => {
            let Class(class) = &mut offer.class;
            guid(class, random);
        }
        1 => guid(&mut offer.instance, random),
        2 => {
            let mut flags = offer.flags.bits();
            half(&mut flags, random);
            offer.flags = OfferFlags::from_bits_retain(flags);
        }
        3 => half(&mut offer.mmio_megabytes, random),
        4 => half(&mut offer.mmio_megabytes_optional, random),
        5 => {
            let index = random.index(offer.user_defined.len());
            if let Some(byte) = offer.user_defined.get_mut(index) {
                [*byte, ..] = random.next_u64().to_le_bytes();
            }
        }
        6 => half(&mut offer.subchannel_index, random),
        7 => {
            let [any, ..] = random.next_u64().to_le_bytes();
            let monitors = [None, Some(0), Some(127), Some(128), Some(255), Some(any)];
            offer.monitor_id = random.pick(&monitors).copied().flatten();
        }
        8 => offer.is_dedicated = !offer.is_dedicated,
        9 => word(&mut offer.connection_id, random),
        _ => word(&mut offer.relid, random),
    }
}

fn mutate_version(response: &mut VersionResponse, random: &mut Random) {
    match random.below(4) {
        0 => response.supported = !response.supported,
        1 => mutate_state(&mut response.state, random),
        2 => word(&mut response.selected, random),
        _ => {
            response.features = match response.features {
                Some(_) if random.chance(1, 2) => None,
                _ => Some(Features::from_bits_retain(random.next_u32())),
            };
        }
    }
}

fn mutate_state(state: &mut ConnectionState, random: &mut Random) {
    let [any, ..] = random.next_u64().to_le_bytes();
    *state = ConnectionState(any);
}

fn mutate_status(status: &mut Status, random: &mut Random) {
    let values = [Status::SUCCESS, Status::UNSUCCESSFUL, Status::CONNECTION_REFUSED, Status(1), Status(u32::MAX)];
    *status = random.pick(&values).copied().unwrap_or(Status::UNSUCCESSFUL);
}

fn guid(value: &mut Uuid, random: &mut Random) {
    *value = if random.chance(1, 4) { Uuid::nil() } else { random.guid() };
}

/// A hostile 32-bit number: next to what it was, a power of two or next to it, a limit, or anything.
pub(super) fn word(value: &mut u32, random: &mut Random) {
    *value = match random.below(8) {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => 0,
        3 => u32::MAX,
        4 => 1_u32.checked_shl(random.next_u32() % 32).unwrap_or(0),
        5 => 1_u32.checked_shl(random.next_u32() % 32).unwrap_or(0).wrapping_sub(1),
        6 => 2047 + random.next_u32() % 3,
        _ => random.next_u32(),
    };
}

fn half(value: &mut u16, random: &mut Random) {
    let mut wide = u32::from(*value);
    word(&mut wide, random);
    let [a, b, ..] = wide.to_le_bytes();
    *value = u16::from_le_bytes([a, b]);
}
