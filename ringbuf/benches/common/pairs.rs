//! Two threads on two processors: streaming and ping-pong. Each call starts its threads, runs, and returns the time.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use vmbus_ringbuf::{Memory, OutgoingPacket, Reader, Writer};

use crate::common::Ring;
use crate::common::single::{BATCH, payload, rtrb_fill, rtrb_pop, rtrb_push, rtrb_take};

/// One side of a pair, told how many messages there will be.
type Side<'a> = Box<dyn FnOnce(u64) + Send + 'a>;

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    // One processor is enough to run, not to measure.
    sched_setaffinity(None, &set).unwrap();
}

/// Runs both sides, pinned, and returns how long the slower one took.
fn race(messages: u64, first: Side<'_>, second: Side<'_>) -> Duration {
    let start = Barrier::new(2);
    let timed = |cpu: usize, side: Side<'_>| {
        pin(cpu);
        start.wait();
        let begin = Instant::now();
        side(messages);
        begin.elapsed()
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| timed(1, second));
        let mine = scope.spawn(|| timed(0, first)).join().unwrap();
        mine.max(other.join().unwrap())
    })
}

/// Ours: a stream, published packet by packet or in batches of 32.
pub(crate) fn ours_stream<M: Memory + Send>(ring: Ring<M>, bytes: usize, batched: bool, messages: u64) -> Duration {
    let (mut writer, mut reader) = (Writer::new(ring.writer).unwrap(), Reader::new(ring.reader).unwrap());
    let (source, mut target) = (payload(bytes), vec![0; bytes]);
    reader.mask();
    let send = move |messages: u64| {
        let mut sent = 0;
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
                core::hint::spin_loop();
            }
        }
    };
    let receive = move |messages: u64| {
        let mut received = 0;
        while received < messages {
            let before = received;
            let mut batch = reader.batch();
            while let Some(packet) = batch.next().unwrap() {
                packet.payload().copy_to(&mut target).unwrap();
                received += 1;
            }
            let _ = batch.finish();
            if received == before {
                core::hint::spin_loop();
            }
        }
    };
    race(messages, Box::new(send), Box::new(receive))
}

/// rtrb: the same; a batch is one chunk.
pub(crate) fn rtrb_stream(pages: u32, bytes: usize, batched: bool, messages: u64) -> Duration {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<u8>::new(pages as usize * 4096);
    let (source, mut target) = (payload(bytes), vec![0; bytes]);
    let size = bytes + 8;
    let send = move |messages: u64| {
        let mut sent = 0;
        while sent < messages {
            let before = sent;
            if batched {
                let wanted = usize::try_from(BATCH.min(messages - sent)).unwrap();
                let count =
                    if producer.cached_slots() >= wanted * size { wanted } else { wanted.min(producer.slots() / size) };
                if count > 0 {
                    rtrb_fill(&mut producer, &source, count);
                    sent += count as u64;
                }
            } else if rtrb_push(&mut producer, &source).is_ok() {
                sent += 1;
            }
            if sent == before {
                core::hint::spin_loop();
            }
        }
    };
    let receive = move |messages: u64| {
        let mut received = 0;
        while received < messages {
            let before = received;
            if batched {
                received += rtrb_take(&mut consumer, &mut target);
            } else if rtrb_pop(&mut consumer, &mut target).is_ok() {
                received += 1;
            }
            if received == before {
                core::hint::spin_loop();
            }
        }
    };
    race(messages, Box::new(send), Box::new(receive))
}

/// Ours: one message there, one back.
pub(crate) fn ours_ping_pong<M: Memory + Send>(there: Ring<M>, back: Ring<M>, bytes: usize, messages: u64) -> Duration {
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
    let (first, second) = (side(there.writer, back.reader, true), side(back.writer, there.reader, false));
    race(messages, Box::new(first), Box::new(second))
}

/// rtrb: the same.
pub(crate) fn rtrb_ping_pong(pages: u32, bytes: usize, messages: u64) -> Duration {
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
    let (first, second) = (side(there.0, back.1, true), side(back.0, there.1, false));
    race(messages, Box::new(first), Box::new(second))
}
