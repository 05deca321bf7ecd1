//! The request table among arbitrary completions.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| vmbus_channels_fuzz::completions::drive(script));
