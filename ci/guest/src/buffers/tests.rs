//! Buffers over the simulated host: shared from here, since no kernel makes any.

use vmbus::class::Class;
use vmbus_channels::OpenOptions;
use vmbus_simhost::device::Buffers;
use vmbus_simhost::{Config, DeviceSpec};

use super::{BuffersArgs, Desk, FILL, SUM, play, word};
use crate::say::Say;
use crate::testing::Stack;

fn stack() -> Stack {
    Stack::start(Config::seeded(1).with_device(DeviceSpec::buffers(1)))
}

#[test]
fn both_ends_write_and_check() {
    assert_eq!(Class::NIC, Buffers::CLASS);
    let stack = stack();
    let offer = stack.find("nic");
    let (args, say) = (BuffersArgs { selector: String::new(), make: Some((1 << 20) + 8192) }, Say::kept());
    play(&stack.vmbus, &offer, &args, &say).unwrap();
    assert_eq!(say.heard("end")["buffers"], 2);
    let id = stack.id(offer.relid);
    let counted = stack.control.with(move |sim| ["filled", "summed", "refused"].map(|name| sim.host().count(id, name)));
    assert_eq!(counted.unwrap(), [2 * ((1 << 20) + 8192), 2 * ((1 << 20) + 8192), 2]);
    stack.end();
}

#[test]
fn without_buffers_it_says_so() {
    let stack = stack();
    let args = BuffersArgs { selector: String::new(), make: None };
    let error = play(&stack.vmbus, &stack.find("nic"), &args, &Say::kept()).unwrap_err();
    assert!(error.to_string().contains("made no buffers"), "{error}");
    stack.end();
}

#[test]
fn a_word_that_differs_is_found_by_either_end() {
    let stack = stack();
    let channel = stack.vmbus.open(stack.find("nic").id, OpenOptions::default()).unwrap();
    let buffer = channel.create_buffer(4096).unwrap();
    let mut desk = Desk { channel, next: 1 };
    let told = desk.ask(FILL, buffer.gpadl().0, 0, 4096, 5).unwrap().unwrap();
    assert_eq!(buffer.memory().load64(80), Some(word(5, 10)));
    assert_eq!(desk.ask(SUM, buffer.gpadl().0, 0, 4096, 0).unwrap(), Some(told));
    buffer.memory().set_bits(800, 1 << 31 | 1);
    buffer.memory().clear_bits(804, u32::MAX);
    assert_ne!(desk.ask(SUM, buffer.gpadl().0, 0, 4096, 0).unwrap(), Some(told));
    assert_eq!(desk.ask(SUM, buffer.gpadl().0, 4096, 8, 0).unwrap(), None);
    assert_eq!(desk.ask(SUM, buffer.gpadl().0 + 1, 0, 8, 0).unwrap(), None);
    assert!(desk.ask(9, buffer.gpadl().0, 0, 8, 0).is_err());
    buffer.close().unwrap();
    desk.channel.close().unwrap();
    stack.end();
}
