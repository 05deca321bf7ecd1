//! Two halves that sleep on one device's descriptor, whose interrupts are there once for both.
#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

#[expect(dead_code, reason = "made for channels that are whole, of which this needs a part")]
mod host;

use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmbus_channels::{Error, OutgoingPacket, Receiver, Sender, Wake};
use vmbus_ringbuf::{ControlField, Memory};

use host::{Host, open};

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

fn receive(receiver: &mut Receiver) -> Vec<u64> {
    let mut ids = Vec::new();
    receiver
        .receive(usize::MAX, |packet| {
            ids.push(packet.transaction_id());
            Ok::<_, Error>(())
        })
        .unwrap();
    ids
}

/// Sends until the ring is full; the first that did not fit.
fn fill(sender: &mut Sender, first: u64) -> u64 {
    let full = |id: &u64| {
        matches!(sender.try_send(OutgoingPacket::in_band(*id), &[&id.to_le_bytes()]), Err(Error::Full { .. }))
    };
    (first..).find(full).unwrap()
}

/// Until a sender has asked for room.
fn until_full(host: &Host) {
    let start = Instant::now();
    while host.reader.memory().load(ControlField::PendingSendSize) == 0 {
        assert!(start.elapsed() < LONG, "nobody waits for room");
        thread::yield_now();
    }
}

/// Until the receiver sleeps, or is about to.
fn until_unmasked(host: &Host) {
    while host.guest_mask() != 0 {
        thread::yield_now();
    }
}

/// Whoever of the two reads the descriptor, the other hears of it. Red without `Bells::pass_on`: a packet's interrupt
/// that the sender takes leaves the receiver asleep, and one for room makes the sender wait for its next look.
#[test]
fn neither_half_takes_the_others_interrupt() {
    const ROUNDS: u64 = 300;
    for kernel_masks in [false, true] {
        let (_fake, channel, mut host) = open();
        host.kernel_masks = kernel_masks;
        let (mut receiver, mut sender) = channel.split().unwrap();
        let start = Instant::now();
        thread::scope(|scope| {
            let (came, arrivals) = mpsc::channel();
            scope.spawn(move || {
                loop {
                    assert_eq!(receiver.wait(Some(LONG)).unwrap(), Wake::Packets, "an interrupt was lost");
                    for id in receive(&mut receiver) {
                        came.send(id).unwrap();
                        if id == ROUNDS {
                            return;
                        }
                    }
                }
            });
            let (sent, sends) = mpsc::channel();
            scope.spawn(move || {
                let mut next = fill(&mut sender, 0);
                for _ in 0..ROUNDS {
                    sender.send(OutgoingPacket::in_band(next), &[&[0; 8]], Some(LONG)).unwrap();
                    sent.send(()).unwrap();
                    next = fill(&mut sender, next + 1);
                }
            });
            for round in 1..=ROUNDS {
                until_full(&host);
                until_unmasked(&host);
                host.send(round);
                assert_eq!(arrivals.recv_timeout(LONG), Ok(round));
                until_unmasked_unless_last(&host, round == ROUNDS);
                host.receive();
                host.signals();
                sends.recv_timeout(LONG).unwrap();
            }
        });
        let each = start.elapsed() / u32::try_from(ROUNDS).unwrap();
        assert!(each < Duration::from_millis(50), "{each:?} a round: the sender's wake-ups get lost");
    }
}

fn until_unmasked_unless_last(host: &Host, last: bool) {
    if !last {
        until_unmasked(host);
    }
}

/// The end of the device wakes both, whoever sees it first.
#[test]
fn the_end_of_the_device_wakes_both() {
    for _ in 0..20 {
        let (_fake, channel, host) = open();
        let (mut receiver, mut sender) = channel.split().unwrap();
        let next = fill(&mut sender, 0);
        thread::scope(|scope| {
            let receiving = scope.spawn(move || (receiver.wait(Some(LONG)).unwrap_err(), receiver));
            let sending = scope.spawn(move || {
                (sender.send(OutgoingPacket::in_band(next), &[&[0; 8]], Some(LONG)).unwrap_err(), sender)
            });
            until_full(&host);
            drop(host.node);
            let (error, receiver) = receiving.join().unwrap();
            assert!(error.is_rescinded(), "{error}");
            let (error, sender) = sending.join().unwrap();
            assert!(error.is_rescinded(), "{error}");
            sender.close().unwrap();
            receiver.close().unwrap();
        });
    }
}

/// The descriptors of both, for event loops: an interrupt that one of them has acknowledged is still seen by the other.
#[test]
fn event_loops_sleep_on_both_halves() {
    let readable = |half: &dyn AsFd| {
        let mut on = [PollFd::from_borrowed_fd(half.as_fd(), PollFlags::IN)];
        poll(&mut on, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    let (_fake, channel, mut host) = open();
    let (mut receiver, mut sender) = channel.split().unwrap();
    assert!(!receiver.arm().unwrap() && !readable(&receiver));
    let next = fill(&mut sender, 0);
    assert!(!sender.arm(32).unwrap() && !readable(&sender));
    host.send(1);
    assert!(readable(&receiver) && readable(&sender));
    // The sender looks first, and acknowledges what was the receiver's.
    assert!(!sender.arm(32).unwrap() && !readable(&sender));
    assert!(readable(&receiver), "it was passed on");
    assert!(receiver.arm().unwrap());
    assert_eq!(receive(&mut receiver), [1]);
    while receiver.arm().unwrap() || readable(&receiver) {}
    while readable(&sender) {
        assert!(!sender.arm(32).unwrap());
    }
    assert_eq!(host.receive().last(), Some(&(next - 1)));
    assert!(!receiver.arm().unwrap());
    assert!(readable(&sender), "it was passed on");
    assert!(sender.arm(32).unwrap(), "there is room");
}
