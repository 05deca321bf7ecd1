//! A host that goes silent: found by keep-alive, told to the channel's users, and closed.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vmbus::message::GuestMessage;
use vmbus_channels::dispatch::Ending;
use vmbus_channels::{
    Dispatched, Error, Handler, IncomingPacket, KeepAlive, OpenOptions, OutgoingPacket, Probe, Probed, Vmbus, Watched,
};

use crate::bus;
use crate::host::{Host, LONG, instance};

/// The transaction id of probes.
const PROBE: u64 = 7777;

/// How handlers of the same channel reach its sender.
type Shared = Arc<Mutex<Option<Dispatched>>>;

/// What a protocol tells the test.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Packet(u64),
    Probed(Probed),
    Ended(Ending),
}

struct Protocol {
    sender: Shared,
    says: Sender<Said>,
}

impl Handler for Protocol {
    fn packet(&mut self, packet: &IncomingPacket<'_>) {
        let _ = self.says.send(Said::Packet(packet.transaction_id()));
    }

    fn ended(&mut self, why: Ending) {
        let _ = self.says.send(Said::Ended(why));
    }
}

impl Probe for Protocol {
    fn probe(&mut self) -> Probed {
        let mut sender = self.sender.lock().unwrap();
        let probed = sender
            .as_mut()
            .map_or(Probed::Unsent, |sender| sender.try_send(OutgoingPacket::in_band(PROBE), &[]).into());
        let _ = self.says.send(Said::Probed(probed));
        probed
    }
}

fn watch(bus: &Vmbus, keep_alive: Option<KeepAlive>) -> (Shared, Receiver<Said>) {
    watch_behind(bus, keep_alive, |_| ())
}

/// Watches over a channel with which something is done before it is asked for anything.
fn watch_behind(
    bus: &Vmbus,
    keep_alive: Option<KeepAlive>,
    first: impl FnOnce(&mut Dispatched),
) -> (Shared, Receiver<Said>) {
    let (says, said) = channel();
    let sender = Shared::default();
    let protocol = Protocol { sender: Arc::clone(&sender), says };
    let offer = bus.find(instance(1)).unwrap();
    // Probes wait for it.
    let mut held = sender.lock().unwrap();
    let opened = bus.open_dispatched(offer.id, OpenOptions::default(), Watched::new(protocol, keep_alive)).unwrap();
    first(held.insert(opened));
    drop(held);
    (sender, said)
}

fn milliseconds(idle: u64, interval: u64, count: u32) -> Option<KeepAlive> {
    let [idle, interval] = [idle, interval].map(Duration::from_millis);
    Some(KeepAlive::new(idle, interval, count).unwrap())
}

/// Waits for the verdict. The probes before it, and how long the host was silent.
fn verdict(said: &Receiver<Said>) -> (Vec<Probed>, Duration) {
    let mut probes = Vec::new();
    loop {
        match said.recv_timeout(LONG).unwrap() {
            Said::Probed(probed) => probes.push(probed),
            Said::Ended(Ending::Dead(silent)) => return (probes, silent),
            other => unreachable!("{other:?}"),
        }
    }
}

/// What users hear from now on.
fn error(sender: &Shared) -> Error {
    loop {
        match sender.lock().unwrap().as_mut().unwrap().try_send(OutgoingPacket::in_band(1), &[]) {
            // The executor has not told them yet.
            Ok(()) | Err(Error::Full { .. }) => thread::yield_now(),
            Err(error) => return error,
        }
    }
}

/// The channel is closed with the host, as any other, and can be opened again.
fn closes(bus: &Vmbus, host: &Host, sender: &Shared) {
    let dispatched = sender.lock().unwrap().take().unwrap();
    assert!(dispatched.is_rescinded());
    dispatched.close().unwrap();
    let closes = host.lock().count(|message| matches!(message, GuestMessage::Close { relid: 1 }));
    assert_eq!(closes, 1);
    assert!(host.lock().gpadls.is_empty(), "the host has let go of its memory");
    let offer = bus.find(instance(1)).unwrap();
    bus.open_dispatched(offer.id, OpenOptions::default(), |_: &IncomingPacket<'_>| {}).unwrap().close().unwrap();
}

#[test]
fn r5_4_a_silent_host_is_found() {
    let (bus, host) = bus([1]);
    let keep_alive = milliseconds(30, 20, 3);
    let (sender, said) = watch(&bus, keep_alive);
    let (probes, silent) = verdict(&said);
    assert_eq!(probes, [Probed::Sent; 3]);
    assert!(silent >= keep_alive.unwrap().bound(), "{silent:?}: too early");
    let error = error(&sender);
    assert!(matches!(&error, Error::Dead { silent: heard, .. } if *heard == silent), "{error}");
    assert!(error.to_string().contains(&instance(1).to_string()), "{error}");
    closes(&bus, &host, &sender);
    assert_eq!(bus.counters().unwrap().dispatch.dead, 1);
    bus.shutdown().unwrap();
}

/// Nobody reads our ring: the probes can't be sent, and that is no reason to wait for ever.
#[test]
fn r5_4_a_host_that_leaves_the_ring_full_is_found() {
    let (bus, host) = bus([1]);
    let fill = |sender: &mut Dispatched| {
        // Large ones, and then what still fits.
        for bytes in [1024, 0] {
            while sender.try_send(OutgoingPacket::in_band(2), &[&vec![0; bytes]]).is_ok() {}
        }
    };
    let (sender, said) = watch_behind(&bus, milliseconds(5, 20, 2), fill);
    let (probes, _) = verdict(&said);
    assert_eq!(probes, [Probed::Unsent; 2]);
    assert!(matches!(error(&sender), Error::Dead { .. }));
    closes(&bus, &host, &sender);
}

/// A host that answers lives, however long it takes: an interval is longer than any machine takes.
#[test]
fn a_host_that_answers_lives() {
    let (bus, host) = bus([1]);
    let (sender, said) = watch(&bus, milliseconds(5, 20_000, 1));
    for round in 0..10 {
        assert_eq!(said.recv_timeout(LONG), Ok(Said::Probed(Probed::Sent)), "round {round}");
        assert_eq!(host.receive(1), [PROBE]);
        host.send(1, round);
        assert_eq!(said.recv_timeout(LONG), Ok(Said::Packet(round)));
    }
    let dispatched = sender.lock().unwrap().take().unwrap();
    dispatched.close().unwrap();
    let counters = bus.counters().unwrap().dispatch;
    assert_eq!((counters.dead, counters.entries), (0, 0));
    assert!(counters.timers >= 10);
}

/// Off unless it is asked for: no timer, and a silent host may be silent.
#[test]
fn without_a_keep_alive_nobody_is_asked() {
    let (bus, host) = bus([1]);
    let (sender, said) = watch(&bus, None);
    host.send(1, 1);
    assert_eq!(said.recv_timeout(LONG), Ok(Said::Packet(1)));
    let dispatched = sender.lock().unwrap().take().unwrap();
    dispatched.close().unwrap();
    assert_eq!(said.recv_timeout(LONG), Ok(Said::Ended(Ending::Closed)));
    assert_eq!(bus.counters().unwrap().dispatch.timers, 0);
}
