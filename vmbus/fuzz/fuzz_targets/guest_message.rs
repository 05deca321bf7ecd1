//! Any bytes as a message of the guest's, under any protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| vmbus::message::doubles::guest_message(input));
