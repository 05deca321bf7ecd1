//! Drivers that follow each other, and the end.

use std::sync::Arc;
use std::thread;

use vmbus_devices::Error;
use vmbus_devices::registry::{DeviceState, Registry, Settings};

use crate::support::{Double, Log, arrived, start, state};

#[test]
fn the_first_registered_driver_wins_and_the_next_follows_it() {
    let log = Log::default();
    let registry = start(2, None);
    let first = registry.register(Double::new("first", &log)).unwrap();
    let second = registry.register(Double::new("second", &log)).unwrap();
    registry.announce(arrived(1, 1));
    registry.settle().unwrap();
    first.unregister().unwrap();
    registry.settle().unwrap();
    second.unregister().unwrap();
    assert_eq!(state(&registry, 1, 1), Some(DeviceState::Unclaimed));
    let expected =
        ["first probe 1.1", "first removed 1.1 Unregistered", "second probe 1.1", "second removed 1.1 Unregistered"];
    assert_eq!(log.lines(), expected);
    // A second time there is nothing to do.
    first.unregister().unwrap();
    registry.shutdown().unwrap();
}

#[test]
fn when_the_bus_ends_all_devices_depart() {
    let log = Log::default();
    let (announce, arrivals) = crossbeam_channel::unbounded();
    let registry = Registry::over(arrivals, Settings::default()).unwrap();
    let registration = registry.register(Double::new("a", &log)).unwrap();
    announce.send(arrived(1, 1)).unwrap();
    announce.send(arrived(2, 1)).unwrap();
    registry.settle().unwrap();
    assert_eq!(log.count("a probe"), 2);
    drop(announce);
    while !registry.devices().unwrap().is_empty() {
        thread::yield_now();
    }
    assert_eq!(log.count("a removed"), 2);
    registration.unregister().unwrap();
    registry.shutdown().unwrap();
}

#[test]
fn shutdown_removes_everything_and_ends_the_registry() {
    let log = Log::default();
    let registry = start(3, None);
    let handle = registry.handle();
    let memory = Arc::new(());
    let kept = Arc::clone(&memory);
    let registration = registry.register(Double::new("a", &log).probe(move |_| {
        let _ = &kept;
        Ok(())
    }));
    registry.announce(arrived(1, 1));
    registry.settle().unwrap();
    registry.shutdown().unwrap();
    assert_eq!(log.lines(), ["a probe 1.1", "a removed 1.1 Shutdown"]);
    assert_eq!(Arc::strong_count(&memory), 1);
    assert!(matches!(handle.devices(), Err(Error::RegistryEnded)));
    assert!(matches!(handle.settle(), Err(Error::RegistryEnded)));
    assert!(matches!(handle.register(Double::new("b", &log)), Err(Error::RegistryEnded)));
    registration.unwrap().unregister().unwrap();
}
