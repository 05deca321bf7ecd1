//! The SynIC against a guest that is played by hand: slots, flags, and pages that are nowhere.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use vmbus::message::Message;
use vmbus_simhost::Memory;

use super::{Registers, Synic};
use crate::bus_memory::BusMemory;
use crate::bus_memory::tests::pages;
use crate::exits;
use crate::shared::Shared;
use crate::wires::tests::{FakeWires, PROCESSORS};

const MESSAGES: u64 = 0x3000;
const EVENTS: u64 = 0x4000;

struct World {
    memory: BusMemory,
    shared: Arc<Shared>,
    wires: FakeWires,
    synic: Synic<FakeWires>,
}

fn on(event_page: u64, message_page: u64) -> exits::Synic {
    exits::Synic { register: 0x4000_0083, control: 1, event_page, message_page }
}

impl World {
    /// The guest has switched processor 0's SynIC on.
    fn new() -> Self {
        let (memory, shared, wires) = (pages(16), Arc::new(Shared::new(PROCESSORS)), FakeWires::new());
        let synic = Synic::new(memory.clone(), Arc::clone(&shared), wires.clone());
        let world = Self { memory, shared, wires, synic };
        world.write(0, on(EVENTS | 1, MESSAGES | 1));
        world
    }

    fn write(&self, vp: u32, synic: exits::Synic) {
        self.shared.registers.write(vp, synic, &self.memory);
    }

    fn post(&mut self, text: &[u8]) {
        self.synic.post(0, 2, Message::try_from(text).unwrap()).unwrap();
    }

    /// The header of SINT 2's slot: type, size, and whether more are waiting.
    fn header(&self) -> (u32, u8, bool) {
        let mut bytes = [0; 6];
        assert!(self.memory.read(MESSAGES + 512, &mut bytes));
        let [a, b, c, d, size, flags] = bytes;
        (u32::from_le_bytes([a, b, c, d]), size, flags & 1 != 0)
    }

    /// What a guest does: copies the message, empties the slot, and only then looks at the flag. Whether it must write EOM.
    fn take(&self) -> (Option<Vec<u8>>, bool) {
        let (kind, size, _) = self.header();
        if kind == 0 {
            return (None, false);
        }
        let mut payload = vec![0; usize::from(size)];
        assert!(self.memory.read(MESSAGES + 512 + 16, &mut payload));
        assert!(self.memory.write(MESSAGES + 512, &[0; 4]));
        (Some(payload), self.header().2)
    }

    fn waiting(&self) -> usize {
        self.shared.stats.waiting.load(Ordering::Relaxed)
    }
}

#[test]
fn a_message_is_where_the_guest_looks_and_interrupts_once() {
    let mut world = World::new();
    world.post(b"hello, guest");
    assert_eq!(world.header(), (1, 12, false));
    let mut origin = [1; 8];
    assert!(world.memory.read(MESSAGES + 512 + 8, &mut origin));
    assert_eq!(origin, [0; 8]);
    assert_eq!(world.wires.interrupts(0, 2), 1);
    assert_eq!(world.take(), (Some(b"hello, guest".to_vec()), false));
    world.post(&[7; 240]);
    assert_eq!(world.take(), (Some(vec![7; 240]), false));
}

#[test]
fn a_busy_slot_says_that_more_are_waiting_and_eom_brings_them_in_order() {
    let mut world = World::new();
    world.post(b"one");
    world.post(b"two");
    world.post(b"three");
    assert_eq!((world.waiting(), world.wires.interrupts(0, 2)), (2, 1));
    // The guest ends an interrupt without having emptied the slot: nothing is lost.
    world.wires.end(0, 2);
    world.synic.retry();
    assert_eq!((world.waiting(), world.header()), (2, (1, 3, true)));
    assert_eq!(world.take(), (Some(b"one".to_vec()), true));
    world.wires.end(0, 2);
    world.synic.retry();
    // Behind the second there is a third.
    assert_eq!((world.waiting(), world.header(), world.wires.interrupts(0, 2)), (1, (1, 3, true), 1));
    assert_eq!(world.take(), (Some(b"two".to_vec()), true));
    world.wires.end(0, 2);
    world.synic.retry();
    assert_eq!(world.take(), (Some(b"three".to_vec()), false));
    assert_eq!((world.waiting(), world.synic.ends().count()), (0, 0));
    assert_eq!(world.shared.stats.slots_found.load(Ordering::Relaxed), 0);
}

thread_local! {
    static IN_BETWEEN: RefCell<Option<Box<dyn FnOnce()>>> = RefCell::default();
}

/// Between the bus's look at a slot and its flag: what a guest does there.
pub(super) fn in_between() {
    if let Some(work) = IN_BETWEEN.take() {
        work();
    }
}

#[test]
fn a_guest_that_empties_the_slot_between_our_look_and_our_flag_is_seen() {
    let mut world = World::new();
    world.post(b"one");
    let memory = world.memory.again();
    // It sees no flag, so it writes no EOM: nobody would come for the second message.
    IN_BETWEEN.set(Some(Box::new(move || assert!(memory.write(MESSAGES + 512, &[0; 4])))));
    world.post(b"two");
    assert_eq!((world.waiting(), world.wires.interrupts(0, 2)), (0, 2));
    assert_eq!(world.take(), (Some(b"two".to_vec()), false));
}

#[test]
fn kvm_that_clears_the_flag_at_an_eoi_is_made_up_for() {
    let mut world = World::new();
    world.post(b"one");
    world.post(b"two");
    assert!(world.memory.write(MESSAGES + 512 + 5, &[0]));
    world.wires.end(0, 2);
    world.synic.retry();
    assert_eq!(world.take(), (Some(b"one".to_vec()), true));
}

#[test]
fn a_lost_eom_delays_and_no_more() {
    let mut world = World::new();
    world.post(b"one");
    world.post(b"two");
    assert!(world.synic.look_again().is_some());
    assert_eq!(world.take().0, Some(b"one".to_vec()));
    world.synic.retry();
    assert_eq!(world.take().0, Some(b"two".to_vec()));
    assert_eq!(world.shared.stats.slots_found.load(Ordering::Relaxed), 1);
    assert_eq!(world.synic.look_again(), None);
}

#[test]
fn messages_wait_for_a_synic_that_is_off_without_looking() {
    let mut world = World::new();
    world.synic.post(1, 2, Message::try_from(&b"early"[..]).unwrap()).unwrap();
    assert_eq!((world.waiting(), world.synic.look_again()), (1, None));
    world.write(1, on(0x5001, 0x6001));
    world.synic.retry();
    assert_eq!((world.waiting(), world.wires.interrupts(1, 2)), (0, 1));
    // And the other way: the control register alone.
    world.write(1, exits::Synic { control: 0, ..on(0x5001, 0x6001) });
    world.synic.post(1, 2, Message::try_from(&b"late"[..]).unwrap()).unwrap();
    assert!(world.synic.set_flag(1, 2, 3).is_err());
    assert_eq!(world.waiting(), 1);
}

#[test]
fn there_is_room_for_so_many_messages_and_no_more() {
    let mut world = World::new();
    let mut posted = 0;
    while world.synic.has_room() {
        world.post(b"more");
        posted += 1;
    }
    assert_eq!(posted, 1025);
}

#[test]
fn a_flag_that_is_set_interrupts_once_until_the_guest_takes_it() {
    let mut world = World::new();
    for flag in [0, 63, 64, 2047] {
        world.synic.set_flag(0, 2, flag).unwrap();
        world.synic.set_flag(0, 2, flag).unwrap();
        assert_eq!(world.wires.interrupts(0, 2), 1, "{flag}");
        let at = EVENTS + 512 + u64::from(flag / 32) * 4;
        assert_eq!(world.memory.take_bits(at, u32::MAX), Some(1 << (flag % 32)), "{flag}");
        world.synic.set_flag(0, 2, flag).unwrap();
        assert_eq!(world.wires.interrupts(0, 2), 1, "{flag}");
        assert_eq!(world.memory.take_bits(at, u32::MAX), Some(1 << (flag % 32)), "{flag}");
    }
    for (vp, sint, flag) in [(0, 2, 2048), (0, 16, 1), (1, 2, 1), (2, 2, 1), (u32::MAX, 255, u32::MAX)] {
        assert!(world.synic.set_flag(vp, sint, flag).is_err(), "{vp} {sint} {flag}");
    }
}

#[test]
fn what_was_in_a_page_before_it_was_enabled_is_no_message() {
    let world = World::new();
    assert!(world.memory.write(0x7000, &[0xff; 4096]));
    world.write(0, on(EVENTS | 1, 0x7001));
    let mut page = [1; 4096];
    assert!(world.memory.read(0x7000, &mut page));
    assert_eq!(page, [0; 4096]);
    // A write that changes nothing about the page leaves what is in it.
    assert!(world.memory.write(0x7000, &[5]));
    world.write(0, on(EVENTS | 1, 0x7001));
    assert!(world.memory.read(0x7000, &mut page));
    assert_eq!(page[0], 5);
}

#[test]
fn processors_and_sources_that_are_not_there_are_refused() {
    let mut world = World::new();
    for (vp, sint) in [(2, 2), (u32::MAX, 2), (0, 16), (0, 255)] {
        assert!(world.synic.post(vp, sint, Message::try_from(&b"x"[..]).unwrap()).is_err());
    }
    assert_eq!(world.waiting(), 0);
    assert!(!Registers::new(0).has(0));
}

proptest! {
    /// Pages anywhere, also where there is no memory: nothing panics, nothing outside of memory is touched, and who is not
    /// reached waits.
    #[test]
    fn hostile_pages_do_no_harm(
        event_page in any::<u64>(), message_page in prop_oneof![any::<u64>(), (0_u64..0x12000)], control in any::<u64>(),
        sint in any::<u8>(), flag in any::<u32>(), text in prop::collection::vec(any::<u8>(), 0..=240),
    ) {
        let mut world = World::new();
        world.write(0, exits::Synic { register: 0, control, event_page, message_page });
        let posted = world.synic.post(0, sint, Message::try_from(text.as_slice()).unwrap()).is_ok();
        let _ = world.synic.set_flag(0, sint, flag);
        world.synic.retry();
        prop_assert!(posted == (sint < 16) && world.waiting() <= 1);
    }
}
