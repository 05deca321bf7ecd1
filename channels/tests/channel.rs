//! One channel over a device made of files: signals, masks, waiting, room, the end of the device.

mod host;

use std::cell::Cell;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use vmbus::ErrorKind;
use vmbus_channels::{Channel, Error, OutgoingPacket, Wake};
use vmbus_ringbuf::{ControlField, Memory, WriteError};

use host::fake::{NAME, RELID};
use host::{Host, fill, open, receive, send};

#[test]
fn the_host_is_signalled_when_its_ring_was_empty() {
    let (_fake, mut channel, mut host) = open();
    send(&mut channel, 1).unwrap();
    assert_eq!(host.signals(), 1);
    send(&mut channel, 2).unwrap();
    assert_eq!(host.signals(), 0, "it has been told");
    assert_eq!(host.receive(), [1, 2]);
    host.reader.mask();
    send(&mut channel, 3).unwrap();
    assert_eq!(host.signals(), 0, "it does not want to be told");
}

#[test]
fn a_batch_signals_once_and_a_failed_one_leaves_nothing() {
    let (_fake, mut channel, mut host) = open();
    let ids = [1, 2, 3];
    let sent = channel.send_batch(|batch| ids.iter().try_for_each(|id| batch.push(&OutgoingPacket::in_band(*id), &[])));
    sent.unwrap();
    assert_eq!((host.signals(), host.receive()), (1, ids.to_vec()));
    let failed: Result<(), _> = channel.send_batch(|batch| {
        batch.push(&OutgoingPacket::in_band(4), &[])?;
        batch.push(&OutgoingPacket::in_band(5), &[&[0; 1 << 20]])
    });
    assert!(matches!(failed, Err(Error::Packet { source: WriteError::TooLarge { .. }, .. })), "{failed:?}");
    assert_eq!((host.signals(), host.receive()), (0, vec![]));
}

#[test]
fn packets_come_in_up_to_the_budget_and_masked() {
    let (_fake, mut channel, mut host) = open();
    host.send_all(1..=5);
    assert_eq!(channel.wait(None).unwrap(), Wake::Packets, "packets that were there before anybody waited");
    assert_eq!(receive(&mut channel, 3), [1, 2, 3]);
    assert_eq!(host.guest_mask(), 1);
    assert!(!host.send(6), "no interrupt for who is busy");
    assert_eq!(channel.wait(None).unwrap(), Wake::Packets);
    assert_eq!(receive(&mut channel, 9), [4, 5, 6]);
    assert!(receive(&mut channel, 9).is_empty());
    assert_eq!(channel.wait(Some(Duration::from_millis(1))).unwrap(), Wake::TimedOut);
    assert_eq!(host.guest_mask(), 0, "who does not receive wants interrupts");
    assert!(host.send(7));
}

#[test]
fn what_the_caller_returns_ends_the_batch() {
    let (_fake, mut channel, mut host) = open();
    host.send_all(1..=3);
    #[derive(Debug)]
    enum Mine {
        Stop(u64),
        Channel,
    }
    impl From<Error> for Mine {
        fn from(_: Error) -> Self {
            Self::Channel
        }
    }
    let outcome = channel.receive(9, |packet| match packet.transaction_id() {
        2 => Err(Mine::Stop(2)),
        _ => Ok(()),
    });
    assert!(matches!(outcome, Err(Mine::Stop(2))), "{:?}", Mine::Channel);
    assert_eq!(receive(&mut channel, 9), [3]);
}

/// The 4-byte write opens the mask inside the kernel. `each` stands in for the kernel here: it opens the mask when the
/// channel has masked and has not signalled yet.
#[test]
fn a_signal_while_masked_masks_again() {
    let (_fake, mut channel, mut host) = open();
    while host.writer.try_write(&OutgoingPacket::in_band(9), &[&[0; 64]]).is_ok() {}
    assert!(!host.writer.request_space(1024).unwrap());
    let ring = host.writer.memory();
    let outcome = channel.receive(usize::MAX, |_| {
        ring.store(ControlField::InterruptMask, 0);
        Ok::<_, Error>(())
    });
    assert!(outcome.unwrap() > 10);
    assert_eq!(host.signals(), 1, "the host waits for room, and there is some");
    assert_eq!(host.guest_mask(), 1);
}

/// Kernels that mask after each interrupt: a spurious one must not leave the ring masked under a sleeper.
#[test]
fn a_mask_that_the_kernel_set_is_undone_before_sleeping_on() {
    let (_fake, mut channel, mut host) = open();
    host.kernel_masks = true;
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| channel.wait(None).unwrap());
        for _ in 0..100 {
            host.interrupt();
            while host.guest_mask() != 0 {
                thread::yield_now();
            }
        }
        assert!(host.send(1), "it is unmasked, so an interrupt is due");
        assert_eq!(sleeper.join().unwrap(), Wake::Packets);
    });
}

#[test]
fn a_waker_ends_this_wait_or_the_next() {
    let (_fake, mut channel, _host) = open();
    let waker = channel.waker();
    waker.wake();
    waker.wake();
    assert_eq!(channel.wait(None).unwrap(), Wake::Woken);
    assert_eq!(channel.wait(Some(Duration::ZERO)).unwrap(), Wake::TimedOut, "several wakes count as one");
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| channel.wait(None).unwrap());
        waker.clone().wake();
        assert_eq!(sleeper.join().unwrap(), Wake::Woken);
    });
    channel.close().unwrap();
    waker.wake();
}

#[test]
fn an_event_loop_sleeps_on_the_descriptor() {
    let (_fake, mut channel, mut host) = open();
    let readable = |channel: &Channel| {
        let mut node = [PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::IN)];
        poll(&mut node, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    assert!(!channel.arm().unwrap() && !readable(&channel));
    host.send(1);
    assert!(readable(&channel));
    assert!(channel.arm().unwrap(), "a packet is there: do not sleep");
    assert!(!readable(&channel), "acknowledged");
    assert_eq!(receive(&mut channel, 9), [1]);
    assert!(!channel.arm().unwrap());
}

#[test]
fn a_full_ring_is_waited_for() {
    let (_fake, mut channel, mut host) = open();
    let sent = fill(&mut channel);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let packet = OutgoingPacket::in_band(sent);
            channel.send(packet, &[&[0; 8]], None).unwrap();
        });
        while host.reader.memory().load(ControlField::PendingSendSize) == 0 {
            thread::yield_now();
        }
        let mut ids = host.receive();
        assert_eq!(host.count, 1, "the sender asked to be told");
        sender.join().unwrap();
        ids.extend(host.receive());
        assert_eq!(ids, (0..=sent).collect::<Vec<_>>());
    });
    assert_eq!(host.reader.memory().load(ControlField::PendingSendSize), 0);
}

#[test]
fn a_wait_for_room_ends_by_time_and_by_waker() {
    let (_fake, mut channel, host) = open();
    let id = fill(&mut channel);
    let begin = Instant::now();
    let timeout = Duration::from_millis(250);
    let error = channel.send(OutgoingPacket::in_band(id), &[&[0; 8]], Some(timeout)).unwrap_err();
    assert!(matches!(&error, Error::Stalled { device, needed: 32, .. } if device == NAME), "{error}");
    assert!(begin.elapsed() >= timeout);
    assert_eq!(host.reader.memory().load(ControlField::PendingSendSize), 0, "no longer asked for");
    channel.waker().wake();
    let error = channel.send(OutgoingPacket::in_band(id), &[&[0; 8]], None).unwrap_err();
    assert!(matches!(error, Error::Woken { .. }), "{error}");
    assert_eq!(channel.wait(None).unwrap(), Wake::Woken, "the wake is still there");
}

/// The device ends in each state that a caller can be in; never is it called a corrupt ring.
#[test]
fn the_end_is_rescinded_wherever_it_is_seen() {
    type Call = fn(&mut Channel) -> Result<(), Error>;
    let calls: [Call; 5] = [
        |channel| channel.receive(9, |_| Ok::<_, Error>(())).map(|_| ()),
        |channel| channel.wait(None).map(|_| ()),
        |channel| channel.arm().map(|_| ()),
        |channel| send(channel, 9),
        |channel| channel.send_batch(|batch| batch.push(&OutgoingPacket::in_band(1), &[])),
    ];
    for (number, call) in calls.iter().enumerate() {
        let (fake, mut channel, mut host) = open();
        host.send_all(1..=3);
        assert_eq!(receive(&mut channel, 2), [1, 2]);
        // What the kernel does first: the pages go. Then the node says so.
        fake.ring_file(RELID).set_len(0).unwrap();
        let error = call(&mut channel).unwrap_err();
        assert!(error.is_rescinded() && error.kind() == ErrorKind::Rescinded, "call {number}: {error}");
        assert!(channel.is_rescinded());
        drop(host.node);
        assert!(call(&mut channel).unwrap_err().is_rescinded(), "call {number} again");
        channel.close().unwrap();
    }
}

/// The ring is already zeroes when the node's end is seen: nonsense in it is confirmed before it is blamed on the host.
#[test]
fn nonsense_after_the_end_is_no_corruption() {
    let (fake, mut channel, mut host) = open();
    host.send(1);
    assert_eq!(receive(&mut channel, 1), [1]);
    fake.ring(RELID, 1).store(ControlField::WriteIndex, 0);
    fake.ring(RELID, 1).store(ControlField::ReadIndex, 0);
    drop(host.node);
    let error = channel.receive(1, |_| Ok::<_, Error>(())).unwrap_err();
    assert!(error.is_rescinded(), "{error}");
}

#[test]
fn nonsense_of_a_living_host_is_corruption_for_good() {
    let (fake, mut channel, mut host) = open();
    host.send(1);
    fake.ring(RELID, 1).store(ControlField::WriteIndex, 5);
    assert_eq!(channel.wait(None).unwrap(), Wake::Packets);
    for _ in 0..2 {
        let error = channel.receive(1, |_| Ok::<_, Error>(())).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { device, .. } if device == NAME), "{error}");
    }
    channel.close().unwrap();
}

#[test]
fn packets_read_as_the_device_goes_are_not_reported_as_received() {
    let (fake, mut channel, mut host) = open();
    host.send_all(1..=3);
    let seen = Cell::new(0);
    let outcome = channel.receive(9, |_| {
        seen.set(seen.get() + 1);
        fake.ring_file(RELID).set_len(0).unwrap();
        Ok::<_, Error>(())
    });
    assert!(outcome.unwrap_err().is_rescinded());
    assert_eq!(seen.get(), 1);
}

/// Both sides sleep whenever they can, on kernels of both semantics; a lost wake-up is a hang, which the timeout finds.
#[test]
fn no_wake_up_is_lost_in_a_long_conversation() {
    const PACKETS: u64 = 20_000;
    for kernel_masks in [false, true] {
        let (_fake, mut channel, mut host) = open();
        host.kernel_masks = kernel_masks;
        thread::scope(|scope| {
            scope.spawn(|| echo(&mut host, PACKETS));
            let (mut sent, mut back) = (0, 0);
            while back < PACKETS {
                // As many as fit, in uneven bursts, then sleep until one comes back.
                while sent < PACKETS && sent - back < 1 + sent % 61 && send(&mut channel, sent).is_ok() {
                    sent += 1;
                }
                assert_eq!(channel.wait(Some(Duration::from_secs(20))).unwrap(), Wake::Packets, "{sent} {back}");
                for id in receive(&mut channel, 17) {
                    assert_eq!(id, back);
                    back += 1;
                }
            }
        });
    }
}

fn echo(host: &mut Host, packets: u64) {
    let mut next = 0;
    while next < packets {
        host.reader.mask();
        let ids = host.receive();
        for id in ids {
            host.send(id);
            next = id + 1;
        }
        host.signals();
        if next < packets && !host.reader.unmask() {
            host.sleep();
        }
    }
}
