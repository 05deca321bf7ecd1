//! Who is registered.

use std::collections::VecDeque;
use std::sync::Arc;

use vmbus_channels::ChannelId;

use super::super::input::DriverId;
use super::super::sync::queue::Post;
use super::super::{DeviceIds, Driver, Reason};
use super::Table;
use super::binding::{Device, Phase};

/// A registered driver.
pub(super) struct Record {
    pub(super) driver: Arc<dyn Driver>,
    pub(super) name: String,
    pub(super) ids: DeviceIds,
    /// Its devices that wait for a worker.
    pub(super) ready: VecDeque<ChannelId>,
    /// Tasks of it that workers have.
    pub(super) running: usize,
    /// Once it is being unregistered: who waits for that.
    pub(super) leaving: Option<Vec<Post<()>>>,
    /// Nothing but its memory is left.
    pub(super) left: Left,
}

/// How far a driver that leaves has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    No,
    /// It is to be dropped by a worker.
    Due,
    Dropping,
}

impl Table {
    pub(super) fn register(&mut self, driver: Arc<dyn Driver>, name: String, ids: DeviceIds, reply: &Post<DriverId>) {
        let id = DriverId(self.next_serial());
        let leaving = self.ending.then(Vec::new);
        let (ready, running, left) = (VecDeque::new(), 0, Left::No);
        self.drivers.insert(id, Record { driver, name, ids, ready, running, leaving, left });
        self.counters.registered += 1;
        let devices: Vec<_> = self.devices.keys().copied().collect();
        for channel in devices {
            self.claim(channel);
        }
        self.release_if_left(id);
        // A registry that ends answers nobody: the driver goes at once.
        if self.ending || !reply.post(id) {
            // Nobody is left who could unregister it.
            self.unregister(id, None);
        }
    }

    pub(super) fn unregister(&mut self, id: DriverId, reply: Option<Post<()>>) {
        match self.drivers.get_mut(&id) {
            Some(record) if record.leaving.is_some() => {
                record.leaving.iter_mut().for_each(|replies| replies.extend(reply.clone()))
            }
            Some(record) => {
                record.leaving = Some(reply.into_iter().collect());
                self.leave(id, Reason::Unregistered);
            }
            None => {
                if let Some(reply) = reply {
                    reply.post(());
                }
            }
        }
    }

    pub(super) fn shutdown(&mut self) {
        self.ending = true;
        let drivers: Vec<_> = self.drivers.keys().copied().collect();
        for id in drivers {
            if let Some(record) = self.drivers.get_mut(&id) {
                record.leaving.get_or_insert_default();
            }
            self.leave(id, Reason::Shutdown);
        }
    }

    /// Takes all its devices from a driver.
    fn leave(&mut self, id: DriverId, reason: Reason) {
        let theirs = |device: &Device| device.binding.as_ref().is_some_and(|binding| binding.tie.driver == id);
        let devices: Vec<_> = self.devices.iter().filter(|(_, device)| theirs(device)).map(|(id, _)| *id).collect();
        for channel in devices {
            self.end(channel, reason);
        }
        self.release_if_left(id);
    }

    /// Once a driver that leaves has no device any more, it is dropped by a worker.
    pub(super) fn release_if_left(&mut self, id: DriverId) {
        let theirs = |device: &Device| device.binding.as_ref().is_some_and(|binding| binding.tie.driver == id);
        if self.devices.values().any(theirs) {
            return;
        }
        let Some(record) = self.drivers.get_mut(&id) else { return };
        if record.leaving.is_some() && record.left == Left::No {
            record.left = Left::Due;
            self.want_turn(id);
        }
    }

    pub(super) fn released(&mut self, id: DriverId) {
        self.running = self.running.saturating_sub(1);
        let Some(record) = self.drivers.remove(&id) else { return };
        self.counters.unregistered += 1;
        for reply in record.leaving.into_iter().flatten() {
            reply.post(());
        }
    }

    /// Whether everything that has happened has had its consequences. Timers that are armed are none.
    pub(super) fn is_settled(&self) -> bool {
        let quiet = |device: &Device| {
            device.binding.as_ref().is_none_or(|binding| {
                binding.phase == Phase::Idle && binding.queue.is_empty() && binding.ending.is_none()
            })
        };
        self.running == 0 && self.turns.is_empty() && self.devices.values().all(quiet)
    }
}
