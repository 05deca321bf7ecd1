//! What goes into the state machine, and what comes out of it.

use crate::balloon::report::Memory;
use crate::balloon::wire::{GuestMessage, HostMessage, Info, PageRange, StatusReport, Version};

/// What happened; times are since any fixed moment and never run backwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The channel is open.
    Opened,
    /// The host said something.
    Message(HostMessage),
    /// Time went by.
    Elapsed,
    /// The answer to [`Action::Measure`].
    Measured(Memory),
    /// The answer to [`Action::Take`]: these pages are out of use.
    Taken(Vec<PageRange>),
    /// The other answer to [`Action::Take`]: there was no memory for that many pages.
    NotTaken,
    /// The answer to [`Action::Release`].
    Released {
        /// Pages that are in use again.
        pages: u64,
        /// As in the action.
        last: bool,
    },
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this under this transaction number.
    Send(u32, GuestMessage),
    /// Read the memory figures: answer with [`Input::Measured`].
    Measure,
    /// Take this many pages out of use: answer with [`Input::Taken`] or [`Input::NotTaken`].
    Take(u32),
    /// Put pages that the host doesn't know of back into use; no answer.
    Undo(Vec<PageRange>),
    /// Put pages that the host named back into use: answer with [`Input::Released`].
    Release {
        /// As the host named them: it may merge, split and reorder what it got, or be wrong.
        ranges: Vec<PageRange>,
        /// The transaction ends with them.
        last: bool,
    },
    /// Tell the user.
    Notify(Notice),
    /// Close the channel: it is over.
    Fail(Failure),
}

/// What a user may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Host and guest agreed.
    Negotiated {
        /// What they speak.
        version: Version,
        /// Whether the host wants status reports.
        status_reports: bool,
    },
    /// A status report goes out.
    Status(StatusReport),
    /// A balloon request is done.
    Ballooned {
        /// Pages that the host asked for.
        requested: u64,
        /// Pages that it got.
        pages: u64,
        /// Why it didn't get all of them.
        limit: Option<Limit>,
    },
    /// An unballoon transaction is done.
    Deflated {
        /// Pages that are in use again.
        pages: u64,
    },
    /// The host offered memory that a process can't add.
    HotAddRefused {
        /// Pages that it offered.
        pages: u32,
    },
    /// The host said something worth knowing.
    Info(Info),
    /// Something came that has no place in this state; it was ignored.
    Unexpected(&'static str),
}

/// What stopped a balloon request early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The floor: the protocol's own or the user's.
    Floor,
    /// The kernel had no page to give.
    Memory,
}

/// Why it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No answer in time.
    #[error("the host did not answer the {0} in time")]
    Silent(&'static str),
    /// Not one of [`Version::OFFERED`] was accepted.
    #[error("the host accepts none of the Dynamic Memory versions 2.0, 1.0 and 0.3")]
    NoVersion,
    /// The host wants other capabilities.
    #[error("the host refused the guest's Dynamic Memory capabilities")]
    Capabilities,
}
