//! A look at sysfs that is cheap when nothing has changed: which devices user space has, and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::Error;
use crate::bind::UIO_DRIVER;
use crate::error::is_vanished;
use crate::message::{OfferChannel, OfferFlags, USER_DEFINED_BYTES};
use crate::sysfs::{Bus, Channel, Device};

/// A device that user space can open now.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) device: Arc<Device>,
    /// Differs each time that the device is bound anew: the inode number of its UIO folder. Announcements can be lost
    /// or late; this tells a device that was gone for a moment from one that never was.
    pub(super) incarnation: u64,
    /// Its primary channel.
    pub(super) offer: OfferChannel,
    /// The others. The kernel shows them while the device is open, and after it was asked for them.
    pub(super) subchannels: Vec<OfferChannel>,
}

/// Everything a look brought.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// By relid.
    pub(super) present: Vec<Present>,
    /// Devices that are there and can't be read, by name: a process without descriptors sees no file. Not known to be gone.
    pub(super) unread: BTreeSet<String>,
    /// Something is half there: look again soon, it may not be announced.
    pub(super) unfinished: bool,
}

/// Looks at one bus again and again.
#[derive(Debug)]
pub(super) struct Looker {
    bus: Bus,
    known: BTreeMap<String, Known>,
    /// Devices that can't be read, each told once.
    broken: BTreeSet<String>,
}

#[derive(Debug)]
struct Known {
    incarnation: u64,
    channels: Vec<String>,
    device: Arc<Device>,
}

impl Looker {
    pub(super) fn new(bus: Bus) -> Self {
        Self { bus, known: BTreeMap::new(), broken: BTreeSet::new() }
    }

    /// Looks. A bus that is not there (yet) has no devices.
    ///
    /// # Errors
    /// The list of devices can't be read.
    pub(super) fn look(&mut self) -> Result<Look, Error> {
        let mut look = Look::default();
        let names = self.bus.device_names()?;
        self.known.retain(|name, _| names.binary_search(name).is_ok());
        self.broken.retain(|name| names.binary_search(name).is_ok());
        for name in names {
            match self.device(&name, &mut look.unfinished) {
                Ok(present) => {
                    self.broken.remove(&name);
                    look.present.extend(present);
                }
                Err(error) => {
                    self.known.remove(&name);
                    if self.broken.insert(name.clone()) {
                        log::warn!(target: "vmbus::uio", "device {name} can't be looked at: {error}");
                    }
                    look.unread.insert(name);
                }
            }
        }
        look.present.sort_by_key(|present| present.offer.relid);
        Ok(look)
    }

    /// The device of this name, if user space has it.
    fn device(&mut self, name: &str, unfinished: &mut bool) -> Result<Option<Present>, Error> {
        let bound = bound(&self.bus, name)?;
        let Bound::Since(incarnation) = bound else {
            self.known.remove(name);
            *unfinished |= bound == Bound::Half;
            return Ok(None);
        };
        let channels = self.bus.names(&self.bus.device_path(name).join("channels"))?;
        let unchanged = |known: &&Known| known.incarnation == incarnation && known.channels == channels;
        let device = match self.known.get(name).filter(unchanged) {
            Some(known) => Arc::clone(&known.device),
            None => {
                let Some(device) = self.bus.read_device(name)? else { return Ok(None) };
                let device = Arc::new(device);
                // The kernel is still filling a channel's folder: that counts as a change the next time.
                let whole = device.channels.len() == channels.len();
                *unfinished |= !whole;
                let channels = if whole { channels } else { Vec::new() };
                let known = Known { incarnation, channels, device: Arc::clone(&device) };
                self.known.insert(name.to_owned(), known);
                device
            }
        };
        // Read in the middle of a change: whatever it has become, the next look tells.
        if device.uio.is_none() {
            self.known.remove(name);
            *unfinished = true;
            return Ok(None);
        }
        let subchannels = device.channels.iter().filter(|channel| channel.relid != device.relid);
        let subchannels = subchannels.map(|channel| subchannel(&device, channel)).collect();
        Ok(Some(Present { incarnation, offer: primary(&device), subchannels, device }))
    }
}

/// Whether user space has a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// It does not.
    No,
    /// Its driver is there before its node, and after it when the device goes.
    Half,
    /// It has, since this incarnation.
    Since(u64),
}

/// Whether user space has the device of this name, and since when.
///
/// # Errors
/// Its folder can't be read.
pub(super) fn bound(bus: &Bus, name: &str) -> Result<Bound, Error> {
    let path = bus.device_path(name);
    if bus.link_name(&path.join("driver"))?.as_deref() != Some(UIO_DRIVER) {
        return Ok(Bound::No);
    }
    let folder = path.join("uio");
    let uio = bus.names(&folder)?.into_iter().next();
    let Some(uio) = uio else { return Ok(Bound::Half) };
    let (node, folder) = (bus.path("dev").join(&uio), folder.join(uio));
    let found = node.metadata().and_then(|_| bus.confined(&folder)?.metadata());
    match found {
        Ok(folder) => Ok(Bound::Since(folder.ino())),
        Err(error) if is_vanished(&error) => Ok(Bound::Half),
        Err(error) => Err(Error::io("look at", folder, error)),
    }
}

fn primary(device: &Device) -> OfferChannel {
    OfferChannel {
        class: device.class,
        instance: device.instance,
        flags: OfferFlags::empty(),
        mmio_megabytes: 0,
        mmio_megabytes_optional: 0,
        user_defined: [0; USER_DEFINED_BYTES],
        subchannel_index: 0,
        relid: device.relid,
        monitor_id: device.monitor_id,
        is_dedicated: false,
        connection_id: 0,
    }
}

fn subchannel(device: &Device, channel: &Channel) -> OfferChannel {
    let subchannel_index = u16::try_from(channel.subchannel_index).unwrap_or(u16::MAX);
    OfferChannel { subchannel_index, relid: channel.relid, monitor_id: channel.monitor_id, ..primary(device) }
}
