//! A channel in two halves, each with one owner, for two threads. They share the channel's one reference count.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use vmbus_ringbuf::{OutgoingPacket, WriteError};

use super::owner::Owner;
use super::receive::Incoming;
use super::transmit::Transmitter;
use super::{IncomingPacket, OutgoingBatch, Wake, Way};
use crate::dispatch::Half;
use crate::{Buffer, ChannelId, Error, Offer, Vmbus, Waker, here};

/// The half of a [`Channel`](crate::Channel) that receives. Dropping it does what [`close`](Self::close) does, without
/// waiting; what the host sends from then on is read by nobody. Behind a rescind it delivers what is left, as a
/// [`Channel`](crate::Channel) does.
#[derive(Debug)]
pub struct Receiver {
    // Fields go in this order, as those of a whole channel.
    incoming: Incoming,
    owner: Owner,
    bus: Option<Vmbus>,
}

/// The half of a [`Channel`](crate::Channel) that sends. Dropping it does what [`close`](Self::close) does, without
/// waiting.
#[derive(Debug)]
pub struct Sender {
    transmitter: Transmitter,
    bus: Option<Vmbus>,
}

impl Receiver {
    pub(super) fn new(incoming: Incoming, owner: Owner, bus: Option<Vmbus>) -> Self {
        Self { incoming, owner, bus }
    }

    /// As [`Channel::id`](crate::Channel::id).
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.owner.id()
    }

    /// As [`Channel::offer`](crate::Channel::offer).
    #[must_use]
    pub fn offer(&self) -> &Offer {
        self.owner.offer()
    }

    /// As [`Channel::device`](crate::Channel::device).
    #[must_use]
    pub fn device(&self) -> &str {
        self.owner.device()
    }

    /// As [`Channel::is_rescinded`](crate::Channel::is_rescinded).
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        self.owner.has_ended()
    }

    /// As [`Channel::create_buffer`](crate::Channel::create_buffer).
    ///
    /// # Errors
    /// As there.
    pub fn create_buffer(&self, bytes: u32) -> Result<Buffer, Error> {
        Buffer::create(&self.owner.share(), bytes)
    }

    /// Whether it sleeps on the interrupts of a processor that the channel has for itself.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        matches!(self.owner.way(), Way::Direct(_))
    }

    /// Something that ends this half's waits, and not the other's, from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.owner.waker(Half::Receiver).clone()
    }

    /// As [`Channel::set_busy_poll`](crate::Channel::set_busy_poll).
    pub fn set_busy_poll(&mut self, busy_poll: Duration) {
        self.incoming.set_busy_poll(busy_poll);
    }

    /// As [`Channel::receive`](crate::Channel::receive).
    ///
    /// # Errors
    /// As there.
    pub fn receive<E: From<Error>>(
        &mut self,
        budget: usize,
        each: impl FnMut(&IncomingPacket<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.incoming.receive(&self.owner, budget, each)
    }

    /// As [`Channel::wait`](crate::Channel::wait).
    ///
    /// # Errors
    /// As there.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, Error> {
        self.incoming.wait(&self.owner, timeout)
    }

    /// As [`Channel::arm`](crate::Channel::arm).
    ///
    /// # Errors
    /// As there.
    pub fn arm(&mut self) -> Result<bool, Error> {
        self.incoming.arm(&self.owner)
    }

    /// Lets go of this half. If the other has gone, this closes the channel, as [`Channel::close`](crate::Channel::close)
    /// does; otherwise it waits for nobody, and the other goes on.
    ///
    /// # Errors
    /// As there, for the last of the two.
    pub fn close(self) -> Result<(), Error> {
        let Self { incoming, owner, bus } = self;
        drop(incoming);
        let closed = owner.close();
        drop(bus);
        closed
    }
}

impl AsFd for Receiver {
    /// As that of a whole channel.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.incoming.sleeper.descriptor(&self.owner)
    }
}

impl Sender {
    pub(super) fn new(transmitter: Transmitter, bus: Option<Vmbus>) -> Self {
        Self { transmitter, bus }
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

    /// Something that ends this half's waits, and not the other's, from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.transmitter.owner().waker(Half::Sender).clone()
    }

    /// As [`Channel::send`](crate::Channel::send), but that a wake is heard by one call, and that the other half receives
    /// meanwhile.
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
            Err(Error::Full { .. }) => here::may_wait("Sender::send")?,
            outcome => return outcome,
        }
        let outcome = self.transmitter.send(packet, payload, timeout);
        if matches!(outcome, Err(Error::Woken { .. })) {
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

    /// Gets ready for a sleep in somebody else's event loop: asks the host for a signal when `needed` bytes of ring are
    /// free ([`Error::Full`] says how many), and looks once more. `true`: do not sleep, send. `false`: the descriptor
    /// ([`AsFd`]) becomes readable when there may be room; then arm again. A host that knows nothing of such requests
    /// never signals, so look by yourself every now and then. A packet that is sent takes the request back.
    ///
    /// # Errors
    /// The device is gone; a system call failed; the ring is corrupt.
    pub fn arm(&mut self, needed: u32) -> Result<bool, Error> {
        self.transmitter.arm(needed)
    }

    /// Takes back what [`arm`](Self::arm) has asked for.
    pub fn disarm(&mut self) {
        self.transmitter.disarm();
    }

    /// As [`Receiver::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(self) -> Result<(), Error> {
        let Self { transmitter, bus } = self;
        let closed = transmitter.into_owner().close();
        drop(bus);
        closed
    }
}

impl AsFd for Sender {
    /// What becomes readable when there may be room: see [`arm`](Sender::arm).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transmitter.descriptor()
    }
}
