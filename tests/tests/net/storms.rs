//! Hosts that refuse, that lose messages and interrupts, and that spoil their rings: an error at worst.

use super::world::{World, frame, pump};
use std::time::Duration;
use vmbus::class::Class;
use vmbus_channels::Settings as BusSettings;
use vmbus_devices::Error;
use vmbus_devices::net::{Adapter, Settings, TransmitInfo};
use vmbus_simhost::device::NetworkSettings;
use vmbus_simhost::device::net::Network;
use vmbus_simhost::fault::{RingFault, Rule};
use vmbus_simhost::{Config, Refusals, ServerSettings};
use vmbus_tests::Stack;

/// Sends and receives for a while, asks, and has more queues.
fn use_it(stack: &Stack, adapter: &mut Adapter) -> Result<(), Error> {
    adapter.start()?;
    let mut more = adapter.add_queues(&stack.bus, 3)?;
    for number in 0..30 {
        adapter.queue().try_send(&[&frame(number, 200)], &TransmitInfo::default())?;
        adapter.queue().receive(64, |_| Ok::<_, Error>(()))?;
        for queue in &mut more {
            queue.try_send(&[&frame(number, 200)], &TransmitInfo::default())?;
            queue.receive(64, |_| Ok::<_, Error>(()))?;
        }
        adapter.notice()?;
        adapter.queue().wait(Some(Duration::from_micros(200)))?;
    }
    adapter.probe()
}

/// A host that refuses channels and buffers every now and then: an error that says so, and nothing is left.
#[test]
fn a_host_that_refuses_now_and_then() {
    let refusals = Refusals { open_permille: 150, gpadl_permille: 150 };
    let config = Config { refusals, ..Config::seeded(3) }.with_device(Network::offer(1, NetworkSettings::default()));
    let stack = Stack::start(config).unwrap();
    let offer = stack.bus.of_class(Class::NIC).unwrap().pop().unwrap();
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..60 {
        match Adapter::open(&stack.bus, &offer, World::small()) {
            Ok(mut adapter) => {
                opened += 1;
                pump(adapter.queue(), 5, |_| 100);
                adapter.close().unwrap();
            }
            Err(Error::Channel(vmbus_channels::Error::Host { .. })) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(opened > 5 && refused > 5, "{opened} opened, {refused} refused");
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every fault there is, at once: what it does to the guest is an error; never a panic or a hang.
#[test]
fn a_hostile_host_does_no_harm() {
    for seed in 0..8 {
        let config = Config::seeded(seed).with_device(Network::offer(1, NetworkSettings::default()));
        // A host that loses answers is not waited for for long.
        let mut bus = BusSettings::default();
        bus.limits.host_timeout = Duration::from_millis(20);
        bus.limits.unload_timeout = Duration::from_millis(20);
        let start = || Stack::start_with(config.clone(), ServerSettings::default(), bus.clone()).ok();
        let stack = (0..100).find_map(|_| start()).unwrap();
        stack.control.set_faults(Rule::chaos(40)).unwrap();
        for round in 0..12 {
            let _ = stack.control.offer(Network::offer(10 + round, NetworkSettings::default()));
            let Ok(offers) = stack.bus.of_class(Class::NIC) else { break };
            for offer in offers.into_iter().rev().take(2) {
                let settings = Settings { host_timeout: Duration::from_millis(20), ..World::small() };
                let Ok(mut adapter) = Adapter::open(&stack.bus, &offer, settings) else { continue };
                let _ = use_it(&stack, &mut adapter);
                drop(adapter);
                let relid = offer.relid;
                let _ = stack.control.with(move |simulation| {
                    let host = simulation.host();
                    host.offer_on_relid(relid).map(|id| host.reoffer(id))
                });
            }
        }
        // It may end in error, but it ends; and so do the threads that the drop joins.
        let _ = stack.bus.shutdown();
    }
}

/// The rings of an adapter are spoiled while frames are under way: the ring's error, or frames that were not sent; the
/// adapter closes, and another one opens.
#[test]
fn a_spoiled_ring_is_an_error_at_worst() {
    let world = World::new();
    for fault in RingFault::ALL {
        for round in 0..4 {
            let mut adapter = world.reopened(World::small());
            let queue = adapter.queue();
            pump(queue, 20, |_| 100);
            world.command("send 20 100");
            let host = world.host;
            world.stack.control.with(move |simulation| simulation.spoil(host, fault)).unwrap();
            let outcome = (0..20).try_for_each(|number| {
                queue.try_send(&[&frame(number, 100)], &TransmitInfo::default())?;
                queue.receive(64, |_| Ok::<_, Error>(()))?;
                queue.wait(Some(Duration::from_micros(300))).map(drop)
            });
            if let Err(error) = outcome {
                let corrupt = matches!(error, Error::Channel(vmbus_channels::Error::Corrupt { .. }));
                assert!(corrupt, "{fault:?}, round {round}: {error}");
            }
            drop(adapter);
        }
    }
    let mut adapter = world.reopened(World::small());
    pump(adapter.queue(), 20, |_| 100);
    adapter.close().unwrap();
    // The checker owes the guest nothing on such a channel; but everything is closed in the end.
    let left = world.stack.end().unwrap();
    let left: Vec<_> = left.into_iter().filter(|fault| fault.starts_with("left behind")).collect();
    assert!(left.is_empty(), "{left:?}");
}
