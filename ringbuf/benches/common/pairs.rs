//! Two threads on two processors: streaming and ping-pong. Each call starts its threads, runs, and returns the time.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use vmbus_ringbuf::{Memory, OutgoingPacket, Reader, Writer};

use crate::common::Ring;
use crate::common::single::{BATCH, payload, rtrb_fill, rtrb_pop, rtrb_push, rtrb_take};

/// A contestant of two threads: runs this many messages, says how long it took.
pub(crate) type Race = Box<dyn FnMut(u64) -> Duration>;

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    // One processor is enough to run, not to measure.
    sched_setaffinity(None, &set).unwrap();
}

/// What both sides do while there is nothing to do, and both contestants alike: look again ever later.
#[derive(Default)]
struct Patience {
    pauses: u32,
}

impl Patience {
    fn is_exhausted(&self) -> bool {
        self.pauses == 16
    }

    fn wait(&mut self) {
        self.pauses = (self.pauses * 2).clamp(1, 16);
        for _ in 0..self.pauses {
            core::hint::spin_loop();
        }
    }
}

/// Runs both sides, each on its own processor, and returns how long the slower one took.
fn race(messages: u64, first: impl FnOnce(u64) + Send, second: impl FnOnce(u64) + Send) -> Duration {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let start = &start;
        let first = scope.spawn(move || timed(0, start, messages, first));
        let second = scope.spawn(move || timed(1, start, messages, second));
        first.join().unwrap().max(second.join().unwrap())
    })
}

fn timed(cpu: usize, start: &Barrier, messages: u64, side: impl FnOnce(u64)) -> Duration {
    pin(cpu);
    start.wait();
    let begin = Instant::now();
    side(messages);
    begin.elapsed()
}

/// Ours: a stream, published packet by packet or in batches of 32.
pub(crate) fn ours_stream<M: Memory + Send + 'static>(ring: Ring<M>, bytes: usize, batched: bool) -> Race {
    let (mut writer, mut reader) = (Writer::new(ring.writer).unwrap(), Reader::new(ring.reader).unwrap());
    let (source, mut target) = (payload(bytes), vec![0; bytes]);
    reader.mask();
    Box::new(move |messages| {
        let send = |messages: u64| {
            let (mut sent, mut patience) = (0, Patience::default());
            while sent < messages {
                let before = sent;
                if batched {
                    let mut batch = writer.batch();
                    while sent - before < BATCH && sent < messages {
                        if batch.push(&OutgoingPacket::in_band(sent), &[&source]).is_err() {
                            break;
                        }
                        sent += 1;
                    }
                    let _ = batch.commit();
                } else if writer.try_write(&OutgoingPacket::in_band(sent), &[&source]).is_ok() {
                    sent += 1;
                }
                if sent == before {
                    patience.wait();
                } else {
                    patience = Patience::default();
                }
            }
        };
        let receive = |messages: u64| {
            let (mut received, mut patience) = (0, Patience::default());
            while received < messages {
                let before = received;
                let mut batch = reader.batch();
                while let Some(packet) = batch.next().unwrap() {
                    packet.payload().copy_to(&mut target).unwrap();
                    received += 1;
                }
                if received == before {
                    // Empty for a while: give everything back. Until then the batch does, by quarters of the ring.
                    if patience.is_exhausted() {
                        let _ = batch.finish();
                    }
                    patience.wait();
                } else {
                    patience = Patience::default();
                }
            }
            let _ = reader.batch().finish();
        };
        race(messages, send, receive)
    })
}

/// rtrb: the same; a batch is one chunk.
pub(crate) fn rtrb_stream(pages: u32, bytes: usize, batched: bool) -> Race {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<u8>::new(pages as usize * 4096);
    let (source, mut target) = (payload(bytes), vec![0; bytes]);
    let size = bytes + 8;
    Box::new(move |messages| {
        let send = |messages: u64| {
            let (mut sent, mut patience) = (0, Patience::default());
            while sent < messages {
                let before = sent;
                if batched {
                    let wanted = usize::try_from(BATCH.min(messages - sent)).unwrap();
                    let known = producer.cached_slots() >= wanted * size;
                    let count = if known { wanted } else { wanted.min(producer.slots() / size) };
                    if count > 0 {
                        rtrb_fill(&mut producer, &source, count);
                        sent += count as u64;
                    }
                } else if rtrb_push(&mut producer, &source).is_ok() {
                    sent += 1;
                }
                if sent == before {
                    patience.wait();
                } else {
                    patience = Patience::default();
                }
            }
        };
        let receive = |messages: u64| {
            let (mut received, mut patience) = (0, Patience::default());
            while received < messages {
                let before = received;
                if batched {
                    received += rtrb_take(&mut consumer, &mut target);
                } else if rtrb_pop(&mut consumer, &mut target).is_ok() {
                    received += 1;
                }
                if received == before {
                    patience.wait();
                } else {
                    patience = Patience::default();
                }
            }
        };
        race(messages, send, receive)
    })
}

/// Ours: one message there, one back.
pub(crate) fn ours_ping_pong<M: Memory + Send + 'static>(there: Ring<M>, back: Ring<M>, bytes: usize) -> Race {
    let side = |writer: M, reader: M, first: bool| {
        let (mut writer, mut reader) = (Writer::new(writer).unwrap(), Reader::new(reader).unwrap());
        let (source, mut target) = (payload(bytes), vec![0; bytes]);
        reader.mask();
        move |messages: u64| {
            for id in 0..messages {
                if first {
                    let _ = writer.try_write(&OutgoingPacket::in_band(id), &[&source]).unwrap();
                }
                while reader.is_empty().unwrap() {}
                let _ = reader.read_into(&mut target).unwrap();
                if !first {
                    let _ = writer.try_write(&OutgoingPacket::in_band(id), &[&source]).unwrap();
                }
            }
        }
    };
    let mut first = side(there.writer, back.reader, true);
    let mut second = side(back.writer, there.reader, false);
    Box::new(move |messages| race(messages, &mut first, &mut second))
}

/// rtrb: the same.
pub(crate) fn rtrb_ping_pong(pages: u32, bytes: usize) -> Race {
    let there = rtrb::RingBuffer::<u8>::new(pages as usize * 4096);
    let back = rtrb::RingBuffer::<u8>::new(pages as usize * 4096);
    let side = |mut producer: rtrb::Producer<u8>, mut consumer: rtrb::Consumer<u8>, first: bool| {
        let (source, mut target) = (payload(bytes), vec![0; bytes]);
        move |messages: u64| {
            for _ in 0..messages {
                if first {
                    rtrb_push(&mut producer, &source).unwrap();
                }
                while rtrb_pop(&mut consumer, &mut target).is_err() {}
                if !first {
                    rtrb_push(&mut producer, &source).unwrap();
                }
            }
        }
    };
    let (mut first, mut second) = (side(there.0, back.1, true), side(back.0, there.1, false));
    Box::new(move |messages| race(messages, &mut first, &mut second))
}
