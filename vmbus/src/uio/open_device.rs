//! One device through `uio_hv_generic`: opening, rings, signalling, revocation, closing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::buffers::KernelBuffer;
use super::doorbell::Doorbell;
use super::ending::Observer;
use super::events::Event;
use super::line::Line;
use super::node::Node;
use super::options::Options;
use super::rings::RingPair;
use super::shared::{Shared, uio_name};
use super::watcher::Watcher;
use crate::Error;
use crate::sysfs::{Bus, Device};

/// An open device: the right to use it alone, and everything of it that is mapped here.
///
/// It may be shared between threads; every method takes `&self` but [`close`](Self::close). Dropping it does
/// what `close` does.
#[derive(Debug)]
pub struct OpenDevice {
    /// Before `shared`: the thread holds a share of it, and with that the node, until it is joined.
    watcher: Option<Watcher>,
    shared: Arc<Shared>,
}

impl OpenDevice {
    /// Opens `/dev/uioN` of a device that is bound to `uio_hv_generic`, takes its lock, and maps the primary channel's
    /// rings. The kernel opens the channel with the host: from here on the host may send.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has it; [`Error::Rescinded`] when it goes meanwhile;
    /// [`Error::Unsupported`] when it is not bound or lacks a map; [`Error::Permission`], [`Error::Io`].
    pub fn open(bus: &Bus, device: &Device, options: Options) -> Result<Self, Error> {
        const ATTEMPTS: usize = 3;
        let path = bus.path("dev").join(uio_name(device)?);
        for _ in 0..ATTEMPTS {
            let node = Node::open(path.clone(), bus, device)?;
            let (shared, found) = Shared::new(bus, device, options, node)?;
            if found.fresh {
                return Self::start(shared, options.watch || found.needs_watcher);
            }
            // The former owner closed after we opened and before we locked. The channel was therefore never closed, and
            // the host is in the middle of its talk with somebody else. If this is the last close, it ends that.
            log::info!(target: "vmbus::uio", "{} was still open; opening it again", device.name);
        }
        let why = format!("another process keeps {} open without its lock; end it first", path.display());
        Err(Error::Busy { device: device.name.clone(), why })
    }

    /// Takes over a node that is open already: given by a process with more rights, or kept across a restart. The
    /// rings are found as they are, not at zero, when the channel was in use.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_node(node: OwnedFd, bus: &Bus, device: &Device, options: Options) -> Result<Self, Error> {
        let node = Node::adopt(node, bus.path("dev").join(uio_name(device)?), bus, device)?;
        let (shared, found) = Shared::new(bus, device, options, node)?;
        Self::start(shared, options.watch || found.needs_watcher)
    }

    fn start(shared: Shared, watch: bool) -> Result<Self, Error> {
        let shared = Arc::new(shared);
        let watcher = if watch { Some(Watcher::start(&shared)?) } else { None };
        Ok(Self { watcher, shared })
    }

    /// The device as it was when it was opened.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.shared.device()
    }

    /// The rings of a channel, which are handed out once. Those of a subchannel are waited for
    /// ([`Options::ring_wait`]); while that lasts, no thread may signal by the 4-byte write, because kernels as of 6.12
    /// can then follow a pointer that is not set yet. (No host of the guest lab offers subchannels: this way has been
    /// tried on files only.)
    ///
    /// # Errors
    /// [`Error::Busy`] the second time; [`Error::Timeout`] when there is no such subchannel in time;
    /// [`Error::Rescinded`], [`Error::Io`].
    pub fn rings(&self, relid: u32) -> Result<RingPair, Error> {
        self.shared.rings(relid)
    }

    /// Revokes the rings of a subchannel. They may be asked for again, and are then as they were left.
    pub fn give_back(&self, relid: u32) {
        self.shared.give_back(relid);
    }

    /// A channel's line to the host, to be used beside this device or after it. It keeps the node open. For a
    /// subchannel, ask after [`rings`](Self::rings).
    ///
    /// # Errors
    /// As [`doorbell`](Self::doorbell).
    pub fn line(&self, relid: u32) -> Result<Line, Error> {
        let doorbell = self.shared.doorbell(relid)?;
        Ok(Line::new(Arc::clone(&self.shared), doorbell, self.shared.subchannel(relid)))
    }

    /// The buffers that the kernel made for the device and shared with the host, if it did.
    ///
    /// # Errors
    /// [`Error::Rescinded`]; [`Error::Malformed`], [`Error::Io`] when they can't be mapped.
    pub fn kernel_buffers(&self) -> Result<Vec<KernelBuffer>, Error> {
        self.shared.kernel_buffers()
    }

    /// Tells `observer`, from any thread, once that somebody found the device gone (its memory is revoked by then), and
    /// once that its node is closed, which is when neither this nor a line is left.
    pub(super) fn observe(&self, observer: Observer) {
        self.shared.observe(observer);
    }

    /// How to signal the host about a channel. For a subchannel, ask after [`rings`](Self::rings).
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the channel has a monitor id and the pages for it are missing or too small.
    pub fn doorbell(&self, relid: u32) -> Result<Doorbell, Error> {
        self.shared.doorbell(relid)
    }

    /// Signals the host through a doorbell. The ring's new index must have been published before.
    ///
    /// The 4-byte write also unmasks the incoming rings of *all* channels; see [`Doorbell::unmasks`].
    ///
    /// # Errors
    /// [`Error::Rescinded`] when the device is gone, which the monitor bits do not notice; [`Error::Io`].
    pub fn ring(&self, doorbell: &Doorbell) -> Result<(), Error> {
        self.shared.ring(doorbell)
    }

    /// Signals the host about channel `relid`; keep a [`doorbell`](Self::doorbell) where this is done often.
    ///
    /// # Errors
    /// As [`doorbell`](Self::doorbell) and [`ring`](Self::ring).
    pub fn signal(&self, relid: u32) -> Result<(), Error> {
        self.ring(&self.doorbell(relid)?)
    }

    /// Waits for an interrupt, for `waker` to become readable, or for the time to pass. See [`Event`].
    ///
    /// # Errors
    /// [`Error::Rescinded`], after every mapping has been revoked; [`Error::Io`].
    pub fn wait(&self, waker: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Result<Event, Error> {
        self.shared.wait(waker, timeout)
    }

    /// Takes note of the interrupts so far, without waiting: their number since the device was bound, or `None` when
    /// there was none since the last time.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn acknowledge(&self) -> Result<Option<u32>, Error> {
        self.shared.acknowledge()
    }

    /// Whether the device is known to be gone: a few loads; [`check`](Self::check) asks the kernel. Once it is `true`,
    /// no ring of it reaches the device's memory any more.
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        self.shared.is_rescinded()
    }

    /// Asks the kernel whether the device is still there.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn check(&self) -> Result<(), Error> {
        self.shared.check()
    }

    /// Replaces every mapping of the device by zeroes, for all users of its rings, and marks it as rescinded.
    pub fn revoke(&self) {
        self.shared.revoke_and_log();
    }

    /// Closes the device: the watcher ends, then the subchannels' mappings are revoked, then the others, and then the
    /// node is closed, which is when the kernel closes the channel with the host.
    ///
    /// Rings that are still in use somewhere read zeroes from then on. For an orderly end of the protocol stop their
    /// users first.
    ///
    /// # Errors
    /// [`Error::Io`] when a mapping could not be revoked. The node is closed all the same.
    pub fn close(mut self) -> Result<(), Error> {
        self.watcher = None;
        self.shared.revoke()
    }
}

impl Drop for OpenDevice {
    /// As [`OpenDevice::close`]; what goes wrong is logged. Waits for nobody but the watcher's own wake-up.
    fn drop(&mut self) {
        self.watcher = None;
        self.shared.revoke_and_log();
    }
}

impl AsFd for OpenDevice {
    /// The UIO node. It becomes readable at an interrupt and in error when the device is gone; for event loops.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.as_fd()
    }
}
