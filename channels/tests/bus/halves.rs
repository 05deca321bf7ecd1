//! A channel in two halves, on a processor with a dispatcher and on one of its own: both asleep at once, and their end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmbus::message::GuestMessage;
use vmbus_channels::{Error, OutgoingPacket, Placement, Receiver, Sender, Wake};

use crate::direct::{bus, open};
use crate::host::{Host, LONG};

const BOTH: [Placement; 2] = [Placement::Shared, Placement::Direct];

fn halves(placement: Placement) -> (vmbus_channels::Vmbus, Host, Receiver, Sender) {
    let (bus, host) = bus([1], 1);
    let channel = open(&bus, 1, placement).unwrap();
    assert_eq!(channel.is_direct(), placement == Placement::Direct);
    let (receiver, sender) = channel.split().unwrap();
    (bus, host, receiver, sender)
}

fn receive(receiver: &mut Receiver) -> Result<Vec<u64>, Error> {
    let mut ids = Vec::new();
    receiver.receive(usize::MAX, |packet| {
        ids.push(packet.transaction_id());
        Ok::<_, Error>(())
    })?;
    Ok(ids)
}

fn send(sender: &mut Sender, id: u64) -> Result<(), Error> {
    sender.send(OutgoingPacket::in_band(id), &[&[0; 1000]], Some(LONG))
}

fn fill(sender: &mut Sender) -> u64 {
    let packet = |id| OutgoingPacket::in_band(id);
    (0..).find(|id| matches!(sender.try_send(packet(*id), &[&[0; 1000]]), Err(Error::Full { .. }))).unwrap()
}

fn is_closed(host: &Host) -> bool {
    host.lock().count(|message| matches!(message, GuestMessage::Close { .. })) != 0
}

/// Waits until the guest's sender has asked for room, and so sleeps or is about to.
fn until_full(host: &Host) {
    use vmbus_ringbuf::{ControlField, Memory};
    host.until("nobody waits for room", |state| {
        let pending = state.open.get(&1)?.reader.memory().load(ControlField::PendingSendSize);
        (pending != 0).then_some(())
    });
}

/// Both sleep; each is woken by what is its own. A sender that is not told looks by itself every 100 ms, so a wake-up
/// that gets lost shows by the time. Red without `Bells::maybe_room` (shared), or if only one of two watched the
/// processor's interrupts (direct).
#[test]
fn a_blocked_sender_and_a_blocked_receiver_are_both_woken() {
    const ROUNDS: u64 = 400;
    for placement in BOTH {
        let (_bus, host, mut receiver, mut sender) = halves(placement);
        let start = Instant::now();
        thread::scope(|scope| {
            let (came, arrivals) = mpsc::channel();
            scope.spawn(move || {
                while receiver.wait(Some(LONG)).unwrap() == Wake::Packets {
                    for id in receive(&mut receiver).unwrap() {
                        came.send(id).unwrap();
                        if id == ROUNDS {
                            return;
                        }
                    }
                }
            });
            let (sent, sends) = mpsc::channel();
            let mut next = fill(&mut sender);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    send(&mut sender, next).unwrap();
                    sent.send(next).unwrap();
                    next = next + 1 + fill_from(&mut sender, next + 1);
                }
            });
            for round in 1..=ROUNDS {
                until_full(&host);
                // In turn: the packet first, and the room first.
                if round % 2 == 0 {
                    host.send(1, round);
                    assert_eq!(arrivals.recv_timeout(LONG).unwrap(), round);
                }
                host.receive(1);
                sends.recv_timeout(LONG).unwrap();
                if round % 2 == 1 {
                    host.send(1, round);
                    assert_eq!(arrivals.recv_timeout(LONG).unwrap(), round);
                }
            }
        });
        let each = start.elapsed() / u32::try_from(ROUNDS).unwrap();
        assert!(each < Duration::from_millis(50), "{placement:?}: {each:?} a round, the sender's wake-ups get lost");
    }
}

fn fill_from(sender: &mut Sender, first: u64) -> u64 {
    let packet = |id| OutgoingPacket::in_band(first + id);
    (0..).find(|id| matches!(sender.try_send(packet(*id), &[&[0; 1000]]), Err(Error::Full { .. }))).unwrap()
}

/// Each sleeps whenever it can, both directions at full speed; a lost wake-up of the receiver is a hang.
#[test]
fn no_wake_up_is_lost_in_a_long_conversation_of_two_threads() {
    const PACKETS: u64 = 30_000;
    for placement in BOTH {
        let (_bus, host, mut receiver, mut sender) = halves(placement);
        let received = &AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(move || (0..PACKETS).for_each(|id| send(&mut sender, id).unwrap()));
            scope.spawn(move || {
                let mut next = 0;
                while next < PACKETS {
                    assert_eq!(receiver.wait(Some(LONG)).unwrap(), Wake::Packets, "{placement:?} {next}");
                    for id in receive(&mut receiver).unwrap() {
                        assert_eq!(id, next);
                        next += 1;
                    }
                    received.store(next, Ordering::SeqCst);
                }
            });
            let mut next = 0;
            while next < PACKETS {
                for id in host.receive(1) {
                    assert_eq!(id, next);
                    next += 1;
                    // What comes of it must fit the other ring.
                    while next - received.load(Ordering::SeqCst) > 500 {
                        thread::yield_now();
                    }
                    host.send(1, id);
                }
            }
        });
    }
}

/// A sender that is not woken looks by itself 100 ms later, so it shows by the time. Red, on a processor of its own, without
/// the interrupt of the sender's waker in `Hold::end`.
#[test]
fn a_rescind_wakes_both() {
    const ROUNDS: u32 = 10;
    for placement in BOTH {
        let mut took = Duration::ZERO;
        for _ in 0..ROUNDS {
            took += rescinded(placement);
        }
        assert!(
            took / ROUNDS < Duration::from_millis(50),
            "{placement:?}: a sender hears of it after {took:?} / {ROUNDS}"
        );
    }
}

/// One channel that is taken back while both its halves sleep; how long it took until both knew.
fn rescinded(placement: Placement) -> Duration {
    let (bus, host, mut receiver, mut sender) = halves(placement);
    let next = fill(&mut sender);
    let took = thread::scope(|scope| {
        let receiving = scope.spawn(move || (receiver.wait(None).unwrap_err(), receiver));
        let sending = scope.spawn(move || {
            let error = sender.send(OutgoingPacket::in_band(next), &[&[0; 1000]], None).unwrap_err();
            (error, sender)
        });
        until_full(&host);
        let start = Instant::now();
        host.rescind(1);
        let (error, receiver) = receiving.join().unwrap();
        assert!(error.is_rescinded(), "{error}");
        let (error, sender) = sending.join().unwrap();
        assert!(error.is_rescinded(), "{error}");
        let took = start.elapsed();
        assert_eq!(host.lock().released.get(&1), None, "both still hold it");
        receiver.close().unwrap();
        assert_eq!(host.lock().released.get(&1), None, "one still holds it");
        sender.close().unwrap();
        took
    });
    host.until("the channel is not released", |state| state.released.get(&1).copied());
    assert_eq!(bus.counters().unwrap().open, 0);
    took
}

/// Wakers wake their own half, and no other.
#[test]
fn each_half_has_a_waker_of_its_own() {
    for placement in BOTH {
        let (_bus, host, mut receiver, mut sender) = halves(placement);
        let wakers = (receiver.waker(), sender.waker());
        let next = fill(&mut sender);
        thread::scope(|scope| {
            let receiving = scope.spawn(move || {
                let woken = receiver.wait(Some(LONG)).unwrap();
                (woken, receiver.wait(Some(Duration::ZERO)).unwrap())
            });
            let sending = scope.spawn(move || {
                let mut again = || sender.send(OutgoingPacket::in_band(next), &[&[0; 1000]], Some(LONG));
                let woken = again();
                (woken, sender.send(OutgoingPacket::in_band(next), &[&[0; 1000]], Some(Duration::from_millis(1))))
            });
            until_full(&host);
            wakers.0.wake();
            assert_eq!(receiving.join().unwrap(), (Wake::Woken, Wake::TimedOut));
            assert!(!sending.is_finished());
            wakers.1.wake();
            let (woken, later) = sending.join().unwrap();
            assert!(matches!(woken, Err(Error::Woken { .. })), "{woken:?}");
            assert!(matches!(later, Err(Error::Stalled { .. })), "one wake is heard once: {later:?}");
        });
    }
}

/// Whoever goes first leaves the other at work; the last closes, by `close` or by drop, and only then the host hears.
#[test]
fn halves_go_in_any_order() {
    for placement in BOTH {
        for order in 0..8 {
            let (receiver_first, first_drops, last_drops) = (order & 1 == 0, order & 2 == 0, order & 4 == 0);
            let (bus, host, mut receiver, mut sender) = halves(placement);
            if receiver_first {
                if first_drops {
                    drop(receiver)
                } else {
                    receiver.close().unwrap()
                }
                send(&mut sender, 7).unwrap();
                assert_eq!(host.receive(1), [7]);
                assert!(!host.send(1, 8), "nobody wants interrupts any more");
                assert!(!is_closed(&host));
                if last_drops { drop(sender) } else { sender.close().unwrap() }
            } else {
                if first_drops {
                    drop(sender)
                } else {
                    sender.close().unwrap()
                }
                host.send(1, 8);
                assert_eq!(receiver.wait(Some(LONG)).unwrap(), Wake::Packets);
                assert_eq!(receive(&mut receiver).unwrap(), [8]);
                assert!(!is_closed(&host));
                if last_drops { drop(receiver) } else { receiver.close().unwrap() }
            }
            host.until("it is not closed", |state| state.gpadls.is_empty().then_some(()));
            assert!(is_closed(&host));
            // It is on offer again, and whole.
            let again = (0..).find_map(|_| open(&bus, 1, placement).ok()).unwrap();
            assert_eq!(again.is_direct(), placement == Placement::Direct);
            again.close().unwrap();
        }
    }
}

/// Both go at the same time: one of them closes, and the channel is closed once.
#[test]
fn two_closes_at_once_are_one() {
    for placement in BOTH {
        let (bus, host) = bus([1], 1);
        for round in 1..=100 {
            let (receiver, sender) = open(&bus, 1, placement).unwrap().split().unwrap();
            thread::scope(|scope| {
                scope.spawn(move || receiver.close().unwrap());
                scope.spawn(move || sender.close().unwrap());
            });
            assert_eq!(host.lock().count(|message| matches!(message, GuestMessage::Close { .. })), round);
        }
    }
}

fn readable(half: &impl std::os::fd::AsFd, millis: i64) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: millis * 1_000_000 };
    poll(&mut [PollFd::new(half, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

/// Event loops sleep on the halves' descriptors.
#[test]
fn both_halves_have_descriptors_for_event_loops() {
    for placement in BOTH {
        let (_bus, host, mut receiver, mut sender) = halves(placement);
        // Until it may sleep: what was on its way before is acknowledged first.
        while receiver.arm().unwrap() || readable(&receiver, 0) {}
        host.send(1, 1);
        assert!(readable(&receiver, 900), "{placement:?}");
        assert!(receiver.arm().unwrap(), "a packet is there: do not sleep");
        assert_eq!(receive(&mut receiver).unwrap(), [1]);
        let needed = loop {
            match sender.try_send(OutgoingPacket::in_band(2), &[&[0; 1000]]) {
                Ok(()) => {}
                Err(Error::Full { needed, .. }) => break needed,
                Err(error) => panic!("{error}"),
            }
        };
        // A dispatcher may still be at what came before.
        while {
            assert!(!sender.arm(needed).unwrap());
            readable(&sender, 10)
        } {}
        host.receive(1);
        assert!(readable(&sender, 900), "{placement:?}");
        assert!(sender.arm(needed).unwrap(), "there is room");
        host.rescind(1);
        assert!(readable(&receiver, 900), "{placement:?}: the end is an event, too");
        let ended = (0..).find_map(|_| receiver.arm().err()).unwrap();
        assert!(ended.is_rescinded(), "{ended}");
    }
}
