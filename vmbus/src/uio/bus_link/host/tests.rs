//! Random executors, kernels and workers against the host, with the promises of a link checked after each step.

use std::collections::{BTreeMap, BTreeSet};

use super::super::look::Present;
use super::*;
use crate::class::Class;
use crate::fake::Tree;
use crate::message::{OfferChannel, OfferFlags, OpenFlags};

/// What the executor believes of a relid.
#[derive(Debug, Default, Clone)]
struct Offered {
    rescinded: bool,
    ring: Option<GpadlId>,
    opening: Option<u32>,
    tearing: bool,
}

struct World {
    host: Host<u64, u64>,
    devices: BTreeMap<u32, Arc<Device>>,
    /// Incarnation of each device that user space has.
    bound: BTreeMap<u32, u64>,
    /// Those that somebody who had them open has seen the end of, whatever sysfs still shows.
    ended: BTreeSet<u64>,
    offered: BTreeMap<u32, Offered>,
    /// What workers are at.
    opening: Vec<(Key, bool)>,
    closing: Vec<(Key, u64)>,
    open: BTreeSet<u64>,
    revoked: BTreeSet<u64>,
    ports: BTreeSet<GpadlId>,
    keys: BTreeMap<u64, Key>,
    number: u32,
    random: u64,
}

impl World {
    fn new(seed: u64, devices: &BTreeMap<u32, Arc<Device>>) -> Self {
        Self {
            host: Host::new(),
            devices: devices.clone(),
            bound: BTreeMap::new(),
            ended: BTreeSet::new(),
            offered: BTreeMap::new(),
            opening: Vec::new(),
            closing: Vec::new(),
            open: BTreeSet::new(),
            revoked: BTreeSet::new(),
            ports: BTreeSet::new(),
            keys: BTreeMap::new(),
            number: 0,
            random: seed,
        }
    }

    /// SplitMix64.
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn present(&self) -> Vec<Present> {
        let present = |(relid, incarnation): (&u32, &u64)| {
            let subchannel = OfferChannel { subchannel_index: 1, ..offer(relid + 10) };
            let device = Arc::clone(&self.devices[relid]);
            Present { device, incarnation: *incarnation, offer: offer(*relid), subchannels: vec![subchannel] }
        };
        self.bound.iter().map(present).collect()
    }

    fn hear(&mut self, heard: Heard<u64, u64>) {
        let mut effects = self.host.step(heard);
        // Looks are taken at once, which is when they are hardest.
        while let Some(position) = effects.iter().position(|effect| matches!(effect, Effect::Look)) {
            effects.remove(position);
            self.perform(std::mem::take(&mut effects));
            let present = self.present();
            effects = self.host.step(seen(present));
        }
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect<u64, u64>>) {
        for effect in effects {
            match effect {
                Effect::Say(message) => self.said(message),
                Effect::Look => unreachable!("taken out before"),
                Effect::Open { key, .. } => self.opening.push((key, false)),
                Effect::OpenSubchannel { key, device, relid } => {
                    assert!(self.open.contains(&device) && relid > 10, "a subchannel needs its primary");
                    self.opening.push((key, true));
                }
                Effect::Keep { ring, .. } => assert!(self.ports.insert(ring)),
                Effect::Forget(ring) => drop(self.ports.remove(&ring)),
                Effect::Revoke(device) => {
                    self.revoked.insert(device);
                }
                Effect::Close { key, device } => {
                    assert!(self.open.contains(&device), "closed twice");
                    self.closing.push((key, device));
                }
            }
        }
    }

    fn said(&mut self, message: HostMessage) {
        match message {
            HostMessage::Offer(offer) => {
                let before = self.offered.insert(offer.relid, Offered::default());
                assert!(before.is_none(), "relid {} is offered before its release", offer.relid);
                let incarnation = self.bound.get(&(offer.relid % 10));
                assert!(incarnation.is_none_or(|of| !self.ended.contains(of)), "offered again after its end");
            }
            HostMessage::Rescind { relid } => {
                let offered = self.offered.get_mut(&relid).expect("a rescind of what is not offered");
                assert!(!offered.rescinded, "rescinded twice");
                offered.rescinded = true;
                let subchannel = self.offered.get(&(relid + 10));
                assert!(subchannel.is_none_or(|subchannel| subchannel.rescinded), "a primary before its subchannel");
            }
            HostMessage::OpenResult { relid, open_id, status } => {
                let offered = self.offered.get_mut(&relid).expect("a result for what is not offered");
                assert!(!offered.rescinded, "an answer after the rescind");
                assert_eq!(offered.opening.take(), Some(open_id));
                let ring = offered.ring.expect("opened with a ring");
                assert!(!status.is_success() || self.ports.contains(&ring), "the port is there first");
            }
            HostMessage::GpadlTorndown { gpadl } => {
                let of = |offered: &&mut Offered| offered.ring == Some(gpadl);
                let Some(offered) = self.offered.values_mut().find(of) else { return };
                assert!(std::mem::take(&mut offered.tearing), "torn down without being asked");
                offered.ring = None;
            }
            _ => {}
        }
    }

    /// One random thing happens.
    fn turn(&mut self) {
        let relid = [1, 2, 3, 11, 12, 13][usize::try_from(self.random(6)).unwrap()];
        match self.random(12) {
            0 | 1 => {
                let primary = relid % 10;
                if self.bound.remove(&primary).is_none() {
                    let incarnation = self.number().into();
                    self.bound.insert(primary, incarnation);
                }
            }
            2 | 3 => {
                let present = self.present();
                self.hear(seen(present));
            }
            4 => self.open(relid),
            5 => self.tear_down(relid),
            6 => self.release(relid),
            7 | 8 if !self.opening.is_empty() => self.worker_opened(),
            9 if !self.closing.is_empty() => self.worker_closed(),
            10 => {
                let open: Vec<u64> = self.open.iter().copied().collect();
                if !open.is_empty() {
                    let device = open[usize::try_from(self.random(open.len() as u64)).unwrap()];
                    let key = self.keys[&device];
                    let is = |entry: &&Entry<_>| entry.key == key && entry.primary.is_none() && !entry.rescinded;
                    let entry = self.host.entries.values().find(is);
                    self.ended.extend(entry.map(|entry| entry.incarnation));
                    self.hear(Heard::Gone(key));
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, relid: u32) {
        let ring = GpadlId(self.number());
        let open_id = self.number();
        let Some(offered) = self.offered.get_mut(&relid).filter(|offered| offered.ring.is_none()) else { return };
        if !offered.rescinded {
            (offered.ring, offered.opening) = (Some(ring), Some(open_id));
            let what = Share::Ring { outgoing_bytes: 8192, incoming_bytes: 8192 };
            self.hear(Heard::Shared { relid, gpadl: ring, what });
            self.hear(Heard::Said(GuestMessage::Open(Box::new(OpenChannel {
                relid,
                open_id,
                ring,
                target_vp: 0,
                downstream_offset_pages: 2,
                user_defined: [0; 120],
                signal: None,
                flags: OpenFlags::empty(),
            }))));
        }
    }

    fn tear_down(&mut self, relid: u32) {
        let Some(offered) = self.offered.get_mut(&relid).filter(|offered| !offered.tearing) else { return };
        if let Some(gpadl) = offered.ring {
            (offered.tearing, offered.opening) = (true, None);
            self.hear(Heard::Said(GuestMessage::GpadlTeardown { relid, gpadl }));
        }
    }

    fn release(&mut self, relid: u32) {
        if self.offered.get(&relid).is_some_and(|offered| offered.rescinded) {
            // Executors do, but nothing may depend on it.
            if self.random(3) > 0 {
                self.tear_down(relid);
            }
            self.offered.remove(&relid);
            self.hear(Heard::Said(GuestMessage::RelidReleased { relid }));
        }
    }

    fn worker_opened(&mut self) {
        let which = usize::try_from(self.random(self.opening.len() as u64)).unwrap();
        let (key, _) = self.opening.swap_remove(which);
        let device = (self.random(4) > 0).then(|| u64::from(self.number()));
        if let Some(device) = device {
            self.open.insert(device);
            self.keys.insert(device, key);
        }
        self.hear(Heard::Opened { key, device, port: 0 });
    }

    fn worker_closed(&mut self) {
        let which = usize::try_from(self.random(self.closing.len() as u64)).unwrap();
        let (key, device) = self.closing.swap_remove(which);
        self.open.remove(&device);
        self.hear(Heard::Closed(key));
    }

    /// Whatever has happened: when all lets go, nothing is left.
    fn settle(&mut self) {
        self.bound.clear();
        while !(self.offered.is_empty() && self.opening.is_empty() && self.closing.is_empty()) {
            self.hear(seen(Vec::new()));
            for relid in self.offered.keys().copied().collect::<Vec<_>>() {
                self.release(relid);
            }
            while !self.opening.is_empty() {
                self.worker_opened();
            }
            while !self.closing.is_empty() {
                self.worker_closed();
            }
        }
        assert!(self.host.entries.is_empty(), "{:?}", self.host.entries);
        assert!(self.open.is_empty() && self.ports.is_empty(), "{:?} {:?}", self.open, self.ports);
    }
}

fn seen(present: Vec<Present>) -> Heard<u64, u64> {
    Heard::Present { present, unread: BTreeSet::new() }
}

fn offer(relid: u32) -> OfferChannel {
    OfferChannel {
        class: Class::NIC,
        instance: uuid::Uuid::from_u128(relid.into()),
        flags: OfferFlags::empty(),
        mmio_megabytes: 0,
        mmio_megabytes_optional: 0,
        user_defined: [0; 120],
        subchannel_index: 0,
        relid,
        monitor_id: None,
        is_dedicated: false,
        connection_id: 0,
    }
}

fn play(seed: u64, devices: &BTreeMap<u32, Arc<Device>>) {
    let mut world = World::new(seed, devices);
    world.hear(Heard::Said(GuestMessage::RequestOffers));
    for _ in 0..300 {
        world.turn();
    }
    world.settle();
}

/// Replay one with `SEED=n`. Red when `remove_if_over` does not ask for `Closed` (offered while it is still open), when
/// `depart` forgets the subchannels, when `present` offers what has `ended`, and when `opened` does not look at `rescinded`.
#[test]
fn r1_4_each_offer_is_rescinded_at_most_once_and_nothing_stays_open() {
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..2000, |seed: u64| seed..seed + 1);
    let tree = Tree::new();
    let devices = [1, 2, 3].map(|relid| (relid, Arc::new(tree.device(Class::NIC, relid, None)))).into();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| play(seed, &devices));
        assert!(outcome.is_ok(), "replay with SEED={seed}");
    }
}
