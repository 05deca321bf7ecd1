//! One open channel: a reader, a writer, and what they share with its other users.
//!
//! `transmit` writes and waits for room, `receive` reads and waits for packets, both by `sleep`; `hold` is the reference
//! that all users share, `owner` closes; `halves` are for two threads, `dispatched` has its packets go to a handler, and
//! `handles` is what all of these have in common.

mod dispatched;
mod halves;
mod handles;
mod hold;
mod owner;
mod receive;
mod send;
mod sleep;
#[cfg(test)]
mod tests;
mod transmit;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use vmbus::memory::Ring;
use vmbus::uio::KernelBuffer;
use vmbus_ringbuf::{Packet, WriteBatch};

pub use dispatched::Dispatched;
pub(crate) use dispatched::entry;
pub use halves::{Receiver, Sender};
pub(crate) use hold::{Hold, Reason, Way};
pub use receive::Wake;

use crate::dispatch::Half;
use crate::{Error, Vmbus, Waker};
use handles::of_a_channel;
use owner::Owner;
use receive::Incoming;
use transmit::Transmitter;

/// A packet in the incoming ring, as [`Channel::receive`] shows it.
pub type IncomingPacket<'a> = Packet<'a, Ring>;
/// Packets on their way into the outgoing ring, as [`Channel::send_batch`] shows them.
pub type OutgoingBatch<'a> = WriteBatch<'a, Ring>;

/// An open channel. Methods take `&mut self`: one thread sends and receives; others reach it through a [`Waker`]. For
/// two threads, [`split`](Self::split) it.
///
/// Once a method has returned an error that is rescinded ([`Error::is_rescinded`]) or [`Error::Corrupt`], all others
/// return the same; close the channel. But what the host had sent before it took the channel back may still be read where
/// the rings are the guest's own (a link without a kernel): [`receive`](Self::receive) delivers it, in order and checked as
/// ever, and [`wait`](Self::wait) and [`arm`](Self::arm) say that it is there; the error comes when nothing is left, and
/// from then on. Where a kernel frees the rings, nothing is delivered after a rescind.
///
/// Dropping it does what [`close`](Self::close) does, without waiting.
#[derive(Debug)]
pub struct Channel {
    // Fields go in this order: users of the rings, and with them the mappings; the reference; what keeps the link.
    incoming: Incoming,
    transmitter: Transmitter,
    /// The bus that it is a channel of, once it is handed out.
    bus: Option<Vmbus>,
}

impl Channel {
    /// The handle to a channel that the executor has opened.
    pub(crate) fn build(outgoing: Ring, incoming: Ring, hold: Arc<Hold>) -> Result<Self, Error> {
        let transmitter = Transmitter::new(outgoing, Arc::clone(&hold))?;
        Ok(Self { incoming: Incoming::new(incoming, &hold)?, transmitter, bus: None })
    }

    /// Keeps the bus from ending as long as the channel is open.
    pub(crate) fn keeping(self, bus: Vmbus) -> Self {
        Self { bus: Some(bus), ..self }
    }

    /// Something that ends this channel's waits from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.owner().waker(Half::Receiver).clone()
    }

    /// Whether its owner sleeps on the interrupts of a processor that the channel has for itself.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        matches!(self.owner().way(), Way::Direct(_))
    }

    /// How long a [`wait`](Self::wait) goes on looking before it sleeps; not at all, unless it is set here. Meanwhile the
    /// host need not interrupt.
    pub fn set_busy_poll(&mut self, busy_poll: Duration) {
        self.incoming.set_busy_poll(busy_poll);
    }

    /// Makes two halves of it, for two threads: what one waits for does not keep the other from anything, and neither
    /// takes a wake-up that is the other's. The channel is closed when both are.
    ///
    /// A [`Waker`] that was taken before is the receiver's.
    ///
    /// # Errors
    /// There is no descriptor to be had: the channel is closed, as by a drop.
    pub fn split(self) -> Result<(Receiver, Sender), Error> {
        let Self { mut incoming, mut transmitter, bus } = self;
        let owner = transmitter.split()?;
        incoming.sleeper = sleep::Sleeper::ready(Half::Receiver, &owner)?;
        Ok((Receiver::new(incoming, owner, bus.clone()), Sender::new(transmitter, bus)))
    }

    /// The buffers that the kernel made for the device when it was bound, and shared with the host: none over a link without
    /// a kernel, none for a subchannel, and since Linux 6.14 for network adapters only.
    ///
    /// # Errors
    /// The device is gone; they can't be mapped.
    pub fn kernel_buffers(&self) -> Result<Vec<KernelBuffer>, Error> {
        self.owner().alive()?;
        self.owner().line().kernel_buffers().map_err(|error| self.owner().named(error))
    }

    /// Closes the channel: reader and writer end, and with them the mappings; buffers and other users fail from now on
    /// with [`Error::Closed`]; and when the last of them is gone, the host is told, and waited for until it has let go
    /// of the rings.
    ///
    /// # Errors
    /// [`Error::InUse`] when buffers of the channel are left; [`Error::Silent`] when the host does not let go;
    /// [`Error::Callback`], without waiting; [`Error::Link`]. It is closed all the same, as soon as that can be. Not an
    /// error: a device or a bus that is gone.
    pub fn close(self) -> Result<(), Error> {
        let Self { incoming, transmitter, bus } = self;
        drop(incoming);
        let closed = transmitter.into_owner().close();
        // Not earlier: with it the bus may end.
        drop(bus);
        closed
    }

    fn owner(&self) -> &Owner {
        self.transmitter.owner()
    }

    /// Shows up to `budget` packets to `each`, in place, and gives their space back to the host, which is signalled if
    /// it waits for room. Returns the number of packets; less than `budget` means that the ring was empty.
    ///
    /// The bytes of a packet are the host's: it may change them while they are read. Copy once, then check the copy.
    /// Interrupts are masked from here until the next [`wait`](Self::wait) or [`arm`](Self::arm).
    ///
    /// # Errors
    /// What `each` returns, which ends the batch; that packet counts as received. Converted from [`Error`]: the device
    /// is gone, which comes before any other error; the ring is corrupt. A batch that was read as the device went is
    /// nothing to go by when this is an error.
    pub fn receive<E: From<Error>>(
        &mut self,
        budget: usize,
        each: impl FnMut(&IncomingPacket<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.incoming.receive(self.transmitter.owner(), budget, each)
    }

    /// Sleeps until there are packets, a [`Waker`] is used, or the time is over; `None` is no limit. It returns at once
    /// when there are packets already; a wake comes before packets.
    ///
    /// # Errors
    /// The device is gone, and nothing is left to be received; a system call failed.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, Error> {
        self.incoming.wait(self.transmitter.owner(), timeout)
    }

    /// Gets ready for a sleep in somebody else's event loop: acknowledges interrupts, asks for new ones, and looks once
    /// more. `true`: do not sleep, [`receive`](Self::receive) first. `false`: the descriptor ([`AsFd`]) becomes readable
    /// when there is something.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn arm(&mut self) -> Result<bool, Error> {
        self.incoming.arm(self.transmitter.owner())
    }
}

of_a_channel!(Channel);

impl AsFd for Channel {
    /// What becomes readable when there is something, for event loops. The loop's duties: call
    /// [`arm`](Channel::arm) before each sleep and do not sleep if it returns `true`; watch the descriptor for input and
    /// errors; after any event, arm again. A [`Waker`] has a descriptor of its own.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.incoming.sleeper.descriptor(self.transmitter.owner())
    }
}
