//! Hypercalls of guests that mean well, and of others.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;
use proptest::prelude::*;
use vmbus::message::Message;
use vmbus_simhost::{Memory, Wake};

use super::{Front, POSTED_AT_MOST, status};
use crate::bus_memory::BusMemory;
use crate::bus_memory::tests::pages;
use crate::exits::{Hypercall, Hyperv};
use crate::shared::Shared;

const POST: u64 = 0x5c;
const SIGNAL: u64 = 0x5d;
const FAST: u64 = 1 << 16;

struct World {
    memory: BusMemory,
    shared: Arc<Shared>,
    front: Front,
    posted: Receiver<Message>,
}

impl World {
    fn new() -> Self {
        let (memory, shared) = (pages(4), Arc::new(Shared::new(1)));
        shared.message_connections[1].store(4, Ordering::SeqCst);
        shared.connections.insert(7);
        let wake = Arc::new(Wake::new().unwrap());
        let (front, posted) = Front::new(memory.clone(), Arc::clone(&shared), wake);
        Self { memory, shared, front, posted }
    }

    fn call(&self, input: u64, first: u64) -> u64 {
        self.front.hypercall(0, Hypercall { input, first, second: 0 })
    }

    /// Writes the input of HvPostMessage.
    fn input(&self, address: u64, fields: [u32; 4], payload: &[u8]) {
        let header: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        assert!(self.memory.write(address, &header) && self.memory.write(address + 16, payload));
    }

    fn post(&self, fields: [u32; 4]) -> u64 {
        self.input(0x1000, fields, b"some text");
        self.call(POST, 0x1000)
    }
}

#[test]
fn a_post_comes_out_as_it_was() {
    let world = World::new();
    assert_eq!(world.post([4, 0, 1, 9]), status::SUCCESS);
    assert_eq!(world.posted.try_recv().unwrap().as_ref(), b"some text");
    assert_eq!(world.post([4, 0, 1, 240]), status::SUCCESS);
    assert_eq!(world.posted.try_recv().unwrap().as_ref().len(), 240);
    assert_eq!(world.shared.stats.posted.load(Ordering::SeqCst), 2);
    // The last place in a page, and in memory.
    world.input(0x3f00, [4, 0, 1, 2], b"hi");
    assert_eq!(world.call(POST, 0x3f00), status::SUCCESS);
}

#[test]
fn each_wrong_post_has_its_status() {
    let world = World::new();
    for (fields, expected) in [
        ([4, 0, 1, 241], status::INVALID_PARAMETER),
        ([4, 0, 1, u32::MAX], status::INVALID_PARAMETER),
        ([4, 0, 0, 1], status::INVALID_PARAMETER),
        ([4, 0, 1 << 31, 1], status::INVALID_PARAMETER),
        ([4, 1, 1, 1], status::INVALID_PARAMETER),
        ([1, 0, 1, 1], status::INVALID_CONNECTION_ID),
        ([0, 0, 1, 1], status::INVALID_CONNECTION_ID),
        ([5, 0, 1, 1], status::INVALID_CONNECTION_ID),
        // Nobody reads it.
        ([4, 0, 2, 1], status::SUCCESS),
    ] {
        assert_eq!(world.post(fields), expected, "{fields:x?}");
    }
    for (input, first, expected) in [
        (POST | FAST, 0x1000, status::INVALID_HYPERCALL_INPUT),
        (POST | 1 << 32, 0x1000, status::INVALID_HYPERCALL_INPUT),
        (POST | 1 << 17, 0x1000, status::INVALID_HYPERCALL_INPUT),
        (POST, 0x1004, status::INVALID_ALIGNMENT),
        (POST, 0x1f08, status::INVALID_ALIGNMENT),
        (POST, 0x4000, status::INVALID_HYPERCALL_INPUT),
        (POST, u64::MAX - 7, status::INVALID_ALIGNMENT),
        (POST, !0xfff, status::INVALID_HYPERCALL_INPUT),
        (0x1234, 0, Hypercall::INVALID_CODE),
        (0x8001 | FAST, 0, status::INVALID_HYPERCALL_INPUT),
    ] {
        assert_eq!(world.call(input, first), expected, "{input:x} {first:x}");
    }
    assert!(world.posted.try_recv().is_err());
    let stats = &world.shared.stats;
    assert_eq!((stats.posts_refused.load(Ordering::Relaxed), stats.calls_refused.load(Ordering::Relaxed)), (16, 2));
}

#[test]
fn there_are_no_extended_capabilities() {
    let world = World::new();
    let query = |second| world.front.hypercall(0, Hypercall { input: 0x8001, first: 0, second });
    assert!(world.memory.write(0x2008, &[0xff; 8]));
    assert_eq!(query(0x2008), status::SUCCESS);
    let mut capabilities = [1; 8];
    assert!(world.memory.read(0x2008, &mut capabilities));
    assert_eq!(capabilities, [0; 8]);
    assert_eq!([query(0x2004), query(0x4000)], [status::INVALID_ALIGNMENT, status::INVALID_HYPERCALL_INPUT]);
}

#[test]
fn a_guest_that_is_too_fast_is_told_to_try_again() {
    let world = World::new();
    for _ in 0..POSTED_AT_MOST {
        assert_eq!(world.post([4, 0, 1, 9]), status::SUCCESS);
    }
    assert_eq!(world.post([4, 0, 1, 9]), status::INSUFFICIENT_BUFFERS);
    world.posted.try_recv().unwrap();
    assert_eq!(world.post([4, 0, 1, 9]), status::SUCCESS);
    assert_eq!(world.shared.stats.posted.load(Ordering::SeqCst), POSTED_AT_MOST + 1);
}

#[test]
fn signals_are_taken_for_connections_that_there_are() {
    let world = World::new();
    for (input, parameter, expected) in [
        (SIGNAL | FAST, 7, status::SUCCESS),
        // KVM has read the input already.
        (SIGNAL, 7, status::SUCCESS),
        (SIGNAL | FAST, 8, status::INVALID_CONNECTION_ID),
        (SIGNAL | FAST, 2048, status::INVALID_CONNECTION_ID),
        (SIGNAL | FAST, 1 << 32 | 7, status::INVALID_CONNECTION_ID),
        (SIGNAL | FAST, 1 << 24 | 7, status::INVALID_HYPERCALL_INPUT),
        (SIGNAL | FAST, 1 << 48 | 7, status::INVALID_HYPERCALL_INPUT),
        (SIGNAL | FAST | 1 << 32, 7, status::INVALID_HYPERCALL_INPUT),
    ] {
        assert_eq!(world.call(input, parameter), expected, "{input:x} {parameter:x}");
    }
    let mut signalled = Vec::new();
    world.shared.signalled.take(|connection| signalled.push(connection));
    assert_eq!(signalled, [7]);
    world.shared.connections.remove(7);
    assert_eq!(world.call(SIGNAL | FAST, 7), status::INVALID_CONNECTION_ID);
}

proptest! {
    /// Whatever is called with whatever in memory: a status, and no panic.
    #[test]
    fn garbage_is_answered(
        input in prop_oneof![any::<u64>(), Just(POST), Just(SIGNAL), Just(SIGNAL | FAST)],
        first in prop_oneof![any::<u64>(), (0_u64..0x5000), (0_u64..0x800).prop_map(|word| word * 8)],
        bytes in prop::collection::vec(any::<u8>(), 256),
    ) {
        let world = World::new();
        world.memory.write(first & 0x3ff8, &bytes);
        prop_assert!(world.call(input, first) <= 0x13);
    }
}
