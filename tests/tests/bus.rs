//! The bus over the wire link and the simulated host, whose checker finds each step that a guest must not make.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use vmbus::message::Version;
use vmbus_channels::{Announcement, Error, IncomingPacket, Offer, OpenOptions, Vmbus, Wake};
use vmbus_ringbuf::OutgoingPacket;
use vmbus_simhost::{Config, DeviceSpec, Latency};
use vmbus_tests::{LONG, Stack};

/// Nothing is left, on either side, and neither has found anything wrong.
#[track_caller]
fn end(stack: Stack) {
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn offers(stack: &Stack) -> Vec<Offer> {
    let mut offers = stack.bus.offers().unwrap();
    offers.sort_by_key(|offer| offer.relid);
    offers
}

fn echoes(count: u64) -> Config {
    (1..=count).fold(Config::seeded(1), |config, number| config.with_device(DeviceSpec::echo(number)))
}

fn slow(config: Config) -> Config {
    let short = Duration::from_millis(2);
    Config { latency: Latency { open: short, gpadl: short, teardown: short, modify: short }, ..config }
}

/// Sends packets and waits for each to come back.
fn ping(bus: &Vmbus, offer: &Offer, packets: u64) -> Result<(), Error> {
    let mut channel = bus.open(offer.id, OpenOptions::default())?;
    for id in 0..packets {
        channel.send(OutgoingPacket::in_band(id), &[&id.to_le_bytes()], Some(LONG))?;
        let mut back = None;
        while back.is_none() {
            assert_eq!(channel.wait(Some(LONG))?, Wake::Packets);
            channel.receive(1, |packet| {
                back = Some(packet.transaction_id());
                Ok::<_, Error>(())
            })?;
        }
        assert_eq!(back, Some(id));
    }
    channel.close()
}

#[test]
fn an_echo_comes_back_at_each_version() {
    for version in Version::ALL {
        let stack = Stack::start(slow(echoes(2).with_version(version))).unwrap();
        assert_eq!(stack.bus.version().unwrap(), version);
        for offer in offers(&stack) {
            ping(&stack.bus, &offer, 50).unwrap();
            let channel = stack.bus.open(offer.id, OpenOptions::default()).unwrap();
            let buffer = channel.create_buffer(1 << 20).unwrap();
            drop(channel.create_buffer(4096).unwrap());
            let moved = stack.bus.move_channel(offer.id, 1);
            assert_eq!(moved.is_ok(), version >= Version::V4_1, "{version}: {moved:?}");
            buffer.close().unwrap();
            channel.close().unwrap();
        }
        end(stack);
    }
}

#[test]
fn a_channel_with_a_monitor_bit_signals_by_it() {
    let stack = Stack::start(Config::seeded(3).with_device(DeviceSpec::echo(1).with_monitor())).unwrap();
    ping(&stack.bus, offers(&stack).first().unwrap(), 20).unwrap();
    end(stack);
}

#[test]
fn subchannels_are_channels_of_their_own() {
    let primary = DeviceSpec::echo(1);
    let (first, second) = (primary.subchannel(1), primary.subchannel(2));
    let stack = Stack::start(Config::seeded(4).with_device(primary).with_device(first).with_device(second)).unwrap();
    let offers = offers(&stack);
    assert_eq!(offers.len(), 3);
    let (first, others) = offers.split_first().unwrap();
    assert!(others.iter().all(|offer| offer.primary == Some(first.id)));
    thread::scope(|scope| {
        for offer in &offers {
            scope.spawn(|| ping(&stack.bus, offer, 200).unwrap());
        }
    });
    end(stack);
}

#[test]
fn a_handler_hears_the_echo() {
    let stack = Stack::start(echoes(1)).unwrap();
    let (to, ids) = mpsc::channel();
    let handler = move |packet: &IncomingPacket<'_>| {
        let _ = to.send(packet.transaction_id());
    };
    let mut channel =
        stack.bus.open_dispatched(offers(&stack).first().unwrap().id, OpenOptions::default(), handler).unwrap();
    for id in 0..1000 {
        channel.send(OutgoingPacket::in_band(id), &[&[0; 500]], Some(LONG)).unwrap();
    }
    for id in 0..1000 {
        assert_eq!(ids.recv_timeout(LONG).unwrap(), id);
    }
    channel.close().unwrap();
    end(stack);
}

/// Rescinds at any time of what an application does, by a host that takes its time: each offer released once, and no step
/// that a guest must not make.
#[test]
fn r1_4_rescinds_of_a_busy_device_leave_a_clean_host() {
    let stack = Stack::start(slow(echoes(3))).unwrap();
    let mut changes = stack.bus.subscribe().unwrap();
    let mut arrivals = |count: usize| {
        let mut arrived = 0;
        while arrived < count {
            arrived += usize::from(matches!(changes.next(Some(LONG)).unwrap(), Some(Announcement::Arrived(_))));
        }
    };
    arrivals(3);
    for round in 0..60_u64 {
        let offers = offers(&stack);
        assert_eq!(offers.len(), 3);
        thread::scope(|scope| {
            for offer in &offers {
                scope.spawn(|| {
                    // However far it comes.
                    let _ = ping(&stack.bus, offer, 1000);
                });
            }
            (0..round * 20_000).for_each(|spin| {
                std::hint::black_box(spin);
            });
            let offered = stack.control.with(|simulation| simulation.host().offered()).unwrap();
            offered.iter().for_each(|offered| stack.control.rescind(offered.id).unwrap());
        });
        assert!(stack.control.wait_quiet(LONG).unwrap(), "{}", stack.control.trace().unwrap());
        assert_eq!(stack.bus.counters().unwrap().channels, 0);
        for number in 1..=3 {
            stack.control.offer(DeviceSpec::echo(number)).unwrap();
        }
        arrivals(3);
    }
    assert_eq!(stack.bus.counters().unwrap().control.released, 180);
    end(stack);
}
