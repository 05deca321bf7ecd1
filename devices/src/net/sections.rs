//! Which sections of the send buffer are in use. Any queue takes one, and gives it back when the host has read it.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const BITS: u32 = u64::BITS;

/// The sections of the send buffer: a bit for each, set while it is in use.
#[derive(Debug)]
pub(super) struct Sections {
    words: Vec<AtomicU64>,
    /// Where to look first.
    hint: AtomicUsize,
    count: u32,
}

impl Sections {
    /// So many, all free.
    pub(super) fn new(count: u32) -> Self {
        let words = (0..count.div_ceil(BITS)).map(|word| {
            let here = count.saturating_sub(word * BITS).min(BITS);
            // Those behind the last one are in use for ever.
            AtomicU64::new(u64::MAX.checked_shl(here).unwrap_or(0))
        });
        Self { words: words.collect(), hint: AtomicUsize::new(0), count }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Takes a free one.
    pub(super) fn take(&self) -> Option<u32> {
        let first = self.hint.load(Ordering::Relaxed);
        let places = self.words.iter().enumerate();
        places.clone().skip(first).chain(places.take(first)).find_map(|(index, word)| {
            let mut before = word.load(Ordering::Relaxed);
            while before != u64::MAX {
                let bit = before.trailing_ones();
                // Whoever takes it sees that the host is done with it: the giver had heard so.
                match word.compare_exchange_weak(before, before | 1 << bit, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => {
                        self.hint.store(index, Ordering::Relaxed);
                        return Some(u32::try_from(index).ok()? * BITS + bit);
                    }
                    Err(now) => before = now,
                }
            }
            None
        })
    }

    /// Gives one back that was taken.
    pub(super) fn give(&self, section: u32) {
        let word = usize::try_from(section / BITS).ok().and_then(|index| self.words.get(index));
        if section < self.count
            && let Some(word) = word
        {
            word.fetch_and(!(1 << (section % BITS)), Ordering::Release);
        }
    }

    /// How many are in use.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> u32 {
        let set: u32 = self.words.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum();
        set.saturating_sub(self.count.div_ceil(BITS) * BITS - self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_section_is_taken_once_and_again_when_it_is_given_back() {
        for count in [1, 63, 64, 65, 170] {
            let sections = Sections::new(count);
            let mut taken: Vec<_> = std::iter::from_fn(|| sections.take()).collect();
            assert_eq!((sections.in_use(), sections.take()), (count, None));
            taken.sort_unstable();
            assert_eq!(taken, (0..count).collect::<Vec<_>>());
            sections.give(count - 1);
            assert_eq!((sections.in_use(), sections.take(), sections.take()), (count - 1, Some(count - 1), None));
            // One that is none frees none.
            sections.give(count);
            sections.give(u32::MAX);
            assert_eq!(sections.take(), None);
        }
        assert_eq!(Sections::new(0).take(), None);
    }

    /// Few sections and many threads that want one: without the compare in `take` this fails within a moment.
    #[test]
    fn threads_never_have_the_same_one() {
        for count in [2, 3, 66] {
            let sections = Sections::new(count);
            let owned: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for round in 0..100_000_u32 {
                            let Some(section) = sections.take() else { continue };
                            let owner = &owned[section as usize];
                            assert_eq!(owner.swap(1, Ordering::Relaxed), 0, "section {section} is taken twice");
                            if round % 64 == 0 {
                                std::thread::yield_now();
                            }
                            owner.store(0, Ordering::Relaxed);
                            sections.give(section);
                        }
                    });
                }
            });
            assert_eq!(sections.in_use(), 0);
        }
    }
}
