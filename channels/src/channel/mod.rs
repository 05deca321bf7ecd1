//! One open channel: a reader, a writer, and the link they belong to.
//!
//! The split: `send` writes and waits for room, `receive` reads and waits for packets; both signal through `mod.rs`.

mod dispatched;
mod receive;
mod send;

use std::os::fd::{AsFd, BorrowedFd};

use vmbus::memory::Ring;
use vmbus::message::{OfferFlags, USER_DEFINED_BYTES};
use vmbus::sysfs::{Bus, Device};
use vmbus::uio::{Doorbell, Link, Options};
use vmbus_ringbuf::{Corrupt, Packet, Reader, Signal, WriteBatch, Writer};

pub use dispatched::Dispatched;
pub use receive::Wake;

use crate::{Buffer, ChannelId, Error, Offer, Waker};

/// A packet in the incoming ring, as [`Channel::receive`] shows it.
pub type IncomingPacket<'a> = Packet<'a, Ring>;
/// Packets on their way into the outgoing ring, as [`Channel::send_batch`] shows them.
pub type OutgoingBatch<'a> = WriteBatch<'a, Ring>;

/// An open channel. Methods take `&mut self`: one thread sends and receives; others reach it through a [`Waker`].
///
/// Once a method has returned an error that is rescinded ([`Error::is_rescinded`]) or [`Error::Corrupt`], all others
/// return the same; close the channel. Dropping it does what [`close`](Self::close) does.
#[derive(Debug)]
pub struct Channel {
    // Reader and writer go first, then the link: users, then mappings, then the file descriptor.
    reader: Reader<Ring>,
    writer: Writer<Ring>,
    offer: Offer,
    doorbell: Doorbell,
    /// Whether we want no interrupts now. The kernel may have changed the ring's own mask since.
    masked: bool,
    waker: Waker,
    link: Link,
}

impl Channel {
    /// Opens a device that is bound to `uio_hv_generic`, with its primary channel. The host may have sent already: call
    /// [`wait`](Self::wait) or [`receive`](Self::receive) before anything else that sleeps.
    ///
    /// # Errors
    /// As [`Link::open`]; [`Error::Corrupt`] when the rings hold nonsense.
    pub fn open(bus: &Bus, device: &Device, options: Options) -> Result<Self, Error> {
        Self::over(Link::open(bus, device, options)?)
    }

    /// The primary channel of a link whose rings have not been asked for.
    ///
    /// # Errors
    /// As [`Link::rings`] and [`Link::doorbell`]; [`Error::Corrupt`] when the rings hold nonsense.
    pub fn over(link: Link) -> Result<Self, Error> {
        let relid = link.device().relid;
        let offer = Offer {
            id: ChannelId { index: 0, generation: 0 },
            relid,
            class: link.device().class,
            instance: link.device().instance,
            subchannel_index: 0,
            primary: None,
            monitor_id: link.device().monitor_id,
            connection_id: 0,
            flags: OfferFlags::empty(),
            user_defined: [0; USER_DEFINED_BYTES],
        };
        let rings = link.rings(relid)?;
        let doorbell = link.doorbell(relid)?;
        let corrupt = |source| Error::Corrupt { device: link.device().name.clone(), source };
        let reader = Reader::new(rings.incoming).map_err(corrupt)?;
        let writer = Writer::new(rings.outgoing).map_err(corrupt)?;
        let waker = Waker::new()?;
        Ok(Self { reader, writer, offer, doorbell, masked: false, waker, link })
    }

    /// The device, by its sysfs name or its instance id, which on most kernels are the same.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.link.device().name
    }

    /// The channel's name on the bus.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.offer.id
    }

    /// What the host offered.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Shares memory with the host over this channel: whole pages, up to 64 MiB.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Host`], [`Error::Silent`], [`Error::Argument`]; the channel is gone; the bus has
    /// ended; [`Error::Callback`].
    pub fn create_buffer(&self, bytes: u32) -> Result<Buffer, Error> {
        let _ = bytes;
        Err(Error::Ended)
    }

    /// The channel's number on the bus.
    #[must_use]
    pub fn relid(&self) -> u32 {
        self.offer.relid
    }

    /// Something that ends this channel's waits from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether the device is known to be gone. Asks no one: a load or two.
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        self.link.is_rescinded()
    }

    /// Closes the channel: reader and writer end, mappings are revoked, and the file descriptor closes last, which is
    /// when the kernel closes the channel with the host.
    ///
    /// # Errors
    /// As [`Link::close`]. Not an error: a device that is gone.
    pub fn close(self) -> Result<(), Error> {
        let Self { reader, writer, link, .. } = self;
        drop((reader, writer));
        Ok(link.close()?)
    }

    /// Signals the host if that is due.
    fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        if signal.is_needed() {
            self.link.ring(&self.doorbell)?;
            // The 4-byte write opens the masks of all channels of the device.
            if self.masked && self.doorbell.unmasks() {
                self.reader.mask();
            }
        }
        Ok(())
    }

    fn alive(&self) -> Result<(), Error> {
        // The flag alone costs nothing; only once it is set does `check` revoke and make the error.
        if self.link.is_rescinded() { Ok(self.link.check()?) } else { Ok(()) }
    }

    /// What a ring full of nonsense means: a device that is gone leaves zeroes behind, which are no sin of the host's.
    fn corrupt(&self, source: Corrupt) -> Error {
        match self.link.check() {
            Ok(()) => Error::Corrupt { device: self.device().to_owned(), source },
            Err(error) => error.into(),
        }
    }
}

impl AsFd for Channel {
    /// The device's file descriptor, for event loops. The loop's duties: call [`arm`](Channel::arm) before each sleep
    /// and do not sleep if it returns `true`; watch the descriptor for input and errors; after any event, arm again.
    /// A [`Waker`] has a descriptor of its own.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}
