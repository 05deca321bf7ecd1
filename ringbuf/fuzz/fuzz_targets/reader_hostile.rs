//! A reader on memory that changes between its accesses, as the input says.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| vmbus_ringbuf::doubles::drive::read_hostile(script));
