//! Formats of key-value messages, and text in them: UTF-16 that ends with a zero.
//!
//! Source of the format: the user-space header `linux/hyperv.h` of Linux 6.12; that 11 is a 64-bit number, too:
//! `hyperv_ic_protocol` of OpenVMM.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::network::IpSettings;
use crate::ic::wire::{Status, wire};

/// UTF-16 units of a key, the zero included.
pub const KEY_UNITS: usize = 256;
/// UTF-16 units of a value, the zero included.
pub const VALUE_UNITS: usize = 1024;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation(pub u8);

impl Operation {
    /// The value of a key.
    pub const GET: Self = Self(0);
    /// A key is to have a value.
    pub const SET: Self = Self(1);
    /// A key is to go.
    pub const DELETE: Self = Self(2);
    /// The key and value at a place.
    pub const ENUMERATE: Self = Self(3);
    /// An adapter's addresses.
    pub const GET_IP: Self = Self(4);
    /// An adapter is to have addresses.
    pub const SET_IP: Self = Self(5);
}

wire!(/// Opens each message but those about addresses, whose header has no padding.
Header, 4 {
    /// [`Operation`].
    operation: u8,
    /// Which pool.
    pool: u8,
    /// 0.
    padding: U16,
});
wire!(/// A key and its value.
Value, 2572 {
    /// 1 and 2 text, 4 a 32-bit number, 8 and 11 a 64-bit number.
    kind: U32,
    /// Of the key, the zero included.
    key_bytes: U32,
    /// Of the value, the zero included.
    value_bytes: U32,
    /// UTF-16.
    key_text: [U16; KEY_UNITS],
    /// UTF-16, or a number at the start.
    value_text: [U16; VALUE_UNITS],
});
wire!(/// The key and value of a number.
Enumerate, 2576 {
    /// From 0 on.
    index: U32,
    /// The guest's to fill.
    value: Value,
});
wire!(/// A key to be deleted.
Delete, 516 {
    /// Of the key, the zero included.
    key_bytes: U32,
    /// UTF-16.
    key_text: [U16; KEY_UNITS],
});
wire!(/// An adapter's addresses; lists have semicolons between them.
IpMessage, 7428 {
    /// [`Operation`].
    operation: u8,
    /// Not used.
    pool: u8,
    /// A GUID in braces to set, a hardware address to get.
    adapter: [U16; 128],
    /// 1 IPv4, 2 IPv6, 3 both.
    family: u8,
    /// 1 if IPv4 comes by DHCP.
    dhcp: u8,
    /// Addresses.
    addresses: [U16; 1024],
    /// A mask or the length of a prefix for each.
    subnets: [U16; 1024],
    /// Gateways.
    gateways: [U16; 512],
    /// Name servers.
    name_servers: [U16; 1024],
});

/// The text before the first zero, if it is UTF-16.
pub(super) fn text_of(units: &[U16]) -> Result<String, Status> {
    let units = units.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0);
    char::decode_utf16(units).collect::<Result<_, _>>().map_err(|_| Status::INVALID_ARGUMENT)
}

/// The text in so many bytes.
fn sized_text(units: &[U16], bytes: U32) -> Result<String, Status> {
    let count = usize::try_from(bytes.get()).map_err(|_| Status::INVALID_ARGUMENT)? / 2;
    text_of(units.get(..count).ok_or(Status::INVALID_ARGUMENT)?)
}

/// Writes text and a zero, as much as fits, and zeroes behind it; the bytes of both.
fn write_text(text: &str, units: &mut [U16]) -> u32 {
    let room = units.len().saturating_sub(1);
    let mut end = 0;
    units.fill(U16::ZERO);
    for character in text.chars() {
        let (mut buffer, from) = ([0; 2], end);
        let encoded = character.encode_utf16(&mut buffer);
        end += encoded.len();
        if end > room {
            end = from;
            break;
        }
        for (unit, encoded) in units.iter_mut().skip(from).zip(encoded) {
            *unit = U16::new(*encoded);
        }
    }
    u32::try_from((end + 1) * 2).unwrap_or(0)
}

/// A key has to say something.
fn key(text: String) -> Result<String, Status> {
    if text.is_empty() { Err(Status::INVALID_ARGUMENT) } else { Ok(text) }
}

impl Delete {
    pub(super) fn key(&self) -> Result<String, Status> {
        key(sized_text(&self.key_text, self.key_bytes)?)
    }
}

impl Value {
    pub(super) fn key(&self) -> Result<String, Status> {
        key(sized_text(&self.key_text, self.key_bytes)?)
    }

    /// The value as text: numbers are written out.
    pub(super) fn value(&self) -> Result<String, Status> {
        let number = self.value_text.as_bytes();
        match self.kind.get() {
            1 | 2 => sized_text(&self.value_text, self.value_bytes),
            4 => Ok(number.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)).to_string()),
            8 | 11 => Ok(number.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)).to_string()),
            _ => Err(Status::INVALID_ARGUMENT),
        }
    }

    pub(super) fn set_key(&mut self, key: &str) {
        self.key_bytes = write_text(key, &mut self.key_text).into();
    }

    pub(super) fn set_value(&mut self, value: &str) {
        self.kind = U32::new(1);
        self.value_bytes = write_text(value, &mut self.value_text).into();
    }
}

impl IpMessage {
    pub(super) fn fill(&mut self, settings: &IpSettings) {
        let list =
            |addresses: &[std::net::IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(";");
        let both = settings.addresses.iter().map(|address| if address.is_ipv4() { 1 } else { 2 });
        self.family = both.fold(0, |all, one| all | one);
        self.dhcp = settings.dhcp.into();
        write_text(&list(&settings.addresses), &mut self.addresses);
        write_text(&settings.subnets.join(";"), &mut self.subnets);
        write_text(&list(&settings.gateways), &mut self.gateways);
        write_text(&list(&settings.name_servers), &mut self.name_servers);
    }
}
