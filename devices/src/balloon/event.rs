//! What a user of the driver hears of.

use super::state::Limit;
use super::wire::{Info, Version, WireError};
use std::fmt;

/// Something happened; all counts are pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Host and guest agreed.
    Negotiated {
        /// What they speak.
        version: Version,
        /// Whether the host wants status reports.
        status_reports: bool,
    },
    /// A status report was sent.
    Status {
        /// As reported: what could be had without swapping.
        available_pages: u64,
        /// As reported: what is promised to processes, and the floor.
        committed_pages: u64,
        /// What the balloon holds.
        ballooned_pages: u64,
    },
    /// A balloon request was answered.
    Ballooned {
        /// What the host asked for.
        requested: u64,
        /// What it got.
        pages: u64,
        /// Why it didn't get all.
        limit: Option<Limit>,
        /// What the balloon holds now.
        ballooned_pages: u64,
    },
    /// An unballoon transaction was answered.
    Deflated {
        /// What is in use again.
        pages: u64,
        /// What the balloon holds now.
        ballooned_pages: u64,
    },
    /// The host offered memory that a process can't add, and was told so.
    HotAddRefused {
        /// What it offered.
        pages: u32,
    },
    /// The host said something worth knowing.
    Info(Info),
    /// Something was ignored; see [`Counters`] for how often.
    Ignored(Ignored),
    /// The channel is closed, and what was left in the balloon is in use again.
    GaveBack {
        /// How much that was.
        pages: u64,
    },
}

/// What was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ignored {
    /// A packet that isn't a message.
    Wire(WireError),
    /// A packet of another type than in-band data.
    PacketType(u16),
    /// A message that has no place now.
    Unexpected(&'static str),
    /// Pages that the host gave back and never had.
    ForeignPages(u64),
}

impl fmt::Display for Ignored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => write!(formatter, "{error}"),
            Self::PacketType(kind) => write!(formatter, "packet of type {kind}"),
            Self::Unexpected(what) => write!(formatter, "unexpected {what}"),
            Self::ForeignPages(pages) => write!(formatter, "{pages} pages came back that the host never had"),
        }
    }
}

/// How often what was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets that were too short, too long, contradicted themselves or are a guest's to send.
    pub malformed: u64,
    /// Messages of an unknown type, which the kernel driver ignores too.
    pub unknown: u64,
    /// Packets of another type than in-band data.
    pub other_packets: u64,
    /// Messages that had no place when they came.
    pub unexpected: u64,
    /// Pages that the host gave back and never had.
    pub foreign_pages: u64,
}

impl Counters {
    /// Counts `ignored`, and says whether it is worth a line in the log: the 1st, 2nd, 4th, 8th ... of its kind.
    pub(super) fn count(&mut self, ignored: Ignored) -> bool {
        let (counter, more) = match ignored {
            Ignored::Wire(WireError::Unknown(_)) => (&mut self.unknown, 1),
            Ignored::Wire(_) => (&mut self.malformed, 1),
            Ignored::PacketType(_) => (&mut self.other_packets, 1),
            Ignored::Unexpected(_) => (&mut self.unexpected, 1),
            Ignored::ForeignPages(pages) => (&mut self.foreign_pages, pages),
        };
        let before = *counter;
        *counter = before.saturating_add(more);
        before.checked_ilog2() != counter.checked_ilog2()
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// What was spoken, if it came to that.
    pub version: Option<Version>,
    /// Pages of 4 KiB that went back at the end.
    pub gave_back_pages: u64,
    /// What was ignored.
    pub counters: Counters,
}
