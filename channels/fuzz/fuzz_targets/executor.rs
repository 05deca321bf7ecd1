//! The control core among arbitrary messages, commands, dispatcher answers and clocks.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| vmbus_channels_fuzz::executor::drive(script));
