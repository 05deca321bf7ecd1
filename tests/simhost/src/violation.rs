//! The checker: what a guest must never do, found in what it did.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One way to break the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ViolationKind {
    /// Bytes that are no message under what was agreed on.
    Malformed,
    /// A message other than the hello before a version was agreed on.
    BeforeContact,
    /// A message other than the hello after UNLOAD.
    AfterUnload,
    /// A hello while connected: the old connection was not unloaded.
    ContactTwice,
    /// One monitor page without the other, or out of memory.
    MonitorPages,
    /// A second REQUEST_OFFERS on one connection.
    OffersRequestedTwice,
    /// A message about a relid that was never offered on this connection.
    NotOffered,
    /// A message about a relid that was released and not offered again.
    AfterRelease,
    /// OPEN of a channel that is open or opening.
    OpenTwice,
    /// OPEN, or a GPADL for a channel, after the guest had heard that it is rescinded.
    AfterRescind,
    /// OPEN with a GPADL that is not there, or is another channel's, or can't be divided into two rings.
    OpenRing,
    /// Long form of OPEN without that feature, or the other way round.
    OpenForm,
    /// A processor that there is not.
    Processor,
    /// CLOSE of a channel that is not open, or by the wrong one of the two ways.
    CloseNotOpen,
    /// A GPADL under a number that is in use.
    GpadlReused,
    /// A body without header.
    GpadlBody,
    /// Range words that make no sense.
    GpadlMalformed,
    /// A page that there is not.
    GpadlOutside,
    /// A page that another GPADL has, or the connection, or this GPADL twice.
    GpadlOverlap,
    /// A page that a GPADL of a rescinded channel has, which is not released yet. The new GPADL is made.
    GpadlStale,
    /// More GPADLs or pages of them than a host bears.
    GpadlTooMany,
    /// Teardown of a GPADL that is not there, or of another channel.
    TeardownUnknown,
    /// A second teardown of a GPADL before the first was answered, or before it was created.
    TeardownTwice,
    /// Teardown of the ring of a channel that is open.
    TeardownLive,
    /// RELID_RELEASED without a rescind.
    ReleasedUnasked,
    /// RELID_RELEASED of an open channel.
    ReleasedOpen,
    /// RELID_RELEASED twice for one offer.
    ReleasedTwice,
    /// RELID_RELEASED while GPADLs of the channel are up.
    ReleasedWithGpadls,
    /// A message that this version or these features do not have.
    Unsupported,
    /// MODIFYCHANNEL of a channel that is not open, or before the last one was answered (5.3).
    Modify,
    /// PAUSE when paused, or RESUME when not.
    Pause,
    /// TL_CONNECT with more connections under way than a host bears.
    TooManyConnections,
    /// A second UNLOAD.
    UnloadTwice,
    /// The guest broke a ring.
    Ring,
    /// The guest broke a device's protocol.
    Device,
    /// The guest does not take its messages, and more of them are waiting than a host bears.
    Deaf,
}

impl ViolationKind {
    /// What Linux does as a matter of course, and a guest written by the book does not: for [`tolerated`] when the guest
    /// is Linux. (Evidence: drivers/hv and drivers/uio of Linux 6.12.)
    ///
    /// - `ReleasedWithGpadls`: once a channel is rescinded it takes none of its GPADLs down; the release is to do that.
    /// - `GpadlStale`: it frees the pages of a rescinded channel before it releases the relid, so another GPADL may have
    ///   them at once.
    /// - `AfterUnload`: when hv_vmbus is unloaded it says UNLOAD first, then closes and releases its channels.
    ///
    /// [`tolerated`]: crate::Config::tolerated
    pub const LINUX: [Self; 3] = [Self::ReleasedWithGpadls, Self::GpadlStale, Self::AfterUnload];

    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Malformed,
        Self::BeforeContact,
        Self::AfterUnload,
        Self::ContactTwice,
        Self::MonitorPages,
        Self::OffersRequestedTwice,
        Self::NotOffered,
        Self::AfterRelease,
        Self::OpenTwice,
        Self::AfterRescind,
        Self::OpenRing,
        Self::OpenForm,
        Self::Processor,
        Self::CloseNotOpen,
        Self::GpadlReused,
        Self::GpadlBody,
        Self::GpadlMalformed,
        Self::GpadlOutside,
        Self::GpadlOverlap,
        Self::GpadlStale,
        Self::GpadlTooMany,
        Self::TeardownUnknown,
        Self::TeardownTwice,
        Self::TeardownLive,
        Self::ReleasedUnasked,
        Self::ReleasedOpen,
        Self::ReleasedTwice,
        Self::ReleasedWithGpadls,
        Self::Unsupported,
        Self::Modify,
        Self::Pause,
        Self::TooManyConnections,
        Self::UnloadTwice,
        Self::Ring,
        Self::Device,
        Self::Deaf,
    ];
}

/// One time that it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, in the host's time.
    pub at: Duration,
    /// What.
    pub kind: ViolationKind,
    /// About which channel, where there is one.
    pub relid: Option<u32>,
    /// The particulars.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} at {:?}", self.kind, self.at)?;
        if let Some(relid) = self.relid {
            write!(formatter, ", relid {relid}")?;
        }
        write!(formatter, ": {}", self.text)
    }
}

/// Collects violations: the first ones in full, all of them counted.
#[derive(Debug)]
pub(crate) struct Checker {
    kept: Vec<Violation>,
    keep: usize,
    counts: BTreeMap<ViolationKind, u64>,
    tolerated: Vec<ViolationKind>,
}

impl Checker {
    pub(crate) fn new(keep: usize, tolerated: Vec<ViolationKind>) -> Self {
        Self { kept: Vec::new(), keep, counts: BTreeMap::new(), tolerated }
    }

    pub(crate) fn tolerate(&mut self, kinds: Vec<ViolationKind>) {
        self.tolerated = kinds;
    }

    pub(crate) fn record(&mut self, at: Duration, kind: ViolationKind, relid: Option<u32>, text: String) {
        let count = self.counts.entry(kind).or_default();
        *count = count.saturating_add(1);
        if self.tolerated.contains(&kind) {
            return;
        }
        let violation = Violation { at, kind, relid, text };
        if self.kept.len() < self.keep {
            log::debug!(target: "vmbus::simhost", "violation: {violation}");
            self.kept.push(violation);
        }
    }

    pub(crate) fn kept(&self) -> &[Violation] {
        &self.kept
    }

    /// How often, tolerated or not.
    pub(crate) fn count(&self, kind: ViolationKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// All that are not tolerated, also those that were not kept.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().filter(|(kind, _)| !self.tolerated.contains(kind)).map(|(_, count)| count).sum()
    }
}
