//! One thread: write and read one by one, in batches, and in place.

use core::hint::black_box;
use core::mem::MaybeUninit;

use rtrb::chunks::ChunkError;
use vmbus_ringbuf::{Memory, OutgoingPacket, Payload, Reader, Writer};

use crate::common::{Ring, Run};

/// Messages of a batch.
pub(crate) const BATCH: u64 = 32;
const BATCH_LENGTH: usize = 32;

pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| index.to_le_bytes()[0]).collect()
}

/// Ours: write one, read one, payload copied in and out.
pub(crate) fn ours_one<M: Memory + 'static>(ring: Ring<M>, bytes: usize) -> Run {
    let (mut writer, mut reader) = (Writer::new(ring.writer).unwrap(), Reader::new(ring.reader).unwrap());
    let (source, mut target) = (payload(bytes), vec![0; bytes]);
    Box::new(move |messages| {
        for id in 0..messages {
            let signal = writer.try_write(&OutgoingPacket::in_band(id), &[black_box(&source)]).unwrap();
            let received = reader.read_into(black_box(&mut target)).unwrap();
            let _ = black_box((signal, received.signal));
        }
    })
}

/// Ours: batches of 32, or as many as fit.
pub(crate) fn ours_batch<M: Memory + 'static>(ring: Ring<M>, bytes: usize) -> Run {
    batches(ring, bytes, |payload, target| {
        payload.copy_to(black_box(target)).unwrap();
        0
    })
}

/// Ours: the same, each packet's first 64 bytes (or what there is) read where they are, and the rest left.
pub(crate) fn ours_peek_batch<M: Memory + 'static>(ring: Ring<M>, bytes: usize) -> Run {
    batches(ring, bytes, |payload, _| head_in_place(payload))
}

/// Ours: the same, each packet copied out and the first 64 bytes of the copy read.
pub(crate) fn ours_peek_copy_batch<M: Memory + 'static>(ring: Ring<M>, bytes: usize) -> Run {
    batches(ring, bytes, |payload, target| {
        payload.copy_to(black_box(&mut *target)).unwrap();
        head_of_copy(black_box(target))
    })
}

fn batches<M: Memory + 'static>(
    ring: Ring<M>,
    bytes: usize,
    work: impl Fn(&Payload<'_, M>, &mut [u8]) -> u64 + 'static,
) -> Run {
    let (mut writer, mut reader) = (Writer::new(ring.writer).unwrap(), Reader::new(ring.reader).unwrap());
    let (source, mut target) = (payload(bytes), vec![0; bytes]);
    Box::new(move |messages| {
        let mut left = messages;
        while left > 0 {
            let mut batch = writer.batch();
            for id in 0..left.min(BATCH) {
                if batch.push(&OutgoingPacket::in_band(id), &[black_box(&source)]).is_err() {
                    break;
                }
            }
            let signal = batch.commit();
            let mut batch = reader.batch();
            while let Some(packet) = batch.next().unwrap() {
                black_box(work(&packet.payload(), &mut target));
                left -= 1;
            }
            let _ = black_box((signal, batch.finish()));
        }
    })
}

/// A sum over the payload, eight lanes wide: the work that both paths of the zero-copy comparison do.
#[inline]
fn sum(total: [u64; 8], block: [u64; 8]) -> [u64; 8] {
    core::array::from_fn(|lane| total[lane].wrapping_add(block[lane]))
}

fn sum_bytes(bytes: &[u8]) -> u64 {
    let blocks = bytes.as_chunks::<64>().0.iter();
    let lanes = blocks.map(|block| {
        let words = block.as_chunks::<8>().0;
        core::array::from_fn(|lane| u64::from_le_bytes(words[lane]))
    });
    lanes.fold([0; 8], sum).iter().fold(0, |all, lane| all ^ lane)
}

/// Ours: write one, sum it where it is.
pub(crate) fn ours_sum_in_place<M: Memory + 'static>(ring: Ring<M>, bytes: usize) -> Run {
    in_place(ring, bytes, |payload| payload.fold_blocks([0; 8], sum).iter().fold(0, |all, lane| all ^ lane))
}

/// Ours: write one, read the first 64 bytes (or what there is) where they are, and leave the rest.
pub(crate) fn ours_peek<M: Memory + 'static>(ring: Ring<M>, bytes: usize) -> Run {
    in_place(ring, bytes, head_in_place)
}

/// The work on the first 64 bytes of a packet, in place.
fn head_in_place<M: Memory>(payload: &Payload<'_, M>) -> u64 {
    match payload.read::<[u64; 8]>(0) {
        Ok(words) => words.iter().fold(0, |all, word| all ^ word),
        Err(_) => payload.words().fold(0, |all, word| all ^ word),
    }
}

/// The same on a copy.
fn head_of_copy(copy: &[u8]) -> u64 {
    copy.as_chunks::<8>().0.iter().take(8).fold(0, |all, word| all ^ u64::from_le_bytes(*word))
}

fn in_place<M: Memory + 'static>(ring: Ring<M>, bytes: usize, work: impl Fn(&Payload<'_, M>) -> u64 + 'static) -> Run {
    let (mut writer, mut reader) = (Writer::new(ring.writer).unwrap(), Reader::new(ring.reader).unwrap());
    let source = payload(bytes);
    Box::new(move |messages| {
        for id in 0..messages {
            let signal = writer.try_write(&OutgoingPacket::in_band(id), &[black_box(&source)]).unwrap();
            let mut batch = reader.batch();
            let packet = batch.next().unwrap().unwrap();
            let _ = black_box((signal, work(&packet.payload())));
        }
    })
}

/// Ours: write one, copy it out, read the first 64 bytes of the copy.
pub(crate) fn ours_peek_copy<M: Memory + 'static>(ring: Ring<M>, bytes: usize) -> Run {
    copied(ring, bytes, head_of_copy)
}

/// Ours: write one, copy it out, sum the copy.
pub(crate) fn ours_sum_copy<M: Memory + 'static>(ring: Ring<M>, bytes: usize) -> Run {
    copied(ring, bytes, sum_bytes)
}

fn copied<M: Memory + 'static>(ring: Ring<M>, bytes: usize, work: impl Fn(&[u8]) -> u64 + 'static) -> Run {
    let (mut writer, mut reader) = (Writer::new(ring.writer).unwrap(), Reader::new(ring.reader).unwrap());
    let (source, mut target) = (payload(bytes), vec![0; bytes]);
    Box::new(move |messages| {
        for id in 0..messages {
            let signal = writer.try_write(&OutgoingPacket::in_band(id), &[black_box(&source)]).unwrap();
            let received = reader.read_into(black_box(&mut target)).unwrap();
            let _ = black_box((signal, received.signal, work(black_box(&target))));
        }
    })
}

/// The floor: one copy in, one copy out, walking through as much memory as the ring has.
pub(crate) fn memcpy_one(pages: u32, bytes: usize) -> Run {
    let mut ring = vec![0_u8; pages as usize * 4096];
    let (source, mut target) = (payload(bytes), vec![0_u8; bytes]);
    let mut at = 0;
    Box::new(move |messages| {
        for _ in 0..messages {
            if at + bytes + 24 > ring.len() {
                at = 0;
            }
            let slot = &mut ring[at..at + bytes];
            slot.copy_from_slice(black_box(&source));
            black_box(&mut target).copy_from_slice(black_box(slot));
            at += bytes + 24;
        }
    })
}

/// Copies one slice over the two parts of a chunk, at `offset`; the chunk is long enough.
#[inline]
fn fill(first: &mut [MaybeUninit<u8>], second: &mut [MaybeUninit<u8>], offset: usize, source: &[u8]) {
    let head = first.len().saturating_sub(offset).min(source.len());
    let (one, two) = source.split_at(head);
    if !one.is_empty() {
        put(&mut first[offset..offset + head], one);
    }
    if !two.is_empty() {
        let start = (offset + head) - first.len();
        put(&mut second[start..start + two.len()], two);
    }
}

/// `write_copy_of_slice`, for compilers that don't have it.
#[inline]
fn put(target: &mut [MaybeUninit<u8>], source: &[u8]) {
    assert_eq!(target.len(), source.len());
    // SAFETY: both are `source.len()` long, and apart since one is borrowed mutably.
    unsafe { core::ptr::copy_nonoverlapping(source.as_ptr(), target.as_mut_ptr().cast(), source.len()) };
}

#[inline]
fn take(first: &[u8], second: &[u8], offset: usize, target: &mut [u8]) {
    let head = first.len().saturating_sub(offset).min(target.len());
    let (one, two) = target.split_at_mut(head);
    if !one.is_empty() {
        one.copy_from_slice(&first[offset..offset + head]);
    }
    if !two.is_empty() {
        let start = (offset + head) - first.len();
        two.copy_from_slice(&second[start..start + two.len()]);
    }
}

/// rtrb as a ring of messages: a length of 8 bytes and the payload in one chunk; the reader reads the length first.
#[inline]
pub(crate) fn rtrb_push(producer: &mut rtrb::Producer<u8>, source: &[u8]) -> Result<(), ChunkError> {
    let mut chunk = producer.write_chunk_uninit(source.len() + 8)?;
    let (first, second) = chunk.as_mut_slices();
    fill(first, second, 0, &source.len().to_le_bytes());
    fill(first, second, 8, source);
    // SAFETY: all bytes of the chunk were written.
    unsafe { chunk.commit_all() };
    Ok(())
}

#[inline]
pub(crate) fn rtrb_pop(consumer: &mut rtrb::Consumer<u8>, target: &mut [u8]) -> Result<usize, ChunkError> {
    let chunk = consumer.read_chunk(8)?;
    let (first, second) = chunk.as_slices();
    let mut length = [0; 8];
    take(first, second, 0, &mut length);
    let length = usize::from_le_bytes(length);
    let chunk = consumer.read_chunk(length + 8)?;
    let (first, second) = chunk.as_slices();
    take(first, second, 8, &mut target[..length]);
    chunk.commit_all();
    Ok(length)
}

/// rtrb: `count` messages in one chunk; there must be room.
pub(crate) fn rtrb_fill(producer: &mut rtrb::Producer<u8>, source: &[u8], count: usize) {
    let size = source.len() + 8;
    let mut chunk = producer.write_chunk_uninit(count * size).unwrap();
    let (first, second) = chunk.as_mut_slices();
    for index in 0..count {
        fill(first, second, index * size, &source.len().to_le_bytes());
        fill(first, second, index * size + 8, source);
    }
    // SAFETY: all bytes of the chunk were written.
    unsafe { chunk.commit_all() };
}

/// rtrb: all messages that are there, in one chunk. Returns how many.
pub(crate) fn rtrb_take(consumer: &mut rtrb::Consumer<u8>, target: &mut [u8]) -> u64 {
    let there = consumer.slots();
    if there == 0 {
        return 0;
    }
    let chunk = consumer.read_chunk(there).unwrap();
    let (first, second) = chunk.as_slices();
    let (mut at, mut count) = (0, 0);
    while at < there {
        let mut length = [0; 8];
        take(first, second, at, &mut length);
        let length = usize::from_le_bytes(length);
        take(first, second, at + 8, &mut target[..length]);
        at += length + 8;
        count += 1;
    }
    chunk.commit_all();
    count
}

/// rtrb: write one, read one.
pub(crate) fn rtrb_one(pages: u32, bytes: usize) -> Run {
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(pages as usize * 4096);
    let (source, mut target) = (payload(bytes), vec![0; bytes]);
    Box::new(move |messages| {
        for _ in 0..messages {
            rtrb_push(&mut producer, black_box(&source)).unwrap();
            black_box(rtrb_pop(&mut consumer, black_box(&mut target)).unwrap());
        }
    })
}

/// rtrb: write 32 or as many as fit in one chunk, read them in one.
pub(crate) fn rtrb_batch(pages: u32, bytes: usize) -> Run {
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(pages as usize * 4096);
    let (source, mut target) = (payload(bytes), vec![0; bytes]);
    let most = (pages as usize * 4096 / (bytes + 8)).min(BATCH_LENGTH);
    Box::new(move |messages| {
        let mut left = messages;
        while left > 0 {
            rtrb_fill(&mut producer, black_box(&source), most.min(usize::try_from(left).unwrap()));
            left -= rtrb_take(&mut consumer, black_box(&mut target));
        }
    })
}

/// rtrb: write 32 or as many as fit one by one, then read them one by one.
pub(crate) fn rtrb_batch_of_single(pages: u32, bytes: usize) -> Run {
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(pages as usize * 4096);
    let (source, mut target) = (payload(bytes), vec![0; bytes]);
    Box::new(move |messages| {
        let mut left = messages;
        while left > 0 {
            for _ in 0..left.min(BATCH) {
                if rtrb_push(&mut producer, black_box(&source)).is_err() {
                    break;
                }
            }
            while rtrb_pop(&mut consumer, black_box(&mut target)).is_ok() {
                left -= 1;
            }
        }
    })
}

/// rtrb without messages: bytes in, the same number of bytes out. Less work than any ring of packets has.
pub(crate) fn rtrb_bare(pages: u32, bytes: usize) -> Run {
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(pages as usize * 4096);
    let (source, mut target) = (payload(bytes), vec![0_u8; bytes]);
    Box::new(move |messages| {
        for _ in 0..messages {
            producer.push_entire_slice(black_box(&source)).unwrap();
            consumer.pop_entire_slice(black_box(&mut target)).unwrap();
        }
    })
}
