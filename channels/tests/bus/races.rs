//! The moments of R1 that need real threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use vmbus::message::GuestMessage;
use vmbus_channels::{Error, IncomingPacket, OpenOptions, OutgoingPacket, Settings, Vmbus};

use crate::host::{Host, LONG, Silent, instance};
use crate::{arrived, bus, open, receive};

/// A host that is silent on OPEN: others are opened and closed meanwhile. What the one who waits hears when the host
/// takes the channel back, if it is within the time.
fn silent_on_open(patience: Duration) -> Option<Error> {
    let (bus, host) = bus(1..=9);
    host.be_silent(Silent::Open);
    thread::scope(|scope| {
        let (to, answer) = mpsc::channel();
        let opener = bus.clone();
        scope.spawn(move || drop(to.send(open(&opener, 1).unwrap_err())));
        host.until("the open", |host| host.unanswered.first().copied());
        host.speak(Silent::Open);
        for relid in 2..=9 {
            open(&bus, relid).unwrap().close().unwrap();
        }
        assert!(answer.try_recv().is_err());
        host.rescind(1);
        let answer = answer.recv_timeout(patience).ok();
        // Ends the wait in any case.
        bus.shutdown().unwrap();
        answer
    })
}

#[test]
fn r1_2_a_rescind_ends_the_wait_for_a_silent_host() {
    // Below the time that the host has for an answer.
    let error = silent_on_open(Settings::default().limits.host_timeout / 2).unwrap();
    assert!(error.is_rescinded(), "{error}");
}

#[cfg(feature = "mutations")]
#[test]
fn r1_2_mutant_a_rescind_that_keeps_waits_is_caught() {
    use vmbus_channels::mutation::{Mutation, with};
    assert!(with(Mutation::RescindKeepsWaits, || silent_on_open(Duration::from_millis(500))).is_none());
}

/// The host opens a channel after its rescind, as it may when the messages cross: nobody has asked any more.
#[test]
fn r1_2_a_late_answer_to_a_rescinded_open_is_nobodys() {
    let (bus, host) = bus([1]);
    host.be_silent(Silent::Open);
    thread::scope(|scope| {
        let opener = scope.spawn(|| open(&bus, 1).unwrap_err());
        let (relid, number) = host.until("the open", |host| host.unanswered.first().copied());
        host.rescind(relid);
        assert!(opener.join().unwrap().is_rescinded());
        host.lock().opened(relid, number);
    });
    host.until("released", |host| host.released.get(&1).copied());
    host.speak(Silent::Open);
    host.offer(1);
    arrived(&bus, 1);
    open(&bus, 1).unwrap().close().unwrap();
    // That one, and the ring's, which nobody waits for after a rescind.
    assert_eq!(bus.counters().unwrap().control.stale_answers, 2);
}

/// Many references of all kinds, dropped by many threads while the host takes the channel back. Whether the number was
/// released before the last was gone.
fn many_references(rounds: usize) -> bool {
    let (bus, host) = bus([1]);
    let free = host.memory.free_pages();
    let mut early = false;
    for round in 0..rounds {
        let channel = open(&bus, 1).unwrap();
        let buffers: Vec<_> = (0..8).map(|_| channel.create_buffer(4096).unwrap()).collect();
        let last = channel.create_buffer(4096).unwrap();
        let go = Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            for (number, buffer) in buffers.into_iter().enumerate() {
                let go = Arc::clone(&go);
                scope.spawn(move || {
                    while !go.load(Ordering::Acquire) {
                        thread::yield_now();
                    }
                    if (number + round) % 3 == 0 { drop(buffer.close()) } else { drop(buffer) }
                });
            }
            go.store(true, Ordering::Release);
            host.rescind(1);
            drop(channel);
        });
        // All but one reference are gone; when another device comes, the executor has heard of that, and of the rescind.
        host.offer(2);
        arrived(&bus, 2);
        open(&bus, 2).unwrap().close().unwrap();
        early |= host.lock().released.contains_key(&1);
        drop(last);
        host.until("released", |host| host.released.get(&1).copied());
        host.rescind(2);
        host.until("released", |host| host.released.get(&2).copied());
        let released = std::mem::take(&mut host.lock().released);
        assert!(released.values().all(|times| *times == 1), "round {round}: {released:?}");
        host.offer(1);
        arrived(&bus, 1);
    }
    assert_eq!(host.memory.free_pages(), free);
    early
}

#[test]
fn r1_4_released_once_and_not_before_the_last_reference_is_gone() {
    assert!(!many_references(50));
}

#[cfg(feature = "mutations")]
#[test]
fn r1_4_mutant_a_release_before_the_last_reference_is_caught() {
    use vmbus_channels::mutation::{Mutation, with};
    assert!(with(Mutation::ReleaseBeforeUnreferenced, || many_references(1)));
}

/// Handles of both kinds, users in several threads, and a rescind at any time: released once each.
#[test]
fn r1_4_rescinds_at_any_time_of_open_traffic_and_close() {
    let (bus, host) = bus([]);
    let bus = &bus;
    for round in 0..100_u64 {
        host.offer(1);
        arrived(bus, 1);
        thread::scope(|scope| {
            let (owner, host) = (host.clone(), host.clone());
            scope.spawn(move || {
                let _ = if round % 2 == 0 { traffic(bus, &owner) } else { dispatched(bus) };
            });
            // Spins, so that the rescind falls anywhere in what the other does.
            (0..round * 500).for_each(|spin| {
                std::hint::black_box(spin);
            });
            host.rescind(1);
        });
        let times = host.until("released", |host| host.released.remove(&1));
        assert_eq!(times, 1);
    }
    let counters = bus.counters().unwrap();
    assert_eq!((counters.control.released, counters.channels, counters.gpadls, counters.open), (100, 0, 0, 0));
}

fn traffic(bus: &Vmbus, host: &Host) -> Result<(), Error> {
    let mut channel = open(bus, 1)?;
    let _buffer = channel.create_buffer(4096)?;
    for id in 0..20 {
        channel.try_send(OutgoingPacket::in_band(id), &[])?;
        if let Some(there) = host.lock().open.get_mut(&1) {
            let _ = there.writer.try_write(&OutgoingPacket::in_band(id), &[]);
        }
        receive(&mut channel)?;
    }
    channel.close()
}

fn dispatched(bus: &Vmbus) -> Result<(), Error> {
    let id = bus.find(instance(1))?.id;
    let mut channel = bus.open_dispatched(id, OpenOptions::default(), |_: &IncomingPacket<'_>| {})?;
    for id in 0..20 {
        channel.try_send(OutgoingPacket::in_band(id), &[])?;
    }
    channel.close()
}

/// The number comes back at once, while the old channel's interrupts are still under way: the new one hears its own.
#[test]
fn r1_6_a_relid_offered_again_is_another_channel() {
    let (bus, host) = bus([1]);
    for round in 0..20 {
        let old = open(&bus, 1).unwrap();
        host.send(1, 1000 + round);
        host.rescind(1);
        let id = old.id();
        drop(old);
        host.until("released", |host| host.released.remove(&1));
        host.offer(1);
        arrived(&bus, 1);
        assert!(matches!(bus.open(id, OpenOptions::default()), Err(Error::Gone(gone)) if gone == id));
        let mut new = open(&bus, 1).unwrap();
        assert!(receive(&mut new).unwrap().is_empty());
        host.send(1, round);
        new.wait(Some(LONG)).unwrap();
        assert_eq!(receive(&mut new).unwrap(), [round]);
        new.close().unwrap();
    }
}

/// After many cycles nothing is left anywhere: table, maps, memory.
#[test]
fn r1_7_cycles_leave_nothing_behind() {
    let (bus, host) = bus([]);
    let free = host.memory.free_pages();
    for round in 0..300 {
        host.offer(1);
        arrived(&bus, 1);
        let channel = open(&bus, 1).unwrap();
        if round % 3 == 0 {
            channel.close().unwrap();
            host.rescind(1);
        } else {
            host.rescind(1);
            drop(channel);
        }
        host.until("released", |host| host.released.remove(&1));
    }
    assert_eq!(host.memory.free_pages(), free);
    let counters = bus.counters().unwrap();
    assert_eq!((counters.channels, counters.gpadls, counters.open, counters.waiting), (0, 0, 0, 0));
    assert_eq!((counters.dispatch.entries, counters.dispatch.markers), (0, 0));
    assert_eq!((counters.control.offers, counters.control.released), (300, 300));
    let released = host.lock().count(|message| matches!(message, GuestMessage::RelidReleased { .. }));
    assert_eq!(released, 300);
}
