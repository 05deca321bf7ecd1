//! Every violation that the checker knows, by a guest that commits it: found, and nothing else is.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "shared by several tests, of which each needs a part")]
#[path = "../common/mod.rs"]
mod common;
mod memory;

use std::time::Duration;

use common::{Guest, MONITORS, RING_PAGES};
use uuid::Uuid;
use vmbus::message::{
    ContactTarget, Features, GpadlId, GuestMessage, HostMessage, InitiateContact, Message, OpenFlags, Status, Version,
};
use vmbus_ringbuf::{ControlField, Memory as _, OutgoingPacket};
use vmbus_simhost::device::DynamicMemorySettings;
use vmbus_simhost::{Config, DeviceSpec, Latency, Limits, PAGE_BYTES, ViolationKind};

fn config() -> Config {
    Config::seeded(1).with_device(DeviceSpec::echo(1)).with_device(DeviceSpec::echo(2))
}

/// A guest with two offers, relids 1 and 2.
fn guest(version: Version) -> Guest {
    Guest::connected(config(), version)
}

/// Exactly these were committed, and each is counted.
#[track_caller]
fn found(guest: &mut Guest, kinds: &[ViolationKind]) {
    assert_eq!(guest.violations(), kinds, "{}", guest.sim.trace());
    for kind in kinds {
        assert_ne!(guest.host().violation_count(*kind), 0);
    }
    assert_eq!(guest.host().violation_total(), kinds.len() as u64);
}

fn hello(version: Version, monitors: [u64; 2]) -> GuestMessage {
    let [parent_to_child_monitor, child_to_parent_monitor] = monitors;
    let target = ContactTarget::InterruptPage(0);
    GuestMessage::InitiateContact(InitiateContact {
        version,
        target_vp: 0,
        target,
        parent_to_child_monitor,
        child_to_parent_monitor,
        client: None,
    })
}

fn refused(relid: u32, gpadl: GpadlId) -> HostMessage {
    HostMessage::GpadlCreated { relid, gpadl, status: Status::UNSUCCESSFUL }
}

#[test]
fn bytes_that_are_no_message() {
    let mut guest = guest(Version::V5_3);
    for bytes in [&[][..], &[99, 0, 0, 0, 0, 0, 0, 0], &[5, 0, 0, 0, 0, 0, 0, 0, 1], &[1, 0, 0, 0, 0, 0, 0, 0]] {
        guest.sim.post(&Message::try_from(bytes).unwrap());
    }
    found(&mut guest, &[ViolationKind::Malformed; 4]);
}

#[test]
fn speaking_before_hello_and_after_goodbye() {
    let mut guest = Guest::new(config());
    guest.post(&GuestMessage::RequestOffers);
    assert!(guest.contact(Version::V5_3, Features::empty()));
    guest.request_offers();
    guest.post(&GuestMessage::Unload);
    guest.post(&GuestMessage::RelidReleased { relid: 1 });
    guest.post(&GuestMessage::Unload);
    use ViolationKind as Kind;
    found(&mut guest, &[Kind::BeforeContact, Kind::AfterUnload, Kind::UnloadTwice]);
}

#[test]
fn a_second_hello_without_goodbye() {
    let mut guest = guest(Version::V4_1);
    guest.post(&hello(Version::V4_1, MONITORS));
    found(&mut guest, &[ViolationKind::ContactTwice]);
    assert!(guest.host().offered().iter().all(|offer| offer.relid.is_none()), "the host begins anew all the same");
}

#[test]
fn monitor_pages_that_are_none() {
    for monitors in [[0, PAGE_BYTES], [PAGE_BYTES, 0], [PAGE_BYTES, PAGE_BYTES], [PAGE_BYTES, 1 << 40], [8, PAGE_BYTES]]
    {
        let mut guest = Guest::new(config());
        guest.post(&hello(Version::V4_1, monitors));
        found(&mut guest, &[ViolationKind::MonitorPages]);
        assert_eq!(guest.host().protocol().version, None);
    }
}

#[test]
fn offers_requested_twice() {
    let mut guest = guest(Version::V5_3);
    guest.post(&GuestMessage::RequestOffers);
    assert!(guest.inbox.is_empty());
    found(&mut guest, &[ViolationKind::OffersRequestedTwice]);
}

#[test]
fn relids_that_were_never_offered() {
    for message in [
        Guest::open_message(77, GpadlId(1)),
        GuestMessage::Close { relid: 0 },
        GuestMessage::GpadlTeardown { relid: 3000, gpadl: GpadlId(1) },
        GuestMessage::RelidReleased { relid: 77 },
        GuestMessage::RelidReleased { relid: u32::MAX },
    ] {
        let mut guest = guest(Version::V5_2);
        guest.post(&message);
        found(&mut guest, &[ViolationKind::NotOffered]);
    }
}

#[test]
fn a_relid_of_the_past() {
    let mut guest = guest(Version::V5_2);
    rescind(&mut guest, 1);
    guest.post(&GuestMessage::RelidReleased { relid: 1 });
    guest.post(&GuestMessage::Close { relid: 1 });
    found(&mut guest, &[ViolationKind::AfterRelease]);
}

/// Takes the channel back, and the guest hears of it.
fn rescind(guest: &mut Guest, relid: u32) {
    let id = guest.host().offer_on_relid(relid).unwrap();
    guest.host().rescind(id).unwrap();
    guest.drain();
    assert_eq!(guest.inbox.pop(), Some(HostMessage::Rescind { relid }));
}

#[test]
fn an_open_channel_is_opened_again() {
    let mut guest = guest(Version::V5_2);
    let open = guest.open(1);
    guest.post(&Guest::open_message(1, open.ring));
    assert!(guest.inbox.is_empty());
    found(&mut guest, &[ViolationKind::OpenTwice]);
}

#[test]
fn opening_and_sharing_after_the_rescind_was_heard() {
    let mut guest = guest(Version::V5_2);
    let ring = guest.share(1, 2 * RING_PAGES);
    rescind(&mut guest, 1);
    guest.post(&Guest::open_message(1, ring));
    let pages = guest.pages(1);
    let late = guest.post_gpadl(1, pages);
    guest.expect(&refused(1, late));
    found(&mut guest, &[ViolationKind::AfterRescind; 2]);
}

/// The twin: while the rescind is under way the guest can't know. The host does not answer the open, and refuses the
/// GPADL.
#[test]
fn opening_before_the_rescind_was_heard_is_no_violation() {
    let mut guest = guest(Version::V5_2);
    let ring = guest.share(1, 2 * RING_PAGES);
    let id = guest.host().offer_on_relid(1).unwrap();
    guest.host().rescind(id).unwrap();
    guest.post(&Guest::open_message(1, ring));
    guest.expect(&HostMessage::Rescind { relid: 1 });
    guest.assert_honest();
}

#[test]
fn an_open_whose_rings_make_no_sense() {
    let (mut count, pages) = (0, 2 * RING_PAGES);
    for (pages, split, of) in
        [(pages, 0, 1), (pages, 1, 1), (pages, 7, 1), (pages, 8, 1), (pages, 99, 1), (pages, 4, 2)]
    {
        let mut guest = guest(Version::V5_2);
        let ring = guest.share(of, pages);
        let mut request = Guest::open_request(1, ring);
        request.downstream_offset_pages = split;
        guest.post(&GuestMessage::Open(Box::new(request)));
        guest.expect(&HostMessage::OpenResult { relid: 1, open_id: 1001, status: Status::UNSUCCESSFUL });
        found(&mut guest, &[ViolationKind::OpenRing]);
        count += 1;
    }
    assert_eq!(count, 6);
}

#[test]
fn a_long_open_that_was_not_agreed_on() {
    for (signal, flags) in [(Some((1, 1)), OpenFlags::empty()), (None, OpenFlags::REDIRECT_INTERRUPT)] {
        let mut guest = guest(Version::V5_3);
        let ring = guest.share(1, 2 * RING_PAGES);
        let mut request = Guest::open_request(1, ring);
        (request.signal, request.flags) = (signal, flags);
        // As it was meant: it can't be encoded.
        guest.host().message(&GuestMessage::Open(Box::new(request)));
        guest.drain();
        found(&mut guest, &[ViolationKind::OpenForm]);
    }
}

#[test]
fn processors_that_there_are_not() {
    let mut guest = guest(Version::V5_3);
    let ring = guest.share(1, 2 * RING_PAGES);
    let mut request = Guest::open_request(1, ring);
    request.target_vp = 4;
    guest.post(&GuestMessage::Open(Box::new(request)));
    guest.expect(&HostMessage::OpenResult { relid: 1, open_id: 1001, status: Status::UNSUCCESSFUL });
    let _open = guest.open(2);
    guest.post(&GuestMessage::ModifyChannel { relid: 2, target_vp: 4 });
    guest.expect(&HostMessage::ModifyChannelResponse { relid: 2, status: Status::UNSUCCESSFUL });
    found(&mut guest, &[ViolationKind::Processor; 2]);
}

#[test]
fn closing_what_is_not_open_or_in_the_other_way() {
    let mut guest = guest(Version::V5_2);
    guest.post(&GuestMessage::Close { relid: 1 });
    let _open = guest.open(2);
    guest.post(&GuestMessage::CloseReserved { relid: 2, target_vp: 0, target_sint: 2 });
    found(&mut guest, &[ViolationKind::CloseNotOpen; 2]);
}

#[test]
fn messages_that_this_version_does_not_have() {
    let (endpoint, service) = (Uuid::nil(), Uuid::nil());
    let all = [
        (Version::V3_0, GuestMessage::ModifyChannel { relid: 1, target_vp: 0 }),
        (Version::V4_0, GuestMessage::ModifyChannel { relid: 1, target_vp: 0 }),
        (Version::V3_0, GuestMessage::TlConnect { endpoint, service, silo: None }),
        (Version::V5_1, GuestMessage::TlConnect { endpoint, service, silo: Some(Uuid::nil()) }),
        (Version::V5_3, GuestMessage::Pause),
        (Version::V5_3, GuestMessage::Resume),
        (Version::V5_3, GuestMessage::ModifyConnection { parent_to_child_monitor: 0, child_to_parent_monitor: 0 }),
        (
            Version::V3_0,
            GuestMessage::OpenReserved {
                relid: 1,
                target_vp: 0,
                target_sint: 2,
                ring: GpadlId(1),
                downstream_offset_pages: 4,
            },
        ),
    ];
    for (version, message) in all {
        let mut guest = guest(version);
        guest.host().message(&message);
        guest.drain();
        found(&mut guest, &[ViolationKind::Unsupported]);
    }
}

#[test]
fn moves_that_can_not_be() {
    let latency = Latency { modify: Duration::from_millis(5), ..Latency::default() };
    let mut guest = Guest::connected(Config { latency, ..config() }, Version::V5_3);
    guest.post(&GuestMessage::ModifyChannel { relid: 2, target_vp: 1 });
    guest.expect(&HostMessage::ModifyChannelResponse { relid: 2, status: Status::UNSUCCESSFUL });
    let _open = guest.open(1);
    guest.post(&GuestMessage::ModifyChannel { relid: 1, target_vp: 1 });
    guest.post(&GuestMessage::ModifyChannel { relid: 1, target_vp: 2 });
    guest.settle();
    let answers =
        [Status::UNSUCCESSFUL, Status::SUCCESS].map(|status| HostMessage::ModifyChannelResponse { relid: 1, status });
    assert!(guest.inbox.ends_with(&answers), "{:?}", guest.inbox);
    found(&mut guest, &[ViolationKind::Modify; 2]);
}

#[test]
fn pausing_twice() {
    let mut guest = guest(Version::V6_0);
    guest.post(&GuestMessage::Resume);
    guest.post(&GuestMessage::Pause);
    guest.post(&GuestMessage::Pause);
    found(&mut guest, &[ViolationKind::Pause; 2]);
}

#[test]
fn more_connections_than_a_host_bears() {
    let service = Uuid::from_u128(5);
    let limits = Limits { connections: 2, ..Limits::default() };
    let mut guest = Guest::connected(Config { limits, services: vec![service], ..Config::seeded(1) }, Version::V5_2);
    for endpoint in (0..3).map(Uuid::from_u128) {
        guest.post(&GuestMessage::TlConnect { endpoint, service, silo: None });
    }
    assert_eq!(guest.offers.len(), 2);
    found(&mut guest, &[ViolationKind::TooManyConnections]);
}

#[test]
fn a_ring_that_the_guest_breaks() {
    for field in [ControlField::WriteIndex, ControlField::ReadIndex] {
        let mut guest = guest(Version::V5_2);
        let mut open = guest.open(1);
        let ring = if field == ControlField::WriteIndex { open.writer.memory() } else { open.reader.memory() };
        ring.store(field, 12345);
        // The host looks at the read index when it runs out of the room that it knows of.
        for id in 0..100 {
            if field == ControlField::ReadIndex
                && open.writer.try_write(&OutgoingPacket::in_band(id), &[&[0; 400]]).is_err()
            {
                break;
            }
            guest.sim.signal(1);
        }
        found(&mut guest, &[ViolationKind::Ring]);
    }
}

#[test]
fn a_device_protocol_that_the_guest_breaks() {
    let config = Config::seeded(1).with_device(DeviceSpec::dynamic_memory(DynamicMemorySettings::default()));
    let mut guest = Guest::connected(config, Version::V5_2);
    let mut open = guest.open(1);
    // A status report before a version was agreed on; then bytes that are no message.
    let status = [&[5, 0, 48, 0, 1, 0, 0, 0][..], &[0; 40]].concat();
    guest.send(&mut open, &OutgoingPacket::in_band(1), &status);
    guest.send(&mut open, &OutgoingPacket::in_band(2), &[1, 0, 200, 0]);
    found(&mut guest, &[ViolationKind::Device; 2]);
}

#[test]
fn a_guest_that_does_not_listen() {
    let limits = Limits { messages: 4, ..Limits::default() };
    let mut guest = Guest::connected(Config { limits, ..config() }, Version::V5_3);
    for _ in 0..10 {
        guest.sim.message(&GuestMessage::ModifyChannel { relid: 77, target_vp: 0 });
    }
    assert_eq!(guest.host().violation_count(ViolationKind::Deaf), 6);
}

/// What a test expects can be tolerated; it is counted still.
#[test]
fn tolerated_violations_are_counted_only() {
    let config = Config { tolerated: vec![ViolationKind::ReleasedUnasked], ..config() };
    let mut guest = Guest::connected(config, Version::V5_2);
    guest.post(&GuestMessage::RelidReleased { relid: 1 });
    guest.assert_honest();
    assert_eq!(guest.host().violation_total(), 0);
    assert_eq!(guest.host().violation_count(ViolationKind::ReleasedUnasked), 1);
}
