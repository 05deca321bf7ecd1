use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

/// A machine's memory: which frames are taken now. Checks that nothing goes back twice.
#[derive(Debug, Default)]
struct Frames {
    taken: HashSet<u64>,
    /// Calls of `give_back` to fail from now on.
    fail: usize,
}

/// Hands out frames in the order of a list, so that chunks are as scattered as it is.
#[derive(Debug)]
struct Double {
    granule: u32,
    frames: Arc<Mutex<Frames>>,
    free: Vec<u64>,
}

#[derive(Debug)]
struct DoubleChunk {
    frames: Vec<u64>,
    held: BTreeSet<usize>,
    machine: Arc<Mutex<Frames>>,
}

impl Double {
    fn new(granule: u32, free: impl IntoIterator<Item = u64>) -> (Self, Arc<Mutex<Frames>>) {
        let frames = Arc::new(Mutex::new(Frames::default()));
        let mut free: Vec<u64> = free.into_iter().collect();
        free.reverse();
        (Self { granule, frames: Arc::clone(&frames), free }, frames)
    }
}

impl PagePool for Double {
    type Chunk = DoubleChunk;

    fn granule_pages(&self) -> u32 {
        self.granule
    }

    fn take(&mut self, count: usize) -> Result<Option<DoubleChunk>, Error> {
        if count > self.free.len() {
            return Ok(None);
        }
        let frames: Vec<u64> = (0..count).filter_map(|_| self.free.pop()).collect();
        self.frames.lock().unwrap().taken.extend(&frames);
        Ok(Some(DoubleChunk { held: (0..count).collect(), frames, machine: Arc::clone(&self.frames) }))
    }

    fn frames(chunk: &DoubleChunk) -> &[u64] {
        &chunk.frames
    }

    fn give_back(&mut self, chunk: &mut DoubleChunk, pages: Range<usize>) -> Result<(), Error> {
        let mut machine = self.frames.lock().unwrap();
        if machine.fail > 0 {
            machine.fail -= 1;
            return Err(Error::malformed("double", "nothing", "a failure"));
        }
        for page in pages {
            assert!(chunk.held.remove(&page), "page {page} was given back twice");
            assert!(machine.taken.remove(&chunk.frames[page]));
        }
        Ok(())
    }
}

impl Drop for DoubleChunk {
    fn drop(&mut self) {
        let mut machine = self.machine.lock().unwrap();
        for page in &self.held {
            assert!(machine.taken.remove(&self.frames[*page]));
        }
    }
}

fn range(start: u64, count: u32) -> PageRange {
    PageRange { start, count }
}

#[test]
fn ranges_are_sorted_and_merged() {
    let (pool, _) = Double::new(1, [7, 3, 4, 5, 9, 8, 100]);
    let mut book = Book::new(pool);
    assert_eq!(book.take(7).unwrap().unwrap(), [range(3, 3), range(7, 3), range(100, 1)]);
    assert_eq!(book.pages(), 7);
    assert_eq!(book.take(1).unwrap(), None, "there are no more");
}

#[test]
fn only_what_the_host_was_told_of_comes_back_from_it() {
    let (pool, machine) = Double::new(1, 10..30);
    let mut book = Book::new(pool);
    let first = book.take(10).unwrap().unwrap();
    assert_eq!(book.release(&first), Released { pages: 0, foreign: 10 });
    book.report(&first);
    let second = book.take(10).unwrap().unwrap();
    // Across both, and beyond.
    assert_eq!(book.release(&[range(15, 100)]), Released { pages: 5, foreign: 95 });
    assert_eq!(machine.lock().unwrap().taken.len(), 15);
    book.undo(&second);
    assert_eq!(machine.lock().unwrap().taken.len(), 5);
    assert_eq!(book.release(&[range(10, 5), range(10, 5)]), Released { pages: 5, foreign: 5 });
    assert_eq!(book.pages(), 0);
    assert!(machine.lock().unwrap().taken.is_empty());
    assert!(book.chunks.is_empty() && book.runs.is_empty());
}

#[test]
fn frames_that_cannot_be_are_refused_and_given_back() {
    for frames in [vec![1 << 40], vec![u64::MAX], vec![1, (1 << 40) - 1, 1 << 40]] {
        let (pool, machine) = Double::new(1, [1_000].into_iter().chain(frames.clone()));
        let mut book = Book::new(pool);
        book.take(1).unwrap().unwrap();
        let count = u32::try_from(frames.len()).unwrap();
        assert!(matches!(book.take(count), Err(Error::Malformed { .. })), "{frames:?}");
        assert_eq!(book.pages(), 1);
        assert_eq!(machine.lock().unwrap().taken.len(), 1);
    }
}

#[test]
fn a_page_of_this_system_goes_back_when_all_of_it_did() {
    let (pool, machine) = Double::new(16, [2, 3, 4]);
    let mut book = Book::new(pool);
    assert_eq!(book.take(15).unwrap(), None, "less than one page");
    let ranges = book.take(48 + 15).unwrap().unwrap();
    assert_eq!(ranges, [range(32, 48)]);
    book.report(&ranges);
    let taken = |machine: &Arc<Mutex<Frames>>| machine.lock().unwrap().taken.len();
    assert_eq!(book.release(&[range(40, 30)]), Released { pages: 30, foreign: 0 });
    assert_eq!(taken(&machine), 2, "only the one in the middle is free as a whole");
    assert_eq!(book.release(&[range(32, 7)]).pages, 7);
    assert_eq!(taken(&machine), 2);
    assert_eq!(book.release(&[range(39, 1)]).pages, 1);
    assert_eq!(taken(&machine), 1);
    assert_eq!(book.pages(), 10);
    assert_eq!(book.release(&[range(0, 1000)]), Released { pages: 10, foreign: 990 });
    assert_eq!(taken(&machine), 0);
}

#[test]
fn a_chunk_that_cannot_be_cut_is_tried_again() {
    let (pool, machine) = Double::new(1, 0..10);
    let mut book = Book::new(pool);
    let ranges = book.take(10).unwrap().unwrap();
    book.report(&ranges);
    machine.lock().unwrap().fail = 1;
    assert_eq!(book.release(&[range(2, 3)]).pages, 3);
    assert_eq!((book.pages(), machine.lock().unwrap().taken.len()), (7, 10));
    assert_eq!(book.release(&[range(0, 1)]).pages, 1);
    assert_eq!((book.pages(), machine.lock().unwrap().taken.len()), (6, 6));
    machine.lock().unwrap().fail = usize::MAX;
    book.release(&[range(1, 1)]);
    book.release(&[range(0, 100)]);
    assert_eq!(machine.lock().unwrap().taken.len(), 0, "the last page takes the chunk with it");
}

#[test]
fn everything_goes_back_at_the_end() {
    let (pool, machine) = Double::new(1, (0..100).rev());
    let mut book = Book::new(pool);
    let ranges = book.take(60).unwrap().unwrap();
    book.report(&ranges);
    book.take(20).unwrap().unwrap();
    assert_eq!(book.release_all(), 80);
    assert_eq!((book.pages(), machine.lock().unwrap().taken.len()), (0, 0));
    book.take(10).unwrap().unwrap();
    drop(book);
    assert_eq!(machine.lock().unwrap().taken.len(), 0);
}

#[test]
fn long_runs_are_split_as_the_wire_needs() {
    let most = u64::from(PageRange::MAX_COUNT);
    let ranges: Vec<_> = split(5, 5 + most * 2 + 1).collect();
    assert_eq!(ranges, [range(5, PageRange::MAX_COUNT), range(5 + most, PageRange::MAX_COUNT), range(5 + 2 * most, 1)]);
    let mut merged = ranges.clone();
    crate::balloon::ranges::merge(&mut merged);
    assert_eq!(merged, ranges);
}

/// 32 MiB of real memory, as 2 MiB chunks, given back in pieces that cross the chunks. Skipped, saying so, where the
/// kernel lets this process not pin memory: the guest lab runs the same code on one that does.
#[test]
fn real_pages_go_out_and_come_back_in_other_pieces() {
    let pinner = match Pinner::open() {
        Ok(pinner) => pinner,
        Err(error) => return eprintln!("SKIPPED real_pages_go_out_and_come_back_in_other_pieces: {error}"),
    };
    let mut book = Book::new(pinner);
    let mut told = Vec::new();
    for _ in 0..16 {
        let ranges = book.take(512).unwrap().expect("memory");
        book.report(&ranges);
        told.extend(ranges);
    }
    crate::balloon::ranges::merge(&mut told);
    assert_eq!((book.pages(), crate::balloon::ranges::count(&told)), (8192, 8192));
    // The host cuts what it has into runs of at most 700 pages, and begins at the end.
    let pieces = told.iter().flat_map(|range| {
        (range.start..range.end())
            .step_by(700)
            .map(|start| PageRange { start, count: u32::try_from((range.end() - start).min(700)).unwrap() })
    });
    let pieces: Vec<_> = pieces.collect();
    let mut left = 8192;
    for piece in pieces.iter().rev() {
        let pages = u64::from(piece.count);
        assert_eq!(book.release(&[*piece]), Released { pages, foreign: 0 });
        left -= pages;
        assert_eq!(book.pages(), left);
    }
    assert_eq!(left, 0);
    assert!(book.chunks.is_empty() && book.runs.is_empty() && book.stuck.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Take(u32),
    /// Keep what the host wasn't told of, or not.
    Settle(bool),
    Release(Vec<PageRange>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ranges = prop::collection::vec((0_u64..300, 0_u32..60).prop_map(|(start, count)| range(start, count)), 0..6);
    let step = prop_oneof![
        (0_u32..40).prop_map(Step::Take),
        any::<bool>().prop_map(Step::Settle),
        ranges.prop_map(Step::Release),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// However the host merges, splits, reorders, repeats or invents ranges: exactly what it has comes back.
    #[test]
    fn any_order_of_give_backs_agrees_with_a_set_of_frames(
        order in Just((0_u64..256).collect::<Vec<_>>()).prop_shuffle(), scatter in any::<bool>(), steps in steps()
    ) {
        let (pool, machine) = Double::new(1, if scatter { order } else { (0..256).collect() });
        let mut book = Book::new(pool);
        let (mut told, mut untold): (BTreeSet<u64>, Vec<PageRange>) = Default::default();
        let frames = |ranges: &[PageRange]| ranges.iter().flat_map(|range| range.start..range.end()).collect::<Vec<_>>();
        for step in steps {
            match step {
                Step::Take(pages) => untold.extend(book.take(pages).unwrap().unwrap_or_default()),
                Step::Settle(true) => {
                    book.report(&untold);
                    told.extend(frames(&untold));
                    untold.clear();
                }
                Step::Settle(false) => {
                    book.undo(&untold);
                    untold.clear();
                }
                Step::Release(ranges) => {
                    let named = frames(&ranges);
                    let pages = named.iter().filter(|frame| told.remove(frame)).count();
                    let expected = Released { pages: pages as u64, foreign: (named.len() - pages) as u64 };
                    prop_assert_eq!(book.release(&ranges), expected);
                }
            }
            let expected: HashSet<u64> = told.iter().copied().chain(frames(&untold)).collect();
            prop_assert_eq!(&machine.lock().unwrap().taken, &expected);
            prop_assert_eq!(book.pages(), expected.len() as u64);
        }
        drop(book);
        prop_assert!(machine.lock().unwrap().taken.is_empty());
    }

    #[test]
    fn a_range_set_is_a_set(operations in prop::collection::vec((any::<bool>(), 0_u64..100, 0_u64..30), 0..60)) {
        let (mut set, mut model) = (RangeSet::default(), BTreeSet::new());
        for (insert, start, length) in operations {
            let end = start + length;
            if insert {
                set.insert(start, end);
                model.extend(start..end);
            } else {
                let removed: Vec<u64> = set.remove(start, end).into_iter().flat_map(|(from, to)| from..to).collect();
                let expected: Vec<u64> = (start..end).filter(|frame| model.remove(frame)).collect();
                prop_assert_eq!(removed, expected);
            }
            prop_assert_eq!(set.count(), model.len() as u64);
            prop_assert!(set.runs().flat_map(|(from, to)| from..to).eq(model.iter().copied()));
            prop_assert_eq!(set.touches(start, end), model.range(start..end).next().is_some());
        }
    }
}
