//! An adapter's life: taken back in every moment of its begin, and driven by the registry.

use super::world::{World, frame, pump};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use vmbus::class::Class;
use vmbus_channels::{Announcement, Wake};
use vmbus_devices::Error;
use vmbus_devices::net::{NetworkDriver, Settings, TransmitInfo};
use vmbus_devices::registry::{self, Registry};
use vmbus_simhost::device::net::{Network, NetworkSettings};
use vmbus_simhost::{Config, Random};
use vmbus_tests::{LONG, Stack};

/// The host takes the adapter back after a number of packets that a seed decides, from the first word of the negotiation
/// to the frames, and offers it again at once. What is open ends as rescinded, and nothing is left.
#[test]
fn an_adapter_is_taken_back_at_any_moment() {
    let seed = 5;
    let stack = Stack::start(Config::seeded(seed).with_device(Network::offer(1, NetworkSettings::default()))).unwrap();
    let mut changes = stack.bus.subscribe().unwrap();
    let (mut random, mut lives, mut opened) = (Random::new(seed), 0, 0);
    while lives < 60 {
        let Some(Announcement::Arrived(offer)) = changes.next(Some(LONG)).unwrap() else { continue };
        if offer.class != Class::NIC || offer.subchannel_index != 0 {
            continue;
        }
        lives += 1;
        let (relid, control) = (offer.relid, stack.control.clone());
        let id = control.with(move |simulation| simulation.host().offer_on_relid(relid)).unwrap().unwrap();
        let (before, after) = (stack.control.counters().unwrap().packets_in, random.below(40));
        let due = move |simulation: &mut vmbus_simhost::Simulation<_>| {
            let due = simulation.host().counters().packets_in >= before + after;
            if due {
                simulation.host().reoffer(id).unwrap();
            }
            due
        };
        let taken_back = control.expect(LONG, due).unwrap();
        let settings = Settings { receive_bytes: 64 << 10, send_bytes: 32 << 10, ..Settings::default() };
        let outcome = vmbus_devices::net::Adapter::open(&stack.bus, &offer, settings).and_then(|mut adapter| {
            opened += 1;
            adapter.start()?;
            let more = adapter.add_queues(&stack.bus, 3)?;
            loop {
                adapter.queue().send(&[&frame(1, 100)], &TransmitInfo::default(), Some(LONG))?;
                adapter.queue().receive(16, |_| Ok::<_, Error>(()))?;
                assert!(more.len() < 3);
            }
        });
        let error = outcome.map(|never: ()| never).unwrap_err();
        // The host refuses what a guest asks for that has not heard of the rescind.
        let refused =
            matches!(error, Error::Channel(vmbus_channels::Error::Host { .. } | vmbus_channels::Error::Gone(_)));
        assert!(error.is_rescinded() || refused, "life {lives}, after {after}: {error}");
        assert!(taken_back.wait().unwrap());
    }
    assert!(opened > 10 && opened < 60, "{opened} were open: the moments are not spread");
    drop(changes);
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Each adapter that comes is opened and served; when the driver is unregistered nothing of it runs any more, and the
/// channel is closed.
#[test]
fn the_registry_drives_adapters() {
    let world = World::new();
    let registry = Registry::start(&world.stack.bus, registry::Settings::default()).unwrap();
    let served = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&served);
    let driver = NetworkDriver::new(World::small(), move |_, mut adapter| {
        adapter.start()?;
        count.fetch_add(1, Ordering::SeqCst);
        loop {
            adapter.queue().receive(64, |_| Ok::<_, Error>(()))?;
            if adapter.queue().wait(None)? == Wake::Woken {
                return adapter.close();
            }
        }
    });
    let deadline = Instant::now() + LONG;
    let registration = registry.register(driver).unwrap();
    while served.load(Ordering::SeqCst) < 1 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    registration.unregister().unwrap();
    // It is free for somebody else, at once.
    let mut adapter = world.started(World::small());
    pump(adapter.queue(), 10, |_| 100);
    adapter.close().unwrap();
    registry.shutdown().unwrap();
    world.end();
    assert_eq!(served.load(Ordering::SeqCst), 1);
}
