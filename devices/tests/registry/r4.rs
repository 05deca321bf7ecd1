//! R4.2 to R4.5: references are no uses, no lock over a callback, one probe for each device, no waiting for oneself. Each
//! scenario is played twice: as it is, and with the protection taken away, which must be seen to fail.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vmbus_devices::Error;
use vmbus_devices::registry::mutation::Mutation;
use vmbus_devices::registry::{Context, Registration, Registry, Timer, WakeUp};

use crate::support::{Double, FOREVER, HANG, Log, arrived, offer, start, until_removal};

/// Keeps references of all kinds past the removal. Whether one of them still lets anybody in.
fn use_a_reference_late(without: Option<Mutation>) -> bool {
    let log = Log::default();
    let registry = start(4, without);
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
    let registry = start(4, without);
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
    let registry = start(4, without);
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

/// Makes a callback that makes a call.
type Arrange = fn(&Context, Box<dyn FnOnce() + Send>) -> Result<(), Error>;

/// Calls `unregister` in a callback made by `arrange`, and returns what that said; an error when it hangs.
fn unregister_in(without: Option<Mutation>, patience: Duration, arrange: Arrange) -> Result<Result<(), Error>, ()> {
    let log = Log::default();
    let registry = start(4, without);
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
    assert_eq!(registry.devices().unwrap().first().and_then(|device| device.driver.as_deref()), Some("a"));
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

fn in_thread(context: &Context, call: Box<dyn FnOnce() + Send>) -> Result<(), Error> {
    context.thread("caller", move |_| call())
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
    for arrange in [in_probe, in_work, in_timer, in_wake_up, in_thread, in_use_elsewhere] {
        assert!(matches!(unregister_in(None, FOREVER, arrange), Ok(Err(Error::Callback { what: "unregister" }))));
    }
}

#[test]
fn r4_5_mutant_unregister_that_is_not_refused_hangs() {
    for arrange in [in_probe, in_work, in_timer, in_wake_up, in_thread, in_use_elsewhere] {
        assert!(unregister_in(Some(Mutation::WaitInCallback), HANG, arrange).is_err());
    }
}

#[test]
fn r4_5_in_remove_and_of_another_driver_and_for_all_it_is_refused_too() {
    let log = Log::default();
    let registry = start(4, None);
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
    let registry = start(4, None);
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
