//! Who gets a worker: drivers take turns, each with the device that waits longest, and none gets all workers.

use std::sync::Arc;
use std::time::Duration;

use vmbus_channels::ChannelId;

use super::super::Reason;
use super::super::input::{Call, DriverId, Panicked, Removal, SlotKind, Task, Tie, Worked};
use super::super::mutation::mutated;
use super::Table;
use super::binding::{Item, Phase};
use super::drivers::Left;

impl Table {
    /// Puts a device into its driver's queue for a worker, if there is something to do with it.
    pub(super) fn make_ready(&mut self, channel: ChannelId) {
        let Some(binding) = self.devices.get_mut(&channel).and_then(|device| device.binding.as_mut()) else { return };
        if binding.ready || !binding.is_due() {
            return;
        }
        binding.ready = true;
        let driver = binding.tie.driver;
        if let Some(record) = self.drivers.get_mut(&driver) {
            record.ready.push_back(channel);
            self.want_turn(driver);
        }
    }

    pub(super) fn want_turn(&mut self, driver: DriverId) {
        if !self.turns.contains(&driver) {
            self.turns.push_back(driver);
        }
    }

    /// Hands out tasks while there are workers.
    pub(super) fn take_turns(&mut self, tasks: &mut Vec<Task>) {
        // One worker stays free of each driver, if there is more than one.
        let most = match self.workers {
            workers if mutated!(self.mutations, DriverTakesAllWorkers) => workers,
            workers => workers.saturating_sub(1).max(1),
        };
        let mut passed = 0;
        while self.running < self.workers && passed < self.turns.len() {
            let Some(driver) = self.turns.pop_front() else { break };
            let Some(record) = self.drivers.get_mut(&driver) else { continue };
            if record.running >= most {
                self.turns.push_back(driver);
                passed += 1;
                continue;
            }
            let task = match record.ready.pop_front() {
                Some(channel) => self.task(channel, driver),
                None if record.left == Left::Due => {
                    record.left = Left::Dropping;
                    Some(Task::Release(driver, Arc::clone(&record.driver)))
                }
                None => continue,
            };
            if let Some(record) = self.drivers.get_mut(&driver) {
                let counts = task.is_some() && record.left != Left::Dropping;
                record.running += usize::from(counts);
                if !record.ready.is_empty() || record.left == Left::Due {
                    self.turns.push_back(driver);
                }
            }
            passed = 0;
            if let Some(task) = task {
                self.running += 1;
                tasks.push(task);
            }
        }
    }

    /// What is to be done with a device, if it is still that driver's.
    fn task(&mut self, channel: ChannelId, driver: DriverId) -> Option<Task> {
        let device = self.devices.get_mut(&channel)?;
        let binding = device.binding.as_mut().filter(|binding| binding.tie.driver == driver)?;
        binding.ready = false;
        if !binding.is_due() {
            return None;
        }
        let context = binding.context.clone();
        if binding.phase == Phase::Queued {
            binding.phase = Phase::Probing;
            device.asked.insert(driver);
            self.counters.probes += 1;
            let driver = Arc::clone(&self.drivers.get(&driver)?.driver);
            return Some(Task::Probe(driver, context));
        }
        if let Some(ending) = &mut binding.ending {
            binding.phase = Phase::Removing;
            let instance = binding.instance.take();
            self.counters.removes += u64::from(instance.is_some());
            let discarded = std::mem::take(&mut ending.discarded);
            return Some(Task::Remove(context, Removal { instance, reason: ending.reason, discarded }));
        }
        let call = loop {
            match binding.queue.pop_front()? {
                Item::Once(work) => break Call::Once(work),
                Item::Drop(callback) => break Call::Drop(callback),
                Item::Slot(id) => {
                    let Some(slot) = binding.slots.get_mut(&id) else { continue };
                    slot.queued = false;
                    let Some(callback) = slot.callback.take() else { continue };
                    break Call::Slot(id, callback, slot.kind.clone());
                }
            }
        };
        binding.phase = Phase::Working;
        match &call {
            Call::Once(_) => self.counters.work_items += 1,
            Call::Slot(.., SlotKind::Timer) => self.counters.timers_fired += 1,
            Call::Slot(.., SlotKind::WakeUp(_)) => self.counters.wake_ups += 1,
            Call::Drop(_) => {}
        }
        Some(Task::Work(context, call))
    }

    /// A worker is free again.
    pub(super) fn finished(&mut self, tie: Tie, panicked: Panicked) {
        self.running = self.running.saturating_sub(1);
        self.counters.panics += u64::from(panicked);
        if let Some(record) = self.drivers.get_mut(&tie.driver) {
            record.running = record.running.saturating_sub(1);
        }
    }

    pub(super) fn worked(&mut self, tie: Tie, worked: Worked, now: Duration) {
        self.finished(tie, worked.panicked);
        if let Some((id, callback, again)) = worked.slot {
            self.slot_back(tie, id, callback, again.map(|after| now.saturating_add(after)));
        }
        let Some(device) = self.devices.get_mut(&tie.channel) else { return };
        let Some(binding) = device.binding.as_mut().filter(|binding| binding.tie == tie) else { return };
        if binding.phase == Phase::Working {
            binding.phase = Phase::Idle;
        }
        if worked.panicked {
            device.failure = Some("a callback of its driver panicked".to_owned());
            self.end(tie.channel, Reason::Panicked);
        }
        self.make_ready(tie.channel);
    }
}
