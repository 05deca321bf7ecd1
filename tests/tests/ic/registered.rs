//! All components as drivers of one registry: devices come and go, and after `unregister` nothing of a driver runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmbus::class::Class;
use vmbus_devices::ic::kvp::{facts::SystemFacts, network::NoNetwork, pool::Pools};
use vmbus_devices::ic::shutdown::{Command, Settings as ShutdownSettings};
use vmbus_devices::ic::timesync::{Settings as TimeSettings, SystemClock};
use vmbus_devices::ic::vss::FsFreeze;
use vmbus_devices::ic::{
    Component, ComponentDriver, Event, FileCopy, Heartbeat, Kvp, Settings, Shutdown, TimeSync, Vss, fcopy,
};
use vmbus_devices::registry::{self, Registry};
use vmbus_simhost::Config;
use vmbus_simhost::device::ic::all_devices;
use vmbus_tests::{LONG, Stack};

/// The component for a class, over what is harmless: shutdown in a dry run, nothing frozen that is not asked for.
fn component(class: Class, folder: &std::path::Path) -> Box<dyn Component> {
    match class {
        Class::HEARTBEAT => Box::new(Heartbeat::default()),
        Class::SHUTDOWN => {
            let settings = ShutdownSettings { dry_run: true, ..ShutdownSettings::default() };
            Box::new(Shutdown::new(settings, Command::default()))
        }
        Class::TIME_SYNC => Box::new(TimeSync::new(TimeSettings::default(), SystemClock)),
        Class::KVP => Box::new(Kvp::new(Pools::in_folder(folder), SystemFacts::default(), NoNetwork)),
        Class::VSS => Box::new(Vss::new(FsFreeze::default(), LONG)),
        _ => Box::new(FileCopy::new(fcopy::Store::open(folder).unwrap(), fcopy::Settings::default())),
    }
}

#[test]
fn r4_1_after_unregister_no_component_answers() {
    let folder = tempfile::tempdir().unwrap();
    let stack = Stack::start(Config::seeded(8)).unwrap();
    let registry = Registry::start(&stack.bus, registry::Settings::default()).unwrap();
    let events = Arc::new(AtomicU64::new(0));
    let devices = all_devices();
    let registrations: Vec<_> = devices
        .iter()
        .map(|device| {
            let (class, path, events) = (device.class, folder.path().to_owned(), Arc::clone(&events));
            let observer = move |_: &_, _: &Event| {
                events.fetch_add(1, Ordering::SeqCst);
            };
            let make = move || Ok(component(class, &path));
            let driver = ComponentDriver::new(class.short_name().unwrap(), class, make, Settings::default(), observer);
            registry.register(driver).unwrap()
        })
        .collect();
    // Three rounds of all devices, rescinded before or after they agreed.
    for round in 0..3 {
        let offers: Vec<_> = devices.iter().map(|device| stack.control.offer(device.clone()).unwrap()).collect();
        for id in &offers {
            let id = *id;
            if round > 0 {
                assert!(stack.control.wait_for(LONG, move |sim| sim.host().count(id, "version") != 0).unwrap());
            }
        }
        if round < 2 {
            for id in offers {
                stack.control.rescind(id).unwrap();
                assert!(stack.control.wait_for(LONG, move |sim| sim.host().state(id).is_none()).unwrap());
            }
        }
    }
    for registration in registrations {
        registration.unregister().unwrap();
    }
    let seen = events.load(Ordering::SeqCst);
    assert!(seen >= 12, "{seen}");
    assert_eq!(registry.counters().unwrap().panics, 0);
    registry.shutdown().unwrap();
    assert_eq!(events.load(Ordering::SeqCst), seen);
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
