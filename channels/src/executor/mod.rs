//! The one thread that drives the control plane: takes everything from one queue, in order, and waits for nobody.
//!
//! `queue` is the way in, `run` the thread, `act` carries out what the core wants done, `open` builds channels,
//! `direct` knows which of them have processors of their own.

mod act;
mod credits;
mod direct;
mod open;
mod queue;
mod reply;
mod run;
mod subscribers;
#[cfg(test)]
mod tests;

pub(crate) use queue::{Event, Queue};
pub(crate) use reply::{MakeEntry, Reply};
pub(crate) use run::start;

use crate::Error;

/// Why the executor has ended.
#[derive(Debug, Clone)]
pub(crate) enum Why {
    /// It was told to.
    Stopped,
    /// The link has lost the host.
    Lost(String),
    /// A bug.
    Panicked(String),
}

impl Why {
    /// For who comes too late.
    pub(crate) fn error(&self) -> Error {
        match self {
            Self::Stopped => Error::Ended,
            Self::Lost(why) => Error::Lost { why: why.clone() },
            Self::Panicked(why) => Error::Panicked { why: why.clone() },
        }
    }
}
