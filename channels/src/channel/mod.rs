//! One open channel: a reader, a writer, and what they share with its other users.
//!
//! The split: `transmit` writes and waits for room, `receive` reads and waits for packets, `hold` is the reference that
//! all users share, `owner` closes, `dispatched` is the channel whose packets go to a handler.

mod dispatched;
mod hold;
mod owner;
mod receive;
mod send;
#[cfg(test)]
mod tests;
mod transmit;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use vmbus::link;
use vmbus::memory::Ring;
use vmbus::uio::KernelBuffer;
use vmbus_ringbuf::{Packet, Reader, WriteBatch};

pub use dispatched::Dispatched;
pub(crate) use dispatched::entry;
pub(crate) use hold::{Hold, Reason};
pub use receive::Wake;

use crate::{Buffer, ChannelId, Error, Offer, Vmbus, Waker};
use owner::Owner;
use transmit::Transmitter;

/// A packet in the incoming ring, as [`Channel::receive`] shows it.
pub type IncomingPacket<'a> = Packet<'a, Ring>;
/// Packets on their way into the outgoing ring, as [`Channel::send_batch`] shows them.
pub type OutgoingBatch<'a> = WriteBatch<'a, Ring>;

/// An open channel. Methods take `&mut self`: one thread sends and receives; others reach it through a [`Waker`].
///
/// Once a method has returned an error that is rescinded ([`Error::is_rescinded`]) or [`Error::Corrupt`], all others
/// return the same; close the channel. Dropping it does what [`close`](Self::close) does, without waiting.
#[derive(Debug)]
pub struct Channel {
    // Fields go in this order: users of the rings, and with them the mappings; the reference; what keeps the link.
    reader: Reader<Ring>,
    /// Whether we want no interrupts now. The kernel may have changed the ring's own mask since.
    masked: bool,
    transmitter: Transmitter,
    /// The bus that it is a channel of, once it is handed out.
    bus: Option<Vmbus>,
}

impl Channel {
    /// The handle to a channel that the executor has opened.
    pub(crate) fn build(outgoing: Ring, incoming: Ring, hold: Arc<Hold>) -> Result<Self, Error> {
        let device = hold.device().to_owned();
        let transmitter = Transmitter::new(outgoing, hold)?;
        let reader = Reader::new(incoming).map_err(|source| Error::Corrupt { device, source })?;
        Ok(Self { reader, masked: false, transmitter, bus: None })
    }

    /// Keeps the bus from ending as long as the channel is open.
    pub(crate) fn keeping(self, bus: Vmbus) -> Self {
        Self { bus: Some(bus), ..self }
    }

    /// The channel's name on the bus.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.hold().id()
    }

    /// What the host offered.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        self.hold().offer()
    }

    /// The device, as errors call it: its instance id.
    #[must_use]
    pub fn device(&self) -> &str {
        self.hold().device()
    }

    /// The channel's number on the bus.
    #[must_use]
    pub fn relid(&self) -> u32 {
        self.offer().relid
    }

    /// Something that ends this channel's waits from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.hold().waker().clone()
    }

    /// Whether the channel is known to be over: taken back, or its bus ended. Asks no one: a load or two.
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        self.hold().has_ended()
    }

    /// Shares memory with the host over this channel: whole pages, up to 64 MiB.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Host`], [`Error::Silent`], [`Error::Argument`]; the channel is gone; the bus has
    /// ended; [`Error::Callback`].
    pub fn create_buffer(&self, bytes: u32) -> Result<Buffer, Error> {
        Buffer::create(&self.hold().share(), bytes)
    }

    /// The buffers that the kernel made for the device when it was bound, and shared with the host: none over a link without
    /// a kernel, none for a subchannel, and since Linux 6.14 for network adapters only.
    ///
    /// # Errors
    /// The device is gone; they can't be mapped.
    pub fn kernel_buffers(&self) -> Result<Vec<KernelBuffer>, Error> {
        self.hold().alive()?;
        self.line().kernel_buffers().map_err(|error| self.hold().named(error))
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
        let Self { reader, transmitter, bus, .. } = self;
        drop(reader);
        let closed = transmitter.into_owner().close();
        // Not earlier: with it the bus may end.
        drop(bus);
        closed
    }

    fn hold(&self) -> &Owner {
        self.transmitter.owner()
    }

    fn line(&self) -> &link::Line {
        self.hold().line()
    }

    /// A signal by the 4-byte write opens the masks of all channels of the device.
    fn mask_again(&mut self) {
        if self.transmitter.take_signalled() && self.masked && self.line().unmasks() {
            self.reader.mask();
        }
    }
}

impl AsFd for Channel {
    /// What becomes readable when there is something, for event loops. The loop's duties: call
    /// [`arm`](Channel::arm) before each sleep and do not sleep if it returns `true`; watch the descriptor for input and
    /// errors; after any event, arm again. A [`Waker`] has a descriptor of its own.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hold().descriptor()
    }
}
