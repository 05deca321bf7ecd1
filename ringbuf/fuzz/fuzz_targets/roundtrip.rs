//! A writer and a reader on one ring of real memory, against a plain model. The first byte chooses the size.
#![no_main]

use std::sync::atomic::AtomicU64;

use libfuzzer_sys::fuzz_target;
use vmbus_ringbuf::Mapped;
use vmbus_ringbuf::doubles::model;

fuzz_target!(|input: &[u8]| {
    let Some((size, script)) = input.split_first() else { return };
    let control: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
    let data: Vec<AtomicU64> = (0..4 + usize::from(*size) * 5).map(|_| AtomicU64::new(0)).collect();
    let Ok(memory) = Mapped::in_memory(&control, &data) else { unreachable!("sizes are sound") };
    model::round_trip(&memory, script);
});
