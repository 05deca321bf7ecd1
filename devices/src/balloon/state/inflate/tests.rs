//! Balloon requests against a guest that obeys the actions, with any amount of memory.

use crate::balloon::ranges::{self, RangeSet};
use crate::balloon::state::tests::{NOW, machine, memory, quiet, range};
use crate::balloon::state::{Action, Input, Limit, Machine, Notice, Settings};
use crate::balloon::wire::{GuestMessage, HostMessage, MAX_RANGES, PageRange, Version};
use proptest::prelude::*;
use std::collections::VecDeque;

/// A guest with memory that obeys the machine's actions, and checks them.
struct Guest {
    machine: Option<Machine>,
    available: u64,
    /// The most pages that can be taken at once; what the kernel can still give.
    largest: u64,
    /// Pages that vanish each time some are taken: somebody else's need.
    others: u64,
    granule: u32,
    next_frame: u64,
    /// Apart from each other, so that they don't merge.
    scattered: bool,
    held: Vec<PageRange>,
    /// Pages in `held`: counted as they come and go, as there may be tens of thousands of ranges.
    held_pages: u64,
    sent: Vec<(bool, Vec<PageRange>)>,
    notices: Vec<Notice>,
    floor_pages: u64,
}

impl Guest {
    fn new(settings: Settings, available: u64) -> Self {
        let (granule, floor_pages) = (settings.granule_pages, settings.floor_pages);
        Self {
            machine: Some(Machine { settings, ..machine(quiet(Version::V2_0)) }),
            available,
            largest: u64::MAX,
            others: 0,
            granule,
            next_frame: 1 << 20,
            scattered: false,
            held: Vec::new(),
            held_pages: 0,
            sent: Vec::new(),
            notices: Vec::new(),
            floor_pages,
        }
    }

    fn balloon(&mut self, requests: &[u32]) {
        let mut events: VecDeque<Input> =
            requests.iter().map(|pages| Input::Message(HostMessage::BalloonRequest { pages: *pages })).collect();
        // The request itself, a look and a chunk for each page of this system, four times less (an eighth each) and once
        // in vain, each with a look before it, and the last look.
        let granules: u64 = requests.iter().map(|pages| u64::from(pages / self.granule)).sum();
        let mut left = 2 * granules + 12 * requests.len() as u64;
        while let Some(event) = events.pop_front() {
            left = left.checked_sub(1).expect("endless");
            let (machine, actions) = self.machine.take().unwrap().step(NOW, event);
            self.machine = Some(machine);
            events.extend(actions.into_iter().filter_map(|action| self.act(action)));
        }
    }

    fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Measure => return Some(Input::Measured(memory(self.available, self.held_pages))),
            Action::Take(pages) => return Some(self.take(pages)),
            Action::Undo(ranges) => {
                let mut held = RangeSet::default();
                self.held.iter().for_each(|range| held.insert(range.start, range.end()));
                let removed = ranges.iter().flat_map(|range| held.remove(range.start, range.end()));
                let pages: u64 = removed.map(|(from, to)| to - from).sum();
                assert_eq!(pages, ranges::count(&ranges));
                self.held = held.runs().map(|(from, to)| range(from, u32::try_from(to - from).unwrap())).collect();
                self.held_pages -= pages;
                self.available += pages;
            }
            Action::Send(_, message) => {
                let GuestMessage::BalloonResponse { more, ranges } = &message else { panic!("{message:?}") };
                assert!(message.to_bytes(0).len() <= 4096 && ranges.len() <= MAX_RANGES);
                self.sent.push((*more, ranges.clone()));
                let floor = self.floor_pages.max(memory(0, self.held_pages).floor_pages());
                let kept = self.available >= floor || ranges.is_empty();
                assert!(kept, "{} pages are available, the floor is {floor}", self.available);
            }
            Action::Notify(notice) => self.notices.push(notice),
            other => panic!("{other:?}"),
        }
        None
    }

    fn take(&mut self, pages: u32) -> Input {
        assert_eq!(pages % self.granule, 0);
        assert!(pages > 0);
        if u64::from(pages) > self.largest.min(self.available) {
            return Input::NotTaken;
        }
        let step = if self.scattered { 1 } else { pages };
        let mut ranges = Vec::new();
        for _ in (0..pages).step_by(usize::try_from(step).unwrap()) {
            ranges.push(range(self.next_frame, step));
            self.next_frame += u64::from(step) + u64::from(self.scattered);
        }
        self.held.extend(&ranges);
        self.held_pages += u64::from(pages);
        self.available = self.available.saturating_sub(u64::from(pages) + self.others);
        Input::Taken(ranges)
    }

    /// The pages of all responses, which must end with one that says so.
    fn reported(&self) -> u64 {
        let (last, before) = self.sent.split_last().expect("an answer");
        assert!(!last.0, "the last response says that more follow");
        assert!(before.iter().all(|(more, _)| *more), "a response in the middle says that it is the last");
        let mut reported: Vec<_> = self.sent.iter().flat_map(|(_, ranges)| ranges.clone()).collect();
        let mut held = self.held.clone();
        ranges::merge(&mut reported);
        ranges::merge(&mut held);
        assert_eq!(reported, held, "the host was told of what is held, and of nothing else");
        ranges::count(&reported)
    }
}

fn ballooned(requested: u64, pages: u64, limit: Option<Limit>) -> Notice {
    Notice::Ballooned { requested, pages, limit }
}

#[test]
fn thirty_two_mebibytes_come_as_one_range() {
    let mut guest = Guest::new(Settings::default(), 100_000);
    guest.balloon(&[8192]);
    assert_eq!(guest.sent, [(false, vec![range(1 << 20, 8192)])]);
    assert_eq!(guest.notices, [ballooned(8192, 8192, None)]);
}

#[test]
fn scattered_pages_come_in_several_responses() {
    let mut guest = Guest { scattered: true, ..Guest::new(Settings::default(), 100_000) };
    guest.balloon(&[1300]);
    assert_eq!(guest.reported(), 1300);
    assert_eq!(guest.sent.len(), 3);
}

#[test]
fn a_large_request_is_reported_as_it_goes() {
    let mut guest = Guest::new(Settings { floor_pages: 0, ..Settings::default() }, 10_000_000);
    guest.balloon(&[200_000]);
    assert_eq!(guest.reported(), 200_000);
    assert_eq!(guest.sent.len(), 13);
}

#[test]
fn what_is_left_out_has_a_reason() {
    let floor = 168 * 256;
    let cases = [
        // Nothing above the floor: an empty last response, as the kernel driver gives.
        (Settings::default(), floor, u64::MAX, 8192, 0, Some(Limit::Floor)),
        (Settings { floor_pages: 99_000, ..Settings::default() }, 100_000, u64::MAX, 8192, 1000, Some(Limit::Floor)),
        // No memory at all, and only small pieces.
        (Settings::default(), 100_000, 0, 8192, 0, Some(Limit::Memory)),
        (Settings::default(), 100_000, 3, 8192, 8192, None),
        (Settings::default(), 100_000, u64::MAX, 0, 0, None),
        (Settings::default(), 100_000, u64::MAX, 513, 513, None),
        // Pages of 64 KiB: what isn't a whole page is left out.
        (Settings { granule_pages: 16, ..Settings::default() }, 100_000, 16, 8201, 8192, None),
    ];
    for (settings, available, largest, requested, pages, limit) in cases {
        let mut guest = Guest { largest, ..Guest::new(settings, available) };
        guest.balloon(&[requested]);
        assert_eq!(guest.reported(), pages);
        assert_eq!(guest.notices, [ballooned(u64::from(requested), pages, limit)]);
    }
}

#[test]
fn a_chunk_that_crosses_the_floor_goes_straight_back() {
    let settings = Settings { floor_pages: 90_000, ..Settings::default() };
    let mut guest = Guest { others: 1000, ..Guest::new(settings, 92_000) };
    guest.balloon(&[8192]);
    // 92,000 - 512 - 1,000 is above the floor; the next chunk leaves 88,976: it goes back, and all of the first.
    assert_eq!(guest.notices, [ballooned(8192, 0, Some(Limit::Floor))]);
    assert_eq!(guest.reported(), 0);
    let mut guest = Guest { others: 800, ..Guest::new(settings, 92_000) };
    guest.balloon(&[8192]);
    // 92,000 - 2 * 1,312 = 89,376, of which 800 came from others: 112 pages of the first chunk go back.
    assert_eq!(guest.notices, [ballooned(8192, 400, Some(Limit::Floor))]);
    assert_eq!(guest.reported(), 400);
}

#[test]
fn a_request_during_another_one_waits_for_its_end() {
    let mut guest = Guest::new(Settings::default(), 100_000);
    guest.balloon(&[1000, 7, 8]);
    let unexpected = Notice::Unexpected("balloon request during another one");
    assert_eq!(guest.notices, [unexpected, unexpected, ballooned(1000, 1000, None), ballooned(8, 8, None)]);
    let answers: Vec<_> = guest.sent.iter().map(|(more, ranges)| (*more, ranges::count(ranges))).collect();
    assert_eq!(answers, [(false, 1000), (false, 8)]);
}

/// The most chunks that the cases below can come to: this double once counted all pages at each step, which took seconds,
/// and gave up at half of the chunks.
#[test]
fn sixty_thousand_pages_come_one_by_one() {
    for (scattered, largest, chunk_pages) in [(false, u64::MAX, 1), (true, u64::MAX, 1), (true, 1, 512)] {
        let settings = Settings { chunk_pages, ..Settings::default() };
        let mut guest = Guest { largest, scattered, ..Guest::new(settings, 131_071) };
        guest.balloon(&[60_000]);
        assert_eq!(guest.reported(), 60_000);
    }
}

proptest! {
    /// However the memory behaves: the host is told of exactly what is held, and the floor holds each time it is told.
    #[test]
    fn the_floor_is_never_crossed(
        floor_pages in 0_u64..80_000, available in 0_u64..131_072, largest in 0_u64..1024, others in 0_u64..600,
        requested in 0_u32..60_000, scattered: bool, chunk_pages in prop::sample::select(vec![1_u32, 64, 512]),
        granule_pages in prop::sample::select(vec![1_u32, 4, 16]),
    ) {
        let settings = Settings { floor_pages, chunk_pages, granule_pages, ..Settings::default() };
        let mut guest = Guest { largest, others, scattered, ..Guest::new(settings, available) };
        guest.balloon(&[requested]);
        let reported = guest.reported();
        prop_assert!(reported <= u64::from(requested));
    }
}
