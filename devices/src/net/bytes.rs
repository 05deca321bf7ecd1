//! Copies between private memory and memory that the host can write too: word by word, never by reference.

use core::sync::atomic::Ordering;
use vmbus::memory::Mapping;

const WORD: usize = size_of::<u64>();

/// Copies `count` bytes from `offset` on into `scratch`, which grows but never shrinks; `None` if they are not all there.
pub(super) fn read<'a>(memory: &Mapping, offset: usize, count: usize, scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let skip = offset % WORD;
    let words = skip.checked_add(count)?.div_ceil(WORD);
    let source = memory.words(offset - skip, words)?;
    if scratch.len() < words * WORD {
        scratch.resize(words * WORD, 0);
    }
    let (chunks, _) = scratch.as_chunks_mut::<WORD>();
    for (chunk, word) in chunks.iter_mut().zip(source) {
        *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    scratch.get(skip..skip.checked_add(count)?)
}

/// Writes `parts` one behind the other from `offset` on, a multiple of eight, and zeroes up to the next one; whether
/// there is room for them.
pub(super) fn write(memory: &Mapping, offset: usize, parts: &[&[u8]]) -> bool {
    let total = parts.iter().try_fold(0_usize, |total, part| total.checked_add(part.len()));
    let Some(target) = total.and_then(|total| memory.words(offset, total.div_ceil(WORD))) else { return false };
    let mut target = target.iter();
    let mut store = |word: [u8; WORD]| {
        if let Some(place) = target.next() {
            place.store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    };
    // What is left of the parts so far, and how much that is.
    let (mut left, mut held) = ([0; WORD], 0);
    for part in parts {
        let mut part = *part;
        if held != 0 {
            let (fill, rest) = part.split_at(part.len().min(WORD - held));
            left.iter_mut().skip(held).zip(fill).for_each(|(to, from)| *to = *from);
            (held, part) = (held + fill.len(), rest);
            if held < WORD {
                continue;
            }
            store(std::mem::take(&mut left));
        }
        let (words, rest) = part.as_chunks::<WORD>();
        words.iter().for_each(|word| store(*word));
        left.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        held = rest.len();
    }
    if held != 0 {
        store(left);
    }
    true
}

#[cfg(test)]
mod tests;
