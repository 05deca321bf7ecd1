//! A registered driver over the whole stack: devices that come and go at the host are probed once and removed once,
//! while their channels are open and busy, and nothing is left.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmbus_channels::{Channel, Dispatched, Offer, OpenOptions};
use vmbus_devices::Error;
use vmbus_devices::registry::{Context, DeviceIds, Driver, Instance, Reason, Registry, Settings};
use vmbus_ringbuf::OutgoingPacket;
use vmbus_simhost::device::Echo;
use vmbus_simhost::{Config, DeviceSpec};
use vmbus_tests::{LONG, Stack};

/// How often what happened to a driver's devices.
#[derive(Debug, Default)]
struct Seen {
    probed: AtomicU64,
    removed: AtomicU64,
    /// Devices that are there now, as the driver knows.
    there: AtomicU64,
    echoes: AtomicU64,
    /// Callbacks after the removal.
    late: AtomicU64,
}

/// Opens each echo device and has its packets counted by a dispatcher.
struct EchoDriver(Arc<Seen>);

struct Open {
    seen: Arc<Seen>,
    channel: Dispatched,
}

impl Driver for EchoDriver {
    fn name(&self) -> String {
        "echo".to_owned()
    }

    fn ids(&self) -> DeviceIds {
        DeviceIds::class(Echo::CLASS)
    }

    fn probe(&self, context: &Context, offer: Offer) -> Result<Box<dyn Instance>, Error> {
        self.0.probed.fetch_add(1, Ordering::SeqCst);
        let (seen, inside) = (Arc::clone(&self.0), context.clone());
        let handler = move |_: &vmbus_channels::IncomingPacket<'_>| match inside.enter() {
            Ok(_inside) => drop(seen.echoes.fetch_add(1, Ordering::SeqCst)),
            // Being removed: the packet is nobody's. This driver touches nothing any more.
            Err(_) => drop(seen.late.fetch_add(1, Ordering::SeqCst)),
        };
        let mut channel = context.vmbus()?.open_dispatched(offer.id, OpenOptions::default(), handler)?;
        for number in 1..=8 {
            channel.try_send(OutgoingPacket::in_band(number), &[&number.to_le_bytes()])?;
        }
        self.0.there.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Open { seen: Arc::clone(&self.0), channel }))
    }
}

impl Instance for Open {
    fn remove(self: Box<Self>, _reason: Reason) {
        // A device that is gone is no error.
        self.channel.close().unwrap();
        self.seen.there.fetch_sub(1, Ordering::SeqCst);
        self.seen.removed.fetch_add(1, Ordering::SeqCst);
    }
}

/// R4.1 and R4.4 over the whole stack; their mutants are with the registry itself.
#[test]
fn r4_4_devices_that_come_and_go_are_probed_once_and_removed_once() {
    const ROUNDS: u64 = 100;
    let stack = Stack::start(Config::seeded(4)).unwrap();
    let registry = Registry::start(&stack.bus, Settings::default()).unwrap();
    let seen = Arc::new(Seen::default());
    let registration = registry.register(EchoDriver(Arc::clone(&seen))).unwrap();
    for round in 0..ROUNDS {
        let id = stack.control.offer(DeviceSpec::echo(round % 3)).unwrap();
        // Some go before they are probed, some while, some after.
        if round % 4 != 0 {
            assert!(stack.control.wait_for(LONG, move |sim| sim.host().count(id, "packets") >= round % 8).unwrap());
        }
        stack.control.rescind(id).unwrap();
        assert!(stack.control.wait_for(LONG, move |sim| sim.host().state(id).is_none()).unwrap(), "round {round}");
    }
    registry.settle().unwrap();
    let counters = registry.counters().unwrap();
    assert_eq!((counters.arrivals, counters.departures), (ROUNDS, ROUNDS));
    let probed = seen.probed.load(Ordering::SeqCst);
    assert_eq!(probed + counters.departed_unprobed, ROUNDS, "each device once: {counters:?}");
    // A device that was gone before it could be opened fails its probe.
    assert_eq!(probed, seen.removed.load(Ordering::SeqCst) + counters.failed_probes, "{counters:?}");
    assert_eq!((seen.there.load(Ordering::SeqCst), counters.duplicate_arrivals, counters.panics), (0, 0, 0));
    assert!(seen.echoes.load(Ordering::SeqCst) > 0);

    // What is there when the driver goes is removed before `unregister` returns, and hears nothing after it.
    let id = stack.control.offer(DeviceSpec::echo(9)).unwrap();
    assert!(stack.control.wait_for(LONG, move |sim| sim.host().count(id, "packets") == 8).unwrap());
    registration.unregister().unwrap();
    let (removed, echoes) = (seen.removed.load(Ordering::SeqCst), seen.echoes.load(Ordering::SeqCst));
    assert_eq!(seen.there.load(Ordering::SeqCst), 0);
    let mut channel: Channel = stack.bus.open(stack.bus.offers().unwrap()[0].id, OpenOptions::default()).unwrap();
    channel.send(OutgoingPacket::in_band(1), &[b"nobody"], Some(LONG)).unwrap();
    channel.wait(Some(LONG)).unwrap();
    assert_eq!((seen.removed.load(Ordering::SeqCst), seen.echoes.load(Ordering::SeqCst)), (removed, echoes));
    channel.close().unwrap();
    registry.shutdown().unwrap();
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
