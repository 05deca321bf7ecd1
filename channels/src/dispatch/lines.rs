//! Descriptors of devices whose channels are dispatched: one per device, for all of its channels.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use vmbus::link::Line;

/// The devices whose descriptors a dispatcher waits for.
#[derive(Debug)]
pub struct Lines {
    /// `None` in models: nothing is watched.
    epoll: Option<OwnedFd>,
    devices: Vec<Device>,
}

#[derive(Debug)]
struct Device {
    descriptor: RawFd,
    line: Line,
    relids: Vec<usize>,
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

    /// Watches a channel's line.
    pub(super) fn watch(&mut self, relid: usize, line: &Line) {
        let (Some(epoll), Some(descriptor)) = (&self.epoll, line.descriptor()) else { return };
        let number = descriptor.as_raw_fd();
        if let Some(device) = self.devices.iter_mut().find(|device| device.descriptor == number) {
            device.relids.push(relid);
            return;
        }
        let data = EventData::new_u64(u64::try_from(number).unwrap_or_default());
        if let Err(error) = epoll::add(epoll, descriptor, data, EventFlags::IN) {
            log::error!(target: "vmbus::dispatch", "relid {relid}: its interrupts will not be heard: {error}");
            return;
        }
        self.devices.push(Device { descriptor: number, line: line.clone(), relids: vec![relid] });
    }

    /// Watches it no more.
    pub(super) fn unwatch(&mut self, relid: usize) {
        let Some(at) = self.devices.iter().position(|device| device.relids.contains(&relid)) else { return };
        let last = self.devices.get_mut(at).is_none_or(|device| {
            device.relids.retain(|other| *other != relid);
            device.relids.is_empty()
        });
        if last {
            let device = self.devices.swap_remove(at);
            self.delete(&device);
        }
    }

    /// Takes note of a device's interrupts; the relids of its channels, and whether it is gone, after which it is not
    /// watched any more.
    pub(super) fn acknowledge(&mut self, number: u64) -> Vec<usize> {
        let found = |device: &Device| u64::try_from(device.descriptor).is_ok_and(|descriptor| descriptor == number);
        let Some(at) = self.devices.iter().position(found) else { return Vec::new() };
        let Some(device) = self.devices.get(at) else { return Vec::new() };
        if device.line.acknowledge().is_ok() {
            return device.relids.clone();
        }
        // Gone: the descriptor would be readable for ever.
        let device = self.devices.swap_remove(at);
        self.delete(&device);
        device.relids
    }

    fn delete(&self, device: &Device) {
        let (Some(epoll), Some(descriptor)) = (&self.epoll, device.line.descriptor()) else { return };
        // Fails only for a descriptor that is not watched, which is what is wanted.
        let _ = epoll::delete(epoll, descriptor);
    }
}
