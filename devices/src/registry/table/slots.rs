//! What instances left to be run: work, timers, wake-ups. Nothing is accepted once the removal has begun.

use std::time::Duration;

use super::super::input::{Call, Callback, SlotId, SlotKind, Tie, Work};
use super::Table;
use super::binding::{Item, Slot};

impl Table {
    pub(super) fn work(&mut self, tie: Tie, work: Work) {
        let Some(binding) = self.binding(tie) else { return };
        if let Some(ending) = &mut binding.ending {
            // Spawned by an active user that had not left: a worker drops it.
            ending.discarded.push(Call::Once(work));
            self.counters.discarded += 1;
            return;
        }
        binding.queue.push_back(Item::Once(work));
        self.make_ready(tie.channel);
    }

    pub(super) fn new_slot(&mut self, tie: Tie, id: SlotId, callback: Callback, kind: SlotKind) {
        let Some(binding) = self.binding(tie) else { return };
        if let Some(ending) = &mut binding.ending {
            ending.discarded.push(Call::Drop(callback));
            return;
        }
        binding.slots.insert(id, Slot { callback: Some(callback), kind, deadline: None, queued: false });
    }

    pub(super) fn arm(&mut self, tie: Tie, id: SlotId, deadline: Duration) {
        self.disarm(tie, id);
        let Some(slot) = self.binding(tie).and_then(|binding| binding.slots.get_mut(&id)) else { return };
        slot.deadline = Some(deadline);
        self.alarms.insert((deadline, tie.channel, id));
    }

    pub(super) fn cancel(&mut self, tie: Tie, id: SlotId) {
        self.disarm(tie, id);
        let Some(binding) = self.binding(tie) else { return };
        if let Some(slot) = binding.slots.get_mut(&id) {
            slot.queued = false;
        }
        binding.queue.retain(|item| !matches!(item, Item::Slot(queued) if *queued == id));
    }

    fn disarm(&mut self, tie: Tie, id: SlotId) {
        let slot = self.binding(tie).and_then(|binding| binding.slots.get_mut(&id));
        if let Some(deadline) = slot.and_then(|slot| slot.deadline.take()) {
            self.alarms.remove(&(deadline, tie.channel, id));
        }
    }

    /// Has a callback run, unless it is to run already.
    pub(super) fn queue_slot(&mut self, tie: Tie, id: SlotId) {
        let Some(binding) = self.binding(tie) else { return };
        let Some(slot) = binding.slots.get_mut(&id) else { return };
        if !std::mem::replace(&mut slot.queued, true) {
            binding.queue.push_back(Item::Slot(id));
        }
        self.make_ready(tie.channel);
    }

    pub(super) fn forget(&mut self, tie: Tie, id: SlotId) {
        self.cancel(tie, id);
        let Some(binding) = self.binding(tie) else { return };
        // If it runs now, it is dropped when it is back.
        if let Some(callback) = binding.slots.remove(&id).and_then(|slot| slot.callback) {
            binding.queue.push_back(Item::Drop(callback));
            self.make_ready(tie.channel);
        }
    }

    /// A callback has run.
    pub(super) fn slot_back(&mut self, tie: Tie, id: SlotId, callback: Callback, again: Option<Duration>) {
        let Some(binding) = self.binding(tie) else { return };
        if let Some(ending) = &mut binding.ending {
            ending.discarded.push(Call::Drop(callback));
            return;
        }
        let Some(slot) = binding.slots.get_mut(&id) else {
            binding.queue.push_back(Item::Drop(callback));
            return;
        };
        slot.callback = Some(callback);
        if let Some(deadline) = again {
            self.arm(tie, id, deadline);
        }
    }

    /// Queues the timers that are due.
    pub(super) fn fire(&mut self, now: Duration) {
        while let Some(&(deadline, channel, id)) = self.alarms.first() {
            if deadline > now {
                break;
            }
            self.alarms.pop_first();
            let Some(binding) = self.devices.get_mut(&channel).and_then(|device| device.binding.as_mut()) else {
                continue;
            };
            let tie = binding.tie;
            if let Some(slot) = binding.slots.get_mut(&id) {
                slot.deadline = None;
            }
            self.queue_slot(tie, id);
        }
    }
}
