//! Probes that fail, callbacks that panic, instances that give up.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vmbus_devices::Error;
use vmbus_devices::registry::{DeviceIds, DeviceState};

use crate::support::{Double, Log, arrived, departed, offer, start, state};

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
        assert!(thread::panicking(), "dropped");
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

#[test]
fn an_instance_that_gives_up_is_removed_and_the_next_driver_is_asked() {
    let log = Log::default();
    let registry = start(2, None);
    let first = Double::new("first", &log).probe(|context| {
        context.thread("gives-up", |context| context.give_up(&Error::Argument("enough")))?;
        // Not only after the probe.
        while context.is_operable() {
            thread::yield_now();
        }
        Ok(())
    });
    let second = Double::new("second", &log).probe(|context| context.thread("panics", |_| panic!("in a thread")));
    let _first = registry.register(first).unwrap();
    let _second = registry.register(second).unwrap();
    registry.announce(arrived(1, 1));
    while state(&registry, 1, 1) != Some(DeviceState::Failed) {
        thread::yield_now();
    }
    let expected = ["first probe 1.1", "first removed 1.1 GaveUp", "second probe 1.1", "second removed 1.1 Panicked"];
    assert_eq!(log.lines(), expected);
    let [device] = &registry.devices().unwrap()[..] else { panic!("one device") };
    assert_eq!(device.failure.as_deref(), Some("a thread of its driver panicked"));
    assert_eq!(registry.counters().unwrap().panics, 1);
    registry.shutdown().unwrap();
}
