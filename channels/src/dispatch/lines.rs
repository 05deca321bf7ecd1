//! Descriptors of devices whose channels are dispatched: one per device, for all of its channels.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use vmbus::link::Line;

/// Where the interrupts of a channel arrive if not in the flags. Channels of one device have the same descriptor.
pub trait Source: Send {
    /// Readable after an interrupt, and at the end.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Takes note of the interrupts so far. `false`: there will be none any more.
    fn acknowledge(&self) -> bool;
}

impl Source for Line {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor()
    }

    fn acknowledge(&self) -> bool {
        self.acknowledge().is_ok()
    }
}

/// The devices whose descriptors a dispatcher waits for.
pub struct Lines {
    /// `None` in models: nothing is watched.
    epoll: Option<OwnedFd>,
    devices: Vec<Device>,
}

struct Device {
    descriptor: RawFd,
    /// Whether epoll has it: not any more once it is gone.
    watched: bool,
    channels: Vec<(usize, Box<dyn Source>)>,
}

impl Lines {
    /// Watches nothing, ever.
    #[must_use]
    pub fn none() -> Self {
        Self { epoll: None, devices: Vec::new() }
    }

    /// Watches with this epoll descriptor. A device's event carries its descriptor's number.
    pub(super) fn with(epoll: OwnedFd) -> Self {
        Self { epoll: Some(epoll), devices: Vec::new() }
    }

    pub(super) fn epoll(&self) -> Option<&OwnedFd> {
        self.epoll.as_ref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Watches a channel's source.
    pub(super) fn watch(&mut self, relid: usize, source: Box<dyn Source>) {
        let Some(descriptor) = source.descriptor() else { return };
        let number = descriptor.as_raw_fd();
        if let Some(device) = self.devices.iter_mut().find(|device| device.descriptor == number) {
            device.channels.push((relid, source));
            return;
        }
        let data = EventData::new_u64(u64::try_from(number).unwrap_or_default());
        let added = self.epoll.as_ref().map(|epoll| epoll::add(epoll, descriptor, data, EventFlags::IN));
        if let Some(Err(error)) = added {
            log::error!(target: "vmbus::dispatch", "relid {relid}: its interrupts will not be heard: {error}");
        }
        let watched = added.is_some_and(|added| added.is_ok());
        self.devices.push(Device { descriptor: number, watched, channels: vec![(relid, source)] });
    }

    /// Watches it no more, and gives the source back.
    pub(super) fn unwatch(&mut self, relid: usize) -> Option<Box<dyn Source>> {
        let of = |device: &Device| device.channels.iter().position(|(other, _)| *other == relid);
        let (at, device) = self.devices.iter_mut().enumerate().find(|(_, device)| of(device).is_some())?;
        let (_, source) = device.channels.swap_remove(of(device)?);
        if device.channels.is_empty() {
            if device.watched {
                delete(self.epoll.as_ref(), &*source);
            }
            self.devices.swap_remove(at);
        }
        Some(source)
    }

    /// Takes note of a device's interrupts, and appends the relids of its channels.
    pub(super) fn acknowledge(&mut self, number: u64, relids: &mut Vec<usize>) {
        let found = |device: &&mut Device| u64::try_from(device.descriptor).is_ok_and(|other| other == number);
        let Some(device) = self.devices.iter_mut().find(found) else { return };
        if let Some((_, source)) = device.channels.first()
            && !source.acknowledge()
        {
            // Gone: its descriptor would be readable for ever.
            delete(self.epoll.as_ref(), &**source);
            device.watched = false;
        }
        relids.extend(device.channels.iter().map(|(relid, _)| *relid));
    }
}

fn delete(epoll: Option<&OwnedFd>, source: &dyn Source) {
    let (Some(epoll), Some(descriptor)) = (epoll, source.descriptor()) else { return };
    if let Err(error) = epoll::delete(epoll, descriptor) {
        log::warn!(target: "vmbus::dispatch", "a device's descriptor stays watched: {error}");
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let descriptors: Vec<_> = self.devices.iter().map(|device| device.descriptor).collect();
        formatter.debug_struct("Lines").field("descriptors", &descriptors).finish_non_exhaustive()
    }
}
