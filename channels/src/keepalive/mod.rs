//! Keep-alive: how a side that has gone silent is found, where nobody says that it is gone.
//!
//! A rescinded subchannel of a device that user space has, a host process that was stopped: nothing comes any more, and
//! that is all there is to see. A [`Watched`] handler asks after a while ([`Probe`]), and ends its channel when nobody
//! answers. [`Pulse`] decides when, and knows neither threads nor clocks; the dispatchers' timers drive it.

mod pulse;
#[cfg(test)]
mod tests;
mod watched;

use std::time::Duration;

pub use pulse::{Beat, Pulse};
pub use watched::{Probe, Probed, Watched};

use crate::Error;

/// When the other side is asked whether it is there, and when it is given up. Any packet is a sign of life.
///
/// A side that has said nothing for `idle` is asked, and asked again each `interval`; `interval` after the last of
/// `count` questions that led to nothing, it is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    idle: Duration,
    interval: Duration,
    count: u32,
}

impl KeepAlive {
    /// These times and this many questions.
    ///
    /// # Errors
    /// [`Error::Argument`] when one of them is zero.
    pub fn new(idle: Duration, interval: Duration, count: u32) -> Result<Self, Error> {
        if idle.is_zero() || interval.is_zero() {
            return Err(Error::Argument("keep-alive: a time of zero would ask all the time; give one above zero"));
        }
        if count == 0 {
            return Err(Error::Argument("keep-alive: nobody is given up unasked; give at least one probe"));
        }
        Ok(Self { idle, interval, count })
    }

    /// How long the other side may say nothing before it is asked.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// How long it has for each answer.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// How often it is asked.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Within this time behind its last packet a side that has gone silent is found.
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.idle.saturating_add(self.interval.saturating_mul(self.count))
    }
}
