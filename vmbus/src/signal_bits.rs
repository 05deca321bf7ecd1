//! The bits by which a guest signals its host: one for each channel, and one for each monitor id, which the host polls.
//!
//! Format: the interrupt page and `struct hv_monitor_page` of the TLFS (the kernel's is in drivers/hv/hyperv_vmbus.h):
//! a 32-bit state and a reserved word, then four trigger groups of `{pending: u32, armed: u32}`, a bit per monitor id.

use std::sync::Arc;

use crate::memory::Mapping;

/// Bytes of the interrupt page: a page of the hypervisor, whatever the system's page size is.
const INTERRUPT_PAGE_BYTES: usize = 4096;
/// The half of the interrupt page that the guest writes: where it begins, and its bytes.
pub(crate) const SEND_HALF: usize = INTERRUPT_PAGE_BYTES / 2;
/// Where the trigger groups begin in the monitor page.
pub(crate) const TRIGGER_GROUPS: usize = 8;
/// Bytes of a trigger group.
pub(crate) const TRIGGER_GROUP_BYTES: usize = 8;
/// Monitor ids in a trigger group.
const MONITORS_PER_GROUP: usize = 32;
/// Monitor ids that there can be.
const MONITORS: usize = 4 * MONITORS_PER_GROUP;

/// The bits of a channel.
#[derive(Debug, Clone)]
pub(crate) struct SignalBits {
    pages: Arc<SignalPages>,
    interrupt: Bit,
    /// Where the channel has a monitor id.
    pending: Option<Bit>,
}

/// The two pages that all channels share; each starts `offset` bytes into its mapping.
#[derive(Debug)]
pub(crate) struct SignalPages {
    pub(crate) interrupt: Arc<Mapping>,
    pub(crate) interrupt_offset: usize,
    pub(crate) monitor: Arc<Mapping>,
    pub(crate) monitor_offset: usize,
}

/// A bit of a 32-bit word at `offset` bytes into a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bit {
    offset: usize,
    mask: u32,
}

impl Bit {
    /// Bit `number` of an array of 32-bit words `stride` bytes apart that starts at `start`.
    fn of(start: usize, stride: usize, number: usize) -> Option<Self> {
        let offset = start.checked_add(number.checked_div(32)?.checked_mul(stride)?)?;
        let mask = 1_u32.checked_shl(u32::try_from(number % 32).ok()?)?;
        Some(Self { offset, mask })
    }
}

impl SignalBits {
    /// The bits of channel `relid`, and of its monitor id if it has one; `None` when either is out of range.
    pub(crate) fn new(pages: Arc<SignalPages>, relid: u32, monitor: Option<u8>) -> Option<Self> {
        let relid = usize::try_from(relid).ok().filter(|relid| *relid < SEND_HALF * 8)?;
        let interrupt = Bit::of(pages.interrupt_offset.checked_add(SEND_HALF)?, 4, relid)?;
        let groups = pages.monitor_offset.checked_add(TRIGGER_GROUPS)?;
        let pending = match monitor.map(usize::from) {
            Some(monitor) if monitor >= MONITORS => return None,
            Some(monitor) => Some(Bit::of(groups, TRIGGER_GROUP_BYTES, monitor)?),
            None => None,
        };
        Some(Self { pages, interrupt, pending })
    }

    /// Whether the host polls for this channel's signals; otherwise it must be called on top.
    pub(crate) fn is_polled(&self) -> bool {
        self.pending.is_some()
    }

    /// Sets the bits, the channel's first: the host, once it finds the monitor bit, looks for channels in the
    /// interrupt page, so that bit must be there by then. Both are sequentially consistent read-modify-writes, which
    /// other guests' CPUs and the host take part in; they also keep the ring's write index (published before the call)
    /// ahead of the bits. Says whether the channel's bit was clear: otherwise the host has been told and has not
    /// looked yet.
    pub(crate) fn set(&self) -> bool {
        let set = |mapping: &Mapping, bit: Bit| mapping.set_bits(bit.offset, bit.mask);
        let before = set(&self.pages.interrupt, self.interrupt);
        let polled = self.pending.is_none_or(|pending| set(&self.pages.monitor, pending).is_some());
        debug_assert!(before.is_some() && polled, "the pages are as large as `new` assumed");
        before.is_some_and(|before| before & self.interrupt.mask == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::param::page_size;

    use super::*;
    use crate::memory::Piece;

    fn page() -> Arc<Mapping> {
        let file = memfd_create("page", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, page_size() as u64).unwrap();
        Arc::new(Mapping::new(&[Piece { file: file.as_fd(), file_offset: 0, bytes: page_size() }]).unwrap())
    }

    fn bits(mapping: &Mapping) -> Vec<usize> {
        let word = |offset: usize| mapping.load(offset).unwrap();
        (0..mapping.bytes() * 8).filter(|bit| word(bit / 32 * 4) & (1 << (bit % 32)) != 0).collect()
    }

    fn set(relid: u32, monitor: impl Into<Option<u8>>) -> Option<(Vec<usize>, Vec<usize>)> {
        let pages =
            Arc::new(SignalPages { interrupt: page(), interrupt_offset: 0, monitor: page(), monitor_offset: 0 });
        SignalBits::new(Arc::clone(&pages), relid, monitor.into())?.set();
        Some((bits(&pages.interrupt), bits(&pages.monitor)))
    }

    /// Bit numbers counted from the start of each page, from the layouts named above.
    #[test]
    fn bits_are_where_the_host_looks() {
        for (relid, monitor, interrupt, pending) in [
            (1, 0, 2048 * 8 + 1, 8 * 8),
            (31, 31, 2048 * 8 + 31, 8 * 8 + 31),
            (32, 32, 2048 * 8 + 32, 16 * 8),
            (2047, 65, 2048 * 8 + 2047, 24 * 8 + 1),
            (16383, 127, 4096 * 8 - 1, 32 * 8 + 31),
        ] {
            assert_eq!(set(relid, monitor), Some((vec![interrupt], vec![pending])), "relid {relid} monitor {monitor}");
        }
    }

    #[test]
    fn without_a_monitor_id_only_the_channel_s_bit_is_set() {
        assert_eq!(set(7, None), Some((vec![2048 * 8 + 7], vec![])));
        assert_eq!(set(16384, None), None);
    }

    #[test]
    fn numbers_out_of_range_have_no_bits() {
        assert_eq!(set(16384, 0), None);
        assert_eq!(set(u32::MAX, 0), None);
        assert_eq!(set(1, 128), None);
    }

    #[test]
    fn pages_that_start_inside_a_system_page_are_shifted() {
        let both = page();
        let pages =
            SignalPages { interrupt: page(), interrupt_offset: 0, monitor: Arc::clone(&both), monitor_offset: 1024 };
        SignalBits::new(Arc::new(pages), 5, Some(33)).unwrap().set();
        assert_eq!(bits(&both), [(1024 + 16) * 8 + 1]);
    }
}
