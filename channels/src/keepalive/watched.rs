//! A handler whose channel ends when the other side is silent for too long.

use std::time::Instant;

use super::{Beat, KeepAlive, Pulse};
use crate::dispatch::Ending;
use crate::{Error, Handler, IncomingPacket};

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// It is on its way. The answer is any packet.
    Sent,
    /// It was answered on the spot.
    Answered,
    /// It could not be sent, because the ring is full or the channel is over. Counts as unanswered.
    Unsent,
}

impl From<Result<(), Error>> for Probed {
    /// From what a sender says.
    fn from(sent: Result<(), Error>) -> Self {
        if sent.is_ok() { Self::Sent } else { Self::Unsent }
    }
}

/// A protocol that has a question which its other side answers.
pub trait Probe {
    /// Asks the other side whether it is there. Runs on the dispatcher and must not wait: use `try_send`.
    ///
    /// The channel can't go away meanwhile, whatever happens to its users: the dispatcher has a use of its own.
    fn probe(&mut self) -> Probed;
}

/// A handler with a keep-alive, or without: then it is as if it were not wrapped.
///
/// When the other side is found dead, the channel ends with [`Error::Dead`] for its users and [`Ending::Dead`] for the
/// handler, and is closed.
#[derive(Debug)]
pub struct Watched<H> {
    pub(super) handler: H,
    pulse: Option<Pulse>,
    /// Packets since the last batch.
    pub(super) heard: bool,
    clock: fn() -> Instant,
}

impl<H: Handler + Probe> Watched<H> {
    /// Watches over `handler`'s channel. Its idle time counts from here: make it when the channel is opened.
    pub fn new(handler: H, keep_alive: impl Into<Option<KeepAlive>>) -> Self {
        Self::with_clock(handler, keep_alive.into(), Instant::now)
    }

    pub(crate) fn with_clock(handler: H, keep_alive: Option<KeepAlive>, clock: fn() -> Instant) -> Self {
        let pulse = keep_alive.map(|settings| Pulse::new(settings, clock()));
        Self { handler, pulse, heard: false, clock }
    }

    /// What is due for the keep-alive.
    fn look(&mut self, now: Instant) -> Result<(), Ending> {
        let Some(pulse) = &mut self.pulse else { return Ok(()) };
        match pulse.look(now) {
            Beat::Wait => {}
            Beat::Ask => {
                if self.handler.probe() == Probed::Answered {
                    pulse.heard(now);
                }
            }
            Beat::Dead(silent) => return Err(Ending::Dead(silent)),
        }
        Ok(())
    }
}

impl<H: Handler + Probe> Handler for Watched<H> {
    fn packet(&mut self, packet: &IncomingPacket<'_>) {
        self.heard = true;
        self.handler.packet(packet);
    }

    fn batch(&mut self) {
        // Once for all of them: only who is watched pays for the clock.
        if let Some(pulse) = self.pulse.as_mut().filter(|_| self.heard) {
            pulse.heard((self.clock)());
        }
        self.heard = false;
        self.handler.batch();
    }

    fn room(&mut self) {
        self.handler.room();
    }

    fn deadline(&self) -> Option<Instant> {
        let pulse = self.pulse.as_ref().and_then(Pulse::deadline);
        match (pulse, self.handler.deadline()) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        }
    }

    fn timer(&mut self, now: Instant) -> Result<(), Ending> {
        if self.handler.deadline().is_some_and(|deadline| deadline <= now) {
            self.handler.timer(now)?;
        }
        self.look(now)
    }

    fn ended(&mut self, why: Ending) {
        self.handler.ended(why);
    }
}
