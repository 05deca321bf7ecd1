//! What devices answer: what they are, how large, how they are set up, and which units there are.

use super::{half, long, text, word};

/// The standard answer to an INQUIRY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// 0 is a disk, 5 a DVD, 31 nothing at all.
    pub device_type: u8,
    /// 0: the unit is there; 1: it could be; 3: it can't.
    pub qualifier: u8,
    /// Its medium can be taken out.
    pub removable: bool,
    /// Who made it.
    pub vendor: String,
    /// What it is called.
    pub product: String,
    /// Of the product.
    pub revision: String,
}

impl Inquiry {
    /// Reads an answer.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let first = bytes.first()?;
        Some(Self {
            device_type: first & 0x1f,
            qualifier: first >> 5,
            removable: bytes.get(1)? & 0x80 != 0,
            vendor: text(bytes.get(8..16)?),
            product: text(bytes.get(16..32)?),
            revision: text(bytes.get(32..36)?),
        })
    }

    /// Whether it is a disk, and there.
    #[must_use]
    pub const fn is_disk(&self) -> bool {
        self.qualifier == 0 && self.device_type == 0
    }
}

/// How large a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Blocks that there are.
    pub blocks: u64,
    /// Bytes of each.
    pub block_bytes: u32,
    /// Bytes of a block below, if they are more.
    pub physical_bytes: u32,
    /// Ranges may be given up.
    pub provisions: bool,
}

impl Capacity {
    /// Reads the answer to READ CAPACITY(10). `Err`: it has more blocks than that can say.
    #[must_use]
    pub fn parse_10(bytes: &[u8]) -> Option<Result<Self, ()>> {
        let (last, block_bytes) = (word(bytes, 0)?, word(bytes, 4)?);
        if last == u32::MAX {
            return Some(Err(()));
        }
        Some(Ok(Self {
            blocks: u64::from(last) + 1,
            block_bytes: sensible(block_bytes)?,
            physical_bytes: block_bytes,
            provisions: false,
        }))
    }

    /// Reads the answer to READ CAPACITY(16).
    #[must_use]
    pub fn parse_16(bytes: &[u8]) -> Option<Self> {
        let (last, block_bytes) = (long(bytes, 0)?, sensible(word(bytes, 8)?)?);
        let exponent = bytes.get(13).copied().unwrap_or(0) & 0xf;
        Some(Self {
            blocks: last.checked_add(1)?,
            block_bytes,
            physical_bytes: block_bytes.checked_shl(exponent.into()).filter(|bytes| *bytes >= block_bytes)?,
            provisions: bytes.get(14).copied().unwrap_or(0) & 0x80 != 0,
        })
    }

    /// All its bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_bytes as u64)
    }
}

/// Blocks are of powers of two, and not larger than a request can be.
fn sensible(block_bytes: u32) -> Option<u32> {
    (block_bytes.is_power_of_two() && (512..=65_536).contains(&block_bytes)).then_some(block_bytes)
}

/// How a disk is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode {
    /// It can't be written.
    pub read_only: bool,
    /// What is written is in a cache at first.
    pub write_cache: bool,
}

impl Mode {
    /// The page about caching.
    pub const CACHING: u8 = 0x08;

    /// Reads the answer to MODE SENSE(6) for the page about caching, or for all.
    #[must_use]
    pub fn parse_6(bytes: &[u8]) -> Option<Self> {
        let (end, descriptors) = (usize::from(*bytes.first()?) + 1, usize::from(*bytes.get(3)?));
        Self::pages(*bytes.get(2)?, bytes.get(..end.min(bytes.len()))?, 4 + descriptors)
    }

    /// Reads the answer to MODE SENSE(10), likewise.
    #[must_use]
    pub fn parse_10(bytes: &[u8]) -> Option<Self> {
        let (end, descriptors) = (usize::from(half(bytes, 0)?) + 2, usize::from(half(bytes, 6)?));
        Self::pages(*bytes.get(3)?, bytes.get(..end.min(bytes.len()))?, 8 + descriptors)
    }

    fn pages(device: u8, bytes: &[u8], first: usize) -> Option<Self> {
        let mut mode = Self { read_only: device & 0x80 != 0, write_cache: false };
        let mut rest = bytes.get(first.min(bytes.len())..)?;
        // Each round takes two bytes at least.
        while let [head, length, behind @ ..] = rest {
            if head & 0x3f == Self::CACHING {
                mode.write_cache = behind.first().is_some_and(|flags| flags & 4 != 0);
            }
            rest = behind.get(usize::from(*length)..).unwrap_or_default();
        }
        Some(mode)
    }
}

/// Reads the answer to REPORT LUNS: the units that there are, up to 256 of the simple kind; and how many bytes the whole
/// list has, which may be more than were given.
#[must_use]
pub fn luns(bytes: &[u8]) -> Option<(Vec<u8>, u32)> {
    let list = word(bytes, 0)?;
    let end = usize::try_from(list).ok()?.saturating_add(8).min(bytes.len());
    let entries = bytes.get(8..end)?.chunks_exact(8);
    let mut luns: Vec<u8> = entries
        .filter_map(|entry| match entry {
            // Peripheral, and flat with a small number.
            [0 | 0x40, lun, 0, 0, 0, 0, 0, 0] => Some(*lun),
            _ => None,
        })
        .collect();
    luns.sort_unstable();
    luns.dedup();
    Some((luns, list))
}
