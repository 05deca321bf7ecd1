//! What a script makes the host, applications and dispatchers say.

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{
    ConnectionState, Features, GpadlId, HostMessage, OfferChannel, OfferFlags, Status, VersionResponse,
};
use vmbus_channels::ChannelId;
use vmbus_channels::control::{Command, Input, OpenSettings};
use vmbus_ringbuf::doubles::Script;

use super::watch::Watch;

/// One of these, the latest first.
pub(super) fn pick<T: Copy>(script: &mut Script<'_>, from: &[T]) -> Option<T> {
    let back = usize::from(script.byte()) % from.len().max(1);
    from.iter().rev().nth(back).copied()
}

fn relid(script: &mut Script<'_>) -> u32 {
    match script.byte() {
        255 => 0,
        254 => 2047,
        253 => 2048,
        252 => script.u32(),
        few => u32::from(few) % 16 + 1,
    }
}

fn status(script: &mut Script<'_>) -> Status {
    match script.byte() {
        0..160 => Status::SUCCESS,
        160..250 => Status::UNSUCCESSFUL,
        _ => Status(script.u32()),
    }
}

/// Endpoints, services and classes: so few that they meet.
fn name(script: &mut Script<'_>) -> Uuid {
    Uuid::from_u128(u128::from(script.byte() % 4))
}

fn offer(script: &mut Script<'_>) -> HostMessage {
    let how = script.byte();
    let class = if how & 1 == 0 { Class::SCSI } else { Class(name(script)) };
    HostMessage::Offer(Box::new(OfferChannel {
        class,
        instance: Uuid::from_u128(u128::from(script.byte() % 32)),
        flags: if how & 2 == 0 { OfferFlags::empty() } else { OfferFlags::TLNPI_PROVIDER },
        mmio_megabytes: 0,
        mmio_megabytes_optional: 0,
        user_defined: [how; 120],
        subchannel_index: if how & 12 == 12 { u16::from(script.byte() % 3) } else { 0 },
        relid: relid(script),
        monitor_id: (how & 16 != 0).then_some(how),
        is_dedicated: how & 32 == 0,
        connection_id: u32::from(how),
    }))
}

fn gpadl(script: &mut Script<'_>, watch: &Watch) -> (u32, GpadlId) {
    if script.byte() < 16 {
        return (relid(script), GpadlId(script.u32()));
    }
    pick(script, &watch.all_gpadls).unwrap_or((0, GpadlId(0)))
}

/// Something that the host says, sense or not.
pub(super) fn message(script: &mut Script<'_>, watch: &Watch) -> Input {
    Input::Message(match script.byte() % 20 {
        0..=3 => offer(script),
        4 | 5 => HostMessage::Rescind { relid: relid(script) },
        6 => HostMessage::AllOffersDelivered,
        7..=9 => {
            let (relid, open_id) = match script.byte() {
                0..16 => (relid(script), script.u32()),
                _ => pick(script, &watch.opens).unwrap_or_default(),
            };
            HostMessage::OpenResult { relid, open_id, status: status(script) }
        }
        10..=12 => {
            let (relid, gpadl) = gpadl(script, watch);
            HostMessage::GpadlCreated { relid, gpadl, status: status(script) }
        }
        13 => HostMessage::GpadlTorndown { gpadl: gpadl(script, watch).1 },
        14 => {
            let how = script.byte();
            HostMessage::VersionResponse(VersionResponse {
                supported: how & 3 != 0,
                state: ConnectionState(if how & 12 == 0 { how >> 4 } else { 0 }),
                selected: script.u32(),
                features: (how & 16 != 0).then(|| Features::from_bits_retain(script.u32())),
            })
        }
        15 => HostMessage::UnloadResponse,
        16 => HostMessage::ModifyChannelResponse { relid: relid(script), status: status(script) },
        17 => match script.byte() % 3 {
            0 => HostMessage::CloseReservedResponse { relid: relid(script) },
            1 => HostMessage::ModifyConnectionResponse { state: ConnectionState(script.byte() % 3) },
            _ => HostMessage::PauseResponse,
        },
        18 => {
            let (endpoint, service) = (name(script), name(script));
            HostMessage::TlConnectResult { endpoint, service, status: status(script) }
        }
        _ => return any_bytes(script, watch),
    })
}

/// Bytes as they might come from the link.
fn any_bytes(script: &mut Script<'_>, watch: &Watch) -> Input {
    let kind = script.byte();
    let length = script.byte().min(240);
    let mut bytes: Vec<u8> = (0..length).map(|_| script.byte()).collect();
    for (byte, header) in bytes.iter_mut().zip([kind % 32, 0, 0, 0, 0, 0, 0, 0]) {
        *byte = header;
    }
    match HostMessage::parse(&bytes, watch.protocol) {
        Ok(message) => Input::Message(message),
        Err(error) => Input::Malformed(error),
    }
}

fn settings(script: &mut Script<'_>) -> OpenSettings {
    let how = script.byte();
    OpenSettings {
        outgoing_bytes: if how < 8 { script.u32() } else { 4096 * (2 + u32::from(how) % 8) },
        incoming_bytes: if how < 4 { script.u32() } else { 8192 },
        processor: u32::from(script.byte() % 5),
        user_defined: [how; 120],
    }
}

/// Something that an application asks for, sense or not.
pub(super) fn command(script: &mut Script<'_>, watch: &Watch) -> Command {
    let what = script.byte() % 20;
    let id = pick(script, &watch.channels);
    match (what, id) {
        (0..=5, Some(id)) => Command::Open(id, settings(script)),
        (6 | 7, Some(id)) => Command::Close(id),
        (8 | 9, Some(id)) => Command::CreateGpadl(id, 4096 * u32::from(script.byte())),
        (10, Some(id)) => Command::TearDownGpadl(id, gpadl(script, watch).1),
        (11 | 12, Some(id)) => Command::Move(id, u32::from(script.byte() % 5)),
        (13, Some(id)) => Command::OpenReserved(id, settings(script), u32::from(script.byte())),
        (14, _) => {
            let silo = (script.byte() < 64).then(Uuid::nil);
            Command::TlConnect { endpoint: name(script), service: name(script), silo }
        }
        (15, _) => Command::ModifyConnection { parent_to_child_monitor: 4096, child_to_parent_monitor: 8192 },
        (16, _) if script.byte() < 32 => Command::Unload,
        (17, _) if script.byte() < 64 => Command::Suspend,
        (17, _) => Command::Resume,
        (18, _) if script.byte() < 128 => Command::PauseMessages,
        (18, _) => Command::ResumeMessages,
        _ => Command::Connect,
    }
}

/// An answer or a failure that nobody waits for.
pub(super) fn stale(script: &mut Script<'_>, watch: &Watch) -> Option<Input> {
    let id: ChannelId = pick(script, &watch.channels)?;
    if script.byte().is_multiple_of(2) {
        (!watch.is_held(id)).then_some(Input::Unreferenced(id))
    } else {
        (!watch.is_retiring(id)).then_some(Input::Retired(id))
    }
}
