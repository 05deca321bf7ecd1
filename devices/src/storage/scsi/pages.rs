//! What devices say of themselves in pages (VPD): serial number, identity, limits, provisioning.

use super::{half, text, word};

/// What behind a page's header there is, if it is that page.
fn body(bytes: &[u8], page: u8) -> Option<&[u8]> {
    let length = usize::from(half(bytes, 2)?);
    let all = bytes.get(4..)?;
    (*bytes.get(1)? == page).then(|| all.get(..length.min(all.len())).unwrap_or_default())
}

/// The pages that there are.
#[must_use]
pub fn supported_pages(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(body(bytes, 0x00)?.to_vec())
}

/// The serial number.
#[must_use]
pub fn serial_number(bytes: &[u8]) -> Option<String> {
    Some(text(body(bytes, 0x80)?)).filter(|text| !text.is_empty())
}

/// What identifies the unit in all the world: the best of the names that it has (NAA, EUI-64, then others), as
/// hexadecimal digits.
#[must_use]
pub fn device_identifier(bytes: &[u8]) -> Option<String> {
    let mut rest = body(bytes, 0x83)?;
    let mut best: Option<(u8, &[u8])> = None;
    while let [_, kind, _, length, behind @ ..] = rest {
        let length = usize::from(*length).min(behind.len());
        let (name, next) = behind.split_at_checked(length)?;
        // Of the unit, not of a port.
        let rank = match kind & 0x3f {
            3 => 3,
            2 => 2,
            1 => 1,
            _ => 0,
        };
        if rank > best.map_or(0, |(rank, _)| rank) && !name.is_empty() {
            best = Some((rank, name));
        }
        rest = next;
    }
    best.map(|(_, name)| name.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How much a request may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockLimits {
    /// Blocks of one read or write; 0: not said.
    pub transfer_blocks: u32,
    /// Blocks of one UNMAP; 0: there is none.
    pub unmap_blocks: u32,
    /// Ranges of one UNMAP; 0: there is none.
    pub unmap_ranges: u32,
    /// Blocks that are given up together; 0: not said.
    pub unmap_granularity: u32,
}

impl BlockLimits {
    /// The page.
    pub const PAGE: u8 = 0xb0;

    /// Reads the page; older ones end early.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        body(bytes, Self::PAGE)?;
        Some(Self {
            transfer_blocks: word(bytes, 8)?,
            unmap_blocks: word(bytes, 20).unwrap_or(0),
            unmap_ranges: word(bytes, 24).unwrap_or(0),
            unmap_granularity: word(bytes, 28).unwrap_or(0),
        })
    }
}

/// How blocks that were given up are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Provisioning {
    /// UNMAP works.
    pub unmaps: bool,
    /// They read as zeroes.
    pub reads_zeroes: bool,
}

impl Provisioning {
    /// The page.
    pub const PAGE: u8 = 0xb2;

    /// Reads the page.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let flags = *body(bytes, Self::PAGE)?.get(1)?;
        Some(Self { unmaps: flags & 0x80 != 0, reads_zeroes: flags & 0x04 != 0 })
    }
}
