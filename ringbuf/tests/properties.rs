//! Property tests: every memory against the plain model, readers and writers against hostile memory.

mod support;

use core::sync::atomic::AtomicU64;

use proptest::collection::vec;
use proptest::prelude::*;
use vmbus_ringbuf::doubles::{PlainMemory, drive, model};
use vmbus_ringbuf::{Mapped, Memory};

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

proptest! {
    // A failure prints its input, shrunk; it is added as a test by hand, not to a file that tests write.
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plain_memory_agrees_with_the_model(data_words in 4_u32..600, script in vec(any::<u8>(), 0..1200)) {
        model::round_trip(&PlainMemory::new(data_words * 8), &script);
    }

    #[test]
    fn contiguous_memory_agrees_with_the_model(data_words in 4_usize..2600, script in vec(any::<u8>(), 0..2400)) {
        let (control, data) = (words(512), words(data_words));
        model::round_trip(&Mapped::in_memory(&control, &data).unwrap(), &script);
    }

    #[test]
    fn mirrored_memory_agrees_with_the_model(pages in 1_u32..6, script in vec(any::<u8>(), 0..2400)) {
        let memory = support::mirrored_pair(pages).0;
        prop_assert!(memory.is_mirrored());
        model::round_trip(&memory, &script);
    }

    /// Wherever an access begins and ends: all memories answer alike, also out of range.
    #[test]
    fn memories_answer_alike(offset in 0_u32..9000, length in 0_usize..9000, seed in any::<u8>()) {
        let (control, data) = (words(512), words(512));
        let contiguous = Mapped::in_memory(&control, &data).unwrap();
        let mirrored = support::mirrored_pair(1).0;
        let plain = PlainMemory::new(4096);
        let source: Vec<u8> = (0..length).map(|index| seed.wrapping_add((index % 253).to_le_bytes()[0])).collect();
        let outcome = |memory: &dyn Fn(&[u8], &mut [u8]) -> u64| {
            let (mut back, mut all) = (vec![1; length], vec![2; 4096]);
            let word = memory(&source, &mut back);
            memory(&[], &mut all);
            (back, all, word)
        };
        let expected = outcome(&|source, back| access(&plain, offset, source, back));
        prop_assert!(outcome(&|source, back| access(&contiguous, offset, source, back)) == expected, "contiguous");
        let answer = outcome(&|source, back| access(&mirrored, offset, source, back));
        prop_assert!(answer == expected || offset >= 4096 || length > 4096, "mirrored");
    }

    #[test]
    fn a_reader_withstands_hostile_memory(script in vec(any::<u8>(), 0..6000)) {
        drive::read_hostile(&script);
    }

    #[test]
    fn a_writer_withstands_hostile_memory(script in vec(any::<u8>(), 0..6000)) {
        drive::write_hostile(&script);
    }
}

fn access(memory: &impl Memory, offset: u32, source: &[u8], back: &mut [u8]) -> u64 {
    if source.is_empty() && back.len() == 4096 {
        memory.read(0, back);
        return 0;
    }
    memory.write(offset, source);
    memory.read(offset, back);
    if offset >= 4096 {
        return 0;
    }
    memory.store_words(offset, [u64::from(offset), 3, 4]);
    let [first, second, third] = memory.load_words(offset);
    first ^ second << 20 ^ third << 40
}
