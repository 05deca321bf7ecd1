//! Where what lies in guest memory: the pages that a hypervisor's guest would tell its host about.
//!
//! Page 0 is never used, so that no address is null. Then come an event-flag page for each processor, the interrupt
//! page, the two monitor pages, and pages for rings and buffers.

use rustix::param::page_size;

use crate::Error;

/// Bytes of a page of guest memory: the hypervisor's, which GPADLs count in.
pub const PAGE_BYTES: usize = 4096;
/// Processors that a guest has at most: what one hello can carry eventfds for.
pub const MAX_PROCESSORS: usize = 240;
/// Bytes of guest memory at most.
pub const MAX_MEMORY_BYTES: u64 = 64 << 30;
/// The interrupt source of the VMBus, of the 16 that a SynIC has.
pub const VMBUS_SINT: usize = 2;
/// Event flags of an interrupt source.
pub const EVENT_FLAGS: usize = 2048;

/// Bytes of the event flags of one interrupt source.
const SOURCE_BYTES: usize = EVENT_FLAGS / 8;
/// Pages that every guest has, beside those of its processors: the unused one, interrupt page, two monitor pages.
const FIXED_PAGES: u64 = 4;

/// Which page of a guest's memory is what. Page numbers count from 0, in [`PAGE_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    processors: u16,
    pages: u64,
}

impl Layout {
    /// The layout of `memory_bytes` bytes for `processors` processors.
    ///
    /// # Errors
    /// [`Error::Handshake`] when either is nothing, or more than there can be, or the memory is not made of whole
    /// pages or has none left for rings; when this system's pages are not the hypervisor's.
    pub fn new(processors: usize, memory_bytes: u64) -> Result<Self, Error> {
        let refused = |why: String| Err(Error::Handshake { why });
        if page_size() != PAGE_BYTES {
            return refused(format!("this system has pages of {} bytes, and {PAGE_BYTES} are needed", page_size()));
        }
        let Some(count) = u16::try_from(processors).ok().filter(|_| (1..=MAX_PROCESSORS).contains(&processors)) else {
            return refused(format!("a guest has 1 to {MAX_PROCESSORS} processors, not {processors}"));
        };
        let layout = Self { processors: count, pages: memory_bytes / PAGE_BYTES as u64 };
        let whole = memory_bytes.is_multiple_of(PAGE_BYTES as u64);
        if !whole || memory_bytes > MAX_MEMORY_BYTES || layout.pages <= layout.first_free_page() {
            return refused(format!(
                "{memory_bytes} bytes of memory are not whole pages, more than {} of them, and at most {MAX_MEMORY_BYTES} bytes",
                layout.first_free_page(),
            ));
        }
        Ok(layout)
    }

    /// Processors.
    #[must_use]
    pub fn processors(self) -> usize {
        usize::from(self.processors)
    }

    /// Pages in all.
    #[must_use]
    pub fn pages(self) -> u64 {
        self.pages
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }

    /// The event flags of a processor: 16 interrupt sources of [`EVENT_FLAGS`] each.
    #[must_use]
    pub fn event_flags_page(self, processor: usize) -> Option<u64> {
        (processor < self.processors()).then(|| 1 + processor as u64)
    }

    /// Where the flags of the VMBus's interrupt source begin in an event-flag page, in bytes.
    #[must_use]
    pub const fn event_flags_offset() -> usize {
        VMBUS_SINT * SOURCE_BYTES
    }

    /// The interrupt page: the guest sets bits in its second half.
    #[must_use]
    pub fn interrupt_page(self) -> u64 {
        1 + u64::from(self.processors)
    }

    /// The monitor page that the host sets bits in.
    #[must_use]
    pub fn parent_to_child_page(self) -> u64 {
        self.interrupt_page() + 1
    }

    /// The monitor page that the guest sets bits in.
    #[must_use]
    pub fn child_to_parent_page(self) -> u64 {
        self.interrupt_page() + 2
    }

    /// The first page for rings and buffers; all pages behind it are, too.
    #[must_use]
    pub fn first_free_page(self) -> u64 {
        FIXED_PAGES + u64::from(self.processors)
    }

    /// The guest physical address of a page.
    #[must_use]
    pub const fn address(page: u64) -> u64 {
        page * PAGE_BYTES as u64
    }
}
