//! What the executor does with a link: contact, sharing, ports, and giving back.

use vmbus_ringbuf::{ControlField, FEATURE_PENDING_SEND_SIZE, Memory, OutgoingPacket, Reader, Signal, Writer};

use super::*;
use crate::link::Line as AnyLine;

const RING: Share = Share::Ring { outgoing_bytes: 8 << 10, incoming_bytes: 12 << 10 };

#[test]
fn from_5_0_on_the_hello_names_source_and_monitor_pages_and_the_answer_the_connection() {
    let mut ends = ends(SETTINGS);
    let layout = ends.link.memory().layout();
    ends.link.post(&contact(Version::V6_0)).unwrap();
    let (connection, message) = ends.next_post(Protocol::NONE);
    let GuestMessage::InitiateContact(contact) = message else { panic!("{message:?}") };
    assert_eq!(connection, 4);
    assert_eq!(contact.target, ContactTarget::Source { sint: 2, vtl: 0, features: Features::PAUSE_RESUME });
    assert_eq!(contact.parent_to_child_monitor, layout.parent_to_child_page() * 4096);
    assert_eq!(contact.child_to_parent_monitor, layout.child_to_parent_page() * 4096);
    // The host knows more than was asked for; what counts is what both know.
    let features = Some(Features::PAUSE_RESUME | Features::MODIFY_CONNECTION);
    let answer = VersionResponse { supported: true, state: ConnectionState::SUCCESSFUL, selected: 9, features };
    ends.say(Protocol::NONE, &HostMessage::VersionResponse(answer));
    ends.hear();
    ends.link.post(&GuestMessage::Pause).unwrap();
    let agreed = Protocol::new(Version::V6_0, Features::PAUSE_RESUME);
    assert_eq!(ends.next_post(agreed), (9, GuestMessage::Pause));
    let modify = GuestMessage::ModifyConnection { parent_to_child_monitor: 0, child_to_parent_monitor: 0 };
    assert!(matches!(ends.link.post(&modify), Err(Error::Io { .. })), "not agreed on");
    ends.link.post(&GuestMessage::Resume).unwrap();
    assert_eq!(ends.next_post(agreed).1, GuestMessage::Resume, "a message that has no place ends nothing");
}

#[test]
fn before_5_0_the_hello_names_the_interrupt_page_and_the_connection_is_fixed() {
    let mut ends = ends(SETTINGS);
    // First a version that the host does not know: that changes nothing but the next attempt.
    ends.link.post(&contact(Version::V5_0)).unwrap();
    assert_eq!(ends.next_post(Protocol::NONE).0, 4);
    let no = VersionResponse { supported: false, state: ConnectionState(0), selected: 3, features: None };
    ends.say(Protocol::NONE, &HostMessage::VersionResponse(no));
    ends.hear();
    assert!(ends.link.post(&GuestMessage::RequestOffers).is_err());
    ends.link.post(&contact(Version::V4_0)).unwrap();
    let (connection, message) = ends.next_post(Protocol::NONE);
    let GuestMessage::InitiateContact(contact) = message else { panic!("{message:?}") };
    let page = ends.link.memory().layout().interrupt_page();
    assert_eq!((connection, contact.target), (1, ContactTarget::InterruptPage(page * 4096)));
    ends.say(Protocol::NONE, &accepted(5));
    ends.hear();
    ends.link.post(&GuestMessage::RequestOffers).unwrap();
    let protocol = Protocol::new(Version::V4_0, Features::empty());
    assert_eq!(ends.next_post(protocol), (1, GuestMessage::RequestOffers));
    // An answer to a goodbye that nobody said changes nothing.
    ends.say(protocol, &HostMessage::UnloadResponse);
    assert_eq!(ends.hear(), HostMessage::UnloadResponse);
    ends.link.post(&GuestMessage::RequestOffers).unwrap();
    assert_eq!(ends.next_post(protocol), (1, GuestMessage::RequestOffers));
    ends.link.post(&GuestMessage::Unload).unwrap();
    assert_eq!(ends.next_post(protocol), (1, GuestMessage::Unload));
    ends.say(protocol, &HostMessage::UnloadResponse);
    assert_eq!(ends.hear(), HostMessage::UnloadResponse);
    assert!(ends.link.post(&GuestMessage::RequestOffers).is_err(), "after an unload nothing is agreed on");
    ends.link.post(&super::contact(Version::V5_3)).unwrap();
}

/// A packet each way: through the port here, through the page list there. The guest's memory is in pieces before.
#[test]
fn what_goes_in_at_one_end_of_a_channel_comes_out_at_the_other() {
    let mut ends = talking(SETTINGS, Version::V5_3);
    let memory = Arc::clone(ends.link.memory());
    let mut held: Vec<_> = (0..memory.free_pages()).map(|_| memory.allocate(1).unwrap()).collect();
    for number in [40, 30, 20, 10, 0] {
        held.remove(number);
    }
    let pages = ends.share(5, 0x10, RING);
    assert!(pages.windows(2).all(|pair| pair[0] + 1 != pair[1]), "{pages:?} are scattered");
    let port = ends.link.port(5, GpadlId(0x10)).unwrap();
    let (to_host, from_host) = pages.split_at(2);
    let host = &ends.host.memory;
    let (mut their_reader, mut their_writer) =
        (Reader::new(host.ring(to_host).unwrap().0).unwrap(), Writer::new(host.ring(from_host).unwrap().0).unwrap());
    let (mut writer, mut reader) = (Writer::new(port.outgoing).unwrap(), Reader::new(port.incoming).unwrap());
    for round in 0..100_u64 {
        let payload = round.to_le_bytes().repeat(usize::try_from(round).unwrap() + 1);
        let needed = writer.try_write(&OutgoingPacket::in_band(round), &[&payload]).unwrap();
        assert_eq!(needed, Signal::Needed);
        let back = received(&mut their_reader);
        assert_eq!(back, [(round, payload)]);
        let _ = their_writer.try_write(&OutgoingPacket::in_band(round + 1), &[&back[0].1]).unwrap();
        assert_eq!(received(&mut reader), [(round + 1, back[0].1.clone())]);
    }
}

fn received<M: Memory>(reader: &mut Reader<M>) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    let mut batch = reader.batch();
    while let Some(packet) = batch.next().unwrap() {
        let mut payload = vec![0; packet.payload().len()];
        packet.payload().copy_to(&mut payload).unwrap();
        all.push((packet.transaction_id(), payload));
    }
    let _ = batch.finish();
    all
}

/// The largest GPADL: 16,384 pages in 586 messages, more than the socket holds, while the host reads.
#[test]
fn a_buffer_of_64_mib_is_shared() {
    let mut ends = talking(Settings { processors: 1, memory_bytes: 128 << 20 }, Version::V5_3);
    let free = ends.link.memory().free_pages();
    // Both are posted before the host reads any of it.
    ends.link.share(3, GpadlId(1), Share::Buffer { bytes: 32 << 20 }).unwrap();
    ends.link.share(3, GpadlId(2), Share::Buffer { bytes: 64 << 20 }).unwrap();
    let [first, pages] = [(); 2].map(|()| shared_pages(&mut ends.host.connection));
    assert_eq!((first.len(), pages.len()), (8192, 16_384));
    let buffer = ends.link.buffer(GpadlId(2)).unwrap();
    assert_eq!(buffer.bytes(), 64 << 20);
    assert!(Arc::ptr_eq(&buffer, &ends.link.buffer(GpadlId(2)).unwrap()), "mapped once");
    buffer.set_bits((64 << 20) - 4, 0xABCD).unwrap();
    let mut end = [0; 4];
    ends.host.memory.read(&pages, (64 << 20) - 4, &mut end).unwrap();
    assert_eq!(end, [0xCD, 0xAB, 0, 0]);
    ends.host.memory.write(&pages, 0, &[7]).unwrap();
    assert_eq!(buffer.load(0), Some(7));
    assert!(ends.link.share(3, GpadlId(3), Share::Buffer { bytes: (64 << 20) + 4096 }).is_err());
    ends.link.unshare(GpadlId(1));
    ends.link.unshare(GpadlId(2));
    ends.link.unshare(GpadlId(2));
    assert_eq!(ends.link.memory().free_pages(), free);
    assert_eq!((buffer.is_revoked(), buffer.load(0)), (true, Some(0)), "its user has lost it");
}

#[test]
fn what_makes_no_gpadl_is_refused_and_takes_no_pages() {
    let mut ends = talking(SETTINGS, Version::V5_3);
    let free = ends.link.memory().free_pages();
    let ring = |outgoing_bytes, incoming_bytes| Share::Ring { outgoing_bytes, incoming_bytes };
    for what in [
        Share::Buffer { bytes: 0 },
        Share::Buffer { bytes: 4097 },
        Share::Buffer { bytes: 2 << 20 },
        ring(4096, 8192),
        ring(8192, 0),
        ring(8192, 8191),
        ring(!4095, !4095),
    ] {
        assert!(ends.link.share(1, GpadlId(1), what).is_err(), "{what:?}");
        assert_eq!(ends.link.memory().free_pages(), free, "{what:?}");
    }
    ends.share(1, 1, RING);
    assert!(ends.link.share(1, GpadlId(1), RING).is_err(), "the number is taken");
    assert!(ends.link.buffer(GpadlId(1)).is_err() && ends.link.port(1, GpadlId(2)).is_err());
    assert!(ends.link.port(20_000, GpadlId(1)).is_err(), "no such relid has a signal bit");
    let header = crate::message::GpadlHeader { relid: 1, gpadl: GpadlId(9), range_bytes: 0, ranges: 0, words: vec![] };
    assert!(ends.link.post(&GuestMessage::GpadlHeader(header)).is_err());
    ends.link.unshare(GpadlId(1));
    assert_eq!(ends.link.memory().free_pages(), free);

    let mut early = super::ends(SETTINGS);
    let free = early.link.memory().free_pages();
    assert!(early.link.share(1, GpadlId(1), RING).is_err(), "nothing is agreed on");
    assert_eq!(early.link.memory().free_pages(), free);
}

/// Rescinded: nobody signals any more; what the host had written is still there, until the pages are given back.
#[test]
fn a_rescinded_line_keeps_its_rings_until_they_are_unshared() {
    let mut ends = talking(SETTINGS, Version::V5_3);
    let pages = ends.share(5, 1, RING);
    let port = ends.link.port(5, GpadlId(1)).unwrap();
    let (mut writer, mut reader) = (Writer::new(port.outgoing).unwrap(), Reader::new(port.incoming).unwrap());
    let line = port.line.clone();
    assert!(line.check().is_ok() && !line.is_rescinded() && !line.unmasks());
    assert!(matches!(line, AnyLine::Wire(_)) && line.descriptor().is_none() && line.keeps_rings());
    let mut theirs = Writer::new(ends.host.memory.ring(&pages[2..]).unwrap().0).unwrap();
    let _ = theirs.try_write(&OutgoingPacket::in_band(1), &[b"in time"]);
    port.line.rescind();
    assert!(line.is_rescinded());
    assert!(matches!(line.signal(), Err(Error::Rescinded { device }) if device.contains('5')));
    assert!(!is_readable(ends.host.interrupts.signals()));
    assert_eq!(received(&mut reader), [(1, b"in time\0".to_vec())]);
    ends.link.unshare(GpadlId(1));
    let contents = |ends: &Ends| {
        let mut rings = vec![1; pages.len() * PAGE_BYTES];
        ends.host.memory.read(&pages, 0, &mut rings).unwrap();
        rings
    };
    let before = contents(&ends);
    let _ = writer.try_write(&OutgoingPacket::in_band(1), &[b"too late"]);
    assert!(!matches!(reader.peek(), Ok(Some(_))));
    assert_eq!(contents(&ends), before, "nothing reached the host");
}

/// A host that does not find the bit gives no signal when there is room, and a blocked sender only looks by itself every
/// now and then.
#[test]
fn rings_say_that_their_writers_ask_for_room() {
    let mut ends = talking(SETTINGS, Version::V5_3);
    ends.share(5, 1, RING);
    let port = ends.link.port(5, GpadlId(1)).unwrap();
    for ring in [&port.outgoing, &port.incoming] {
        assert_eq!(ring.load(ControlField::FeatureBits), FEATURE_PENDING_SEND_SIZE);
    }
}

/// Pages that are given back while somebody still has the ring: he loses it before somebody else gets them.
#[test]
fn a_ring_that_is_unshared_is_out_of_reach() {
    let mut ends = talking(SETTINGS, Version::V5_3);
    let pages = ends.share(5, 1, RING);
    let port = ends.link.port(5, GpadlId(1)).unwrap();
    let mut writer = Writer::new(port.outgoing).unwrap();
    ends.link.unshare(GpadlId(1));
    assert_eq!(ends.share(6, 2, RING), pages, "another channel's by now");
    let _ = writer.try_write(&OutgoingPacket::in_band(1), &[b"too late"]);
    let mut rings = vec![1; pages.len() * PAGE_BYTES];
    ends.host.memory.read(&pages, 0, &mut rings).unwrap();
    assert!(rings.iter().all(|byte| *byte == 0));
}
