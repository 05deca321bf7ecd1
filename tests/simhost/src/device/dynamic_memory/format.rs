//! Bytes of Dynamic Memory messages, seen from the host.

/// A run of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRange {
    /// First page frame number, below 2^40.
    pub start: u64,
    /// Pages, below 2^24.
    pub count: u32,
}

impl PageRange {
    /// The most pages in one range.
    pub const MAX_COUNT: u32 = (1 << 24) - 1;

    fn from_word(word: u64) -> Self {
        let count = u32::try_from(word >> 40).unwrap_or(Self::MAX_COUNT);
        Self { start: word & ((1 << 40) - 1), count }
    }

    const fn to_word(self) -> u64 {
        self.start & ((1 << 40) - 1) | (self.count as u64 & 0xff_ffff) << 40
    }
}

/// What a guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the protocol")]
pub enum Incoming {
    VersionRequest { version: u32, last: bool },
    Capabilities { balloon: bool, hot_add: bool },
    Status { available: u64, committed: u64 },
    BalloonResponse { more: bool, ranges: Vec<PageRange> },
    UnballoonResponse,
    HotAddResponse { pages: u32, success: bool },
}

/// What the host says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outgoing {
    VersionResponse { accepted: bool },
    CapabilitiesResponse { accepted: bool, suppress_status: bool },
    Balloon { pages: u32 },
    Unballoon { more: bool, ranges: Vec<PageRange> },
    HotAdd { range: PageRange },
    Info { pages: u64 },
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Incoming {
    /// Understands a message; `None` for what is none, or shorter than it says.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, size) = (half(bytes, 0)?, half(bytes, 2)?);
        let bytes = bytes.get(..size.into())?;
        Some(match kind {
            1 => Self::VersionRequest { version: word(bytes, 8)?, last: word(bytes, 12)? & 1 != 0 },
            3 => {
                let capabilities = long(bytes, 8)?;
                Self::Capabilities { balloon: capabilities & 1 != 0, hot_add: capabilities & 2 != 0 }
            }
            5 => Self::Status { available: long(bytes, 8)?, committed: long(bytes, 16)? },
            7 => {
                let more_and_count = word(bytes, 12)?;
                let count = usize::try_from(more_and_count >> 1).ok()?;
                let ranges = bytes.get(16..)?.chunks_exact(8).take(count);
                let ranges: Vec<_> = ranges.filter_map(|at| long(at, 0)).map(PageRange::from_word).collect();
                (ranges.len() == count).then_some(())?;
                Self::BalloonResponse { more: more_and_count & 1 != 0, ranges }
            }
            9 => Self::UnballoonResponse,
            11 => Self::HotAddResponse { pages: word(bytes, 8)?, success: word(bytes, 12)? == 1 },
            _ => return None,
        })
    }
}

impl Outgoing {
    pub(super) fn to_bytes(&self, transaction: u32) -> Vec<u8> {
        let mut body = Vec::new();
        let kind: u16 = match self {
            Self::VersionResponse { accepted } => {
                body.extend(u64::from(*accepted).to_le_bytes());
                2
            }
            Self::CapabilitiesResponse { accepted, suppress_status } => {
                body.extend((u64::from(*accepted) | u64::from(*suppress_status) << 2).to_le_bytes());
                4
            }
            Self::Balloon { pages } => {
                body.extend(u64::from(*pages).to_le_bytes());
                6
            }
            Self::Unballoon { more, ranges } => {
                body.extend(u32::from(*more).to_le_bytes());
                body.extend(u32::try_from(ranges.len()).unwrap_or(0).to_le_bytes());
                body.extend(ranges.iter().flat_map(|range| range.to_word().to_le_bytes()));
                8
            }
            Self::HotAdd { range } => {
                body.extend(range.to_word().to_le_bytes());
                10
            }
            Self::Info { pages } => {
                // Behind a reserved word: bytes that follow, then {kind 0, bytes of data} and the number.
                for field in [0_u32, 16, 0, 8] {
                    body.extend(field.to_le_bytes());
                }
                body.extend(pages.to_le_bytes());
                12
            }
        };
        let size = u16::try_from(body.len() + 8).unwrap_or(u16::MAX);
        let mut bytes = Vec::with_capacity(usize::from(size));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(transaction.to_le_bytes());
        bytes.extend(body);
        bytes
    }
}
