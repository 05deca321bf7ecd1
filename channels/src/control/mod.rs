//! The control plane without its thread: a pure step from what happened to what is to be done.

mod action;
mod counters;
mod input;
mod limits;
mod refusal;

pub use action::{Action, Agreed, Answer};
pub use counters::Counters;
pub use input::{Command, Input, OpenSettings, Ticket};
pub use limits::{Contact, ISOLATED_CLASSES, Limits, MAX_RELIDS};
pub use refusal::Refusal;

use std::time::Duration;

use crate::{ChannelId, Offer};

/// The state of the bus, and nothing else: no thread, no clock, no system call.
#[derive(Debug, Clone)]
pub struct Core {
    limits: Limits,
    counters: Counters,
}

impl Core {
    /// No connection, no channels.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, counters: Counters::default() }
    }

    /// Takes note of one thing that happened, and appends what is to be done about it, in order. `now` is of any clock that
    /// does not go backwards.
    pub fn step(&mut self, now: Duration, input: Input, out: &mut Vec<Action>) {
        let _ = (&self.limits, now, input, out);
    }

    /// When [`Input::Elapsed`] is due if nothing happens before, on the clock of `step`. It may be early: cheap to ask.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        None
    }

    /// How often each thing happened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Every channel that was announced and has not departed.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        Vec::new()
    }

    /// What both sides agreed on, while there is a connection.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        None
    }

    /// Whether nothing is left: no channel, no GPADL, no ticket, no timer. True of a new core, and again after everything
    /// was given back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Channels in the table, the departed that somebody still holds included.
    #[must_use]
    pub fn live_channels(&self) -> usize {
        0
    }

    /// GPADLs whose memory is not freed.
    #[must_use]
    pub fn live_gpadls(&self) -> usize {
        0
    }

    /// Commands that wait for their answer.
    #[must_use]
    pub fn pending_tickets(&self) -> usize {
        0
    }

    /// Timers that run.
    #[must_use]
    pub fn running_timers(&self) -> usize {
        0
    }

    /// Whether the channel is there, and not departed.
    #[must_use]
    pub fn is_offered(&self, _channel: ChannelId) -> bool {
        false
    }

    /// Whether the tables agree with each other. For tests: it looks at everything.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check_invariants(&self) -> Result<(), String> {
        Ok(())
    }
}
