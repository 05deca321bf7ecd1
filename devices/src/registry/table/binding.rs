//! A device, and the hands it is in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use vmbus_channels::Offer;

use super::super::input::{Call, Callback, DriverId, SlotId, SlotKind, Tie, Work};
use super::super::{Context, Instance, Reason};

/// One arrival of a device.
pub(super) struct Device {
    pub(super) offer: Offer,
    /// Arrivals are counted up: of two with the same instance id the lower one is the former.
    pub(super) arrival: u64,
    /// As of the last time that it was told of.
    pub(super) told: u64,
    pub(super) present: bool,
    /// The drivers that were asked since it arrived.
    pub(super) asked: BTreeSet<DriverId>,
    pub(super) binding: Option<Binding>,
    pub(super) failure: Option<String>,
}

/// A device in the hands of a driver, from the moment it is to be asked until nothing of it runs any more.
pub(super) struct Binding {
    pub(super) tie: Tie,
    pub(super) context: Context,
    pub(super) phase: Phase,
    /// Whether the device is in its driver's queue for a worker.
    pub(super) ready: bool,
    /// Whether its probe has succeeded.
    pub(super) probed: bool,
    /// None before that, and once it is being removed.
    pub(super) instance: Option<Box<dyn Instance>>,
    /// What is to run, in order.
    pub(super) queue: VecDeque<Item>,
    pub(super) slots: BTreeMap<SlotId, Slot>,
    /// Once the removal has begun.
    pub(super) ending: Option<Ending>,
}

/// What a worker does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing yet: its driver was not asked.
    Queued,
    Probing,
    Idle,
    Working,
    Removing,
}

/// A removal that has begun.
pub(super) struct Ending {
    pub(super) reason: Reason,
    /// No active user is left.
    pub(super) drained: bool,
    /// What will not run any more, to be dropped by a worker.
    pub(super) discarded: Vec<Call>,
}

/// Something to run.
pub(super) enum Item {
    Once(Work),
    Slot(SlotId),
    Drop(Callback),
}

/// A callback that is kept.
pub(super) struct Slot {
    /// None while it runs.
    pub(super) callback: Option<Callback>,
    pub(super) kind: SlotKind,
    /// A timer that is armed.
    pub(super) deadline: Option<Duration>,
    pub(super) queued: bool,
}

impl Binding {
    pub(super) fn new(tie: Tie, context: Context) -> Self {
        Self {
            tie,
            context,
            phase: Phase::Queued,
            ready: false,
            probed: false,
            instance: None,
            queue: VecDeque::new(),
            slots: BTreeMap::new(),
            ending: None,
        }
    }

    /// Whether a worker has something to do with it now.
    pub(super) fn is_due(&self) -> bool {
        match self.phase {
            Phase::Queued => true,
            Phase::Idle => self.ending.as_ref().map_or(!self.queue.is_empty(), |ending| ending.drained),
            Phase::Probing | Phase::Working | Phase::Removing => false,
        }
    }

    /// Takes everything that was to run, and every callback that might have.
    pub(super) fn take_calls(&mut self, discarded: &mut u64) -> Vec<Call> {
        let mut calls = Vec::new();
        let queue = std::mem::take(&mut self.queue);
        for item in queue {
            match item {
                Item::Once(work) => calls.push(Call::Once(work)),
                Item::Drop(callback) => {
                    calls.push(Call::Drop(callback));
                    continue;
                }
                Item::Slot(id) => {
                    let taken =
                        self.slots.get_mut(&id).and_then(|slot| Some((slot.callback.take()?, slot.kind.clone())));
                    calls.extend(taken.map(|(callback, kind)| Call::Slot(id, callback, kind)));
                }
            }
            *discarded += 1;
        }
        calls.extend(std::mem::take(&mut self.slots).into_values().filter_map(|slot| slot.callback).map(Call::Drop));
        calls
    }
}
