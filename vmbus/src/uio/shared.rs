//! What the users of a link and its watcher share: the node, what is mapped, and whether the device is gone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::buffers::{KernelBuffer, map_all};
use super::doorbell::{Doorbell, Kind};
use super::ending::{Ending, Observer};
use super::maps::{self, Map};
use super::node::Node;
use super::options::{Layout, Options};
use super::rings::{Mapped, RingPair, ring_map};
use super::subchannel::Subchannel;
use crate::Error;
use crate::kernel::Kernel;
use crate::memory::Mapping;
use crate::signal_bits::{SignalBits, SignalPages};
use crate::sysfs::{Bus, Device};

#[derive(Debug)]
pub(super) struct Shared {
    bus: Bus,
    device: Device,
    ring_wait: Duration,
    /// Set before the mappings are replaced: whoever maps more from here on must revoke that.
    ending: AtomicBool,
    /// Set after the mappings were replaced: whoever sees it reaches no old page.
    rescinded: AtomicBool,
    /// The primary channel's rings: whether a bus error hit one is asked for each packet.
    primary: Vec<Arc<Mapping>>,
    /// The pages of the monitor bits, where the primary channel has a monitor id.
    pages: Option<Arc<SignalPages>>,
    rings: Mutex<Rings>,
    /// Behind all mappings: fields are dropped in this order, and the node closes when none is left.
    pub(super) node: Node,
    /// Last: it says that the node is closed.
    farewell: Ending,
}

#[derive(Debug, Default)]
struct Rings {
    /// The primary channel's, until they are asked for.
    primary: Option<RingPair>,
    /// Subchannels whose rings were asked for; `None` while they are being mapped.
    subchannels: BTreeMap<u32, Option<Arc<Subchannel>>>,
    /// The kernel's buffers, once they were asked for.
    buffers: Vec<KernelBuffer>,
}

/// How well a node was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Nobody has used the channel since it was opened.
    pub(super) fresh: bool,
    /// The kernel does not take the mappings back by itself.
    pub(super) needs_watcher: bool,
}

impl Shared {
    pub(super) fn new(bus: &Bus, device: &Device, options: Options, node: Node) -> Result<(Self, Found), Error> {
        let pages = [maps::INTERRUPT_PAGE, maps::MONITOR_PAGE].into_iter().filter(|_| device.monitor_id.is_some());
        let wanted: Vec<_> = pages.chain([maps::RINGS]).collect();
        maps::wait_for(device, &wanted, options.ring_wait);
        let mapped = map_primary(bus, device, options, &node)?;
        let pages = match device.monitor_id {
            Some(_) => map_pages(device, &node)?.map(Arc::new),
            None => None,
        };
        let found = Found {
            fresh: mapped.is_fresh(),
            needs_watcher: !(mapped.mirrored && Kernel::running(bus).withdraws_ring_files()),
        };
        let shared = Self {
            bus: bus.clone(),
            device: device.clone(),
            ring_wait: options.ring_wait,
            ending: AtomicBool::new(false),
            rescinded: AtomicBool::new(false),
            primary: mapped.mappings,
            pages,
            rings: Mutex::new(Rings { primary: Some(mapped.pair), ..Rings::default() }),
            node,
            farewell: Ending::default(),
        };
        Ok((shared, found))
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn gone(&self) -> Error {
        Error::Rescinded { device: self.device.name.clone() }
    }

    /// Whether the device is gone, as far as known. `true` means that no mapping reaches an old page any more: a bus
    /// error revokes one mapping only, and the rest follows here, before the answer.
    pub(super) fn is_rescinded(&self) -> bool {
        if self.rescinded.load(Ordering::Acquire) {
            return true;
        }
        let faulted = self.primary.iter().any(|mapping| mapping.is_revoked());
        if faulted {
            self.end();
        }
        faulted
    }

    pub(super) fn rings(&self, relid: u32) -> Result<RingPair, Error> {
        if self.is_rescinded() {
            return Err(self.gone());
        }
        let taken = || Error::Busy {
            device: self.device.name.clone(),
            why: format!("the rings of channel {relid} are in use; open the device once"),
        };
        if relid == self.device.relid {
            return self.lock().primary.take().ok_or_else(taken);
        }
        match self.lock().subchannels.entry(relid) {
            Entry::Occupied(_) => return Err(taken()),
            Entry::Vacant(place) => place.insert(None),
        };
        let pair = self.map_subchannel(relid).and_then(|mapped| self.keep(relid, mapped));
        if pair.is_err() {
            self.lock().subchannels.remove(&relid);
        }
        pair
    }

    /// The buffers that the kernel made for the device, mapped once.
    pub(super) fn kernel_buffers(&self) -> Result<Vec<KernelBuffer>, Error> {
        if self.is_rescinded() {
            return Err(self.gone());
        }
        let mut rings = self.lock();
        if rings.buffers.is_empty() {
            rings.buffers = map_all(&self.device, self.as_fd())?;
        }
        let buffers = rings.buffers.clone();
        drop(rings);
        // As in `keep`.
        if self.ending.load(Ordering::SeqCst) {
            self.revoke_and_log();
            return Err(self.gone());
        }
        Ok(buffers)
    }

    /// The subchannel whose rings were handed out under this relid.
    pub(super) fn subchannel(&self, relid: u32) -> Option<Arc<Subchannel>> {
        self.lock().subchannels.get(&relid).cloned().flatten()
    }

    /// Revokes a subchannel's rings; they may be asked for again.
    pub(super) fn give_back(&self, relid: u32) {
        if let Some(subchannel) = self.lock().subchannels.remove(&relid).flatten() {
            subchannel.rescind();
        }
    }

    fn map_subchannel(&self, relid: u32) -> Result<Mapped, Error> {
        let device = self.bus.wait_for_ring(&self.device, relid, self.ring_wait)?;
        let file = device.channel(relid).and_then(|channel| channel.ring.as_ref()).ok_or_else(|| self.gone())?;
        let bytes = usize::try_from(file.bytes).map_err(|_| Error::malformed(&file.path, "two rings", file.bytes))?;
        Mapped::mirrored(&self.device, file, bytes)
    }

    /// Adds mappings to those that a revocation takes, or revokes them at once if one has happened: it sets
    /// `ending` first and takes the lock then, so either it finds them or we find that.
    fn keep(&self, relid: u32, mapped: Mapped) -> Result<RingPair, Error> {
        let subchannel = Arc::new(Subchannel::new(mapped.mappings));
        self.lock().subchannels.insert(relid, Some(subchannel));
        if self.ending.load(Ordering::SeqCst) {
            self.revoke_and_log();
            return Err(self.gone());
        }
        Ok(mapped.pair)
    }

    pub(super) fn doorbell(&self, relid: u32) -> Result<Doorbell, Error> {
        let monitor = if relid == self.device.relid {
            self.device.monitor_id
        } else {
            self.bus.refresh(&self.device)?.channel(relid).and_then(|channel| channel.monitor_id)
        };
        let Some(monitor) = monitor else { return Ok(Doorbell(Kind::Write)) };
        let bits = self.pages.clone().and_then(|pages| SignalBits::new(pages, relid, Some(monitor)));
        bits.map(|bits| Doorbell(Kind::Monitor(bits))).ok_or_else(|| Error::Unsupported {
            device: self.device.name.clone(),
            what: format!("channel {relid} signals by monitor bit {monitor}, and the pages for that are not mapped"),
            hint: "check that its driver is uio_hv_generic".to_owned(),
        })
    }

    pub(super) fn ring(&self, doorbell: &Doorbell) -> Result<(), Error> {
        match &doorbell.0 {
            Kind::Monitor(bits) => {
                bits.set();
                Ok(())
            }
            Kind::Write => self.node.write_one().or_else(|error| {
                // EIO, or EINVAL a little later: the kernel's words for a device that is gone.
                self.check()?;
                Err(Error::io("write", &self.node.path, error))
            }),
        }
    }

    /// Replaces every mapping, the subchannels' first, and marks the link.
    pub(super) fn revoke(&self) -> Result<(), Error> {
        self.ending.store(true, Ordering::SeqCst);
        let rings = self.lock();
        let pages = self.pages.iter().flat_map(|pages| [&pages.interrupt, &pages.monitor]);
        let subchannels = rings.subchannels.values().flatten().flat_map(|subchannel| subchannel.mappings());
        let buffers = rings.buffers.iter().map(|buffer| &buffer.memory);
        let mut outcome = Ok(());
        for mapping in subchannels.chain(&self.primary).chain(pages).chain(buffers) {
            outcome = mapping.revoke().and(outcome);
        }
        self.rescinded.store(true, Ordering::Release);
        outcome.map_err(|error| Error::io("revoke the mappings of", &self.node.path, error))
    }

    pub(super) fn revoke_and_log(&self) {
        if let Err(error) = self.revoke() {
            log::error!(target: "vmbus::uio", "{}: {error}; its memory may still be reached", self.device.name);
        }
    }

    /// The device was found to be gone: first the memory, then whoever wants to know.
    pub(super) fn end(&self) {
        self.revoke_and_log();
        self.farewell.gone();
    }

    /// Tells `observer` once that the device is gone, and once that its node is closed.
    pub(super) fn observe(&self, observer: Observer) {
        self.farewell.observe(observer);
        if self.is_rescinded() {
            self.farewell.gone();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.as_fd()
    }
}

/// The name of the device's UIO node.
pub(super) fn uio_name(device: &Device) -> Result<&str, Error> {
    device.uio.as_deref().ok_or_else(|| Error::Unsupported {
        device: device.name.clone(),
        what: "it is not bound to uio_hv_generic".to_owned(),
        hint: format!("bind it with `vmbusctl bind {}`", device.name),
    })
}

fn map_primary(bus: &Bus, device: &Device, options: Options, node: &Node) -> Result<Mapped, Error> {
    let map = ring_map(device, uio_name(device)?)?;
    if options.layout == Layout::Contiguous {
        return Mapped::contiguous(node, &map);
    }
    let mirrored = bus.wait_for_ring(device, device.relid, options.ring_wait).and_then(|device| {
        let file = device.primary().and_then(|primary| primary.ring.as_ref());
        let file = file.ok_or_else(|| Error::Rescinded { device: device.name.clone() })?;
        Mapped::mirrored(&device, file, map.bytes)
    });
    match mirrored {
        Err(error @ (Error::Timeout { .. } | Error::Io { .. } | Error::Permission { .. }))
            if options.layout == Layout::Auto =>
        {
            log::warn!(target: "vmbus::uio", "{}: rings are mapped once, with a watcher: {error}", device.name);
            Mapped::contiguous(node, &map)
        }
        outcome => outcome,
    }
}

/// The interrupt page and the monitor page; `None` when the device lacks one.
fn map_pages(device: &Device, node: &Node) -> Result<Option<SignalPages>, Error> {
    let find = |name| Map::find(device, name);
    let (Some(interrupt), Some(monitor)) = (find(maps::INTERRUPT_PAGE)?, find(maps::MONITOR_PAGE)?) else {
        return Ok(None);
    };
    let mapping = |map: &Map| {
        let mapping = map.mapping(node.as_fd()).map_err(|error| Error::io("map", &node.path, error))?;
        // The kernel hands these pages out at the first access, and not any more once the device is gone.
        let _ = mapping.load(0);
        Ok::<_, Error>(Arc::new(mapping))
    };
    Ok(Some(SignalPages {
        interrupt: mapping(&interrupt)?,
        interrupt_offset: interrupt.offset,
        monitor: mapping(&monitor)?,
        monitor_offset: monitor.offset,
    }))
}
