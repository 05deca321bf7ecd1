//! Packets byte by byte, and whatever bytes there may be.

use proptest::prelude::*;

use super::*;
use crate::storage::Address;
use crate::storage::scsi::Command;

const AT: Address = Address { path: 1, target: 2, lun: 3 };

fn sent(packet: &GuestPacket, version: Version) -> Vec<u8> {
    packet.to_bytes(version).get(..version.packet_bytes()).unwrap_or_default().to_vec()
}

#[test]
fn a_command_byte_by_byte() {
    let packet = GuestPacket::Execute {
        to: AT,
        command: Command::read(0x0102_0304, 5),
        transfer_bytes: 2560,
        timeout_seconds: 60,
    };
    let mut expected = vec![3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    expected.extend([0x34, 0, 0, 0, 0, 1, 2, 3, 10, 20, 1, 0, 0x00, 0x0a, 0, 0]);
    expected.extend([0x28, 0, 1, 2, 3, 4, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0, 0, 0, 0x20, 0x4a, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sent(&packet, Version::V6_2), expected);
    // The old one is shorter, says so, and has less room for sense data.
    let old = sent(&packet, Version::V4_2);
    assert_eq!((old.len(), old[12], old[21]), (48, 0x24, 18));
    assert_eq!(old[22..], expected[22..48]);
}

#[test]
fn data_go_one_way() {
    let bytes = |command| {
        let packet = GuestPacket::Execute { to: AT, command, transfer_bytes: 0, timeout_seconds: 0 };
        let bytes = packet.to_bytes(Version::V6_2);
        (bytes[22], bytes[52])
    };
    assert_eq!(bytes(Command::write(0, 1, false)), (0, 0x8a));
    assert_eq!(bytes(Command::read(0, 1)), (1, 0x4a));
    assert_eq!(bytes(Command::synchronize_cache()), (2, 0x0a));
}

#[test]
fn the_other_packets_of_a_guest() {
    let all = [
        (GuestPacket::Begin, 7, vec![]),
        (GuestPacket::QueryVersion(Version::V6_0), 9, vec![0, 6]),
        (GuestPacket::QueryProperties, 10, vec![]),
        (GuestPacket::End, 8, vec![]),
        (GuestPacket::CreateSubchannels(259), 13, vec![3, 1]),
        (GuestPacket::ResetLun(AT), 4, vec![0x34, 0, 0, 0, 0, 1, 2, 3]),
        (GuestPacket::ResetBus(4), 6, vec![0x34, 0, 0, 0, 0, 4]),
    ];
    for (packet, operation, body) in all {
        let mut expected = vec![operation, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        expected.extend(body);
        expected.resize(64, 0);
        assert_eq!(packet.to_bytes(Version::V6_2).to_vec(), expected, "{packet:?}");
    }
}

fn answer(body: &[u8]) -> Vec<u8> {
    [&[1, 0, 0, 0, 0, 0, 0, 0, 0x85, 0x01, 0x00, 0xc0][..], body].concat()
}

#[test]
fn an_answer_byte_by_byte() {
    let body = [0x34, 0, 0x84, 2, 0, 1, 2, 3, 10, 3, 1, 0, 0x00, 0x02, 0, 0, 0x70, 0, 5, 9];
    let Ok(HostPacket::Completed(completion)) = parse(&answer(&body)) else { panic!("no completion") };
    let request = completion.request();
    assert_eq!((completion.status.0, request.scsi_status, request.transfer_bytes.get()), (0xc000_0185, 2, 512));
    assert_eq!((SrbStatus(request.srb_status).code(), completion.sense()), (4, Some(vec![0x70, 0, 5])));
    let body = [0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0];
    let Ok(HostPacket::Completed(completion)) = parse(&answer(&body)) else { panic!("no completion") };
    let properties = completion.properties();
    assert_eq!(
        (properties.subchannels.get(), properties.flags.get(), properties.max_transfer_bytes.get()),
        (4, 1, 524_288)
    );
}

#[test]
fn what_a_host_says_by_itself_and_what_it_may_not() {
    let of = |operation: u32| {
        let mut bytes = operation.to_le_bytes().to_vec();
        bytes.resize(64, 0);
        bytes
    };
    assert_eq!(parse(&of(11)), Ok(HostPacket::EnumerateBus));
    assert_eq!(parse(&of(2)), Ok(HostPacket::RemoveDevice));
    assert_eq!(parse(&[11, 0, 0, 0]), Ok(HostPacket::EnumerateBus), "the word alone says it");
    assert_eq!(parse(&of(14)), Ok(HostPacket::Event { lun: 0, target: 0, path: 0 }));
    for operation in [3, 4, 5, 6, 7, 8, 9, 10, 12, 13] {
        assert_eq!(parse(&of(operation)), Err(WireError::Direction(operation)));
    }
    for operation in [0, 15, u32::MAX] {
        assert_eq!(parse(&of(operation)), Err(WireError::Unknown(operation)));
    }
    assert_eq!(parse(&[]), Err(WireError::TooShort { operation: 0, have: 0, need: 12 }));
    assert_eq!(parse(&[1, 0, 0, 0, 0]), Err(WireError::TooShort { operation: 1, have: 5, need: 12 }));
    assert_eq!(parse(&of(14)[..14]), Err(WireError::TooShort { operation: 14, have: 14, need: 15 }));
}

proptest! {
    /// Any bytes are a packet or an error; sense data never leave their place.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80), operation in 0_u32..16) {
        let mut bytes = bytes;
        let _ = parse(&bytes);
        bytes.iter_mut().zip(operation.to_le_bytes()).for_each(|(to, from)| *to = from);
        if let Ok(HostPacket::Completed(completion)) = parse(&bytes) {
            prop_assert!(completion.sense().is_none_or(|sense| sense.len() <= PAYLOAD_BYTES));
            let _ = completion.properties();
        }
    }
}
