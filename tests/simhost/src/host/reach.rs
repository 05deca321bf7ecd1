//! How a device reaches guest memory: by the pages of a GPADL, or by those that a packet names.

use vmbus_ringbuf::{GpaRange, Packet};

use crate::device::GuestRange;
use crate::memory::{Memory, PAGE_BYTES};

/// The ranges of a GPA-direct packet; `None` if they are none.
pub(super) fn ranges<R: vmbus_ringbuf::Memory>(packet: &Packet<'_, R>) -> Option<Vec<GuestRange>> {
    let range = |range: GpaRange<'_, R>| GuestRange {
        byte_offset: range.byte_offset,
        byte_count: range.byte_count,
        pages: range.page_frames().collect(),
    };
    packet.gpa_ranges().ok()?.map(|found| found.ok().map(range)).collect()
}

/// Copies bytes out of pages, from byte `offset` of them on. Whether they are there.
pub(super) fn read(memory: &impl Memory, pages: &[u64], offset: u64, destination: &mut [u8]) -> bool {
    let mut rest = destination;
    let bytes = rest.len();
    walk(pages, offset, bytes, |address, here| {
        let Some((part, behind)) = std::mem::take(&mut rest).split_at_mut_checked(here) else { return false };
        rest = behind;
        memory.read(address, part)
    })
}

/// Copies bytes into pages, likewise.
pub(super) fn write(memory: &impl Memory, pages: &[u64], offset: u64, source: &[u8]) -> bool {
    let mut rest = source;
    walk(pages, offset, source.len(), |address, here| {
        let Some((part, behind)) = rest.split_at_checked(here) else { return false };
        rest = behind;
        memory.write(address, part)
    })
}

/// Walks guest memory by page numbers: `each` gets an address and how many bytes are contiguous there.
fn walk(pages: &[u64], offset: u64, bytes: usize, mut each: impl FnMut(u64, usize) -> bool) -> bool {
    let (mut at, mut left) = (offset, bytes);
    while left != 0 {
        let page = usize::try_from(at / PAGE_BYTES).ok().and_then(|index| pages.get(index));
        let Some(page) = page else { return false };
        let inside = at % PAGE_BYTES;
        let here = usize::try_from(PAGE_BYTES - inside).unwrap_or(0).min(left);
        if !each(page.saturating_mul(PAGE_BYTES).saturating_add(inside), here) {
            return false;
        }
        at = at.saturating_add(u64::try_from(here).unwrap_or(0));
        left -= here;
    }
    true
}
