//! Copies word by word through atomics, for machines without the vector copies: safe code, eight bytes at a time.
#![deny(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

/// Copies out of shared words. `word` gives the word at an offset that is a multiple of 8.
pub(super) fn read<'a>(word: impl Fn(usize) -> &'a AtomicU64, offset: usize, destination: &mut [u8]) {
    let (head, rest) = destination.split_at_mut((offset.wrapping_neg() & 7).min(destination.len()));
    let mut at = offset & !7;
    let mut copy = |lane: usize, part: &mut [u8]| {
        let bytes = word(at).load(Ordering::Relaxed).to_ne_bytes();
        for (to, from) in part.iter_mut().zip(bytes.iter().skip(lane)) {
            *to = *from;
        }
        at += 8;
    };
    if !head.is_empty() {
        copy(offset & 7, head);
    }
    for part in rest.chunks_mut(8) {
        copy(0, part);
    }
}

/// Copies into shared words. The rest of a word that is written in part keeps its bytes, unless the other side writes
/// them at the same moment; in a ring, those bytes belong to the same packet, and so to this side.
pub(super) fn write<'a>(word: impl Fn(usize) -> &'a AtomicU64, offset: usize, source: &[u8]) {
    let (head, rest) = source.split_at((offset.wrapping_neg() & 7).min(source.len()));
    let mut at = offset & !7;
    let mut copy = |lane: usize, part: &[u8]| {
        let shared = word(at);
        let mut bytes = if part.len() == 8 { [0; 8] } else { shared.load(Ordering::Relaxed).to_ne_bytes() };
        for (to, from) in bytes.iter_mut().skip(lane).zip(part) {
            *to = *from;
        }
        shared.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        at += 8;
    };
    if !head.is_empty() {
        copy(offset & 7, head);
    }
    for part in rest.chunks(8) {
        copy(0, part);
    }
}
