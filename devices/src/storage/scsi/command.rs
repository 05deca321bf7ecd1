//! Commands as bytes.

use crate::storage::wire::{COMMAND_BYTES, Direction};

/// A command: its bytes, which way data go, and how it is called in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    bytes: [u8; COMMAND_BYTES],
    length: usize,
    direction: Direction,
    name: &'static str,
}

impl Command {
    /// Whether the unit can be used.
    #[must_use]
    pub fn test_unit_ready() -> Self {
        Self::of("TEST UNIT READY", Direction::None, 6, &[0x00])
    }

    /// Why the last command failed.
    #[must_use]
    pub fn request_sense(room: u8) -> Self {
        Self::of("REQUEST SENSE", Direction::In, 6, &[0x03, 0, 0, 0, room])
    }

    /// What kind of device it is; or one page of what it says of itself.
    #[must_use]
    pub fn inquiry(page: Option<u8>, room: u16) -> Self {
        let [high, low] = room.to_be_bytes();
        Self::of("INQUIRY", Direction::In, 6, &[0x12, u8::from(page.is_some()), page.unwrap_or(0), high, low])
    }

    /// How it is set up: one page, or all of them (0x3f), without block descriptors.
    #[must_use]
    pub fn mode_sense_6(page: u8, room: u8) -> Self {
        Self::of("MODE SENSE(6)", Direction::In, 6, &[0x1a, 0x08, page & 0x3f, 0, room])
    }

    /// The same, with more room.
    #[must_use]
    pub fn mode_sense_10(page: u8, room: u16) -> Self {
        let [high, low] = room.to_be_bytes();
        Self::of("MODE SENSE(10)", Direction::In, 10, &[0x5a, 0x08, page & 0x3f, 0, 0, 0, 0, high, low])
    }

    /// How many blocks there are, of what size; up to 2 TiB.
    #[must_use]
    pub fn read_capacity_10() -> Self {
        Self::of("READ CAPACITY(10)", Direction::In, 10, &[0x25])
    }

    /// The same without that limit.
    #[must_use]
    pub fn read_capacity_16(room: u32) -> Self {
        let [a, b, c, d] = room.to_be_bytes();
        Self::of("READ CAPACITY(16)", Direction::In, 16, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
    }

    /// Which units the device has.
    #[must_use]
    pub fn report_luns(room: u32) -> Self {
        let [a, b, c, d] = room.to_be_bytes();
        Self::of("REPORT LUNS", Direction::In, 12, &[0xa0, 0, 0, 0, 0, 0, a, b, c, d])
    }

    /// Blocks come: by the shorter command where they can be said in it.
    #[must_use]
    pub fn read(block: u64, blocks: u32) -> Self {
        Self::transfer(("READ(10)", "READ(16)"), (0x28, 0x88), Direction::In, 0, block, blocks)
    }

    /// Blocks go. `through`: not to the cache only (FUA).
    #[must_use]
    pub fn write(block: u64, blocks: u32, through: bool) -> Self {
        let flags = u8::from(through) << 3;
        Self::transfer(("WRITE(10)", "WRITE(16)"), (0x2a, 0x8a), Direction::Out, flags, block, blocks)
    }

    /// What was written is to survive: all of it.
    #[must_use]
    pub fn synchronize_cache() -> Self {
        Self::of("SYNCHRONIZE CACHE(10)", Direction::None, 10, &[0x35])
    }

    /// These ranges (of the list that goes with it, in bytes) are not needed any more.
    #[must_use]
    pub fn unmap(list_bytes: u16) -> Self {
        let [high, low] = list_bytes.to_be_bytes();
        Self::of("UNMAP", Direction::Out, 10, &[0x42, 0, 0, 0, 0, 0, 0, high, low])
    }

    /// Any other; longer than 16 bytes it is cut.
    #[must_use]
    pub fn other(bytes: &[u8], direction: Direction) -> Self {
        Self::of("command", direction, bytes.len().min(COMMAND_BYTES), bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Which way its data go.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// Its name, for errors.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The list that goes with an UNMAP: block and count of each range. Those that do not fit are left out.
    #[must_use]
    pub fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
        const MOST: usize = (u16::MAX as usize - 8) / 16;
        let ranges = ranges.get(..ranges.len().min(MOST)).unwrap_or_default();
        let list = u16::try_from(ranges.len() * 16).unwrap_or(0);
        let mut bytes = Vec::with_capacity(ranges.len() * 16 + 8);
        bytes.extend((list + 6).to_be_bytes());
        bytes.extend(list.to_be_bytes());
        bytes.extend([0; 4]);
        for (block, blocks) in ranges {
            bytes.extend(block.to_be_bytes());
            bytes.extend(blocks.to_be_bytes());
            bytes.extend([0; 4]);
        }
        bytes
    }

    fn transfer(
        (short_name, long_name): (&'static str, &'static str),
        (short, long): (u8, u8),
        direction: Direction,
        flags: u8,
        block: u64,
        blocks: u32,
    ) -> Self {
        if let (Ok(block), Ok(blocks)) = (u32::try_from(block), u16::try_from(blocks)) {
            let ([a, b, c, d], [high, low]) = (block.to_be_bytes(), blocks.to_be_bytes());
            return Self::of(short_name, direction, 10, &[short, flags, a, b, c, d, 0, high, low]);
        }
        let ([a, b, c, d, e, f, g, h], [i, j, k, l]) = (block.to_be_bytes(), blocks.to_be_bytes());
        Self::of(long_name, direction, 16, &[long, flags, a, b, c, d, e, f, g, h, i, j, k, l])
    }

    fn of(name: &'static str, direction: Direction, length: usize, said: &[u8]) -> Self {
        let mut bytes = [0; COMMAND_BYTES];
        bytes.iter_mut().zip(said).for_each(|(to, from)| *to = *from);
        Self { bytes, length, direction, name }
    }
}
