//! Messages of this guest to the bytes that go to the host.

use super::{
    BalloonResponse, CapabilitiesReport, Header, HotAddResponse, MAX_RANGES, MessageType, PageRange, Status,
    UnballoonResponse, Version, VersionRequest,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// Everything that this guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestMessage {
    /// May we speak this version?
    VersionRequest {
        /// Which.
        version: Version,
        /// There is none after it.
        last: bool,
    },
    /// What this guest can do.
    Capabilities {
        /// Give pages to the host.
        balloon: bool,
        /// Take hot-added memory, with this alignment: log2 of MiB.
        hot_add_alignment: Option<u8>,
    },
    /// Memory pressure.
    Status(StatusReport),
    /// Pages taken; at most [`MAX_RANGES`] ranges, further ones and ranges that don't fit the wire are left out.
    BalloonResponse {
        /// Another response follows.
        more: bool,
        /// The pages.
        ranges: Vec<PageRange>,
    },
    /// All pages of the transaction are in use again.
    UnballoonResponse,
    /// How much of the hot-added memory is in use.
    HotAddResponse {
        /// Pages.
        pages: u32,
        /// Success; with no pages it means "never ask again".
        success: bool,
    },
}

/// The figures of a status report, in pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusReport {
    /// Pages that could be had without swapping.
    pub available_pages: u64,
    /// Pages promised to processes (ballooned ones included), and the balloon's floor.
    pub committed_pages: u64,
}

impl GuestMessage {
    /// This message's bytes, with `transaction` as its number.
    #[must_use]
    pub fn to_bytes(&self, transaction: u32) -> Vec<u8> {
        match self {
            Self::VersionRequest { version, last } => VersionRequest {
                header: header::<VersionRequest>(MessageType::VERSION_REQUEST, 0, transaction),
                version: U32::new(version.0),
                flags: U32::new(u32::from(*last)),
            }
            .as_bytes()
            .to_vec(),
            Self::Capabilities { balloon, hot_add_alignment } => {
                capabilities(*balloon, *hot_add_alignment, transaction).as_bytes().to_vec()
            }
            Self::Status(report) => status(*report, transaction).as_bytes().to_vec(),
            Self::BalloonResponse { more, ranges } => balloon_response(*more, ranges, transaction),
            Self::UnballoonResponse => UnballoonResponse {
                header: header::<UnballoonResponse>(MessageType::UNBALLOON_RESPONSE, 0, transaction),
            }
            .as_bytes()
            .to_vec(),
            Self::HotAddResponse { pages, success } => HotAddResponse {
                header: header::<HotAddResponse>(MessageType::HOT_ADD_RESPONSE, 0, transaction),
                pages: U32::new(*pages),
                result: U32::new(u32::from(*success)),
            }
            .as_bytes()
            .to_vec(),
        }
    }
}

/// The header of a `T` with `extra` bytes behind it.
fn header<T>(kind: MessageType, extra: usize, transaction: u32) -> Header {
    let size = u16::try_from(size_of::<T>() + extra).unwrap_or(u16::MAX);
    Header { kind: U16::new(kind.0), size: U16::new(size), transaction: U32::new(transaction) }
}

fn capabilities(balloon: bool, hot_add_alignment: Option<u8>, transaction: u32) -> CapabilitiesReport {
    let hot_add = hot_add_alignment.map_or(0, |alignment| 2 | u64::from(alignment & 0xf) << 2);
    CapabilitiesReport {
        header: header::<CapabilitiesReport>(MessageType::CAPABILITIES_REPORT, 0, transaction),
        capabilities: U64::new(u64::from(balloon) | hot_add),
        min_page_count: U64::ZERO,
        max_page_number: U64::new(u64::MAX),
    }
}

fn status(report: StatusReport, transaction: u32) -> Status {
    Status {
        header: header::<Status>(MessageType::STATUS_REPORT, 0, transaction),
        available: U64::new(report.available_pages),
        committed: U64::new(report.committed_pages),
        page_file_size: U64::ZERO,
        zero_free: U64::ZERO,
        page_file_writes: U32::ZERO,
        io_diff: U32::ZERO,
    }
}

fn balloon_response(more: bool, ranges: &[PageRange], transaction: u32) -> Vec<u8> {
    let ranges: Vec<_> = ranges.iter().filter_map(|range| range.to_wire()).take(MAX_RANGES).collect();
    let count = u32::try_from(ranges.len()).unwrap_or(0);
    let response = BalloonResponse {
        header: header::<BalloonResponse>(MessageType::BALLOON_RESPONSE, size_of_val(ranges.as_slice()), transaction),
        reserved: U32::ZERO,
        more_and_count: U32::new(u32::from(more) | count << 1),
    };
    let mut bytes = response.as_bytes().to_vec();
    bytes.extend_from_slice(ranges.as_slice().as_bytes());
    bytes
}
