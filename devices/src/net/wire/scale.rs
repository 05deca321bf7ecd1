//! Which queue a frame of the host comes through: receive-side scaling.

use super::oid::ObjectHeader;
use super::{WireError, prefix};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const KIND_CAPABILITIES: u8 = 0x88;
const KIND_PARAMETERS: u8 = 0x89;
/// Toeplitz over IPv4, TCP over IPv4, IPv6, TCP over IPv6.
const HASHES: u32 = 0x1 | 0x100 | 0x200 | 0x400 | 0x1000;
/// Entries of the table that says which queue a hash goes to.
pub const TABLE_ENTRIES: usize = 128;
/// Bytes of the key of the hash.
pub const KEY_BYTES: usize = 40;

wire!(/// What the host's side can do about queues, as far as every revision has it.
Capabilities, 18 {
    /// [`ObjectHeader`].
    header: ObjectHeader,
    /// Bits.
    flags: U32,
    /// Interrupts.
    interrupts: U32,
    /// Queues.
    queues: U32,
    /// Entries of the table.
    entries: U16,
});
wire!(/// Which queue a frame goes to; table and key follow.
Parameters, 40 {
    /// [`ObjectHeader`].
    header: ObjectHeader,
    /// 0: everything is set.
    flags: U16,
    /// Not used.
    base_processor: U16,
    /// Function and protocols.
    hashes: U32,
    /// Bytes of the table.
    table_bytes: U16,
    /// 0.
    padding: U16,
    /// Where it is, from the header on.
    table_offset: U32,
    /// Bytes of the key.
    key_bytes: U16,
    /// 0.
    padding_2: U16,
    /// Where it is.
    key_offset: U32,
    /// Not used: where, how many, how long.
    masks: [U32; 3],
});

/// The value that goes with the question for capabilities: the object's header, and room.
#[must_use]
pub fn query() -> Vec<u8> {
    const SIZE: u16 = 18;
    let header = ObjectHeader { kind: KIND_CAPABILITIES, revision: 2, size: U16::new(SIZE) };
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(SIZE.into(), 0);
    bytes
}

/// How many queues the host's side can have.
///
/// # Errors
/// [`WireError`]: it is another object, or too short.
pub fn parse_queues(bytes: &[u8]) -> Result<u32, WireError> {
    let (capabilities, _) = prefix::<Capabilities>(bytes, "what can be done about queues")?;
    if capabilities.header.kind != KIND_CAPABILITIES {
        let value = capabilities.header.kind.into();
        return Err(WireError::Value { what: "kind of what can be done about queues", value });
    }
    Ok(capabilities.queues.get())
}

/// The value of a setting by which hashes go to the queues in `table`, in turn if it is shorter.
#[must_use]
pub fn parameters(table: &[u16], key: &[u8; KEY_BYTES]) -> Vec<u8> {
    const FIXED: u16 = 40;
    const TABLE_BYTES: u16 = 512;
    const _: () = assert!(TABLE_BYTES as usize == 4 * TABLE_ENTRIES);
    let parameters = Parameters {
        header: ObjectHeader { kind: KIND_PARAMETERS, revision: 2, size: U16::new(FIXED) },
        flags: U16::ZERO,
        base_processor: U16::ZERO,
        hashes: U32::new(HASHES),
        table_bytes: U16::new(TABLE_BYTES),
        padding: U16::ZERO,
        table_offset: U32::new(FIXED.into()),
        key_bytes: U16::new(40),
        padding_2: U16::ZERO,
        key_offset: U32::new((FIXED + TABLE_BYTES).into()),
        masks: [U32::ZERO; 3],
    };
    let mut bytes = parameters.as_bytes().to_vec();
    let queues = table.iter().copied().cycle().chain(std::iter::repeat(0)).take(TABLE_ENTRIES);
    bytes.extend(queues.flat_map(|queue| u32::from(queue).to_le_bytes()));
    bytes.extend_from_slice(key);
    bytes
}
