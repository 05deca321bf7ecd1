//! The seam between the control executor and a way to the host: real messages (`wire`), or the kernel's (`uio`).
//!
//! A link that has no messages of its own plays them: the executor posts what a guest posts and hears what a host says,
//! whoever stands behind. All methods are called by one thread and none of them waits for anybody.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::Error;
use crate::direct::DirectSource;
use crate::memory::{Mapping, Ring};
use crate::message::{GpadlId, GuestMessage, HostMessage};

/// Where a link puts what it hears, from any thread of its own. It may block while the executor has too much to do
/// (that is what bounds a flood); `false` says that the executor has ended and the thread may, too.
pub type Sink = Arc<dyn Fn(LinkEvent) -> bool + Send + Sync>;

/// What a link hears.
#[derive(Debug)]
pub enum LinkEvent {
    /// The host spoke.
    Message(HostMessage),
    /// The host said something that is no message; already described.
    Malformed(crate::message::MessageError),
    /// The connection is gone for good, with the reason. Nothing comes after it.
    Lost(Error),
}

/// What a GPADL is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// The rings of a channel: control page and data each, in bytes, whole pages.
    Ring {
        /// From guest to host.
        outgoing_bytes: u32,
        /// From host to guest.
        incoming_bytes: u32,
    },
    /// A buffer of this many bytes, whole pages.
    Buffer {
        /// Up to 64 MiB.
        bytes: u32,
    },
}

/// A way to the host.
pub trait Link: Send {
    /// Starts to listen. Called once, before anything else. What the link hears goes to the sink from a thread of its
    /// own; the last of it is [`LinkEvent::Lost`], unless the link is stopped first.
    ///
    /// # Errors
    /// What stands in the way.
    fn start(&mut self, sink: Sink) -> Result<(), Error>;

    /// Posts a message, or queues it. The GPADL messages are not posted but shared.
    ///
    /// The caller leaves what only the link knows to it: in [`GuestMessage::InitiateContact`] the addresses of the
    /// interrupt page and the monitor pages, interrupt source and trust level (only the features in `target` count, from
    /// 6.0 on), in [`GuestMessage::ModifyConnection`] the monitor pages. The link also sees which version was asked for
    /// and accepted, and so knows how to write and read what follows.
    ///
    /// # Errors
    /// The connection is gone; the queue is full, which means the same. [`Error::Io`] when the message has no place in
    /// what was agreed on: then nothing was posted, and the connection stays.
    fn post(&mut self, message: &GuestMessage) -> Result<(), Error>;

    /// Allocates pages (zeroes) and posts the GPADL header and bodies for them. The host answers with `GpadlCreated`. A
    /// GPADL's number may be used again after [`unshare`](Self::unshare).
    ///
    /// # Errors
    /// No memory; sizes that are not whole pages; a number that is in use; the link can't share buffers; as
    /// [`post`](Self::post). Unless the connection is gone, nothing is shared then.
    fn share(&mut self, relid: u32, gpadl: GpadlId, what: Share) -> Result<(), Error>;

    /// Frees the pages of a GPADL, once the host can't reach them any more and nobody here does. (Whoever still does
    /// loses them: the mappings are revoked first.) One that is not there is ignored.
    fn unshare(&mut self, gpadl: GpadlId);

    /// The two ends of a channel whose rings are shared and whose open succeeded. Once for each open.
    ///
    /// # Errors
    /// The rings can't be mapped; the device is gone.
    fn port(&mut self, relid: u32, ring: GpadlId) -> Result<Port, Error>;

    /// The memory of a shared buffer.
    ///
    /// # Errors
    /// There is no such buffer; it can't be mapped.
    fn buffer(&mut self, gpadl: GpadlId) -> Result<Arc<Mapping>, Error>;

    /// What gives out memory that the host reaches by page numbers. `None`: there is no such memory over this link. Asked
    /// before the start.
    fn direct_memory(&self) -> Option<Arc<dyn DirectSource>> {
        None
    }

    /// Virtual processors that the host may interrupt: 0 to this. Each gets a dispatcher.
    fn processors(&self) -> usize;

    /// Where the host's interrupts of a processor arrive. `None`: each port has a descriptor of its own. To be asked
    /// once for each processor; a second answer shows the same flags and the same counter.
    fn interrupts(&mut self, processor: usize) -> Option<Interrupts>;

    /// Ends all threads of the link and closes everything; what is still mapped of its memory is revoked. Called once,
    /// at the end; also called by drop. The sink must not block any more, or this waits for it; after it returned, the
    /// sink is not called again.
    fn stop(&mut self);
}

/// Where the host's interrupts of one processor arrive: a page of event flags, and a descriptor to sleep on.
#[derive(Debug)]
pub struct Interrupts {
    /// The processor's event-flag page, as the SynIC has it: 16 interrupt sources of 2048 flags each.
    pub flags: Arc<Mapping>,
    /// Where the flags of the VMBus's source begin in it, in bytes; 256 bytes.
    pub flags_offset: usize,
    /// An eventfd, readable after an interrupt. The host holds it, too: it can take the count first, and make a read
    /// wait. So don't read it where that matters: an edge-triggered epoll tells of each interrupt without.
    pub event: OwnedFd,
}

/// One open channel, as the link hands it out: rings, and a line to the host.
#[derive(Debug)]
pub struct Port {
    /// From guest to host.
    pub outgoing: Ring,
    /// From host to guest.
    pub incoming: Ring,
    /// Signals and liveness.
    pub line: Line,
}

/// How a channel signals the host, and how it knows that it is still there. Shared by all users of the channel.
#[derive(Debug, Clone)]
pub enum Line {
    /// Through the kernel.
    Uio(crate::uio::Line),
    /// Through shared pages and an eventfd.
    Wire(crate::wire::Line),
}

impl Line {
    /// Signals the host. The ring's new index must have been published before.
    ///
    /// # Errors
    /// The device is gone (not every way of signalling notices).
    pub fn signal(&self) -> Result<(), Error> {
        match self {
            Self::Uio(line) => line.signal(),
            Self::Wire(line) => line.signal(),
        }
    }

    /// Whether signalling opens the interrupt masks of all channels of the device.
    #[must_use]
    pub fn unmasks(&self) -> bool {
        match self {
            Self::Uio(line) => line.unmasks(),
            Self::Wire(_) => false,
        }
    }

    /// Whether the channel is known to be gone: a load or two.
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        match self {
            Self::Uio(line) => line.is_rescinded(),
            Self::Wire(line) => line.is_rescinded(),
        }
    }

    /// Whether the channel is gone, asking the kernel where there is one. Mappings are revoked before it says so.
    ///
    /// # Errors
    /// [`Error::Rescinded`].
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Uio(line) => line.check(),
            Self::Wire(line) => line.check(),
        }
    }

    /// The buffers that the kernel made for the channel's device and shared with the host. None where there is no kernel
    /// in between, and none for a subchannel.
    ///
    /// # Errors
    /// [`Error::Rescinded`]; they can't be mapped.
    pub fn kernel_buffers(&self) -> Result<Vec<crate::uio::KernelBuffer>, Error> {
        match self {
            Self::Uio(line) => line.kernel_buffers(),
            Self::Wire(_) => Ok(Vec::new()),
        }
    }

    /// Marks the channel as gone, and revokes its mappings where pages may be freed under them.
    pub fn rescind(&self) {
        match self {
            Self::Uio(line) => line.rescind(),
            Self::Wire(line) => line.rescind(),
        }
    }

    /// As [`rescind`](Self::rescind), by a user to whom the line's descriptor has shown that the device is gone: the link
    /// hears of it, too.
    pub fn end(&self) {
        match self {
            Self::Uio(line) => line.end(),
            Self::Wire(line) => line.rescind(),
        }
    }

    /// Whether the rings outlive the channel: what the host has put there can be read after a rescind, until the bus ends.
    /// Where a kernel frees them, they are zeroes by then.
    #[must_use]
    pub fn keeps_rings(&self) -> bool {
        matches!(self, Self::Wire(_))
    }

    /// The descriptor that becomes readable with an interrupt, where the channel (or its device) has one of its own.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Uio(line) => Some(line.as_fd()),
            Self::Wire(_) => None,
        }
    }

    /// Takes note of the interrupts so far on that descriptor; whether there were any.
    ///
    /// # Errors
    /// [`Error::Rescinded`].
    pub fn acknowledge(&self) -> Result<bool, Error> {
        match self {
            Self::Uio(line) => line.acknowledge(),
            Self::Wire(_) => Ok(false),
        }
    }
}
