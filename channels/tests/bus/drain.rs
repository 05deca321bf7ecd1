//! What the host had sent before it took a channel back: it is delivered, in order, and then the rescind is the error.

use std::thread;

use vmbus_channels::{Channel, Error, OutgoingPacket, Placement, Wake};

use crate::direct::{bus, open};
use crate::host::{Host, LONG};
use crate::receive;

const BOTH: [Placement; 2] = [Placement::Shared, Placement::Direct];

/// Takes the channel back, and waits until the guest knows.
fn rescind(host: &Host, channel: &Channel) {
    host.rescind(1);
    while !channel.is_rescinded() {
        thread::yield_now();
    }
}

/// It is over, for every method, and stays it.
fn is_over(channel: &mut Channel) {
    for _ in 0..2 {
        let errors = [
            receive(channel).unwrap_err(),
            channel.wait(None).unwrap_err(),
            channel.arm().unwrap_err(),
            channel.try_send(OutgoingPacket::in_band(1), &[]).unwrap_err(),
        ];
        assert!(errors.iter().all(Error::is_rescinded), "{errors:?}");
    }
}

#[test]
fn what_was_sent_before_a_rescind_is_received() {
    for placement in BOTH {
        let (bus, host) = bus([1], 1);
        let mut channel = open(&bus, 1, placement).unwrap();
        for id in 1..=5 {
            host.send(1, id);
        }
        rescind(&host, &channel);
        assert!(channel.try_send(OutgoingPacket::in_band(1), &[]).unwrap_err().is_rescinded(), "at once");
        assert_eq!(channel.wait(None).unwrap(), Wake::Packets);
        let mut ids = Vec::new();
        let stopped = channel.receive(9, |_| Err(Error::Argument("enough")));
        assert!(matches!(stopped, Err(Error::Argument(_))), "whose packet counts as received");
        let two = channel.receive(2, |packet| {
            ids.push(packet.transaction_id());
            Ok::<_, Error>(())
        });
        assert_eq!((two.unwrap(), &ids[..]), (2, &[2, 3][..]));
        channel.waker().wake();
        assert_eq!(channel.wait(None).unwrap(), Wake::Woken, "a wake comes first, as ever");
        assert!(channel.arm().unwrap() && channel.arm().unwrap());
        assert_eq!(receive(&mut channel).unwrap(), [4, 5]);
        is_over(&mut channel);
        assert!(host.lock().released.is_empty(), "its owner has it still");
        drop(channel);
        host.until("released", |host| host.released.get(&1).copied());
    }
}

/// The reader sleeps, reads, or is anywhere between: it gets everything, once, whenever the rescind comes.
#[test]
fn nothing_is_lost_or_seen_twice_whenever_the_rescind_comes() {
    let (bus, host) = bus([], 1);
    for round in 0..200_u64 {
        host.offer(1);
        crate::arrived(&bus, 1);
        let placement = BOTH[usize::from(round % 2 == 0)];
        let channel = (0..).find_map(|_| open(&bus, 1, placement).ok()).unwrap();
        let (mut receiver, sender) = channel.split().unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut ids = Vec::new();
                let each = |ids: &mut Vec<u64>, receiver: &mut vmbus_channels::Receiver| {
                    receiver.receive(7, |packet| {
                        ids.push(packet.transaction_id());
                        Ok::<_, Error>(())
                    })
                };
                let error = loop {
                    match each(&mut ids, &mut receiver).and_then(|_| receiver.wait(Some(LONG))) {
                        Ok(wake) => assert_eq!(wake, Wake::Packets),
                        Err(error) => break error,
                    }
                };
                assert!(error.is_rescinded(), "{error}");
                ids
            });
            for id in 0..round {
                host.send(1, id);
            }
            host.rescind(1);
            assert_eq!(reader.join().unwrap(), (0..round).collect::<Vec<_>>(), "round {round}");
        });
        drop(sender);
        host.until("released", |host| host.released.remove(&1));
    }
}

/// A host that goes on writing is read for as long as its ring was deep, and no longer.
#[test]
fn a_host_that_writes_behind_its_rescind_is_not_listened_to_for_ever() {
    let (bus, host) = bus([1], 1);
    let mut channel = open(&bus, 1, Placement::Shared).unwrap();
    rescind(&host, &channel);
    let mut next = 0;
    let error = loop {
        host.send(1, next);
        match receive(&mut channel) {
            Ok(ids) => assert_eq!(ids, [next]),
            Err(error) => break error,
        }
        next += 1;
        assert!(next < 1 << 20, "it is heard for ever");
    };
    assert!(error.is_rescinded(), "{error}");
    is_over(&mut channel);
}

/// What it writes there is checked as ever; and then the rescind is what is said, and not what it did behind it.
#[test]
fn nonsense_behind_a_rescind_is_its_end() {
    let (bus, host) = bus([1], 1);
    let mut channel = open(&bus, 1, Placement::Shared).unwrap();
    host.send(1, 7);
    rescind(&host, &channel);
    host.spoil(1);
    is_over(&mut channel);
}

/// With the bus the memory goes: nothing that is read counts, also if the rescind came first.
#[test]
fn nothing_is_left_behind_the_end_of_the_bus() {
    let (bus, host) = bus([1], 1);
    let mut channel = open(&bus, 1, Placement::Shared).unwrap();
    host.send(1, 7);
    rescind(&host, &channel);
    assert_eq!(channel.wait(None).unwrap(), Wake::Packets);
    host.die();
    while channel.wait(None).is_ok() {
        thread::yield_now();
    }
    is_over(&mut channel);
}
