//! What the registry is told by the bus, and what it tells.

use uuid::Uuid;
use vmbus::class::Class;
use vmbus_channels::Announcement;
use vmbus_devices::Error;
use vmbus_devices::registry::{DeviceIds, Registry, Settings};

use crate::support::{Double, Log, arrived, departed, offer, start};

#[test]
fn only_primary_channels_match() {
    let log = Log::default();
    let registry = start(2, None);
    let ids = DeviceIds::class(Class::KVP).and_instance(offer(1, 1).instance);
    let _registration = registry.register(Double::new("a", &log).ids(ids.clone())).unwrap();
    let mut subchannel = offer(1, 1);
    subchannel.subchannel_index = 1;
    assert!(ids.matches(&offer(1, 1)) && !ids.matches(&subchannel));
    registry.announce(Announcement::Arrived(subchannel.clone()));
    registry.announce(Announcement::Departed(subchannel));
    let mut other = offer(2, 1);
    other.class = Class::NIC;
    registry.announce(Announcement::Arrived(other));
    registry.settle().unwrap();
    assert_eq!(log.lines(), [""; 0]);
    let counters = registry.counters().unwrap();
    assert_eq!((counters.subchannels, counters.arrivals, counters.unknown_departures), (1, 1, 0));
    registry.shutdown().unwrap();
}

#[test]
fn after_a_gap_what_is_not_announced_again_has_departed() {
    let log = Log::default();
    let registry = start(2, None);
    let _registration = registry.register(Double::new("a", &log)).unwrap();
    for number in 1..=3 {
        registry.announce(arrived(number, 1));
    }
    registry.announce(Announcement::AllArrived);
    registry.settle().unwrap();
    registry.announce_lag();
    for (number, generation) in [(1, 1), (3, 2), (4, 1)] {
        registry.announce(arrived(number, generation));
    }
    registry.announce(Announcement::AllArrived);
    registry.settle().unwrap();
    let mut later = log.lines().split_off(3);
    later.sort();
    let expected = ["a probe 3.2", "a probe 4.1", "a removed 2.1 Rescinded", "a removed 3.1 Rescinded"];
    assert_eq!(later, expected);
    assert_eq!(registry.counters().unwrap().duplicate_arrivals, 0);
    registry.announce(arrived(1, 1));
    registry.announce(departed(2, 1));
    let counters = registry.counters().unwrap();
    assert_eq!((counters.duplicate_arrivals, counters.unknown_departures), (1, 1));
    registry.shutdown().unwrap();
}

#[test]
fn the_listing_is_an_object_that_others_can_read() {
    let log = Log::default();
    let registry = start(2, None);
    let _registration = registry.register(Double::new("a", &log)).unwrap();
    registry.announce(arrived(1, 1));
    registry.settle().unwrap();
    let listing = serde_json::to_value(registry.devices().unwrap()).unwrap();
    let expected = serde_json::json!([{
        "channel": "1.1", "relid": 0, "class": Class::KVP, "instance": Uuid::from_u128(1), "present": true,
        "driver": "a", "state": "driven", "failure": null,
    }]);
    assert_eq!(listing, expected);
    assert_eq!(serde_json::to_value(registry.counters().unwrap()).unwrap()["probes"], 1);
    registry.shutdown().unwrap();
}

#[test]
fn a_registry_without_workers_is_refused() {
    for workers in [0, 257] {
        let (_announce, arrivals) = crossbeam_channel::unbounded();
        assert!(matches!(Registry::over(arrivals, Settings { workers }), Err(Error::Argument(_))));
    }
}
