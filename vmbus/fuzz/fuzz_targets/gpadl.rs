//! GPADLs: arbitrary headers and bodies against a plain model, and sound ranges there and back.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| vmbus::message::doubles::gpadl(script));
