//! A channel whose packets a dispatcher hands to a callback.

use std::sync::Arc;
use std::time::Instant;

use vmbus::memory::Ring;

use super::handles::{of_a_channel, sends};
use super::hold::Hold;
use super::transmit::Transmitter;
use crate::dispatch::{Attention, Ending, Entry, Handler, Progress, Serve, Served};
use crate::{Error, Vmbus};

/// An open channel whose incoming packets go to a [`Handler`]. This handle sends, and closes. Dropping it does what
/// [`close`](Self::close) does, without waiting.
#[derive(Debug)]
pub struct Dispatched {
    transmitter: Transmitter,
    /// Keeps the bus from ending as long as the channel is open.
    keeper: Option<Vmbus>,
}

impl Dispatched {
    /// The handle to a channel that the executor has opened.
    pub(crate) fn build(outgoing: Ring, hold: Arc<Hold>) -> Result<Self, Error> {
        Ok(Self { transmitter: Transmitter::new(outgoing, hold)?, keeper: None })
    }

    #[cfg(test)]
    pub(super) fn hold(&self) -> Arc<Hold> {
        self.transmitter.owner().share()
    }

    pub(crate) fn keeping(self, bus: Vmbus) -> Self {
        Self { keeper: Some(bus), ..self }
    }

    /// Asks the host for a signal when `needed` bytes of ring are free ([`Error::Full`] says how many), and looks once more.
    /// `true`: they are there, send. `false`: [`Handler::room`] is called when they may be; then try, or arm, again. A host
    /// that knows nothing of such requests never signals, so try by yourself every now and then.
    ///
    /// # Errors
    /// The device is gone; the ring is corrupt.
    pub fn arm(&mut self, needed: u32) -> Result<bool, Error> {
        self.transmitter.arm(needed)
    }

    /// Takes back what [`arm`](Self::arm) has asked for: the handler is not called for room any more.
    pub fn disarm(&mut self) {
        self.transmitter.disarm();
    }

    /// As [`Channel::close`](crate::Channel::close). When it returns without an error, the handler has been dropped.
    ///
    /// # Errors
    /// As there.
    pub fn close(self) -> Result<(), Error> {
        let Self { transmitter, keeper } = self;
        let closed = transmitter.into_owner().close();
        drop(keeper);
        closed
    }
}

of_a_channel!(Dispatched);
sends!(Dispatched, "Dispatched::send");

/// What a dispatcher calls for a channel with a handler.
struct Turns<H> {
    served: Served<H>,
    /// Somebody waits for room, and there may be some.
    room: bool,
    /// Behind the ring that it stands for.
    hold: Arc<Hold>,
}

/// The entry of a channel with a handler.
pub(crate) fn entry(incoming: Ring, hold: Arc<Hold>, handler: impl Handler + 'static) -> Result<Entry, Error> {
    let corrupt = |source| Error::Corrupt { device: hold.device().to_owned(), source };
    let served = Served::new(incoming, hold.line().clone(), handler).map_err(corrupt)?;
    let line = hold.line().clone();
    let turns = Turns { served, room: false, hold: Arc::clone(&hold) };
    Ok(Entry::serve(Box::new(turns)).on_line(line).holding(hold))
}

impl<H: Handler> Serve for Turns<H> {
    fn event(&mut self) -> Attention {
        self.room |= self.hold.bells().maybe_room();
        self.served.event()
    }

    fn serve(&mut self, budget: usize) -> Progress {
        if std::mem::take(&mut self.room) {
            self.served.room();
        }
        self.served.serve(budget)
    }

    fn deadline(&self) -> Option<Instant> {
        self.served.deadline()
    }

    fn timer(&mut self, now: Instant) -> Result<(), Ending> {
        self.served.timer(now)
    }

    fn ended(&mut self, why: Option<Ending>) {
        self.served.ended(why);
    }
}
