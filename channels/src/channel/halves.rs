//! A channel in two halves, each with one owner, for two threads. They share the channel's one reference count.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::handles::{of_a_channel, sends};
use super::owner::Owner;
use super::receive::Incoming;
use super::transmit::Transmitter;
use super::{IncomingPacket, Wake, Way};
use crate::dispatch::Half;
use crate::{Error, Vmbus, Waker};

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

    fn owner(&self) -> &Owner {
        &self.owner
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

of_a_channel!(Receiver);

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

of_a_channel!(Sender);
sends!(Sender, "Sender::send");

impl AsFd for Sender {
    /// What becomes readable when there may be room: see [`arm`](Sender::arm).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transmitter.descriptor()
    }
}
