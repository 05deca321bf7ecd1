//! Two halves of a channel asleep at the same time: on what a dispatcher raises, on one descriptor, and on the
//! interrupts of a processor. One waits for packets and the other for room; a wake-up that gets lost is a deadlock.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use vmbus_channels::dispatch::parts::{Bells, Half, Mutant, Mutation, OneFlag, OwnFlags};
use vmbus_channels::dispatch::sync::Event;

use super::{check, finds};

const RELID: usize = 5;

/// The ring, as far as sleepers and the host look at it: packets that came, and rooms that were given.
struct Ring {
    packets: AtomicU32,
    room: AtomicU32,
    /// The sender has asked to be told.
    pending: AtomicU32,
}

impl Ring {
    fn new() -> Self {
        Self { packets: AtomicU32::new(0), room: AtomicU32::new(0), pending: AtomicU32::new(0) }
    }

    /// A packet for a receiver who is always unmasked.
    fn send(&self, packet: u32) {
        self.packets.store(packet, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Room for a sender; whether it has asked to be told.
    fn give_room(&self) -> bool {
        self.room.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.pending.load(Ordering::Relaxed) != 0
    }

    /// The last look of a receiver.
    fn has_packets(&self, packets: u32) -> bool {
        fence(Ordering::SeqCst);
        self.packets.load(Ordering::Relaxed) >= packets
    }

    /// The last look of a sender, who asks for a signal first.
    fn has_room(&self) -> bool {
        self.pending.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.room.load(Ordering::Relaxed) != 0
    }
}

/// A dispatcher hears of packets and room by the same flag, and tells both.
fn told(mutant: Mutant) {
    let (ring, bells) = (Arc::new(Ring::new()), Arc::new(Bells::with(mutant).unwrap()));
    bells.split().unwrap();
    let receiver = {
        let (ring, bells) = (Arc::clone(&ring), Arc::clone(&bells));
        thread::spawn(move || {
            while !ring.has_packets(1) {
                bells.of(Half::Receiver).wait(None).unwrap();
                bells.of(Half::Receiver).clear();
            }
        })
    };
    let sender = {
        let (ring, bells) = (Arc::clone(&ring), Arc::clone(&bells));
        thread::spawn(move || {
            bells.want_room(true);
            while !ring.has_room() {
                bells.of(Half::Sender).wait(None).unwrap();
                bells.of(Half::Sender).clear();
            }
            bells.want_room(false);
        })
    };
    ring.send(1);
    bells.ring();
    if ring.give_room() {
        bells.ring();
    }
    receiver.join().unwrap();
    sender.join().unwrap();
}

/// The descriptor of a device: readable after an interrupt until one of its sleepers reads it.
struct Descriptor {
    readable: Mutex<bool>,
    changed: Condvar,
}

impl Descriptor {
    fn interrupt(&self) {
        *self.readable.lock().unwrap() = true;
        self.changed.notify_all();
    }

    /// Polls it and the half's bell, and takes note of either.
    fn sleep(&self, bells: &Bells, half: Half) {
        let mut readable = self.readable.lock().unwrap();
        while !*readable && !bells.of(half).is_raised() {
            readable = self.changed.wait(readable).unwrap();
        }
        bells.of(half).clear();
        if std::mem::take(&mut *readable) {
            bells.pass_on(half);
            // The bell's descriptor ends the other's poll.
            self.changed.notify_all();
        }
    }
}

/// Both sleep on one descriptor, and one of them finds it readable.
fn alone(mutant: Mutant) {
    let (ring, bells) = (Arc::new(Ring::new()), Arc::new(Bells::with(mutant).unwrap()));
    bells.split().unwrap();
    let descriptor = Arc::new(Descriptor { readable: Mutex::new(false), changed: Condvar::new() });
    let receiver = {
        let (ring, bells, descriptor) = (Arc::clone(&ring), Arc::clone(&bells), Arc::clone(&descriptor));
        thread::spawn(move || {
            while !ring.has_packets(1) {
                descriptor.sleep(&bells, Half::Receiver);
            }
        })
    };
    let sender = {
        let (ring, bells, descriptor) = (Arc::clone(&ring), Arc::clone(&bells), Arc::clone(&descriptor));
        thread::spawn(move || {
            while !ring.has_room() {
                descriptor.sleep(&bells, Half::Sender);
            }
        })
    };
    ring.send(1);
    descriptor.interrupt();
    if ring.give_room() {
        descriptor.interrupt();
    }
    receiver.join().unwrap();
    sender.join().unwrap();
}

/// Both sleep on a processor's interrupts, by an edge of their own each; a flag was left there by another channel.
fn direct(mutant: Mutant) {
    let (ring, flags) = (Arc::new(Ring::new()), OwnFlags::new(1));
    flags.set(RELID);
    let flag = Arc::new(OneFlag::new(flags.clone(), RELID, mutant));
    let edges = Arc::new([Event::new().unwrap(), Event::new().unwrap()]);
    let receiver = {
        let (ring, flag, edges) = (Arc::clone(&ring), Arc::clone(&flag), Arc::clone(&edges));
        thread::spawn(move || {
            flag.begin();
            for packets in [1, 2] {
                while !ring.has_packets(packets) {
                    edges[0].wait(None).unwrap();
                    edges[0].clear();
                    flag.take();
                }
            }
        })
    };
    let sender = {
        let (ring, flag, edges) = (Arc::clone(&ring), Arc::clone(&flag), Arc::clone(&edges));
        thread::spawn(move || {
            flag.begin();
            while !ring.has_room() {
                edges[1].wait(None).unwrap();
                edges[1].clear();
                flag.take();
            }
        })
    };
    let interrupt = || {
        if flags.set(RELID) {
            edges.iter().for_each(Event::set);
        }
    };
    ring.send(1);
    interrupt();
    if ring.give_room() {
        interrupt();
    }
    ring.send(2);
    interrupt();
    receiver.join().unwrap();
    sender.join().unwrap();
}

#[test]
fn a_dispatcher_wakes_both_halves() {
    check(3, None, told);
}

#[test]
fn a_sender_must_be_told_of_room() {
    finds(3, Mutation::RoomNotTold, "deadlock", told);
}

#[test]
fn a_descriptor_wakes_both_halves() {
    check(3, None, alone);
}

#[test]
fn what_one_half_reads_must_be_passed_on() {
    finds(3, Mutation::NotPassedOn, "deadlock", alone);
}

#[test]
fn interrupts_of_a_processor_wake_both_halves() {
    check(3, None, direct);
}

#[test]
fn r1_6_a_flag_must_be_taken_behind_each_wake_up() {
    finds(3, Mutation::FlagLeft, "deadlock", direct);
}

#[test]
fn r1_6_a_flag_that_was_left_must_be_taken_by_who_comes() {
    finds(3, Mutation::FlagKept, "deadlock", direct);
}
