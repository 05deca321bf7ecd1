//! The end of the bus: told to, lost, broken. Nobody is left waiting.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use vmbus::link::Link;
use vmbus::message::{GpadlId, GuestMessage, HostMessage};
use vmbus_channels::{Error, IncomingPacket, OpenOptions, OutgoingPacket, Settings, Vmbus};

use crate::gate::{Mode, gate};
use crate::host::{Host, LONG, Silent, instance};
use crate::{bus, open};

#[test]
fn shutdown_ends_open_channels_and_their_waits() {
    let (bus, host) = bus([1, 2, 3]);
    let mut waiting = open(&bus, 1).unwrap();
    let mut sending = open(&bus, 2).unwrap();
    let idle = open(&bus, 3).unwrap();
    let buffer = idle.create_buffer(4096).unwrap();
    while sending.try_send(OutgoingPacket::in_band(1), &[&[0; 1000]]).is_ok() {}
    thread::scope(|scope| {
        let waiter = scope.spawn(move || waiting.wait(None).unwrap_err());
        let sender = scope.spawn(move || sending.send(OutgoingPacket::in_band(2), &[&[0; 1000]], None).unwrap_err());
        bus.shutdown().unwrap();
        assert!(matches!(waiter.join().unwrap(), Error::Ended));
        assert!(matches!(sender.join().unwrap(), Error::Ended));
    });
    assert_eq!(host.lock().count(|message| matches!(message, GuestMessage::Unload)), 1);
    bus.shutdown().unwrap();
    assert!(matches!(bus.offers(), Err(Error::Ended)));
    assert!(matches!(bus.subscribe(), Err(Error::Ended)));
    assert!(matches!(idle.create_buffer(4096), Err(Error::Ended)));
    assert_eq!(bus.counters().unwrap().control.unloads, 1);
    buffer.close().unwrap();
    idle.close().unwrap();
}

#[test]
fn the_last_handle_ends_the_bus_and_a_channel_is_one() {
    let (bus, host) = bus([1]);
    let mut channel = open(&bus, 1).unwrap();
    drop(bus);
    // Through the queue, behind whatever the drop has said.
    channel.create_buffer(4096).unwrap().close().unwrap();
    channel.try_send(OutgoingPacket::in_band(7), &[]).unwrap();
    assert_eq!(host.receive(1), [7]);
    assert_eq!(host.lock().count(|message| matches!(message, GuestMessage::Unload)), 0);
    drop(channel);
    host.until("goodbye", |host| (host.count(|message| matches!(message, GuestMessage::Unload)) == 1).then_some(()));
    host.until("the guest's end", |host| host.gone.then_some(()));
}

#[test]
fn a_host_that_dies_is_lost_to_all() {
    let (bus, host) = bus([1, 2]);
    let mut channel = open(&bus, 1).unwrap();
    host.be_silent(Silent::Open);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| channel.wait(None).unwrap_err());
        let opener = scope.spawn(|| open(&bus, 2).unwrap_err());
        host.until("the open", |host| host.unanswered.first().copied());
        host.die();
        let (waited, opened) = (waiter.join().unwrap(), opener.join().unwrap());
        assert!(matches!(waited, Error::Lost { .. } | Error::Ended), "{waited}");
        assert!(matches!(opened, Error::Lost { .. }), "{opened}");
    });
    assert!(matches!(bus.offers(), Err(Error::Lost { .. })));
    bus.shutdown().unwrap();
}

#[test]
fn a_silent_host_is_said_to_be_silent() {
    let (link, host) = Host::new(1, [1]);
    host.be_silent(Silent::Contact);
    let mut settings = Settings::default();
    settings.limits.host_timeout = Duration::from_millis(100);
    assert!(matches!(Vmbus::start(link, settings.clone()), Err(Error::Silent { .. })));
    let (link, host) = Host::new(1, [1]);
    let bus = Vmbus::start(link, settings.clone()).unwrap();
    for silent in [Silent::Gpadl, Silent::Open] {
        host.be_silent(silent);
        let error = open(&bus, 1).unwrap_err();
        assert!(matches!(&error, Error::Silent { device, .. } if *device == instance(1).to_string()), "{error}");
        host.speak(silent);
        // Quarantined until the host answers or rescinds.
        host.rescind(1);
        host.until("released", |host| host.released.remove(&1));
        host.offer(1);
        crate::arrived(&bus, 1);
    }
    host.be_silent(Silent::Unload);
    settings.limits.unload_timeout = Duration::from_millis(100);
    drop(bus);
    let (link, host) = Host::new(1, []);
    let bus = Vmbus::start(link, settings).unwrap();
    host.be_silent(Silent::Unload);
    assert!(matches!(bus.shutdown(), Err(Error::Silent { .. })));
}

fn broken() -> (Vmbus, Host, std::sync::Arc<crate::gate::Gate>) {
    let (link, host) = Host::new(1, [1, 2]);
    let (link, gate): (Box<dyn Link>, _) = gate(link);
    (Vmbus::start(link, Settings { backlog: 16, ..Settings::default() }).unwrap(), host, gate)
}

/// Also for a link's thread that waits for a credit, which the end must set free before the link is stopped.
#[test]
fn a_panic_of_the_executor_is_an_error_for_everybody() {
    let (bus, host, gate) = broken();
    let mut channel = open(&bus, 1).unwrap();
    let offer = bus.find(instance(2)).unwrap();
    thread::scope(|scope| {
        let _held = gate.hold();
        let waiter = scope.spawn(|| channel.wait(None).unwrap_err());
        let opener = scope.spawn(|| bus.open(offer.id, OpenOptions::default()).unwrap_err());
        gate.held();
        let asker = scope.spawn(|| bus.offers().unwrap_err());
        for relid in 100..200 {
            host.rescind(relid);
        }
        gate.set(Mode::Panic);
        for error in [waiter.join().unwrap(), opener.join().unwrap(), asker.join().unwrap()] {
            assert!(matches!(&error, Error::Panicked { why } if why == "the link is broken"), "{error:?}");
        }
    });
    assert!(matches!(bus.shutdown(), Err(Error::Panicked { .. })));
}

/// With a backlog that is larger than the flood all of it is taken: that is what the credits are against.
#[test]
fn a_flood_waits_outside_and_commands_do_not() {
    const FLOOD: usize = 2000;
    for (backlog, taken) in [(16, 16), (2 * FLOOD, FLOOD)] {
        let (link, host) = Host::new(1, [1, 2]);
        let (link, gate) = gate(link);
        let bus = Vmbus::start(link, Settings { backlog, ..Settings::default() }).unwrap();
        let channel = open(&bus, 1).unwrap();
        let offer = bus.find(instance(2)).unwrap();
        let before = bus.counters().unwrap().control.unknown_relid;
        thread::scope(|scope| {
            let _held = gate.hold();
            let opener = scope.spawn(|| bus.open(offer.id, OpenOptions::default()));
            host.until("the ring of the other", |host| (host.gpadls.len() == 2).then_some(()));
            gate.held();
            // The executor is held while it posts the open; what led to that may not be counted yet.
            let sunk = gate.sunk.load(Ordering::SeqCst);
            for _ in 0..FLOOD {
                host.rescind(1234);
            }
            while gate.sunk.load(Ordering::SeqCst) < sunk + taken - 1 {
                thread::yield_now();
            }
            // Neither a drop nor a command waits for room.
            drop(channel);
            let (begin, begun) = mpsc::channel();
            let bus = &bus;
            let asker = scope.spawn(move || {
                begin.send(()).unwrap();
                bus.offers()
            });
            begun.recv_timeout(LONG).unwrap();
            assert!(gate.sunk.load(Ordering::SeqCst) <= sunk + taken + 1, "bounded");
            gate.set(Mode::Pass);
            assert_eq!(asker.join().unwrap().unwrap().len(), 2);
            opener.join().unwrap().unwrap();
        });
        while bus.counters().unwrap().control.unknown_relid != before + FLOOD as u64 {
            thread::yield_now();
        }
        bus.shutdown().unwrap();
    }
}

/// Red without the mark on the dispatchers' threads: the first call hangs, for the answer has to come from shutdown,
/// which waits for this very callback.
#[test]
fn calls_that_wait_are_refused_in_callbacks() {
    let (bus, host) = bus([1, 2]);
    let (to, errors) = mpsc::channel();
    let inner = bus.clone();
    let mut other = Some(open(&bus, 2).unwrap());
    let handler = move |_: &IncomingPacket<'_>| {
        let offered = inner.find(instance(1)).map(drop);
        let opened = inner.subscribe().map(drop);
        let shut = inner.shutdown();
        let closed = other.take().map_or(Ok(()), |other| other.close());
        let _ = to.send([offered, opened, shut, closed]);
    };
    let offer = bus.find(instance(1)).unwrap();
    let channel = bus.open_dispatched(offer.id, OpenOptions::default(), handler).unwrap();
    host.send(1, 1);
    for outcome in errors.recv_timeout(LONG).unwrap() {
        assert!(matches!(outcome, Err(Error::Callback { .. })), "{outcome:?}");
    }
    host.until("the other's close, all the same", |host| {
        (host.count(|message| matches!(message, GuestMessage::Close { relid: 2 })) == 1).then_some(())
    });
    channel.close().unwrap();
    bus.shutdown().unwrap();
}

#[test]
fn nonsense_from_the_host_is_counted_and_nothing_else() {
    let (bus, host) = bus([1]);
    host.say(&HostMessage::Rescind { relid: 77 });
    host.say(&HostMessage::GpadlTorndown { gpadl: GpadlId(99) });
    host.say(&HostMessage::AllOffersDelivered);
    let mut channel = open(&bus, 1).unwrap();
    host.send(1, 3);
    channel.wait(Some(LONG)).unwrap();
    assert!(bus.counters().unwrap().control.unknown_relid == 1);
}
