//! A handler is called when there is room that was asked for, and only then.

use std::sync::mpsc::{Sender, channel};

use vmbus_channels::{Error, Handler, IncomingPacket, OpenOptions, OutgoingPacket};
use vmbus_simhost::{Config, DeviceSpec};
use vmbus_tests::{LONG, Stack};

/// Tells of room.
struct Rooms(Sender<()>);

impl Handler for Rooms {
    fn packet(&mut self, _packet: &IncomingPacket<'_>) {}

    fn room(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn r2_4_a_handler_hears_of_room_that_was_asked_for() {
    let stack = Stack::start(Config::seeded(30).with_device(DeviceSpec::echo(1))).unwrap();
    let offer = stack.bus.offers().unwrap().pop().unwrap();
    let relid = offer.relid;
    let id = stack.control.with(move |simulation| simulation.host().offer_on_relid(relid)).unwrap().unwrap();
    let (tell, told) = channel();
    let mut sender = stack.bus.open_dispatched(offer.id, OpenOptions::default(), Rooms(tell)).unwrap();
    let one = |sender: &mut vmbus_channels::Dispatched| sender.try_send(OutgoingPacket::in_band(1), &[&[7; 400]]);
    // The host reads a little, answers nothing, and then reads no more.
    stack.control.command(id, "hold").unwrap();
    let mut sent = 0_u64;
    loop {
        match one(&mut sender) {
            Ok(()) => sent += 1,
            Err(Error::Full { needed, .. }) => {
                if !sender.arm(needed).unwrap() {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent > 100);
    stack.control.command(id, "release").unwrap();
    let mut tellings = 0;
    loop {
        match one(&mut sender) {
            Ok(()) => break,
            Err(Error::Full { needed, .. }) if sender.arm(needed).unwrap() => {}
            // It may tell of room that was there for a moment.
            Err(Error::Full { .. }) => {
                told.recv_timeout(LONG).expect("nobody was told of room");
                tellings += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(tellings != 0 || told.recv_timeout(LONG).is_ok(), "nobody was told of room");
    sender.disarm();
    // The host takes everything, and its signals mean nothing any more.
    assert!(stack.control.wait_for(LONG, move |simulation| simulation.host().count(id, "packets") > sent).unwrap());
    sender.close().unwrap();
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
