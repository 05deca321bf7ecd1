//! Formats of file copy: the user-space header `linux/hyperv.h` of Linux 6.12. A fragment's data follows its struct.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ic::wire::{Status, wire};

/// Bytes of a fragment at most.
pub const FRAGMENT_BYTES: usize = 6144;
/// UTF-16 units of a name or a path, the zero included.
pub const PATH_UNITS: usize = 260;

/// What the host wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation(pub u32);

impl Operation {
    /// A file comes.
    pub const START: Self = Self(0);
    /// A part of it.
    pub const WRITE: Self = Self(1);
    /// That was all.
    pub const COMPLETE: Self = Self(2);
    /// It is not to be.
    pub const CANCEL: Self = Self(3);
}

wire!(/// Opens each message.
Header, 36 {
    /// [`Operation`].
    operation: U32,
    /// Not used.
    services: [[u8; 16]; 2],
});
wire!(/// [`Operation::START`].
Start, 1088 {
    /// The header.
    header: Header,
    /// The file's name.
    name: [U16; PATH_UNITS],
    /// The folder that it goes to.
    folder: [U16; PATH_UNITS],
    /// Bit 0 "write over", bit 1 "make the folder".
    flags: U32,
    /// All bytes of the file.
    bytes: U64,
});
wire!(/// [`Operation::WRITE`]; the data follow.
Write, 52 {
    /// The header.
    header: Header,
    /// 0.
    padding: U32,
    /// Where in the file.
    offset: U64,
    /// Bytes that follow.
    bytes: U32,
});

/// The text before the zero, which has to be there.
pub(super) fn text_of(units: &[U16]) -> Result<String, Status> {
    let end = units.iter().position(|unit| *unit == U16::ZERO).ok_or(Status::INVALID_ARGUMENT)?;
    let units = units.iter().take(end).map(|unit| unit.get());
    char::decode_utf16(units).collect::<Result<_, _>>().map_err(|_| Status::INVALID_ARGUMENT)
}
