//! What comes before what, and who has to wait for whom.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vmbus::class::Class;
use vmbus_devices::Error;
use vmbus_devices::registry::mutation::Mutation;
use vmbus_devices::registry::{DeviceIds, DeviceState};

use crate::support::{Double, FOREVER, Log, arrived, departed, offer, shared, start, state};

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
