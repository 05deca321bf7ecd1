//! R4.1: when `remove` or `unregister` returns, nothing of the driver runs again. Each scenario is played twice: as it
//! is, and with the protection taken away, which must be seen to fail.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmbus_devices::Error;
use vmbus_devices::registry::mutation::Mutation;

use crate::support::{Double, FOREVER, Log, arrived, departed, start, until_removal};

/// Where a line with this beginning is.
fn at(lines: &[String], what: &str) -> usize {
    lines.iter().position(|line| line.starts_with(what)).unwrap()
}

/// A work item is running when the driver is unregistered, and others are due. Returns what was called, in order.
fn unregister_while_working(without: Option<Mutation>) -> Vec<String> {
    let log = Log::default();
    let registry = start(4, without);
    let (removed, hear_removed) = channel();
    let (removed, hear_removed) = (Mutex::new(removed), Arc::new(Mutex::new(hear_removed)));
    let (working, hear_working) = channel();
    let (of_probe, of_remove) = (log.clone(), log.clone());
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
        .remove(move |_, _| {
            of_remove.say("remove begins");
            removed.lock().unwrap().send(()).unwrap();
        });
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
    let expected = ["a probe 1.1", "work ends", "remove begins", "a removed 1.1 Unregistered", "unregistered"];
    assert_eq!(unregister_while_working(None), expected);
}

#[test]
fn r4_1_mutant_remove_that_does_not_wait_for_work_is_caught() {
    let lines = unregister_while_working(Some(Mutation::RemoveWhileWorking));
    assert!(at(&lines, "remove begins") < at(&lines, "work ends"), "{lines:?}");
}

#[test]
fn r4_1_mutant_work_that_is_not_discarded_is_caught() {
    let lines = unregister_while_working(Some(Mutation::RunDiscarded));
    assert!(at(&lines, "second work") > at(&lines, "a removed"), "{lines:?}");
    for what in ["timer", "wake-up", "second work"] {
        assert!(lines.contains(&what.to_owned()), "{lines:?}");
    }
}

/// Another thread uses the instance when its device departs. Returns what happened, in order.
fn depart_while_used(without: Option<Mutation>) -> Vec<String> {
    let log = Log::default();
    let registry = start(4, without);
    let (hand_over, context) = channel();
    let (removed, hear_removed) = channel();
    let removed = Mutex::new(removed);
    let of_remove = log.clone();
    let driver = Double::new("a", &log)
        .probe(move |context| hand_over.send(context.clone()).map_err(|_| Error::NoBus))
        .remove(move |_, _| {
            of_remove.say("remove begins");
            removed.lock().unwrap().send(()).unwrap();
        });
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
    assert_eq!(depart_while_used(None), ["a probe 1.1", "use ends", "remove begins", "a removed 1.1 Rescinded"]);
}

#[test]
fn r4_1_mutant_remove_that_does_not_drain_is_caught() {
    let lines = depart_while_used(Some(Mutation::SkipDrain));
    assert!(at(&lines, "remove begins") < at(&lines, "use ends"), "{lines:?}");
}

/// An instance has a thread that ends some time after it is told to. Returns what happened, in order.
fn unregister_with_a_thread(without: Option<Mutation>) -> Vec<String> {
    let log = Log::default();
    let registry = start(4, without);
    let (go_on, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let of_probe = log.clone();
    let driver = Double::new("a", &log).probe(move |context| {
        let (log, wait) = (of_probe.clone(), Arc::clone(&wait));
        context.thread("of-a", move |context| {
            until_removal(context);
            if without.is_some() {
                wait.lock().unwrap().recv_timeout(FOREVER).unwrap();
            }
            log.say("thread ends");
        })
    });
    let registration = registry.register(driver).unwrap();
    registry.announce(arrived(1, 1));
    registry.settle().unwrap();
    registration.unregister().unwrap();
    log.say("unregistered");
    let _ = go_on.send(());
    registry.shutdown().unwrap();
    log.lines()
}

#[test]
fn r4_1_threads_of_an_instance_are_joined() {
    let mut lines = unregister_with_a_thread(None);
    assert_eq!(lines.pop().as_deref(), Some("unregistered"));
    assert!(lines.contains(&"thread ends".to_owned()), "{lines:?}");
}

#[test]
fn r4_1_mutant_thread_that_is_not_joined_is_caught() {
    let lines = unregister_with_a_thread(Some(Mutation::ThreadsOutlive));
    assert_ne!(lines.get(2).map(String::as_str), Some("thread ends"), "{lines:?}");
}

#[test]
fn r4_1_a_running_timer_stops_with_its_driver() {
    let log = Log::default();
    let registry = start(4, None);
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
