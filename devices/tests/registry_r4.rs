//! R4, removal of devices and drivers, with real threads: each property, and beside it the same scenario with the
//! protection taken away, which must be seen to fail.
#![cfg(not(any(loom, shuttle)))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod registry_support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use registry_support::{Double, FOREVER, HANG, Log, arrived, departed, offer};
use vmbus_devices::Error;
use vmbus_devices::registry::mutation::Mutation;
use vmbus_devices::registry::{Context, Registration, Registry, Settings, Timer, WakeUp};

fn start(without: Option<Mutation>) -> Registry {
    Registry::by_hand(Settings::default(), without).unwrap()
}

fn until_removal(context: &Context) {
    while context.is_operable() {
        thread::yield_now();
    }
}

/// A work item is running when the driver is unregistered, and others are due. Returns what was called, in order.
fn unregister_while_working(without: Option<Mutation>) -> Vec<String> {
    let log = Log::default();
    let registry = start(without);
    let (removed, hear_removed) = channel();
    let (removed, hear_removed) = (Mutex::new(removed), Arc::new(Mutex::new(hear_removed)));
    let (working, hear_working) = channel();
    let of_probe = log.clone();
    let driver = Double::new("a", &log)
        .probe(move |context| {
            let (log, working, hear_removed) = (of_probe.clone(), working.clone(), Arc::clone(&hear_removed));
            let late = of_probe.clone();
            let timer = context.timer(move |_| {
                late.say("timer");
                Some(Duration::ZERO)
            })?;
            let late = of_probe.clone();
            let wake_up = context.wake_up(move |_| late.say("wake-up"))?;
            context.spawn(move |context| {
                timer.arm(Duration::ZERO).unwrap();
                wake_up.wake();
                // The timer is due, and so are the others.
                context.registry().counters().unwrap();
                working.send(()).unwrap();
                until_removal(context);
                if without == Some(Mutation::RemoveWhileWorking) {
                    hear_removed.lock().unwrap().recv_timeout(FOREVER).unwrap();
                }
                let late = log.clone();
                assert!(matches!(context.spawn(move |_| late.say("late work")), Err(Error::Removed { .. })));
                assert!(matches!(timer.arm(Duration::ZERO), Err(Error::Removed { .. })));
                wake_up.wake();
                log.say("work ends");
            })?;
            let log = of_probe.clone();
            context.spawn(move |_| log.say("second work"))
        })
        .remove(move |_, _| removed.lock().unwrap().send(()).unwrap());
    let registration = registry.register(driver).unwrap();
    registry.announce(arrived(1, 1));
    hear_working.recv_timeout(FOREVER).unwrap();
    registration.unregister().unwrap();
    log.say("unregistered");
    if without != Some(Mutation::RemoveWhileWorking) {
        registry.settle().unwrap();
        assert_eq!(registry.counters().unwrap().discarded, 3);
    }
    registry.shutdown().unwrap();
    log.lines()
}

#[test]
fn r4_1_nothing_runs_after_remove() {
    let expected = ["a probe 1.1", "work ends", "a removed 1.1 Unregistered", "unregistered"];
    assert_eq!(unregister_while_working(None), expected);
}

#[test]
fn r4_1_mutant_remove_that_does_not_wait_for_work_is_caught() {
    let lines = unregister_while_working(Some(Mutation::RemoveWhileWorking));
    let at = |what: &str| lines.iter().position(|line| line.starts_with(what)).unwrap();
    assert!(at("work ends") > at("a probe") && lines.contains(&"a removed 1.1 Unregistered".to_owned()), "{lines:?}");
    assert_ne!(lines, ["a probe 1.1", "work ends", "a removed 1.1 Unregistered", "unregistered"]);
}

#[test]
fn r4_1_mutant_work_that_is_not_discarded_is_caught() {
    let lines = unregister_while_working(Some(Mutation::RunDiscarded));
    assert!(
        lines.iter().position(|line| line == "second work") > lines.iter().position(|line| line.contains("removed"))
    );
    for what in ["timer", "wake-up", "second work"] {
        assert!(lines.contains(&what.to_owned()), "{lines:?}");
    }
}

/// Another thread uses the instance when its device departs. Returns what happened, in order.
fn depart_while_used(without: Option<Mutation>) -> Vec<String> {
    let log = Log::default();
    let registry = start(without);
    let (hand_over, context) = channel();
    let (removed, hear_removed) = channel();
    let removed = Mutex::new(removed);
    let driver = Double::new("a", &log)
        .probe(move |context| hand_over.send(context.clone()).map_err(|_| Error::NoBus))
        .remove(move |_, _| removed.lock().unwrap().send(()).unwrap());
    let registration = registry.register(driver).unwrap();
    registry.announce(arrived(1, 1));
    let context = context.recv_timeout(FOREVER).unwrap();
    registry.settle().unwrap();

    let using = context.enter().unwrap();
    registry.announce(departed(1, 1));
    until_removal(&context);
    assert!(matches!(context.enter(), Err(Error::Removed { .. })));
    if without == Some(Mutation::SkipDrain) {
        hear_removed.recv_timeout(FOREVER).unwrap();
    } else {
        // The removal has begun, and can't have gone on: it is the executor that says so.
        assert_eq!(registry.counters().unwrap().removes, 0);
    }
    log.say("use ends");
    drop(using);
    registry.settle().unwrap();
    registration.unregister().unwrap();
    registry.shutdown().unwrap();
    log.lines()
}

#[test]
fn r4_1_remove_waits_for_active_users() {
    assert_eq!(depart_while_used(None), ["a probe 1.1", "use ends", "a removed 1.1 Rescinded"]);
}

#[test]
fn r4_1_mutant_remove_that_does_not_drain_is_caught() {
    let lines = depart_while_used(Some(Mutation::SkipDrain));
    assert_ne!(lines, ["a probe 1.1", "use ends", "a removed 1.1 Rescinded"]);
    assert!(lines.contains(&"a removed 1.1 Rescinded".to_owned()), "{lines:?}");
}

#[test]
fn r4_1_a_running_timer_stops_with_its_driver() {
    let log = Log::default();
    let registry = start(None);
    let (tick, ticks) = channel();
    let driver = Double::new("a", &log).probe(move |context| {
        let tick = tick.clone();
        let timer = context.timer(move |_| {
            let _ = tick.send(());
            Some(Duration::from_micros(100))
        })?;
        timer.arm(Duration::ZERO)?;
        context.spawn(move |_| std::mem::forget(timer))
    });
    let registration = registry.register(driver).unwrap();
    registry.announce(arrived(1, 1));
    for _ in 0..10 {
        ticks.recv_timeout(FOREVER).unwrap();
    }
    registration.unregister().unwrap();
    let fired = registry.counters().unwrap().timers_fired;
    // The callback itself is gone: nothing is left that could tick.
    while ticks.try_recv().is_ok() {}
    assert!(matches!(ticks.recv_timeout(FOREVER), Err(std::sync::mpsc::RecvTimeoutError::Disconnected)));
    assert_eq!(registry.counters().unwrap().timers_fired, fired);
    registry.shutdown().unwrap();
}

/// Keeps references of all kinds past the removal. Whether one of them still lets anybody in.
fn use_a_reference_late(without: Option<Mutation>) -> bool {
    let log = Log::default();
    let registry = start(without);
    let (hand_over, kept): (Sender<(Context, Timer, WakeUp)>, Receiver<_>) = channel();
    let memory = Arc::new(());
    let captured = Arc::clone(&memory);
    let of_work = log.clone();
    let driver = Double::new("a", &log).probe(move |context| {
        let (first, second, captured) = (of_work.clone(), of_work.clone(), Arc::clone(&captured));
        let timer = context.timer(move |_| {
            first.say("timer");
            None
        })?;
        let wake_up = context.wake_up(move |_| {
            let _ = &captured;
            second.say("wake-up");
        })?;
        hand_over.send((context.clone(), timer, wake_up)).unwrap();
        Ok(())
    });
    let registration = registry.register(driver).unwrap();
    registry.announce(arrived(1, 1));
    let (context, timer, wake_up) = kept.recv_timeout(FOREVER).unwrap();
    // Not kept from returning by the references.
    registration.unregister().unwrap();
    assert_eq!(Arc::strong_count(&memory), 1, "driver and callbacks are dropped, whoever refers to the instance");
    assert_eq!(context.offer(), &offer(1, 1));
    assert!(!context.is_operable());
    wake_up.wake();
    let work = log.clone();
    let entered = context.enter().is_ok();
    let late = [
        entered,
        context.spawn(move |_| work.say("work")).is_ok(),
        timer.arm(Duration::ZERO).is_ok(),
        context.timer(|_| None).is_ok(),
        context.wake_up(|_| ()).is_ok(),
    ];
    registry.settle().unwrap();
    registry.shutdown().unwrap();
    assert_eq!(log.lines(), ["a probe 1.1", "a removed 1.1 Unregistered"]);
    late.contains(&true)
}

#[test]
fn r4_2_a_reference_is_memory_and_no_use() {
    assert!(!use_a_reference_late(None));
}

#[test]
fn r4_2_mutant_reference_that_stands_for_a_use_is_caught() {
    assert!(use_a_reference_late(Some(Mutation::ReferenceKeepsOperable)));
}

/// Every callback walks the device list, one while its driver is being removed. Whether all of that ends.
fn walk_the_list_everywhere(without: Option<Mutation>, patience: Duration) -> bool {
    let log = Log::default();
    let registry = start(without);
    let handle = registry.handle();
    let (done, hear_done) = channel();
    thread::spawn(move || {
        let (working, hear_working) = channel();
        let driver = Double::new("a", &log)
            .probe(move |context| {
                assert_eq!(context.registry().devices()?.len(), 1);
                let working = working.clone();
                context.spawn(move |context| {
                    working.send(()).unwrap();
                    until_removal(context);
                    assert_eq!(context.registry().devices().unwrap().len(), 1);
                    context.registry().counters().unwrap();
                    let other = context.registry().register(Double::new("b", &Log::default())).unwrap();
                    drop(other);
                })
            })
            .remove(|context, _| assert_eq!(context.registry().devices().unwrap().len(), 1));
        handle.announce(arrived(1, 1));
        let registration = handle.register(driver).unwrap();
        hear_working.recv().unwrap();
        registration.unregister().unwrap();
        let panics = handle.counters().unwrap().panics;
        done.send(panics == 0).unwrap();
    });
    let ended = hear_done.recv_timeout(patience);
    if ended.is_ok() {
        registry.shutdown().unwrap();
    }
    ended == Ok(true)
}

#[test]
fn r4_3_callbacks_walk_the_device_list_while_their_driver_is_removed() {
    assert!(walk_the_list_everywhere(None, FOREVER));
}

#[test]
fn r4_3_mutant_calls_by_the_thread_that_answers_hang() {
    assert!(!walk_the_list_everywhere(Some(Mutation::CallOnExecutor), HANG));
}

/// Devices arrive while drivers that all match are registered by several threads. How often each device was probed.
fn register_while_devices_arrive(without: Option<Mutation>) -> Vec<usize> {
    const DEVICES: u32 = 60;
    let log = Log::default();
    let registry = start(without);
    thread::scope(|scope| {
        scope.spawn(|| (1..=DEVICES).for_each(|number| registry.announce(arrived(number, 1))));
        for name in ["a", "b", "c"] {
            let (registry, log) = (&registry, log.clone());
            scope.spawn(move || std::mem::forget(registry.register(Double::new(name, &log)).unwrap()));
        }
    });
    registry.settle().unwrap();
    registry.shutdown().unwrap();
    let lines = log.lines();
    let probes = |number| lines.iter().filter(|line| line.ends_with(&format!(" probe {number}.1"))).count();
    (1..=DEVICES).map(probes).collect()
}

#[test]
fn r4_4_each_device_is_probed_once() {
    for _ in 0..20 {
        let probes = register_while_devices_arrive(None);
        assert!(probes.iter().all(|probes| *probes == 1), "{probes:?}");
    }
}

#[test]
fn r4_4_mutant_device_that_does_not_count_as_taken_is_caught() {
    let probes = || register_while_devices_arrive(Some(Mutation::ClaimTwice));
    assert!((0..20).any(|_| probes().iter().any(|probes| *probes != 1)));
}

/// Calls `unregister` in a callback made by `arrange`, and returns what that said; an error when it hangs.
fn unregister_in(
    without: Option<Mutation>,
    patience: Duration,
    arrange: fn(&Context, Box<dyn FnOnce() + Send>) -> Result<(), Error>,
) -> Result<Result<(), Error>, ()> {
    let log = Log::default();
    let registry = start(without);
    let (hand_over, registrations) = channel::<Arc<Registration>>();
    let registrations = Arc::new(Mutex::new(registrations));
    let (said, hear) = channel();
    let driver = Double::new("a", &log).probe(move |context| {
        let (registrations, said) = (Arc::clone(&registrations), said.clone());
        let call = move || {
            let registration = registrations.lock().unwrap().recv().unwrap();
            said.send(registration.unregister()).unwrap();
        };
        arrange(context, Box::new(call))
    });
    let registration = Arc::new(registry.register(driver).unwrap());
    registry.announce(arrived(1, 1));
    hand_over.send(Arc::clone(&registration)).unwrap();
    let said = hear.recv_timeout(patience).map_err(|_| ())?;
    // Refused, so it is there as before.
    registry.settle().unwrap();
    assert_eq!(registry.devices().unwrap()[0].driver.as_deref(), Some("a"));
    registration.unregister().unwrap();
    registry.shutdown().unwrap();
    assert_eq!(log.lines(), ["a probe 1.1", "a removed 1.1 Unregistered"]);
    Ok(said)
}

fn in_probe(_: &Context, call: Box<dyn FnOnce() + Send>) -> Result<(), Error> {
    call();
    Ok(())
}

fn in_work(context: &Context, call: Box<dyn FnOnce() + Send>) -> Result<(), Error> {
    context.spawn(move |_| call())
}

fn in_timer(context: &Context, call: Box<dyn FnOnce() + Send>) -> Result<(), Error> {
    let mut call = Some(call);
    let timer = context.timer(move |_| {
        call.take().unwrap()();
        None
    })?;
    timer.arm(Duration::ZERO)?;
    std::mem::forget(timer);
    Ok(())
}

fn in_wake_up(context: &Context, call: Box<dyn FnOnce() + Send>) -> Result<(), Error> {
    let mut call = Some(call);
    let wake_up = context.wake_up(move |_| call.take().unwrap()())?;
    wake_up.wake();
    std::mem::forget(wake_up);
    Ok(())
}

fn in_use_elsewhere(context: &Context, call: Box<dyn FnOnce() + Send>) -> Result<(), Error> {
    let context = context.clone();
    thread::spawn(move || {
        let _using = context.enter().unwrap();
        call();
    });
    Ok(())
}

#[test]
fn r4_5_unregister_in_an_own_callback_is_refused() {
    for arrange in [in_probe, in_work, in_timer, in_wake_up, in_use_elsewhere] {
        assert!(matches!(unregister_in(None, FOREVER, arrange), Ok(Err(Error::Callback { what: "unregister" }))));
    }
}

#[test]
fn r4_5_mutant_unregister_that_is_not_refused_hangs() {
    for arrange in [in_probe, in_work, in_timer, in_wake_up, in_use_elsewhere] {
        assert!(unregister_in(Some(Mutation::WaitInCallback), HANG, arrange).is_err());
    }
}

#[test]
fn r4_5_in_remove_and_of_another_driver_and_for_all_it_is_refused_too() {
    let log = Log::default();
    let registry = start(None);
    let other = registry.register(Double::new("other", &log).ids(vmbus_devices::registry::DeviceIds::none())).unwrap();
    let other = Arc::new(other);
    let (said, hear) = channel();
    let said = Mutex::new(said);
    let in_remove = Arc::clone(&other);
    let registration = registry.register(Double::new("a", &log).remove(move |context, _| {
        said.lock().unwrap().send((in_remove.unregister(), context.registry().settle())).unwrap();
    }));
    registry.announce(arrived(1, 1));
    registry.settle().unwrap();
    registration.unwrap().unregister().unwrap();
    let (unregistered, settled) = hear.recv_timeout(FOREVER).unwrap();
    assert!(matches!(unregistered, Err(Error::Callback { what: "unregister" })));
    assert!(matches!(settled, Err(Error::Callback { what: "settle" })));
    registry.shutdown().unwrap();
}

#[test]
fn r4_5_dropping_the_registry_or_a_registration_in_a_callback_waits_for_nobody() {
    let log = Log::default();
    let registry = start(None);
    let handle = registry.handle();
    let (hand_over, registrations) = channel::<(Registration, Registry)>();
    let registrations = Mutex::new(registrations);
    let (refused, hear_refused) = channel();
    let refused = Mutex::new(refused);
    let registration = registry.register(Double::new("a", &log).probe(move |_| {
        let (registration, registry) = registrations.lock().unwrap().recv().unwrap();
        drop(registration);
        refused.lock().unwrap().send(registry.shutdown()).unwrap();
        Ok(())
    }));
    registry.announce(arrived(1, 1));
    hand_over.send((registration.unwrap(), registry)).unwrap();
    assert!(matches!(hear_refused.recv_timeout(FOREVER).unwrap(), Err(Error::Callback { what: "shutdown" })));
    // It ends all the same, after this callback.
    while !matches!(handle.devices(), Err(Error::RegistryEnded)) {
        thread::yield_now();
    }
    assert_eq!(log.lines(), ["a probe 1.1", "a removed 1.1 Unregistered"]);
}
