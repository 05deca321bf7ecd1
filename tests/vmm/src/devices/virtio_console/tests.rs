//! The console with a driver that is played here, over memory of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::ports::Control;
use super::{AGENT_IN, AGENT_OUT, CONTROL_IN, CONTROL_OUT, VirtioConsole};
use crate::exits::Mmio;

/// Descriptors of the played driver's queues.
const SIZE: u16 = 8;
/// Guest memory of one queue: its rings, then a buffer of 4 KiB for each descriptor.
const QUEUE_BYTES: u64 = 0x1_0000;
const BUFFER_BYTES: u32 = 0x1000;

/// A driver that has come as far as DRIVER_OK.
struct Driver {
    memory: GuestMemoryMmap,
    console: VirtioConsole,
    interrupts: Arc<AtomicU32>,
}

impl Driver {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let interrupts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&interrupts);
        let console = VirtioConsole::new(memory.clone(), move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let driver = Self { memory, console, interrupts };
        driver.start();
        driver
    }

    fn start(&self) {
        assert_eq!([0, 4, 8].map(|register| self.get(register)), [0x7472_6976, 2, 3]);
        self.set(0x70, 0);
        self.set(0x70, 3);
        self.set(0x24, 0);
        self.set(0x20, 1 << 1);
        self.set(0x24, 1);
        self.set(0x20, 1);
        self.set(0x70, 11);
        assert_eq!((self.get(0x70), self.get(0x104)), (11, 2));
        for queue in 0..6 {
            self.set(0x30, queue);
            assert_eq!((self.get(0x34), self.get(0x44)), (256, 0));
            self.set(0x38, SIZE.into());
            let rings = u32::try_from(Self::rings(queue as usize)).unwrap();
            for (register, at) in [(0x80, rings), (0x90, rings + 0x100), (0xa0, rings + 0x200)] {
                self.set(register, at);
                self.set(register + 4, 0);
            }
            self.set(0x44, 1);
        }
        self.set(0x70, 15);
    }

    fn rings(queue: usize) -> u64 {
        0x1000 + QUEUE_BYTES * queue as u64
    }

    fn set(&self, register: u64, value: u32) {
        self.console.write(register, &value.to_le_bytes());
    }

    fn get(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.console.read(register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn half(&self, at: u64) -> u16 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// Offers a buffer with `bytes`, or one to be written, and notifies.
    fn offer(&self, queue: usize, bytes: Option<&[u8]>) {
        let rings = Self::rings(queue);
        let next = self.half(rings + 0x102);
        let slot = u64::from(next % SIZE);
        let buffer = rings + 0x1000 + slot * u64::from(BUFFER_BYTES);
        let (length, flags) = bytes.map_or((BUFFER_BYTES, 2_u16), |bytes| {
            self.memory.write_slice(bytes, GuestAddress(buffer)).unwrap();
            (u32::try_from(bytes.len()).unwrap(), 0)
        });
        let descriptor = rings + 16 * slot;
        self.memory.write_obj(buffer, GuestAddress(descriptor)).unwrap();
        self.memory.write_obj(length, GuestAddress(descriptor + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(descriptor + 12)).unwrap();
        self.memory.write_obj(next % SIZE, GuestAddress(rings + 0x104 + 2 * slot)).unwrap();
        self.memory.write_obj(next.wrapping_add(1), GuestAddress(rings + 0x102)).unwrap();
        self.set(0x50, u32::try_from(queue).unwrap());
    }

    /// How many buffers have come back, and what is written in the last.
    fn used(&self, queue: usize) -> (u16, Vec<u8>) {
        let rings = Self::rings(queue);
        let count = self.half(rings + 0x202);
        let entry = rings + 0x204 + 8 * u64::from(count.wrapping_sub(1) % SIZE);
        let id: u32 = self.memory.read_obj(GuestAddress(entry)).unwrap();
        let length: u32 = self.memory.read_obj(GuestAddress(entry + 4)).unwrap();
        let mut bytes = vec![0; length as usize];
        let buffer = rings + 0x1000 + u64::from(id) * u64::from(BUFFER_BYTES);
        self.memory.read_slice(&mut bytes, GuestAddress(buffer)).unwrap();
        (count, bytes)
    }

    fn say(&self, port: u32, event: u16, value: u16) {
        self.offer(CONTROL_OUT, Some(&Control { port, event, value }.to_bytes()));
    }

    fn heard(&self) -> (u16, Control) {
        let (count, bytes) = self.used(CONTROL_IN);
        (count, Control::from_bytes(bytes.try_into().unwrap()))
    }

    /// The port, added and opened by a program.
    fn open(&self) {
        self.offer(CONTROL_IN, None);
        self.offer(CONTROL_IN, None);
        self.say(u32::MAX, 0, 1);
        assert_eq!(self.heard(), (1, Control { port: 1, event: 1, value: 1 }));
        self.say(1, 3, 1);
        assert_eq!(self.heard(), (2, Control { port: 1, event: 6, value: 1 }));
        self.say(1, 6, 1);
    }

    fn input(&self, bytes: &[u8]) {
        self.console.shared.input(&mut self.console.shared.lock(), bytes);
    }

    fn waits(&self) -> bool {
        let state = self.console.shared.lock();
        state.sent < state.input.len()
    }
}

#[test]
fn output_is_taken_at_once_and_interrupts() {
    let driver = Driver::new();
    driver.open();
    let before = driver.interrupts.load(Ordering::Relaxed);
    driver.offer(AGENT_OUT, Some(b"hello "));
    driver.offer(AGENT_OUT, Some(b"world"));
    assert_eq!(driver.used(AGENT_OUT).0, 2);
    assert_eq!(driver.console.shared.output.take(), b"hello world");
    assert_eq!(driver.interrupts.load(Ordering::Relaxed), before + 2);
    assert_eq!(driver.get(0x60), 1);
    driver.set(0x64, 1);
    assert_eq!(driver.get(0x60), 0);
}

#[test]
fn input_waits_for_a_reader_and_for_buffers() {
    let driver = Driver::new();
    driver.offer(AGENT_IN, None);
    driver.input(&[7; 5000]);
    assert_eq!(driver.used(AGENT_IN).0, 0, "nobody has the port open");
    driver.open();
    assert_eq!(driver.used(AGENT_IN), (1, vec![7; 4096]));
    assert!(driver.waits());
    driver.offer(AGENT_IN, None);
    assert_eq!(driver.used(AGENT_IN), (2, vec![7; 904]));
    assert!(!driver.waits());
    driver.offer(AGENT_IN, None);
    assert_eq!(driver.used(AGENT_IN).0, 2, "a buffer with nothing for it stays");
    driver.input(b"more");
    assert_eq!(driver.used(AGENT_IN), (3, b"more".to_vec()));
    driver.say(1, 6, 0);
    driver.offer(AGENT_IN, None);
    driver.input(b"late");
    assert_eq!(driver.used(AGENT_IN).0, 3, "the program has closed the port");
}

#[test]
fn a_reset_forgets_input_and_queues() {
    let driver = Driver::new();
    driver.input(b"never read");
    driver.set(0x70, 0);
    assert!(!driver.waits());
    assert_eq!((driver.get(0x70), driver.get(0x44)), (0, 0));
    driver.offer(AGENT_OUT, Some(b"with no queue"));
    assert_eq!(driver.used(AGENT_OUT).0, 0);
}

#[test]
fn features_that_are_not_there_are_not_accepted() {
    let driver = Driver::new();
    driver.set(0x70, 0);
    driver.set(0x24, 0);
    driver.set(0x20, 1 << 5);
    driver.set(0x70, 11);
    assert_eq!(driver.get(0x70), 3);
}

#[test]
fn a_queue_that_points_nowhere_is_said_to_be_broken() {
    let driver = Driver::new();
    driver.set(0x30, u32::try_from(AGENT_OUT).unwrap());
    driver.set(0x94, 0x100);
    driver.set(0x50, u32::try_from(AGENT_OUT).unwrap());
    assert_eq!(driver.get(0x70) & 0x40, 0x40);
}

#[test]
fn hostile_registers_and_descriptors_do_no_harm() {
    let driver = Driver::new();
    driver.open();
    for register in 0..0x200 {
        for bytes in [&[0xff; 1][..], &[0xff; 4], &[0xff; 8], &[]] {
            driver.console.write(register, bytes);
            driver.console.read(register, &mut [0; 16][..bytes.len()]);
        }
    }
    let driver = Driver::new();
    let rings = Driver::rings(AGENT_OUT);
    // A chain that bites its own tail, of buffers larger than memory.
    driver.memory.write_obj(u64::MAX - 8, GuestAddress(rings)).unwrap();
    driver.memory.write_obj(u32::MAX, GuestAddress(rings + 8)).unwrap();
    driver.memory.write_obj(1_u16, GuestAddress(rings + 12)).unwrap();
    driver.memory.write_obj(1_u16, GuestAddress(rings + 0x102)).unwrap();
    driver.set(0x50, u32::try_from(AGENT_OUT).unwrap());
    assert_eq!(driver.used(AGENT_OUT).0, 1);
    for _ in 0..100 {
        driver.say(u32::MAX, 0, 1);
    }
    assert!(driver.console.shared.lock().ports.pending.len() <= 16);
}
