//! What both benches run: rings, yardsticks, and one closure per contestant.

pub(crate) mod cliff;
pub(crate) mod pairs;
pub(crate) mod single;
mod unfenced;

use core::sync::atomic::AtomicU64;

use vmbus_ringbuf::{ControlField, FEATURE_PENDING_SEND_SIZE, Mapped, Memory};

/// A contestant: runs this many messages.
pub(crate) type Run = Box<dyn FnMut(u64)>;

/// Payload sizes. Bytes.
pub(crate) const SIZES: [usize; 6] = [16, 64, 256, 1024, 4096, 16384];

/// Pages of data of a 64 KiB ring and of a 2 MiB ring, each less its control page.
pub(crate) const RINGS: [(&str, u32); 2] = [("64K", 15), ("2M", 511)];

/// Two handles to one ring.
pub(crate) struct Ring<M> {
    pub(crate) writer: M,
    pub(crate) reader: M,
}

/// A ring that lives as long as the process, with flow control announced as a kernel hands it over.
pub(crate) fn contiguous(pages: u32) -> Ring<impl Memory + Send + 'static> {
    let words = |count: usize| -> &'static [AtomicU64] {
        // A page of slack, to begin at a page: allocations don't.
        let all: &'static mut [AtomicU64] = Box::leak((0..count + 512).map(|_| AtomicU64::new(0)).collect());
        let skip = all.as_ptr().align_offset(4096);
        &all[skip..skip + count]
    };
    let (control, data) = (words(512), words(pages as usize * 512));
    let handle = || announce(Mapped::in_memory(control, data).unwrap());
    Ring { writer: handle(), reader: handle() }
}

/// The same, with its data mapped twice.
pub(crate) fn mirrored(pages: u32) -> Ring<impl Memory + Send + 'static> {
    let (writer, reader) = crate::support::mirrored_pair(pages);
    Ring { writer: announce(writer), reader: announce(reader) }
}

/// The same as [`contiguous`], without the full fences: what the fence of the contract costs, and nothing to use.
pub(crate) fn unfenced(pages: u32) -> Ring<impl Memory + Send + 'static> {
    let Ring { writer, reader } = contiguous(pages);
    Ring { writer: unfenced::Unfenced(writer), reader: unfenced::Unfenced(reader) }
}

fn announce<M: Memory>(memory: M) -> M {
    memory.store(ControlField::FeatureBits, FEATURE_PENDING_SEND_SIZE);
    memory
}
