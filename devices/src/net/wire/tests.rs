//! Messages to bytes and back, and bytes that are almost a message.

use super::info::*;
use super::nvsp::{self, Capabilities, Version};
use super::offload::{self, Offloads};
use super::oid::Oid;
use super::rndis::{self, packet_header};
use super::{WireError, scale};
use proptest::prelude::*;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn padded(bytes: &[u32]) -> Vec<u8> {
    let mut bytes = words(bytes);
    bytes.resize(nvsp::MESSAGE_BYTES, 0);
    bytes
}

#[test]
fn what_this_guest_says_by_nvsp() {
    use nvsp::GuestMessage as Message;
    let capabilities = Capabilities::IEEE_8021Q | Capabilities::TEAMING;
    let table: [(Message, Vec<u8>); 10] = [
        (Message::Init(Version::V6_1), padded(&[1, 0x6_0001, 0x6_0001])),
        (Message::NdisConfig { mtu: 1514, capabilities }, padded(&[125, 1514, 0, 0x28, 0])),
        (Message::NdisVersion { major: 6, minor: 30 }, padded(&[100, 6, 30])),
        (Message::ReceiveBuffer { gpadl: 7 }, padded(&[101, 7, 0xcafe])),
        (Message::RevokeReceiveBuffer, padded(&[103, 0xcafe])),
        (Message::SendBuffer { gpadl: 8 }, padded(&[104, 8, 0])),
        (Message::RevokeSendBuffer, padded(&[106, 0])),
        (Message::Rndis { channel: nvsp::ChannelType::DATA, section: Some((3, 99)) }, padded(&[107, 0, 3, 99])),
        (Message::Rndis { channel: nvsp::ChannelType::CONTROL, section: None }, padded(&[107, 1, u32::MAX, 0])),
        (Message::Subchannels(3), padded(&[133, 1, 3])),
    ];
    for (message, bytes) in table {
        assert_eq!(message.to_bytes().as_slice(), bytes, "{message:?}");
    }
    assert_eq!(Message::RndisComplete(nvsp::Status::SUCCESS).completion().as_slice(), words(&[108, 1]));
}

#[test]
fn what_a_host_says_by_nvsp() {
    use nvsp::{ChannelType, HostMessage as Message, Section, Status, parse};
    let section = |words: [u32; 4]| {
        let [offset, part_bytes, parts, end] = words.map(zerocopy::little_endian::U32::new);
        Section { offset, part_bytes, parts, end }
    };
    let status = Status::SUCCESS;
    let table = [
        (vec![2, 9, 34, 1], Message::InitComplete(status)),
        (vec![2, 9, 34, 7], Message::InitComplete(Status(7))),
        (
            vec![102, 1, 1, 0, 1728, 100, 172_800],
            Message::ReceiveBufferComplete { status, sections: 1, first: section([0, 1728, 100, 172_800]) },
        ),
        (
            vec![102, 2, 0],
            Message::ReceiveBufferComplete { status: Status::FAILURE, sections: 0, first: section([0; 4]) },
        ),
        (vec![105, 1, 6144], Message::SendBufferComplete { status, section_bytes: 6144 }),
        (vec![107, 1, u32::MAX, 0], Message::Rndis(ChannelType::CONTROL)),
        (vec![108, 1], Message::RndisComplete(status)),
        (vec![128, 1, 5], Message::VfAssociation { allocated: true, serial: 5 }),
        (vec![133, 1, 2], Message::SubchannelComplete { status, count: 2 }),
    ];
    for (bytes, expected) in table {
        let bytes = words(&bytes);
        assert_eq!(parse(&bytes, Version::V6_1), Ok(expected));
        // A word less is too short.
        let short = parse(&bytes[..bytes.len() - 4], Version::V6_1);
        assert!(matches!(short, Err(WireError::TooShort { .. })), "{expected:?}: {short:?}");
    }
    for kind in [1, 100, 101, 103, 104, 106, 125, 129] {
        assert_eq!(parse(&padded(&[kind]), Version::V6_1), Err(WireError::Direction(kind)));
    }
    for kind in [0, 3, 99, 109, 127, 135, u32::MAX] {
        assert_eq!(parse(&padded(&[kind]), Version::V6_1), Err(WireError::Unknown(kind)));
    }
    assert!(parse(&[], Version::V6_1).is_err());
}

#[test]
fn the_table_of_queues_is_where_it_is_said_to_be_but_for_old_hosts() {
    use nvsp::{HostMessage as Message, parse};
    let entries: Vec<u32> = (100..116).collect();
    let table = Message::IndirectionTable(entries.clone().try_into().unwrap());
    let message = |offset: u32, gap: usize| {
        let mut bytes = words(&[134, 16, offset]);
        bytes.resize(12 + gap, 0xee);
        bytes.extend(words(&entries));
        bytes
    };
    assert_eq!(parse(&message(12, 0), Version::V6_1), Ok(table));
    assert_eq!(parse(&message(40, 28), Version::V6_1), Ok(table));
    // Up to 6.0 it is behind a whole message, whatever is said, if there is room for that.
    assert_eq!(parse(&message(0xffff, 28), Version::V6), Ok(table));
    assert_eq!(parse(&message(12, 0), Version::V5), Ok(table));
    for offset in [13, 76, 77, u32::MAX] {
        assert!(parse(&message(offset, 0), Version::V6_1).is_err(), "{offset}");
    }
    for count in [0, 15, 17, u32::MAX] {
        let mut bytes = message(12, 0);
        bytes[4..8].copy_from_slice(&count.to_le_bytes());
        assert!(parse(&bytes, Version::V6_1).is_err());
    }
}

#[test]
fn what_this_guest_says_by_rndis() {
    use rndis::GuestMessage as Message;
    let table: [(Message<'_>, Vec<u8>); 6] = [
        (Message::Initialize, words(&[2, 24, 9, 1, 0, 0x4000])),
        (Message::Halt, words(&[3, 12, 9])),
        (Message::Query(Oid::LINK_SPEED, &[]), words(&[4, 28, 9, 0x1_0107, 0, 20, 0])),
        (Message::Set(Oid::CURRENT_PACKET_FILTER, &[1, 2, 3, 4]), words(&[5, 32, 9, 0x1_010e, 4, 20, 0, 0x0403_0201])),
        (Message::KeepAlive, words(&[8, 12, 9])),
        (Message::KeepAliveComplete, words(&[0x8000_0008, 16, 9, 0])),
    ];
    for (message, bytes) in table {
        assert_eq!(message.to_bytes(9), bytes, "{message:?}");
    }
    let (bytes, length) = packet_header(100, &TransmitInfo::default());
    assert_eq!(bytes[..length], words(&[1, 144, 36, 100, 0, 0, 0, 0, 0, 0, 0]));
    let info = TransmitInfo {
        vlan: Some(VlanTag { priority: 5, drop_eligible: true, id: 0xabc }),
        hash: Some(0x1234),
        checksum: Some(TransmitChecksum {
            network: Network::V4,
            tcp: true,
            udp: false,
            ip_header: true,
            transport_offset: 34,
        }),
        segmentation: None,
    };
    let (bytes, length) = packet_header(100, &info);
    let head = [1, 192, 84, 100, 0, 0, 0, 36, 48, 0, 0];
    let pieces = [16, 8, 12, 0x1234, 16, 6, 12, 0xabcd, 16, 0, 12, 0x22_0015];
    assert_eq!(bytes[..length], words(&[head.as_slice(), &pieces].concat()));
    // Segments get their checksums without asking.
    let segmentation = Segmentation { network: Network::V6, segment_bytes: 1440, transport_offset: 54 };
    let (bytes, length) = packet_header(0, &TransmitInfo { segmentation: Some(segmentation), ..info });
    assert_eq!(length, 44 + 48);
    assert_eq!(bytes[length - 16..length], words(&[16, 2, 12, 1440 | 54 << 20 | 3 << 30]));
}

#[test]
fn what_a_host_says_by_rndis() {
    use rndis::{HostMessage as Message, InitializeAnswer, Status, parse};
    let status = Status::SUCCESS;
    let answer = InitializeAnswer { request: 9, status, max_packets: 8, max_transfer_bytes: 0x4000, alignment: 3 };
    let table = [
        (vec![0x8000_0002, 52, 9, 0, 1, 0, 1, 0, 8, 0x4000, 3, 0, 0], Message::InitializeComplete(answer)),
        (
            vec![0x8000_0004, 28, 9, 0, 4, 16, 0x0403_0201],
            Message::QueryComplete { request: 9, status, value: &[1, 2, 3, 4] },
        ),
        // Who refuses need not say where.
        (vec![0x8000_0004, 24, 9, 5, 4, 0], Message::QueryComplete { request: 9, status: Status(5), value: &[] }),
        (vec![0x8000_0005, 16, 9, 5], Message::SetComplete { request: 9, status: Status(5) }),
        (vec![0x8000_0006, 16, 0, 1], Message::ResetComplete { status, addressing_reset: true }),
        (vec![0x8000_0008, 16, 9, 0], Message::KeepAliveComplete { request: 9, status }),
        (vec![7, 20, 0x4001_000b, 0, 0], Message::Indicate { status: Status::MEDIA_CONNECT, value: &[] }),
        (vec![8, 12, 9], Message::KeepAlive { request: 9 }),
    ];
    for (bytes, expected) in table {
        let bytes = words(&bytes);
        assert_eq!(parse(&bytes), Ok(expected));
        // What follows a message does not matter; what it lacks does.
        assert_eq!(parse(&[bytes.as_slice(), &[0xff; 9]].concat()), Ok(expected));
        assert!(parse(&bytes[..bytes.len() - 4]).is_err(), "{expected:?}");
    }
    for kind in [2, 3, 4, 5, 6] {
        assert_eq!(parse(&words(&[kind, 8])), Err(WireError::Direction(kind)));
    }
    assert_eq!(parse(&words(&[77, 8])), Err(WireError::Unknown(77)));
    for length in [0, 7, 25, u32::MAX] {
        assert!(parse(&words(&[8, length, 9, 0, 0, 0])).is_err(), "{length}");
    }
}

/// A frame of 4 bytes with one piece of information, and each of its words.
fn packet() -> Vec<u32> {
    vec![1, 64, 52, 4, 0, 0, 0, 36, 16, 0, 0, 16, 6, 12, 0x0123_abcd, 0x0403_0201]
}

#[test]
fn a_frame_with_what_goes_with_it() {
    let bytes = words(&packet());
    let Ok(rndis::HostMessage::Packet(frame)) = rndis::parse(&bytes) else { panic!() };
    assert_eq!(frame.frame, [1, 2, 3, 4]);
    let tag = VlanTag { priority: 5, drop_eligible: true, id: 0xabc };
    assert_eq!(frame.info, ReceiveInfo { vlan: Some(tag), ..ReceiveInfo::default() });
    // Each of these lies is found.
    let lies = [
        (1, 63),       // shorter than the frame
        (1, 65),       // longer than the bytes
        (2, 53),       // ends behind the message
        (2, 35),       // lies in the header
        (2, u32::MAX), // lies nowhere
        (3, 5),
        (3, u32::MAX),
        (7, 35),
        (7, u32::MAX),
        (8, 21),
        (8, 11),
        (8, u32::MAX),
        (11, 0),
        (11, 11),
        (11, 17),
        (11, u32::MAX),
        (13, 11),
        (13, 13),
        (13, u32::MAX),
    ];
    for (word, value) in lies {
        let mut lie = packet();
        lie[word] = value;
        assert!(rndis::parse(&words(&lie)).is_err(), "word {word} is {value}");
    }
    // Information of a type that nobody knows is passed over, wherever its value is said to be.
    let mut other = packet();
    (other[12], other[13]) = (0x8000_0001, u32::MAX);
    let other = words(&other);
    let Ok(rndis::HostMessage::Packet(frame)) = rndis::parse(&other) else { panic!() };
    assert_eq!(frame.info, ReceiveInfo::default());
}

#[test]
fn checksums_that_the_host_found() {
    for (word, transport, ip, bad) in
        [(0, false, false, false), (8, true, false, false), (16 | 32, true, true, false), (1 | 32, false, false, true)]
    {
        let sums = ReceiveChecksum(word);
        assert_eq!((sums.transport_good(), sums.ip_good(), sums.bad()), (transport, ip, bad), "{word:#x}");
    }
}

#[test]
fn offloads_both_ways() {
    let mut object = vec![0xa7, 1, 112, 0];
    object.extend(words(&[2, 0x155, 2, 0x30, 2, 0x55, 2, 0x30]));
    object.extend(words(&[0; 11]));
    object.extend(words(&[2, 0xffff, 2, 2, 0x8000, 2, 5, 0]));
    assert_eq!(Offloads::parse(&object), Ok((Offloads::all(), 0x8000)));
    object[1] = 0;
    assert!(Offloads::parse(&object).is_err(), "no such revision");
    object[1] = 1;
    object[0] = 0xa8;
    assert!(Offloads::parse(&object).is_err(), "another object");
    assert!(Offloads::parse(&object[..111]).is_err(), "too short");

    let wanted = Offloads::TRANSMIT_IP | Offloads::TRANSMIT_UDP_V4 | Offloads::RECEIVE_V6 | Offloads::SEGMENTATION_V6;
    let parameters = wanted.to_parameters(false);
    assert_eq!(parameters[..16], [0x80, 3, 28, 0, 2, 1, 2, 3, 3, 0, 0, 1, 2, 0, 0, 0]);
    assert_eq!(parameters.len(), 28);
    let short = wanted.to_parameters(true);
    assert_eq!((short.len(), &short[..9]), (22, [0x80, 3, 22, 0, 2, 1, 0, 3, 0].as_slice()));
    assert_eq!((offload::query((6, 30)).len(), offload::query((6, 1)).len()), (156, 112));
}

#[test]
fn queues_by_hash() {
    let bytes = scale::parameters(&[0, 2, 3], &[9; 40]);
    assert_eq!(bytes.len(), 40 + 512 + 40);
    assert_eq!(bytes[..12], [0x89, 2, 40, 0, 0, 0, 0, 0, 0x01, 0x17, 0, 0]);
    assert_eq!(bytes[12..28], words(&[512, 40, 40, 552]));
    assert_eq!(bytes[40..56], words(&[0, 2, 3, 0]));
    assert_eq!(bytes[552..], [9; 40]);
    let mut object = vec![0x88, 2, 18, 0];
    object.extend(words(&[0, 1, 8]));
    object.extend([128, 0]);
    assert_eq!(scale::parse_queues(&object), Ok(8));
    assert!(scale::parse_queues(&object[..17]).is_err());
    object[0] = 0x89;
    assert!(scale::parse_queues(&object).is_err());
}

proptest! {
    /// Nothing that a host may write does more than fail.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), version in any::<u32>()) {
        let _ = nvsp::parse(&bytes, Version(version));
        let _ = rndis::parse(&bytes);
        let _ = ReceiveInfo::parse(&bytes);
        let _ = Offloads::parse(&bytes);
        let _ = scale::parse_queues(&bytes);
    }

    /// Frames in which a few words are anything are read within their bounds or not at all.
    #[test]
    fn almost_a_frame(changes in prop::collection::vec((0_usize..16, prop_oneof![any::<u32>(), 0_u32..80]), 0..4)) {
        let mut message = packet();
        for (word, value) in changes {
            message[word] = value;
        }
        let bytes = words(&message);
        if let Ok(rndis::HostMessage::Packet(packet)) = rndis::parse(&bytes) {
            prop_assert!(packet.frame.len() <= bytes.len() - 44);
        }
    }

    /// And almost known messages likewise.
    #[test]
    fn almost_a_message(
        kind in prop::sample::select(vec![2_u32, 102, 105, 107, 108, 128, 133, 134, 1, 7, 8, 0x8000_0002, 0x8000_0004]),
        rest in prop::collection::vec(prop_oneof![any::<u32>(), 0_u32..80], 0..28),
    ) {
        let mut message = vec![kind];
        message.extend(rest);
        let bytes = words(&message);
        let _ = nvsp::parse(&bytes, Version::V6);
        let _ = rndis::parse(&bytes);
    }
}
