//! A channel whose packets a dispatcher hands to a callback.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmbus::memory::Ring;
use vmbus_ringbuf::{OutgoingPacket, WriteError};

use super::OutgoingBatch;
use super::hold::Hold;
use super::transmit::Transmitter;
use crate::dispatch::{Attention, Ending, Entry, Half, Handler, Progress, Serve, Served};
use crate::{Buffer, ChannelId, Error, Offer, Vmbus, Waker, here};

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

    /// As [`Channel::id`](crate::Channel::id).
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.transmitter.owner().id()
    }

    /// As [`Channel::offer`](crate::Channel::offer).
    #[must_use]
    pub fn offer(&self) -> &Offer {
        self.transmitter.owner().offer()
    }

    /// As [`Channel::device`](crate::Channel::device).
    #[must_use]
    pub fn device(&self) -> &str {
        self.transmitter.owner().device()
    }

    /// Something that ends a [`send`](Self::send) from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.transmitter.owner().waker(Half::Sender).clone()
    }

    /// As [`Channel::send`](crate::Channel::send), but that a wake is heard by one call.
    ///
    /// # Errors
    /// As there; [`Error::Callback`].
    pub fn send(
        &mut self,
        packet: OutgoingPacket<'_>,
        payload: &[&[u8]],
        timeout: Option<Duration>,
    ) -> Result<(), Error> {
        match self.transmitter.try_send(packet, payload) {
            Err(Error::Full { .. }) => here::may_wait("Dispatched::send")?,
            outcome => return outcome,
        }
        let outcome = self.transmitter.send(packet, payload, timeout);
        if matches!(outcome, Err(Error::Woken { .. })) {
            // No `wait` comes that would take note of it.
            self.transmitter.owner().waker(Half::Sender).clear();
        }
        outcome
    }

    /// As [`Channel::try_send`](crate::Channel::try_send).
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&mut self, packet: OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), Error> {
        self.transmitter.try_send(packet, payload)
    }

    /// As [`Channel::send_batch`](crate::Channel::send_batch).
    ///
    /// # Errors
    /// As there.
    pub fn send_batch<T>(
        &mut self,
        fill: impl FnOnce(&mut OutgoingBatch<'_>) -> Result<T, WriteError>,
    ) -> Result<T, Error> {
        self.transmitter.send_batch(fill)
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

    /// Takes back what [`arm`](Self::arm) has asked for.
    pub fn disarm(&mut self) {
        self.transmitter.disarm();
    }

    /// As [`Channel::is_rescinded`](crate::Channel::is_rescinded).
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        self.transmitter.owner().has_ended()
    }

    /// As [`Channel::create_buffer`](crate::Channel::create_buffer).
    ///
    /// # Errors
    /// As there.
    pub fn create_buffer(&self, bytes: u32) -> Result<Buffer, Error> {
        Buffer::create(&self.transmitter.owner().share(), bytes)
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
