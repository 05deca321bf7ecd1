//! Control messages: golden bytes, gates, lengths, and round trips under every protocol.

mod gates;
mod golden_guest;
mod golden_host;
mod lengths;
mod round_trip;

use uuid::{Uuid, uuid};

use super::{Features, GuestMessage, HostMessage, Protocol, Version};

/// A GUID, and the same as it is on the wire: three little-endian fields, then eight bytes in order.
const NIC: Uuid = uuid!("f8615163-df3e-46c5-913f-f2d2f965ed0e");
const NIC_BYTES: [u8; 16] =
    [0x63, 0x51, 0x61, 0xf8, 0x3e, 0xdf, 0xc5, 0x46, 0x91, 0x3f, 0xf2, 0xd2, 0xf9, 0x65, 0xed, 0x0e];
const OTHER: Uuid = uuid!("00112233-4455-6677-8899-aabbccddeeff");
const OTHER_BYTES: [u8; 16] =
    [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

/// Bytes put down field by field, so that a golden message reads like the table that it is taken from.
struct Layout(Vec<u8>);

impl Layout {
    /// A message type, and the padding behind it.
    fn of(kind: u8) -> Self {
        Self(vec![kind, 0, 0, 0, 0, 0, 0, 0])
    }

    /// These bytes, in this order.
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Nothing but this byte, so many times.
    fn fill(mut self, count: usize, byte: u8) -> Self {
        self.0.resize(self.0.len() + count, byte);
        self
    }

    /// The bytes, which must be as many as the document says.
    #[track_caller]
    fn total(self, bytes: usize) -> Vec<u8> {
        assert_eq!(self.0.len(), bytes, "the golden message itself is wrong");
        self.0
    }
}

/// Every version there was, and one that nobody knows, with no features and with all.
fn protocols() -> Vec<Protocol> {
    let known = Version::ALL.into_iter().chain([Version::new(0, 13), Version::new(1, 1), Version::new(7, 9)]);
    let mut all = vec![Protocol::NONE];
    for version in known {
        all.extend((0..64).map(|bits| Protocol::new(version, Features::from_bits_retain(bits))));
        all.push(Protocol::new(version, Features::all()));
    }
    all
}

/// Every combination of features that there is, under 6.0.
fn newest(features: Features) -> Protocol {
    Protocol::new(Version::V6_0, features)
}

#[track_caller]
fn check_host(bytes: &[u8], value: &HostMessage, protocol: Protocol) {
    assert_eq!(HostMessage::parse(bytes, protocol).as_ref(), Ok(value), "parsed under {protocol}");
    let encoded = value.encode(protocol).expect("encoded");
    assert_eq!(encoded.as_ref(), bytes, "encoded under {protocol}");
}

#[track_caller]
fn check_guest(bytes: &[u8], value: &GuestMessage, protocol: Protocol) {
    assert_eq!(GuestMessage::parse(bytes, protocol).as_ref(), Ok(value), "parsed under {protocol}");
    let encoded = value.encode(protocol).expect("encoded");
    assert_eq!(encoded.as_ref(), bytes, "encoded under {protocol}");
}
