//! The state of the registry: a pure step from what happened to what workers are to do. No I/O, clocks or threads.
//!
//! `devices` is who has which device, `turns` who gets a worker next, `slots` what instances left to be run.

mod binding;
mod devices;
mod drivers;
mod listing;
mod slots;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use vmbus_channels::{Announcement, ChannelId, Vmbus};

use self::binding::Device;
use self::drivers::Record;
use super::input::{DriverId, Input, SlotId, Task};
use super::mutation::Mutations;
use super::sync::queue::Post;
use super::{Counters, Handle};

pub(super) struct Table {
    /// How many tasks may run at a time.
    workers: usize,
    mutations: Mutations,
    handle: Handle,
    vmbus: Option<Vmbus>,
    drivers: BTreeMap<DriverId, Record>,
    devices: BTreeMap<ChannelId, Device>,
    /// Drivers with something to do, each once, in the order of their turns.
    turns: VecDeque<DriverId>,
    running: usize,
    /// Armed timers, the next one first.
    alarms: BTreeSet<(Duration, ChannelId, SlotId)>,
    settling: Vec<Post<()>>,
    counters: Counters,
    /// For arrivals, bindings and drivers.
    serial: u64,
    /// Between `Lagged` and `AllArrived`: the arrivals before this one are from before.
    resynchronising: Option<u64>,
    ending: bool,
}

impl Table {
    pub(super) fn new(workers: usize, mutations: Mutations, handle: Handle, vmbus: Option<Vmbus>) -> Self {
        Self {
            workers,
            mutations,
            handle,
            vmbus,
            drivers: BTreeMap::new(),
            devices: BTreeMap::new(),
            turns: VecDeque::new(),
            running: 0,
            alarms: BTreeSet::new(),
            settling: Vec::new(),
            counters: Counters::default(),
            serial: 0,
            resynchronising: None,
            ending: false,
        }
    }

    /// Takes note of what happened at `now`, and appends what workers are to do. Each task leads to one input.
    pub(super) fn step(&mut self, now: Duration, input: Input, tasks: &mut Vec<Task>) {
        match input {
            Input::Announced(Announcement::Arrived(offer)) => self.arrived(offer),
            Input::Announced(Announcement::Departed(offer)) => self.departed(&offer),
            Input::Announced(Announcement::AllArrived) => self.all_arrived(),
            Input::Announced(_) => {}
            Input::Lagged => self.lagged(),
            Input::BusEnded => self.bus_ended(),
            Input::Register(driver, name, ids, reply) => self.register(driver, name, ids, &reply),
            Input::Unregister(driver, reply) => self.unregister(driver, reply),
            Input::Reprobe(channel, reply) => self.reprobe(channel, &reply),
            // Whoever asked may have gone.
            Input::List(reply) => drop(reply.post(self.list())),
            Input::Count(reply) => drop(reply.post(self.counters)),
            Input::Settle(reply) => self.settling.push(reply),
            Input::Shutdown => self.shutdown(),
            Input::Work(tie, work) => self.work(tie, work),
            Input::NewSlot(tie, slot, callback, kind) => self.new_slot(tie, slot, callback, kind),
            Input::Arm(tie, slot, after) => self.arm(tie, slot, now.saturating_add(after)),
            Input::Cancel(tie, slot) => self.cancel(tie, slot),
            Input::Wake(tie, slot) => self.queue_slot(tie, slot),
            Input::Forget(tie, slot) => self.forget(tie, slot),
            Input::GiveUp(tie, why, panicked) => self.give_up(tie, why, panicked),
            Input::Drained(tie) => self.drained(tie),
            Input::Probed(tie, probed) => self.probed(tie, probed),
            Input::Worked(tie, worked) => self.worked(tie, worked, now),
            Input::Removed(tie, panicked) => self.removed(tie, panicked),
            Input::Released(driver) => self.released(driver),
            Input::Elapsed => {}
        }
        self.fire(now);
        self.take_turns(tasks);
        if !self.settling.is_empty() && self.is_settled() {
            for reply in self.settling.drain(..) {
                reply.post(());
            }
        }
    }

    /// When to step next, if nothing happens.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.alarms.first().map(|(deadline, ..)| *deadline)
    }

    /// Whether it was shut down, and nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.ending && self.drivers.is_empty() && self.running == 0
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
