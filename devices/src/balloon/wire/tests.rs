//! Messages to bytes and back, and bytes that are almost a message.

use super::*;
use proptest::prelude::*;

/// A message of type `kind` with `body` behind its header, and the right size in it.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let size = u16::try_from(8 + body.len()).unwrap();
    let mut bytes = Vec::new();
    bytes.extend(kind.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(0x1234_5678_u32.to_le_bytes());
    bytes.extend(body);
    bytes
}

fn parsed(kind: u16, body: &[u8]) -> Result<HostMessage, WireError> {
    parse(&message(kind, body)).map(|incoming| {
        assert_eq!(incoming.transaction, 0x1234_5678);
        incoming.message
    })
}

#[test]
fn what_a_host_says() {
    let mut unballoon = vec![1, 0, 0, 0, 2, 0, 0, 0];
    unballoon.extend((5_u64 | 7 << 40).to_le_bytes());
    unballoon.extend(0xffff_ffff_ffff_ffff_u64.to_le_bytes());
    unballoon.extend([0; 8]); // more bytes than ranges
    let ranges = vec![PageRange { start: 5, count: 7 }, PageRange { start: (1 << 40) - 1, count: (1 << 24) - 1 }];
    let mut info = vec![0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0];
    info.extend(0x12_3456_u64.to_le_bytes());
    let table: Vec<(u16, Vec<u8>, HostMessage)> = vec![
        (2, vec![1, 0, 0, 0, 0, 0, 0, 0], HostMessage::VersionResponse { accepted: true }),
        (2, vec![0xfe, 0xff, 0, 0, 0, 0, 0, 0], HostMessage::VersionResponse { accepted: false }),
        (4, vec![1; 8], HostMessage::CapabilitiesResponse { accepted: true, suppress_status: false }),
        (4, vec![7, 0, 0, 0, 0, 0, 0, 0], HostMessage::CapabilitiesResponse { accepted: true, suppress_status: true }),
        (6, vec![0, 0x20, 0, 0, 9, 9, 9, 9], HostMessage::BalloonRequest { pages: 0x2000 }),
        (8, unballoon, HostMessage::UnballoonRequest { more: true, ranges }),
        (8, vec![0; 8], HostMessage::UnballoonRequest { more: false, ranges: Vec::new() }),
        (
            10,
            vec![0, 0x10, 0, 0, 0, 2, 0, 0],
            HostMessage::HotAddRequest { range: PageRange { start: 0x1000, count: 2 }, region: None },
        ),
        (
            10,
            vec![0, 0x10, 0, 0, 0, 2, 0, 0, 0, 0x10, 0, 0, 0, 0, 1, 0],
            HostMessage::HotAddRequest {
                range: PageRange { start: 0x1000, count: 2 },
                region: Some(PageRange { start: 0x1000, count: 256 }),
            },
        ),
        (12, info, HostMessage::Info(Info::MaxPageCount(0x12_3456))),
        (12, vec![0, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0], HostMessage::Info(Info::Other(InfoType(5)))),
    ];
    for (kind, body, expected) in table {
        assert_eq!(parsed(kind, &body), Ok(expected), "type {kind}");
    }
}

#[test]
fn what_no_host_says() {
    let short = |kind, have, need| Err(WireError::TooShort { kind, have, need });
    assert_eq!(parse(&[]).map(|_| ()), short(0, 0, 8));
    assert_eq!(parse(&[2, 0, 16, 0, 0, 0, 0]).map(|_| ()), short(0, 7, 8));
    for (kind, need) in [(2, 16), (4, 16), (6, 16), (8, 16), (10, 16), (12, 16)] {
        assert_eq!(parsed(kind, &[0; 7]).map(|_| ()), short(kind, 15, need));
    }
    for size in [0_u16, 7, 17, u16::MAX] {
        let mut bytes = message(2, &[0; 8]);
        bytes[2..4].copy_from_slice(&size.to_le_bytes());
        assert_eq!(parse(&bytes), Err(WireError::Size { kind: 2, size, have: 16 }));
    }
    assert_eq!(parse(&[0; 4097]), Err(WireError::TooLong { have: 4097 }));
    let two_ranges = [0, 0, 0, 0, 2, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
    assert_eq!(parsed(8, &two_ranges), Err(WireError::RangeCount { count: 2, room: 1 }));
    assert_eq!(parsed(8, &[0xff; 8]), Err(WireError::RangeCount { count: u32::MAX, room: 0 }));
    assert_eq!(parsed(12, &[0, 0, 0, 0, 9, 0, 0, 0, 0]).map(|_| ()), short(12, 17, 25));
    assert_eq!(parsed(12, &[0, 0, 0, 0, 7, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]).map(|_| ()), short(12, 24, 24));
    let no_count = [0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0];
    assert_eq!(parsed(12, &no_count).map(|_| ()), short(12, 24, 32));
    for kind in [1, 3, 5, 7, 9, 11] {
        assert_eq!(parsed(kind, &[0; 64]), Err(WireError::Direction(kind)));
    }
    for kind in [0, 13, 14, 255, u16::MAX] {
        assert_eq!(parsed(kind, &[0; 64]), Err(WireError::Unknown(kind)));
    }
}

#[test]
fn the_size_in_the_header_counts_not_the_padding_of_the_packet() {
    let mut bytes = message(10, &[0, 0x10, 0, 0, 0, 2, 0, 0]);
    bytes.extend([0xff; 8]);
    let expected = HostMessage::HotAddRequest { range: PageRange { start: 0x1000, count: 2 }, region: None };
    assert_eq!(parse(&bytes).unwrap().message, expected);
}

#[test]
fn what_this_guest_says() {
    let version = GuestMessage::VersionRequest { version: Version::V2_0, last: false };
    assert_eq!(version.to_bytes(9), [1, 0, 16, 0, 9, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]);
    let last = GuestMessage::VersionRequest { version: Version::V0_3, last: true };
    assert_eq!(last.to_bytes(0), [1, 0, 16, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0]);

    let capabilities = GuestMessage::Capabilities { balloon: true, hot_add_alignment: None }.to_bytes(1);
    assert_eq!(capabilities[..16], [3, 0, 32, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(capabilities[16..], [[0; 8], [0xff; 8]].concat());
    let hot_add = GuestMessage::Capabilities { balloon: true, hot_add_alignment: Some(7) }.to_bytes(1);
    assert_eq!(hot_add[8], 1 | 2 | 7 << 2);

    let status = GuestMessage::Status(StatusReport { available_pages: 3, committed_pages: 1 << 32 }).to_bytes(2);
    assert_eq!(status.len(), 48);
    assert_eq!(status[..8], [5, 0, 48, 0, 2, 0, 0, 0]);
    assert_eq!(status[8..24], [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(status[24..], [0; 24]);

    let ranges = vec![PageRange { start: 0x12_3456_789a, count: 0x0a_bcde }, PageRange { start: 1, count: 2 }];
    let response = GuestMessage::BalloonResponse { more: true, ranges }.to_bytes(3);
    assert_eq!(response[..16], [7, 0, 32, 0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(response[16..24], [0x9a, 0x78, 0x56, 0x34, 0x12, 0xde, 0xbc, 0x0a]);
    let nothing = GuestMessage::BalloonResponse { more: false, ranges: Vec::new() }.to_bytes(4);
    assert_eq!(nothing, [7, 0, 16, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

    assert_eq!(GuestMessage::UnballoonResponse.to_bytes(5), [9, 0, 8, 0, 5, 0, 0, 0]);
    let refused = GuestMessage::HotAddResponse { pages: 0, success: true }.to_bytes(6);
    assert_eq!(refused, [11, 0, 16, 0, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn a_response_never_outgrows_the_protocol() {
    let ranges: Vec<_> = (0..600).map(|start| PageRange { start: start * 2, count: 1 }).collect();
    let bytes = GuestMessage::BalloonResponse { more: false, ranges }.to_bytes(1);
    assert_eq!(bytes.len(), MAX_MESSAGE_BYTES);
    assert_eq!(bytes[2..4], 4096_u16.to_le_bytes());
    assert_eq!(bytes[12..16], (510_u32 << 1).to_le_bytes());
}

#[test]
fn versions_have_names() {
    let names: Vec<_> = Version::OFFERED.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["2.0", "1.0", "0.3"]);
    assert_eq!(Version::V2_0.0, 0x20000);
    assert!(Version::OFFERED.is_sorted_by(|a, b| a > b));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_a_named_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes);
    }

    /// Bytes that get past the header more often than chance.
    #[test]
    fn almost_messages_are_a_message_or_a_named_error(
        kind in 0_u16..16, size in 0_u16..80, body in prop::collection::vec(any::<u8>(), 0..64)
    ) {
        let mut bytes = message(kind, &body);
        let keep = bytes.clone();
        bytes[2..4].copy_from_slice(&size.to_le_bytes());
        for bytes in [bytes, keep] {
            if let Ok(Incoming { message: HostMessage::UnballoonRequest { ranges, .. }, .. }) = parse(&bytes) {
                prop_assert!(ranges.len() * 8 + 16 <= bytes.len());
            }
        }
    }

    #[test]
    fn a_range_survives_the_wire(start in 0_u64..1 << 41, count in 0_u32..1 << 25) {
        let range = PageRange { start, count };
        match range.to_wire() {
            Some(wire) => prop_assert_eq!(PageRange::from(wire), range),
            None => prop_assert!(start >= 1 << 40 || count >= 1 << 24),
        }
    }
}
