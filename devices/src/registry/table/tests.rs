//! A search through all orders of what can happen to the table: arrivals, departures, registrations, and workers that
//! carry out what they were given in any order. States that were seen before are not gone through again.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus_channels::Offer;

use super::super::mutation::Mutation;
use super::super::sync::queue::{Inbox, queue};
use super::super::{Context, DeviceIds, Driver, Instance, Reason, worker};
use super::*;
use crate::Error;

/// What happens in order; different scripts in any order.
#[derive(Debug, Clone, Copy)]
enum Event {
    Arrive(u32, u32),
    Depart(u32, u32),
    Register(&'static str),
    Unregister(&'static str),
}
use Event::{Arrive, Depart, Register, Unregister};

fn offer(number: u32, generation: u32) -> Offer {
    Offer::made_up(ChannelId::made_up(number, generation), Class::KVP, Uuid::from_u128(u128::from(number)))
}

#[derive(Debug, Default)]
struct Seen {
    violations: Vec<String>,
    in_hands: BTreeMap<Uuid, ChannelId>,
    probes: BTreeMap<(ChannelId, &'static str), u32>,
    over: BTreeSet<(ChannelId, &'static str)>,
    departed: BTreeSet<ChannelId>,
    unregistered: BTreeSet<&'static str>,
}

#[derive(Clone)]
struct Double(&'static str, Arc<Mutex<Seen>>);

impl Driver for Double {
    fn name(&self) -> String {
        self.0.to_owned()
    }

    fn ids(&self) -> DeviceIds {
        DeviceIds::class(Class::KVP)
    }

    fn probe(&self, context: &Context, offer: Offer) -> Result<Box<dyn Instance>, Error> {
        let mut seen = self.1.lock().unwrap();
        let probes = seen.probes.entry((offer.id, self.0)).or_default();
        *probes += 1;
        if *probes > 1 || seen.in_hands.insert(offer.instance, offer.id).is_some() {
            seen.violations.push(format!("{} probed {} once too often", self.0, offer.id));
        }
        let double = self.clone();
        // Refused if the device departed meanwhile.
        drop(context.spawn(move |context| {
            let mut seen = double.1.lock().unwrap();
            if seen.over.contains(&(context.offer().id, double.0)) || seen.unregistered.contains(double.0) {
                seen.violations.push(format!("work of {} after its removal", double.0));
            }
        }));
        Ok(Box::new((self.clone(), offer)))
    }
}

impl Instance for (Double, Offer) {
    fn remove(self: Box<Self>, _: Reason) {
        let mut seen = self.0.1.lock().unwrap();
        seen.in_hands.remove(&self.1.instance);
        seen.over.insert((self.1.id, self.0.0));
    }
}

struct World {
    table: Table,
    inputs: Inbox<Input>,
    tasks: Vec<Task>,
    at: Vec<usize>,
    ids: BTreeMap<&'static str, DriverId>,
    unregistering: BTreeMap<&'static str, Inbox<()>>,
    seen: Arc<Mutex<Seen>>,
}

impl World {
    fn new(scripts: &[Vec<Event>], workers: usize, without: Option<Mutation>) -> Self {
        let (post, inputs) = queue();
        let mutations = Mutations::without(without);
        let table = Table::new(workers, mutations, Handle::new(post, mutations), None);
        let (tasks, at) = (Vec::new(), vec![0; scripts.len()]);
        let (ids, unregistering, seen) = (BTreeMap::new(), BTreeMap::new(), Arc::default());
        Self { table, inputs, tasks, at, ids, unregistering, seen }
    }

    /// Everything that can happen now: scripts first, then tasks.
    fn moves(&self, scripts: &[Vec<Event>]) -> Vec<usize> {
        let scripted = (0..scripts.len()).filter(|script| self.at[*script] < scripts[*script].len());
        scripted.chain((0..self.tasks.len()).map(|task| scripts.len() + task)).collect()
    }

    fn make(&mut self, which: usize, scripts: &[Vec<Event>]) {
        match scripts.get(which) {
            Some(script) => {
                let event = script[self.at[which]];
                self.at[which] += 1;
                self.happen(event);
            }
            None => {
                let task = self.tasks.remove(which - scripts.len());
                let answer = worker::run(task, 0);
                while let Ok(input) = self.inputs.0.try_recv() {
                    self.step(input);
                }
                self.step(answer);
            }
        }
        for (name, answer) in &self.unregistering {
            if answer.0.try_recv().is_ok() {
                self.seen.lock().unwrap().unregistered.insert(name);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Arrive(number, generation) => self.step(Input::Announced(Announcement::Arrived(offer(number, generation)))),
            Depart(number, generation) => {
                let offer = offer(number, generation);
                self.seen.lock().unwrap().departed.insert(offer.id);
                self.step(Input::Announced(Announcement::Departed(offer)));
            }
            Register(name) => {
                let driver = Double(name, Arc::clone(&self.seen));
                let (reply, answer) = queue();
                self.step(Input::Register(Arc::new(driver.clone()), driver.name(), driver.ids(), reply));
                self.ids.insert(name, answer.wait().unwrap());
            }
            Unregister(name) => {
                let (reply, answer) = queue();
                self.step(Input::Unregister(self.ids[name], Some(reply)));
                self.unregistering.insert(name, answer);
            }
        }
    }

    fn step(&mut self, input: Input) {
        let before = self.tasks.len();
        self.table.step(Duration::ZERO, input, &mut self.tasks);
        let mut seen = self.seen.lock().unwrap();
        for task in &self.tasks[before..] {
            if let Task::Probe(_, context) = task
                && seen.departed.contains(&context.offer().id)
            {
                seen.violations.push(format!("{} is to be probed and has departed", context.offer().id));
            }
        }
    }

    /// Everything that what comes later may depend on.
    fn digest(&self) -> String {
        let mut text = format!("{:?} {:?} {:?}", self.at, self.tasks, self.seen.lock().unwrap());
        for (channel, device) in &self.table.devices {
            let binding = device.binding.as_ref().map(|binding| {
                let ending = binding.ending.as_ref().map(|ending| (ending.reason, ending.drained));
                (binding.tie.driver, binding.phase, binding.ready, binding.queue.len(), ending)
            });
            write!(text, "{channel} {} {:?} {binding:?}", device.present, device.asked.len()).unwrap();
        }
        for (id, record) in &self.table.drivers {
            write!(text, "{id:?}{}{:?}{}{:?}", record.name, record.ready, record.running, record.left).unwrap();
        }
        write!(text, "{:?} {}", self.table.turns, self.table.running).unwrap();
        text
    }

    /// What must hold when nothing can happen any more.
    fn check_end(&self) {
        let mut seen = self.seen.lock().unwrap();
        let there = |device: &&Device| device.present && device.binding.as_ref().is_none_or(|binding| !binding.probed);
        if !self.table.drivers.is_empty()
            && let Some(device) = self.table.devices.values().find(there)
        {
            seen.violations.push(format!("nobody drives {}", device.offer.id));
        }
        if self.table.devices.values().any(|device| !device.present) || !self.table.is_settled() {
            seen.violations.push("not settled at the end".to_owned());
        }
        if self.unregistering.keys().any(|name| !seen.unregistered.contains(name)) {
            seen.violations.push("an unregistration has not ended".to_owned());
        }
    }
}

/// Goes through all orders; the number of states, or the first violation with the moves that lead to it.
fn search(scripts: &[Vec<Event>], workers: usize, without: Option<Mutation>) -> Result<usize, String> {
    let mut known = HashSet::new();
    let mut paths = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        let mut world = World::new(scripts, workers, without);
        path.iter().for_each(|which| world.make(*which, scripts));
        if !known.insert(world.digest()) {
            continue;
        }
        let moves = world.moves(scripts);
        if moves.is_empty() {
            world.check_end();
        }
        let seen = world.seen.lock().unwrap();
        if !seen.violations.is_empty() {
            return Err(format!("{:?} after {path:?}", seen.violations));
        }
        paths.extend(moves.into_iter().map(|which| path.iter().copied().chain([which]).collect()));
    }
    Ok(known.len())
}

/// A device that comes back, one that goes, one that stays; a driver that stays, and one that goes.
fn three_devices() -> Vec<Vec<Event>> {
    vec![
        vec![Arrive(1, 1), Depart(1, 1), Arrive(1, 2)],
        vec![Arrive(2, 1), Depart(2, 1)],
        vec![Arrive(3, 1)],
        vec![Register("a"), Unregister("a")],
    ]
}

fn two_drivers() -> Vec<Vec<Event>> {
    vec![
        vec![Arrive(1, 1), Depart(1, 1), Arrive(1, 2)],
        vec![Arrive(2, 1)],
        vec![Register("a"), Unregister("a")],
        vec![Register("b")],
    ]
}

#[test]
fn r4_1_and_r4_4_in_all_orders() {
    println!("{} states", search(&three_devices(), 2, None).unwrap());
    println!("{} states", search(&two_drivers(), 3, None).unwrap());
}

/// With two workers a device may have to wait for its probe, with three a removal may get one beside running work.
#[test]
fn r4_1_and_r4_4_mutants_are_caught_in_some_order() {
    let cases = [
        (Mutation::ClaimTwice, 2),
        (Mutation::ProbeBeforeRemoved, 2),
        (Mutation::ProbeDeparted, 2),
        (Mutation::RunDiscarded, 2),
        (Mutation::RemoveWhileWorking, 3),
    ];
    for (mutation, workers) in cases {
        let found = search(&two_drivers(), workers, Some(mutation));
        println!("{mutation:?}: {found:?}");
        assert!(found.is_err(), "{mutation:?}");
    }
}
