//! Guest memory from both sides.

use proptest::prelude::*;
use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};
use rustix::io::Errno;
use vmbus_ringbuf::Memory;

use super::super::transport::{Hello, TRANSPORT_VERSION};
use super::*;

const PAGES: u64 = 64;

fn both() -> (Arc<GuestMemory>, HostMemory) {
    let layout = Layout::new(1, Layout::address(PAGES)).unwrap();
    let guest = GuestMemory::new(layout).unwrap();
    let hello = Hello { version: TRANSPORT_VERSION, processors: 1, memory_bytes: layout.bytes() };
    let host = HostMemory::new(guest.as_fd().try_clone_to_owned().unwrap(), hello).unwrap();
    (guest, host)
}

#[test]
fn the_layout_is_what_both_sides_think() {
    let layout = Layout::new(3, 1 << 20).unwrap();
    assert_eq!([0, 1, 2, 3].map(|vp| layout.event_flags_page(vp)), [Some(1), Some(2), Some(3), None]);
    let fixed = [layout.interrupt_page(), layout.parent_to_child_page(), layout.child_to_parent_page()];
    assert_eq!((fixed, layout.first_free_page(), layout.pages()), ([4, 5, 6], 7, 256));
    assert_eq!(Layout::event_flags_offset(), 512);
    assert!(Layout::new(3, 7 * 4096).is_err() && Layout::new(3, 8 * 4096).is_ok());
}

#[test]
fn nobody_can_change_the_size_any_more() {
    let (guest, _) = both();
    for bytes in [0, Layout::address(PAGES - 1), Layout::address(PAGES + 1)] {
        assert_eq!(ftruncate(&guest, bytes), Err(Errno::PERM));
    }
    assert_eq!(fcntl_add_seals(&guest, SealFlags::FUTURE_WRITE), Err(Errno::PERM));
}

#[test]
fn pages_come_back_as_zeroes() {
    let (guest, host) = both();
    let free = guest.free_pages();
    assert_eq!(free, PAGES - 5);
    let pages = guest.allocate(free).unwrap();
    let numbers: Vec<u64> = pages.numbers().collect();
    assert_eq!(numbers, (5..PAGES).collect::<Vec<_>>());
    assert!(guest.allocate(1).is_err() && guest.allocate(0).is_err());
    host.write(&numbers, 0, &vec![0xAA; numbers.len() * PAGE_BYTES]).unwrap();
    drop(pages);
    assert_eq!(guest.free_pages(), free);
    let numbers: Vec<u64> = guest.allocate(free).unwrap().numbers().collect();
    let mut all = vec![1; numbers.len() * PAGE_BYTES];
    host.read(&numbers, 0, &mut all).unwrap();
    assert!(all.iter().all(|byte| *byte == 0));
}

#[test]
fn pages_that_are_not_there_are_refused() {
    let (_guest, host) = both();
    let mut byte = [0];
    let last = PAGES - 1;
    for pages in [vec![0], vec![PAGES], vec![u64::MAX], vec![last, 1 << 52], vec![]] {
        assert!(host.ring(&pages).is_err() && host.map(&pages).is_err(), "{pages:?}");
        let offset = pages.len().saturating_sub(1) * PAGE_BYTES;
        assert!(
            host.read(&pages, offset, &mut byte).is_err() && host.write(&pages, offset, &[1]).is_err(),
            "{pages:?}"
        );
    }
    assert!(host.read(&[last], PAGE_BYTES - 1, &mut byte).is_ok() && host.read(&[last], 0, &mut []).is_ok());
    for offset in [PAGE_BYTES, usize::MAX] {
        assert!(host.read(&[last], offset, &mut byte).is_err(), "{offset}");
    }
    assert!(host.ring(&[5]).is_err(), "no data");
    assert!(host.ring(&[5, 5]).is_ok(), "a strange ring, but nobody's harm but the guest's");
}

/// A ring of scattered pages, written at one end and read at the other, across its end and across page borders.
#[test]
fn a_ring_of_scattered_pages_is_one_ring_at_both_ends() {
    let (guest, host) = both();
    let numbers = [40_u64, 9, 30, 31, 7];
    let (ring, _) = crate::memory::map_ring_pages(guest.as_fd(), &numbers).unwrap();
    let (seen, _) = host.ring(&numbers).unwrap();
    let bytes: Vec<u8> = (0..ring.data_bytes()).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let start = ring.data_bytes() - 16;
    ring.write(start, &bytes);
    let mut back = vec![0; bytes.len()];
    seen.read(start, &mut back);
    assert_eq!(back, bytes);
    let mut first = [0; 4];
    host.read(&numbers, PAGE_BYTES, &mut first).unwrap();
    assert_eq!(first, bytes[16..20], "what goes past the end lies in the first page of the data");
    ring.store(vmbus_ringbuf::ControlField::WriteIndex, 24);
    host.read(&[40], 0, &mut first).unwrap();
    assert_eq!(first, [24, 0, 0, 0], "the control page is the first of the list");
}

/// A ring of neighbours is looked at where it lies, the end of its data included; any other list is a ring as well, or
/// is refused as a ring is. (Red with the view one page off, and without the check of the pages.)
#[test]
fn a_view_is_the_same_ring() {
    let (guest, host) = both();
    for numbers in [[20_u64, 21, 22, 23], [20, 22, 21, 23], [60, 61, 62, 63]] {
        let (ring, _) = crate::memory::map_ring_pages(guest.as_fd(), &numbers).unwrap();
        let seen = host.view(&numbers).unwrap();
        assert_eq!(seen.data_bytes(), ring.data_bytes());
        let bytes: Vec<u8> = (0..64).collect();
        ring.write(ring.data_bytes() - 32, &bytes);
        let mut back = [0; 64];
        seen.read(ring.data_bytes() - 32, &mut back);
        assert_eq!(back, bytes[..], "{numbers:?}");
        seen.store(vmbus_ringbuf::ControlField::ReadIndex, 40);
        assert_eq!(ring.load(vmbus_ringbuf::ControlField::ReadIndex), 40, "{numbers:?}");
    }
    for pages in [vec![0, 1], vec![PAGES - 1, PAGES], vec![u64::MAX, 0], vec![5], vec![]] {
        assert!(host.view(&pages).is_err(), "{pages:?}");
    }
}

/// Few pages are overwritten and many are dropped; either way they are zeroes when they are taken again. (Red with
/// nothing written where few are overwritten, and without the hole.)
#[test]
fn what_was_in_few_or_many_pages_is_gone() {
    let (guest, host) = both();
    for pages in [1_u64, 16, 17, 40] {
        let taken = guest.allocate(pages).unwrap();
        let numbers: Vec<u64> = taken.numbers().collect();
        let mut bytes = vec![1; numbers.len() * PAGE_BYTES];
        host.write(&numbers, 0, &bytes).unwrap();
        drop(taken);
        host.read(&numbers, 0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "{pages} pages");
    }
}

proptest! {
    /// The host's reads and writes against one plain vector of what lies in the pages, for any list of pages (each once)
    /// and any place. (Seen to fail with pages joined that are no neighbours.)
    #[test]
    fn the_host_reaches_what_the_pages_hold(
        pages in Just((5..PAGES).collect::<Vec<_>>()).prop_shuffle(),
        count in 1_usize..8,
        writes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (guest, host) = both();
        let pages = &pages[..count];
        let mapping = crate::memory::map_pages(guest.as_fd(), pages).unwrap();
        let mut model = vec![0_u8; count * PAGE_BYTES];
        for (start, length, fill) in writes {
            let start = start.index(model.len());
            let length = length.index(model.len() - start + 1);
            host.write(pages, start, &vec![fill; length]).unwrap();
            model[start..start + length].fill(fill);
        }
        let mut all = vec![1; model.len()];
        host.read(pages, 0, &mut all).unwrap();
        prop_assert!(all == model);
        for offset in (0..model.len()).step_by(508) {
            let word = u32::from_le_bytes(model[offset..offset + 4].try_into().unwrap());
            prop_assert_eq!(mapping.load(offset), Some(word), "the guest sees the same");
        }
    }
}
