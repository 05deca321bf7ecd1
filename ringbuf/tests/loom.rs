//! Model check of two threads on one ring: every interleaving (up to a bound of preemptions) and every value that a
//! load may see. A lost signal is a deadlock, which loom reports.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p vmbus-ringbuf --release --test loom`. That the four fences are
//! needed is part of it: `*_is_needed` takes one away (`LoomMemory::without_fence_after`) and must deadlock.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "tests")]

use loom::model::Builder;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::sync::Arc;
use vmbus_ringbuf::{
    ControlField, FEATURE_PENDING_SEND_SIZE, Memory, OutgoingPacket, Reader, Signal, WriteError, Writer,
};

/// Room for one packet of 24 bytes and not for two, or for two and not for three.
const ONE: u32 = 40;
const TWO: u32 = 64;

/// Ring memory made of loom's atomics.
struct LoomMemory {
    fields: Vec<AtomicU32>,
    words: Vec<AtomicU64>,
    fenceless: Option<ControlField>,
}

impl LoomMemory {
    fn new(data_bytes: u32) -> Self {
        let fields = ControlField::ALL.iter().map(|_| AtomicU32::new(0)).collect();
        Self { fields, words: (0..data_bytes / 8).map(|_| AtomicU64::new(0)).collect(), fenceless: None }
    }

    /// The same, with the full fence after stores of this field left out.
    fn without_fence_after(mut self, field: Option<ControlField>) -> Self {
        self.fenceless = field;
        self
    }

    fn field(&self, field: ControlField) -> &AtomicU32 {
        let index = ControlField::ALL.iter().position(|each| *each == field).unwrap();
        self.fields.get(index).unwrap()
    }

    fn word(&self, offset: u32, index: usize) -> &AtomicU64 {
        self.words.get((offset as usize / 8 + index) % self.words.len()).unwrap()
    }
}

/// One side's handle.
#[derive(Clone)]
struct Side(Arc<LoomMemory>);

impl Memory for Side {
    fn data_bytes(&self) -> u32 {
        u32::try_from(self.0.words.len() * 8).unwrap()
    }

    fn load(&self, field: ControlField) -> u32 {
        self.0.field(field).load(Ordering::Acquire)
    }

    fn store(&self, field: ControlField, value: u32) {
        self.0.field(field).store(value, Ordering::Release);
    }

    fn store_then_fence(&self, field: ControlField, value: u32) {
        self.store(field, value);
        if self.0.fenceless != Some(field) {
            fence(Ordering::SeqCst);
        }
    }

    fn load_words<const N: usize>(&self, offset: u32) -> [u64; N] {
        core::array::from_fn(|index| self.0.word(offset, index).load(Ordering::Relaxed))
    }

    fn store_words<const N: usize>(&self, offset: u32, words: [u64; N]) {
        for (index, word) in words.into_iter().enumerate() {
            self.0.word(offset, index).store(word, Ordering::Relaxed);
        }
    }

    fn read(&self, _offset: u32, destination: &mut [u8]) {
        assert!(destination.is_empty(), "the model's packets have no payload");
    }

    fn write(&self, _offset: u32, source: &[u8]) {
        assert!(source.is_empty(), "the model's packets have no payload");
    }
}

/// An interrupt: counts, wakes one sleeper.
#[derive(Clone)]
struct Event(Arc<(Mutex<u32>, Condvar)>);

impl Event {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(0), Condvar::new())))
    }

    /// Sends the signal if it is needed; returns how many were sent.
    fn send(&self, signal: Signal) -> u32 {
        if signal.is_needed() {
            *self.0.0.lock().unwrap() += 1;
            self.0.1.notify_one();
        }
        u32::from(signal.is_needed())
    }

    fn wait(&self) {
        let mut count = self.0.0.lock().unwrap();
        while *count == 0 {
            count = self.0.1.wait(count).unwrap();
        }
        *count = 0;
    }
}

/// Both directions of signals, and the ring.
struct Setup {
    data_bytes: u32,
    packets: u64,
    /// Publish this many together.
    batch: u64,
    /// Give back this many together.
    release: u64,
    fenceless: Option<ControlField>,
    preemptions: usize,
}

/// Writes everything; sleeps when the ring is full. Returns signals sent to the reader, and requests for space.
fn write_all(memory: Side, setup: (u64, u64), data: &Event, space: &Event) -> (u32, u32) {
    let (packets, batch_length) = setup;
    let mut writer = Writer::new(memory).unwrap();
    let (mut sent, mut requests, mut next) = (0, 0, 0);
    while next < packets {
        let mut batch = writer.batch();
        let mut full = None;
        for _ in 0..batch_length.min(packets - next) {
            match batch.push(&OutgoingPacket::in_band(next), &[]) {
                Ok(()) => next += 1,
                Err(WriteError::Full { needed, .. }) => {
                    full = Some(needed);
                    break;
                }
                Err(other) => unreachable!("{other}"),
            }
        }
        sent += data.send(batch.commit());
        if let Some(needed) = full {
            requests += 1;
            if !writer.request_space(needed).unwrap() {
                space.wait();
            }
        }
    }
    (sent, requests)
}

/// Reads everything; sleeps when the ring is empty. Returns signals sent to the writer, and how often it unmasked.
fn read_all(memory: Side, setup: (u64, u64), data: &Event, space: &Event) -> (u32, u32) {
    let (packets, release) = setup;
    let mut reader = Reader::new(memory).unwrap();
    let (mut sent, mut unmasked, mut expected) = (0, 0, 0);
    loop {
        reader.mask();
        let mut batch = reader.batch();
        while let Some(packet) = batch.next().unwrap() {
            assert_eq!(packet.transaction_id(), expected, "packets come in order and whole");
            expected += 1;
            if expected % release == 0 {
                sent += space.send(batch.finish());
                batch = reader.batch();
            }
        }
        sent += space.send(batch.finish());
        if expected == packets {
            return (sent, unmasked);
        }
        unmasked += 1;
        if !reader.unmask() {
            data.wait();
        }
    }
}

fn check(setup: Setup) {
    let Setup { data_bytes, packets, batch, release, fenceless, preemptions } = setup;
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(move || {
        let memory = Side(Arc::new(LoomMemory::new(data_bytes).without_fence_after(fenceless)));
        memory.store(ControlField::FeatureBits, FEATURE_PENDING_SEND_SIZE);
        // Masked to begin with: only what the reader unmasks may be signalled.
        memory.store(ControlField::InterruptMask, 1);
        let (data, space) = (Event::new(), Event::new());
        let writer = {
            let (memory, data, space) = (memory.clone(), data.clone(), space.clone());
            thread::spawn(move || write_all(memory, (packets, batch), &data, &space))
        };
        let (space_signals, unmasked) = read_all(memory, (packets, release), &data, &space);
        let (data_signals, requests) = writer.join().unwrap();
        assert!(data_signals <= unmasked, "{data_signals} signals for {unmasked} times that the reader asked");
        assert!(space_signals <= requests, "{space_signals} signals for {requests} times that the writer asked");
    });
}

/// The reader sleeps on an empty ring; each packet is published by itself. Room for all of them.
#[test]
fn reader_is_woken() {
    check(Setup { data_bytes: 128, packets: 4, batch: 1, release: 9, fenceless: None, preemptions: 4 });
}

/// As above, packets published in pairs.
#[test]
fn reader_is_woken_by_batches() {
    check(Setup { data_bytes: 256, packets: 6, batch: 2, release: 9, fenceless: None, preemptions: 4 });
}

/// Every packet fills the ring, so the writer sleeps for each, and so does the reader.
#[test]
fn writer_is_woken() {
    check(Setup { data_bytes: ONE, packets: 3, batch: 1, release: 9, fenceless: None, preemptions: 4 });
}

/// A ring of two packets, batches of three: published in part, blocked in the middle.
#[test]
fn blocked_batches_go_on() {
    check(Setup { data_bytes: TWO, packets: 4, batch: 3, release: 9, fenceless: None, preemptions: 4 });
}

/// As above, with space given back packet by packet: only the release that makes the room signals.
#[test]
fn single_releases_signal_once() {
    check(Setup { data_bytes: TWO, packets: 4, batch: 1, release: 1, fenceless: None, preemptions: 3 });
}

fn without(field: ControlField, data_bytes: u32) {
    check(Setup { data_bytes, packets: 3, batch: 1, release: 9, fenceless: Some(field), preemptions: 3 });
}

#[test]
#[should_panic(expected = "deadlock")]
fn fence_of_publish_write_is_needed() {
    without(ControlField::WriteIndex, 128);
}

#[test]
#[should_panic(expected = "deadlock")]
fn fence_of_unmask_is_needed() {
    without(ControlField::InterruptMask, 128);
}

#[test]
#[should_panic(expected = "deadlock")]
fn fence_of_publish_read_is_needed() {
    without(ControlField::ReadIndex, ONE);
}

#[test]
#[should_panic(expected = "deadlock")]
fn fence_of_request_space_is_needed() {
    without(ControlField::PendingSendSize, ONE);
}
