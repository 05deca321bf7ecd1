//! A channel's life: open, traffic both ways, a handler, a move, close, and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use vmbus::message::GuestMessage;
use vmbus_channels::{Announcement, Error, IncomingPacket, OpenOptions, OutgoingPacket, Wake};

use crate::host::{LONG, instance};
use crate::{bus, open, receive};

#[test]
fn packets_go_both_ways_and_a_closed_channel_opens_again() {
    let (bus, host) = bus([1, 2]);
    for round in 0..3 {
        let mut channel = open(&bus, 2).unwrap();
        channel.try_send(OutgoingPacket::in_band(round), &[]).unwrap();
        assert_eq!(host.receive(2), [round]);
        assert!(host.send(2, round + 10));
        assert_eq!(channel.wait(Some(LONG)).unwrap(), Wake::Packets);
        assert_eq!(receive(&mut channel).unwrap(), [round + 10]);
        assert!(matches!(open(&bus, 2), Err(Error::State { .. })), "it is open");
        channel.close().unwrap();
        assert!(host.lock().gpadls.is_empty(), "close has waited for the host to let go");
    }
    bus.shutdown().unwrap();
}

/// An interrupt for who sleeps; the notifier is the only thing that ends the sleep. Red without the dispatcher's entry.
#[test]
fn a_sleeper_is_woken_by_the_hosts_interrupt() {
    let (bus, host) = bus([1]);
    let mut channel = open(&bus, 1).unwrap();
    let (back, ids) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            while channel.wait(Some(LONG)).unwrap() == Wake::Packets {
                for id in receive(&mut channel).unwrap() {
                    back.send(id).unwrap();
                    if id == 500 {
                        return;
                    }
                }
            }
        });
        for id in 1..=500 {
            host.send(1, id);
            assert_eq!(ids.recv_timeout(LONG).unwrap(), id);
        }
    });
}

/// A full ring: the sender sleeps until the host has made room, and is told by the dispatcher.
#[test]
fn a_full_ring_is_waited_for() {
    let (bus, host) = bus([1]);
    let mut channel = open(&bus, 1).unwrap();
    let mut sent = 0;
    while channel.try_send(OutgoingPacket::in_band(sent), &[&[0; 1000]]).is_ok() {
        sent += 1;
    }
    thread::scope(|scope| {
        let sender = scope.spawn(|| channel.send(OutgoingPacket::in_band(sent), &[&[0; 1000]], Some(LONG)));
        let mut ids = Vec::new();
        while ids.last() != Some(&sent) {
            ids.extend(host.receive(1));
        }
        sender.join().unwrap().unwrap();
        assert_eq!(ids, (0..=sent).collect::<Vec<_>>());
    });
}

#[test]
fn a_handler_gets_the_packets_and_is_dropped_by_close() {
    let (bus, host) = bus([1]);
    let (seen, ids) = mpsc::channel();
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let handler = move |packet: &IncomingPacket<'_>| {
        let _ = &held;
        let _ = seen.send(packet.transaction_id());
    };
    let offer = bus.find(instance(1)).unwrap();
    let mut channel = bus.open_dispatched(offer.id, OpenOptions::default(), handler).unwrap();
    for id in 1..=100 {
        host.send(1, id);
        assert_eq!(ids.recv_timeout(LONG).unwrap(), id);
    }
    channel.try_send(OutgoingPacket::in_band(5), &[]).unwrap();
    assert_eq!(host.receive(1), [5]);
    channel.close().unwrap();
    assert_eq!(Arc::strong_count(&alive), 1);
    assert_eq!(bus.counters().unwrap().open, 0);
}

/// Its reader sleeps on a dispatcher, its sender on the same channel's notifier: neither takes the other's wake-up.
#[test]
fn a_dispatched_sender_is_woken_when_there_is_room() {
    let (bus, host) = bus([1]);
    let received = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&received);
    let handler = move |_: &IncomingPacket<'_>| {
        count.fetch_add(1, Ordering::SeqCst);
    };
    let offer = bus.find(instance(1)).unwrap();
    let mut channel = bus.open_dispatched(offer.id, OpenOptions::default(), handler).unwrap();
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for id in 0..2000 {
                channel.send(OutgoingPacket::in_band(id), &[&[0; 1000]], Some(LONG)).unwrap();
            }
        });
        let mut next = 0;
        while next < 2000 {
            for id in host.receive(1) {
                assert_eq!(id, next);
                next += 1;
                // Few enough to fit in any case.
                if id % 10 == 0 {
                    host.send(1, id);
                }
            }
        }
        sender.join().unwrap();
    });
    while received.load(Ordering::SeqCst) != 200 {
        thread::yield_now();
    }
    channel.close().unwrap();
}

#[test]
fn a_dropped_channel_closes_by_itself() {
    let (bus, host) = bus([1]);
    for _ in 0..20 {
        drop(open(&bus, 1).unwrap());
        host.until("closed", |host| host.gpadls.is_empty().then_some(()));
        // The host has let go, and so has the executor when it has heard of that.
        while bus.counters().unwrap().gpadls != 0 {
            thread::yield_now();
        }
    }
    let closes = host.lock().count(|message| matches!(message, GuestMessage::Close { relid: 1 }));
    assert_eq!(closes, 20);
}

/// The dispatcher's entry has a reference of its own, so that the drop must say more than that its is gone.
#[test]
fn a_dropped_handle_closes_a_dispatched_channel() {
    let (bus, host) = bus([1]);
    let offer = bus.find(instance(1)).unwrap();
    let channel = bus.open_dispatched(offer.id, OpenOptions::default(), |_: &IncomingPacket<'_>| {}).unwrap();
    drop(channel);
    host.until("closed", |host| host.gpadls.is_empty().then_some(()));
}

/// Whoever sleeps on a channel hears of its rescind at once: the reader, the sender without room, and a handler's sender.
#[test]
fn a_rescind_wakes_all_who_sleep_on_the_channel() {
    let (bus, host) = bus([1, 2, 3]);
    let mut waiting = open(&bus, 1).unwrap();
    let mut sending = open(&bus, 2).unwrap();
    let offer = bus.find(instance(3)).unwrap();
    let mut serving = bus.open_dispatched(offer.id, OpenOptions::default(), |_: &IncomingPacket<'_>| {}).unwrap();
    let packet = OutgoingPacket::in_band(1);
    while sending.try_send(packet, &[&[0; 1000]]).is_ok() {}
    while serving.try_send(packet, &[&[0; 1000]]).is_ok() {}
    thread::scope(|scope| {
        let users = [
            scope.spawn(move || waiting.wait(None).unwrap_err()),
            scope.spawn(move || sending.send(packet, &[&[0; 1000]], None).unwrap_err()),
            scope.spawn(move || serving.send(packet, &[&[0; 1000]], None).unwrap_err()),
        ];
        (1..=3).for_each(|relid| host.rescind(relid));
        for user in users {
            let error = user.join().unwrap();
            assert!(error.is_rescinded(), "{error}");
        }
    });
    host.until("released", |host| (host.released.len() == 3).then_some(()));
}

#[test]
fn a_moved_channel_gets_all_that_is_sent() {
    let (bus, host) = bus([1]);
    let mut channel = open(&bus, 1).unwrap();
    for id in 0..200 {
        bus.move_channel(channel.id(), u32::try_from(id % 2).unwrap()).unwrap();
        host.send(1, id);
        assert_eq!(channel.wait(Some(LONG)).unwrap(), Wake::Packets);
        assert_eq!(receive(&mut channel).unwrap(), [id]);
    }
    assert!(matches!(bus.move_channel(channel.id(), 2), Err(Error::Argument(_))));
}

#[test]
fn devices_come_back_after_a_suspend_under_their_instance_ids() {
    let (bus, host) = bus([1, 2]);
    let mut changes = bus.subscribe().unwrap();
    for _ in 0..3 {
        assert!(matches!(changes.next(Some(LONG)).unwrap(), Some(Announcement::Arrived(_) | Announcement::AllArrived)));
    }
    let before = bus.find(instance(1)).unwrap();
    let mut channel = open(&bus, 1).unwrap();
    bus.suspend().unwrap();
    assert!(channel.wait(Some(LONG)).unwrap_err().is_rescinded());
    assert!(bus.offers().unwrap().is_empty());
    assert!(matches!(bus.version(), Err(Error::NotConnected)));
    for _ in 0..2 {
        assert!(matches!(changes.next(Some(LONG)).unwrap(), Some(Announcement::Departed(_))));
    }
    bus.resume().unwrap();
    let after = bus.find(instance(1)).unwrap();
    assert_ne!(before.id, after.id);
    assert!(matches!(bus.open(before.id, OpenOptions::default()), Err(Error::Gone(_) | Error::Link(_))));
    drop(channel);
    let mut channel = open(&bus, 1).unwrap();
    host.send(1, 1);
    assert_eq!(channel.wait(Some(LONG)).unwrap(), Wake::Packets);
}

/// The dispatcher lets go of the channel and says so; the executor closes it, and the sender hears why.
#[test]
fn a_handler_that_panics_closes_its_channel_and_no_other() {
    let (bus, host) = bus([1, 2]);
    let offer = bus.find(instance(1)).unwrap();
    let handler = |packet: &IncomingPacket<'_>| assert_ne!(packet.transaction_id(), 3);
    let mut channel = bus.open_dispatched(offer.id, OpenOptions::default(), handler).unwrap();
    let mut other = open(&bus, 2).unwrap();
    for id in 1..=3 {
        host.send(1, id);
    }
    let error = loop {
        match channel.try_send(OutgoingPacket::in_band(1), &[]) {
            Ok(()) | Err(Error::Full { .. }) => thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::State { .. }), "{error}");
    channel.close().unwrap();
    host.send(2, 1);
    assert_eq!(other.wait(Some(LONG)).unwrap(), Wake::Packets);
    bus.open_dispatched(offer.id, OpenOptions::default(), |_: &IncomingPacket<'_>| {}).unwrap();
}

#[test]
fn nonsense_in_the_ring_closes_a_dispatched_channel() {
    let (bus, host) = bus([1]);
    let offer = bus.find(instance(1)).unwrap();
    let mut channel = bus.open_dispatched(offer.id, OpenOptions::default(), |_: &IncomingPacket<'_>| {}).unwrap();
    host.spoil(1);
    let error = loop {
        match channel.try_send(OutgoingPacket::in_band(1), &[]) {
            Ok(()) | Err(Error::Full { .. }) => thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    channel.close().unwrap();
}
