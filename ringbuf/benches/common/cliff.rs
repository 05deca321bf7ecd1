//! The copy cliff: some copies are far slower when destination and source differ by a few bytes modulo the page size.
//! VMBus packets come at every multiple of 8, so all of these distances are swept.

use core::hint::black_box;

use vmbus_ringbuf::Memory;

use crate::common::contiguous;

/// What distances repeat after. Bytes.
pub(crate) const PAGE: usize = 4096;

/// A named copy.
type Copy = (&'static str, Box<dyn FnMut()>);

/// Copies into the ring, out of it, and by `memcpy`; private memory lies `distance` bytes behind, modulo the page.
pub(crate) fn copies(bytes: usize, distance: usize) -> [Copy; 3] {
    let ring = contiguous(15);
    let buffer = || {
        let all = Box::leak(vec![1_u8; 3 * PAGE + bytes].into_boxed_slice());
        let page = all.as_ptr().align_offset(PAGE);
        (all, page)
    };
    let ((source, at), (target, to), (first, from), (second, into)) = (buffer(), buffer(), buffer(), buffer());
    [
        ("in", Box::new(move || ring.writer.write(4096, black_box(&source[at + distance..][..bytes])))),
        ("out", Box::new(move || ring.reader.read(4096, black_box(&mut target[to + distance..][..bytes])))),
        (
            "memcpy",
            Box::new(move || {
                let second = &mut second[into + distance..][..bytes];
                second.copy_from_slice(black_box(&first[from..from + bytes]));
                black_box(second);
            }),
        ),
    ]
}
