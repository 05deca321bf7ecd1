//! The life of devices under a registry: order, failures, panics, fairness, and what is told of it.
#![cfg(not(any(loom, shuttle)))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod registry_support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use registry_support::{Double, FOREVER, Log, arrived, departed, offer};
use uuid::Uuid;
use vmbus::class::Class;
use vmbus_channels::Announcement;
use vmbus_devices::Error;
use vmbus_devices::registry::mutation::Mutation;
use vmbus_devices::registry::{DeviceIds, DeviceState, Registry, Settings};

fn start(workers: usize, without: Option<Mutation>) -> Registry {
    Registry::by_hand(Settings { workers }, without).unwrap()
}

fn state(registry: &Registry, number: u32, generation: u32) -> Option<DeviceState> {
    let id = offer(number, generation).id;
    registry.devices().unwrap().iter().find(|device| device.channel == id).map(|device| device.state)
}

fn shared<T>(pair: (Sender<T>, Receiver<T>)) -> (Mutex<Sender<T>>, Mutex<Receiver<T>>) {
    (Mutex::new(pair.0), Mutex::new(pair.1))
}

/// A device comes back while its former instance is still being removed. Whether it was probed meanwhile.
fn come_back_while_removed(without: Option<Mutation>) -> bool {
    let log = Log::default();
    let registry = start(4, without);
    let (go_on, wait) = shared(channel());
    let (probed, hear_probed) = channel();
    let probed = Mutex::new(probed);
    let driver = Double::new("a", &log)
        .probe(move |_| probed.lock().unwrap().send(()).map_err(|_| Error::NoBus))
        .remove(move |_, _| wait.lock().unwrap().recv_timeout(FOREVER).unwrap());
    let registration = registry.register(driver).unwrap();
    registry.announce(arrived(1, 1));
    registry.settle().unwrap();
    hear_probed.recv_timeout(FOREVER).unwrap();
    registry.announce(departed(1, 1));
    registry.announce(arrived(1, 2));
    let early = if without.is_some() {
        hear_probed.recv_timeout(FOREVER).is_ok()
    } else {
        assert!(matches!(state(&registry, 1, 1), Some(DeviceState::Removing(_))));
        assert_eq!(state(&registry, 1, 2), Some(DeviceState::Waiting));
        false
    };
    // For each of the two removals.
    go_on.lock().unwrap().send(()).unwrap();
    go_on.lock().unwrap().send(()).unwrap();
    registry.settle().unwrap();
    registration.unregister().unwrap();
    registry.shutdown().unwrap();
    if without.is_none() {
        let expected = ["a probe 1.1", "a removed 1.1 Rescinded", "a probe 1.2", "a removed 1.2 Unregistered"];
        assert_eq!(log.lines(), expected);
    }
    early
}

#[test]
fn a_device_that_comes_back_waits_for_the_end_of_its_former_instance() {
    assert!(!come_back_while_removed(None));
}

#[test]
fn mutant_device_that_comes_back_and_does_not_wait_is_caught() {
    assert!(come_back_while_removed(Some(Mutation::ProbeBeforeRemoved)));
}

#[test]
fn two_devices_of_one_instance_id_are_driven_one_after_the_other() {
    let log = Log::default();
    let registry = start(4, None);
    let _registration = registry.register(Double::new("a", &log)).unwrap();
    registry.announce(arrived(1, 1));
    registry.announce(arrived(1, 2));
    registry.settle().unwrap();
    assert_eq!(state(&registry, 1, 2), Some(DeviceState::Waiting));
    registry.announce(departed(1, 1));
    registry.settle().unwrap();
    assert_eq!(log.lines(), ["a probe 1.1", "a removed 1.1 Rescinded", "a probe 1.2"]);
    registry.shutdown().unwrap();
}

/// A device departs while the only worker is busy with another. How often it was probed.
fn depart_before_probe(without: Option<Mutation>) -> usize {
    let log = Log::default();
    let registry = start(1, without);
    let (go_on, wait) = shared(channel());
    let driver = Double::new("a", &log).probe(move |context| {
        if context.offer().id == offer(1, 1).id {
            wait.lock().unwrap().recv_timeout(FOREVER).unwrap();
        }
        Ok(())
    });
    let registration = registry.register(driver).unwrap();
    registry.announce(arrived(1, 1));
    registry.announce(arrived(2, 1));
    registry.announce(departed(2, 1));
    assert!(matches!(state(&registry, 2, 1), None | Some(DeviceState::Queued)));
    assert_eq!(registry.counters().unwrap().departed_unprobed, 1);
    go_on.lock().unwrap().send(()).unwrap();
    registry.settle().unwrap();
    registration.unregister().unwrap();
    registry.shutdown().unwrap();
    log.count("a probe 2")
}

#[test]
fn a_device_that_departs_before_its_probe_is_never_probed() {
    assert_eq!(depart_before_probe(None), 0);
}

#[test]
fn mutant_departed_device_that_is_probed_is_caught() {
    assert_eq!(depart_before_probe(Some(Mutation::ProbeDeparted)), 1);
}

#[test]
fn a_device_that_departs_in_its_probe_is_removed_after_it() {
    let log = Log::default();
    let registry = start(2, None);
    let (probing, hear_probing) = channel();
    let probing = Mutex::new(probing);
    let of_probe = log.clone();
    let _registration = registry.register(Double::new("a", &log).probe(move |context| {
        probing.lock().unwrap().send(()).unwrap();
        while context.is_operable() {
            thread::yield_now();
        }
        of_probe.say("probe ends");
        Ok(())
    }));
    registry.announce(arrived(1, 1));
    hear_probing.recv_timeout(FOREVER).unwrap();
    registry.announce(departed(1, 1));
    registry.settle().unwrap();
    assert_eq!(log.lines(), ["a probe 1.1", "probe ends", "a removed 1.1 Rescinded"]);
    assert_eq!(registry.devices().unwrap(), []);
    registry.shutdown().unwrap();
}

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
fn a_failed_probe_goes_to_the_next_driver_and_is_repeated_only_when_asked_for() {
    let log = Log::default();
    let registry = start(2, None);
    let fail = |_: &_| Err(Error::Driver { device: "it".to_owned(), why: "no".to_owned() });
    let _first = registry.register(Double::new("first", &log).probe(fail)).unwrap();
    let _second = registry.register(Double::new("second", &log).probe(fail)).unwrap();
    registry.announce(arrived(1, 1));
    registry.settle().unwrap();
    let [device] = &registry.devices().unwrap()[..] else { panic!("one device") };
    assert_eq!((device.state, device.failure.as_deref()), (DeviceState::Failed, Some("device it: no")));
    let once = ["first probe 1.1", "second probe 1.1"];
    assert_eq!(log.lines(), once);

    // Nothing of what happens to others has them asked again.
    let third = registry.register(Double::new("third", &log).ids(DeviceIds::none())).unwrap();
    registry.announce(arrived(2, 1));
    third.unregister().unwrap();
    registry.settle().unwrap();
    assert_eq!(log.lines()[2..], ["first probe 2.1", "second probe 2.1"]);

    registry.reprobe(offer(1, 1).id).unwrap();
    registry.settle().unwrap();
    assert_eq!(log.lines()[4..], once);
    assert!(matches!(registry.reprobe(offer(9, 9).id), Err(Error::NoDevice(_))));

    // It arrives anew.
    registry.announce(departed(1, 1));
    registry.announce(arrived(1, 2));
    registry.settle().unwrap();
    assert_eq!(log.lines()[6..], ["first probe 1.2", "second probe 1.2"]);
    assert_eq!(registry.counters().unwrap().failed_probes, 8);
    registry.shutdown().unwrap();
}

#[test]
fn what_a_failing_probe_left_behind_never_runs() {
    let log = Log::default();
    let registry = start(2, None);
    let of_probe = log.clone();
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let _registration = registry.register(Double::new("a", &log).probe(move |context| {
        let (first, second) = (of_probe.clone(), of_probe.clone());
        context.spawn(move |_| first.say("work"))?;
        let timer = context.timer(move |_| {
            second.say("timer");
            None
        })?;
        timer.arm(Duration::ZERO)?;
        *keep.lock().unwrap() = Some((context.clone(), timer));
        Err(Error::NoBus)
    }));
    registry.announce(arrived(1, 1));
    registry.settle().unwrap();
    let (context, timer) = kept.lock().unwrap().take().unwrap();
    assert!(context.enter().is_err() && timer.arm(Duration::ZERO).is_err());
    registry.settle().unwrap();
    assert_eq!(log.lines(), ["a probe 1.1"]);
    registry.shutdown().unwrap();
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn panics_are_contained_and_counted_and_the_device_counts_as_not_driven() {
    let log = Log::default();
    let registry = start(2, None);
    let driver = Double::new("a", &log)
        .probe(|context| match context.offer().id.to_string().as_str() {
            "1.1" => panic!("in probe"),
            "2.1" => context.spawn(|_| panic!("in work")),
            "3.1" => {
                let timer = context.timer(|_| panic!("in a timer"))?;
                timer.arm(Duration::ZERO)?;
                context.spawn(move |_| std::mem::forget(timer))
            }
            "4.1" => {
                let wake_up = context.wake_up(|_| panic!("in a wake-up"))?;
                wake_up.wake();
                std::mem::forget(wake_up);
                Ok(())
            }
            "5.1" => {
                let dropped = PanicsOnDrop;
                let timer = context.timer(move |_| {
                    let _ = &dropped;
                    None
                })?;
                drop(timer);
                Ok(())
            }
            _ => Ok(()),
        })
        .remove(|context, _| assert_ne!(context.offer().id.to_string(), "6.1", "in remove"));
    let registration = registry.register(driver).unwrap();
    for number in 1..=7 {
        registry.announce(arrived(number, 1));
    }
    registry.settle().unwrap();
    for number in 1..=5 {
        assert_eq!(state(&registry, number, 1), Some(DeviceState::Failed), "{number}");
    }
    for number in 6..=7 {
        assert_eq!(state(&registry, number, 1), Some(DeviceState::Driven), "{number}");
    }
    assert_eq!(registry.counters().unwrap().panics, 5);
    // Who panicked was removed all the same, so that it could let go of its channel.
    assert_eq!(log.count("a removed"), 4);
    registry.announce(departed(6, 1));
    registry.announce(arrived(6, 2));
    registry.settle().unwrap();
    assert_eq!(state(&registry, 6, 2), Some(DeviceState::Driven));
    assert_eq!(registry.counters().unwrap().panics, 6);
    registration.unregister().unwrap();
    registry.shutdown().unwrap();
}

/// A driver with more devices than there are workers never returns from its probes. Whether another one gets a worker.
fn beside_a_slow_driver(without: Option<Mutation>) -> bool {
    let log = Log::default();
    let registry = start(2, without);
    let (go_on, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let (begun, hear_begun) = channel();
    let begun = Mutex::new(begun);
    let slow = Double::new("slow", &log).ids(DeviceIds::class(Class::KVP)).probe(move |_| {
        begun.lock().unwrap().send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
        Ok(())
    });
    let other = offer(9, 1).instance;
    let (probed, hear_probed) = channel();
    let probed = Mutex::new(probed);
    let quick = Double::new("quick", &log)
        .ids(DeviceIds::instance(other))
        .probe(move |_| probed.lock().unwrap().send(()).map_err(|_| Error::NoBus));
    let quick = registry.register(quick).unwrap();
    let slow = registry.register(slow).unwrap();
    for number in 1..=5 {
        registry.announce(arrived(number, 1));
    }
    hear_begun.recv_timeout(FOREVER).unwrap();
    if without.is_some() {
        hear_begun.recv_timeout(FOREVER).unwrap();
    }
    registry.announce(arrived(9, 1));
    let served = if without.is_some() {
        registry.counters().unwrap().probes > 2
    } else {
        hear_probed.recv_timeout(FOREVER).is_ok()
    };
    drop(go_on);
    slow.unregister().unwrap();
    quick.unregister().unwrap();
    registry.shutdown().unwrap();
    served
}

#[test]
fn a_slow_driver_does_not_hold_up_another() {
    assert!(beside_a_slow_driver(None));
}

#[test]
fn mutant_driver_that_takes_all_workers_is_caught() {
    assert!(!beside_a_slow_driver(Some(Mutation::DriverTakesAllWorkers)));
}

#[test]
fn callbacks_of_one_device_run_one_at_a_time_and_in_order() {
    let log = Log::default();
    let registry = start(4, None);
    let (hand_over, context) = channel();
    let registration = registry
        .register(
            Double::new("a", &log).probe(move |context| hand_over.send(context.clone()).map_err(|_| Error::NoBus)),
        )
        .unwrap();
    registry.announce(arrived(1, 1));
    let context = context.recv_timeout(FOREVER).unwrap();
    let inside = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(vec![Vec::new(); 4]));
    thread::scope(|scope| {
        for thread in 0..4 {
            let (context, inside, seen) = (context.clone(), &inside, &seen);
            scope.spawn(move || {
                for item in 0..200 {
                    let (inside, seen) = (Arc::clone(inside), Arc::clone(seen));
                    let work = move |_: &_| {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        seen.lock().unwrap()[thread].push(item);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    };
                    context.spawn(work).unwrap();
                }
            });
        }
    });
    registry.settle().unwrap();
    let counters = registry.counters().unwrap();
    assert_eq!((counters.work_items, counters.panics), (800, 0));
    assert!(seen.lock().unwrap().iter().all(|items| items.iter().copied().eq(0..200)));
    registration.unregister().unwrap();
    registry.shutdown().unwrap();
}

#[test]
fn a_cancelled_timer_does_not_run() {
    let log = Log::default();
    let registry = start(2, None);
    let of_probe = log.clone();
    let _registration = registry.register(Double::new("a", &log).probe(move |context| {
        let log = of_probe.clone();
        let timer = context.timer(move |_| {
            log.say("timer");
            None
        })?;
        context.spawn(move |_| {
            // Due at once, and queued behind this; then taken back.
            timer.arm(Duration::ZERO).unwrap();
            timer.cancel();
            timer.arm(Duration::from_secs(3600)).unwrap();
            timer.cancel();
        })
    }));
    registry.announce(arrived(1, 1));
    registry.settle().unwrap();
    assert_eq!(registry.counters().unwrap().timers_fired, 0);
    assert_eq!(log.lines(), ["a probe 1.1"]);
    registry.shutdown().unwrap();
}

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
