//! All free memory, filled with a pattern and checked; and which frames of memory somebody has.
//!
//! Frames: `/proc/self/pagemap`, a word a page, bit 63 present, bits 0-54 the frame (0 without CAP_SYS_ADMIN).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;
use rustix::param::page_size;
use serde::Serialize;
use vmbus::memory::Ring;
use vmbus_ringbuf::Memory as _;

use crate::hammer::PATTERNS;

/// What the memory is filled with: no word of the writers'.
const FILL: u64 = 0xc3c3_0003_c3c3_0003;
/// Words that are taken in one go: 1 MiB.
const CHUNK_WORDS: usize = (1 << 20) / 8;

/// What was found in memory that nobody else should have written to.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Damage {
    /// Words that were not as they had been left.
    pub(super) words: u64,
    /// Of these, words of the writers.
    pub(super) of_writers: u64,
    /// The first of them, as it was found.
    pub(super) first: Option<String>,
    /// Times that all memory was looked through.
    pub(super) checks: u64,
    /// Memory that was taken, most of all rounds.
    pub(super) taken_mib: usize,
    /// Pages of the rings, as they were before the device went, that were among those taken.
    pub(super) ring_pages_taken: usize,
}

/// Memory that was taken and filled.
#[derive(Debug)]
pub(super) struct Taken {
    chunks: Vec<Vec<u64>>,
}

impl Taken {
    /// Takes memory until only so much is free, and fills it.
    pub(super) fn all(reserve_kib: u64, most_mib: usize) -> anyhow::Result<Self> {
        let mut chunks = Vec::new();
        let mut spare = 0;
        while chunks.len() < most_mib {
            // As many as were free a moment ago, but for the last ones.
            if spare == 0 {
                spare = free_kib()?.saturating_sub(reserve_kib) / 1024 / 2;
            }
            if spare == 0 {
                break;
            }
            spare -= 1;
            chunks.push(vec![FILL; CHUNK_WORDS]);
        }
        Ok(Self { chunks })
    }

    pub(super) fn mib(&self) -> usize {
        self.chunks.len()
    }

    /// Looks through all of it, and puts right what is wrong, so that each write is found once.
    pub(super) fn check(&mut self, found: &mut Damage) {
        for chunk in &mut self.chunks {
            // Somebody else may have written there, whatever the compiler knows of this vector.
            let chunk = black_box(chunk);
            if chunk.iter().fold(0, |differs, word| differs | (word ^ FILL)) == 0 {
                continue;
            }
            for word in chunk.iter_mut().filter(|word| **word != FILL) {
                found.words += 1;
                found.of_writers += u64::from(PATTERNS.contains(word));
                found.first.get_or_insert_with(|| format!("{:#x}", *word));
                *word = FILL;
            }
        }
        found.checks += 1;
        found.taken_mib = found.taken_mib.max(self.chunks.len());
    }

    /// How many of these frames are among those taken.
    pub(super) fn holds(&self, frames: &Frames) -> usize {
        if frames.0.is_empty() {
            return 0;
        }
        let of_chunk =
            |chunk: &Vec<u64>| frames_at(chunk.as_ptr().addr(), chunk.len().saturating_mul(8)).unwrap_or_default();
        let mine: BTreeSet<u64> = self.chunks.iter().flat_map(of_chunk).collect();
        frames.0.intersection(&mine).count()
    }

    #[cfg(test)]
    pub(super) fn chunks(&mut self) -> &mut [Vec<u64>] {
        &mut self.chunks
    }
}

/// Frames of memory. Empty where the kernel does not tell.
#[derive(Debug)]
pub(super) struct Frames(BTreeSet<u64>);

impl Frames {
    pub(super) fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// Those of rings: the control pages and the data.
    pub(super) fn of(rings: &[&Ring]) -> Self {
        let of_ring = |ring: &&Ring| {
            // Each page once, so that it is present.
            (0..ring.data_bytes() / 4096).for_each(|page| {
                black_box(ring.load_words::<1>(page * 4096));
            });
            frames_at(ring.owner().base().addr().get(), ring.owner().bytes()).unwrap_or_default()
        };
        Self(rings.iter().flat_map(of_ring).collect())
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// The frames of the pages that these bytes touch, those that are present and told.
fn frames_at(address: usize, bytes: usize) -> anyhow::Result<Vec<u64>> {
    let (first, last) = (address / page_size(), address.saturating_add(bytes).saturating_sub(1) / page_size());
    let mut words = vec![0; last.saturating_sub(first).saturating_add(1).saturating_mul(8)];
    let map = File::open("/proc/self/pagemap").context("open /proc/self/pagemap")?;
    map.read_exact_at(&mut words, u64::try_from(first)?.saturating_mul(8)).context("read /proc/self/pagemap")?;
    let (words, _) = words.as_chunks::<8>();
    let frame = |word: u64| (word >> 63 != 0).then_some(word & ((1 << 55) - 1)).filter(|frame| *frame != 0);
    Ok(words.iter().filter_map(|word| frame(u64::from_ne_bytes(*word))).collect())
}

/// Memory that is free now.
fn free_kib() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:")).context("no MemFree in /proc/meminfo")?;
    line.split_whitespace().next().and_then(|number| number.parse().ok()).context("MemFree is no number")
}
