//! What a worker does: one task after the other, each contained, each answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Context;
use super::input::{Call, Callback, Input, Panicked, Probed, Removal, SlotId, SlotKind, Task, Worked};
use super::inside::Inside;
use super::mutation::mutated;
use super::sync::{Ordering, queue::Inbox, queue::Post};

/// Probes that failed and callbacks that panicked in this process: a host that offers a device over and over must not
/// fill the log.
static FAILURES: AtomicU64 = AtomicU64::new(0);
static PANICS: AtomicU64 = AtomicU64::new(0);
const SHOWN: &str = "(shown at powers of two)";

fn is_shown(count: &AtomicU64) -> bool {
    (count.fetch_add(1, Relaxed) + 1).is_power_of_two()
}

/// Until nobody is left who could want something.
pub(super) fn serve(tasks: &Inbox<Task>, answers: &Post<Input>, registry: u64) {
    while let Some(task) = tasks.wait() {
        answers.post(run(task, registry));
    }
}

/// Carries out one task. Everything of a driver that runs, runs in here; also the drop of what it captured.
pub(super) fn run(task: Task, registry: u64) -> Input {
    let inside = Inside::enter(registry);
    let answer = match task {
        Task::Probe(driver, context) => {
            let offer = context.offer().clone();
            let outcome = contained(&context, "probe", || driver.probe(&context, offer));
            let panicked = outcome.is_none();
            let instance = match outcome {
                Some(Ok(instance)) => Ok(instance),
                Some(Err(error)) => {
                    if is_shown(&FAILURES) {
                        let instance = context.offer().instance;
                        log::warn!(target: "vmbus::registry", "device {instance}: not driven: {error} {SHOWN}");
                    }
                    Err(error.to_string())
                }
                None => Err("its driver's probe panicked".to_owned()),
            };
            Input::Probed(context.tie(), Probed { instance, panicked })
        }
        Task::Work(context, call) => Input::Worked(context.tie(), work(&context, call)),
        Task::Remove(context, removal) => Input::Removed(context.tie(), remove(&context, removal)),
        Task::Release(id, driver) => {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(driver)));
            Input::Released(id)
        }
    };
    drop(inside);
    answer
}

fn work(context: &Context, call: Call) -> Worked {
    match call {
        Call::Once(work) => {
            let done = contained(context, "work item", || work(context));
            Worked { panicked: done.is_none(), slot: None }
        }
        Call::Slot(id, callback, kind) => run_slot(context, id, callback, &kind),
        Call::Drop(callback) => {
            let done = contained(context, "drop of a callback", || drop(callback));
            Worked { panicked: done.is_none(), slot: None }
        }
    }
}

fn run_slot(context: &Context, id: SlotId, mut callback: Callback, kind: &SlotKind) -> Worked {
    let clear = || {
        if let SlotKind::WakeUp(pending) = kind {
            // In one step: this run sees what was done before each wake that it stands for.
            pending.swap(false, Ordering::AcqRel);
        }
    };
    let late = mutated!(context.registry().mutations(), ClearWakeUpLate);
    if !late {
        clear();
    }
    let done = contained(context, "timer or wake-up", move || {
        let again = callback(context);
        (id, callback, again)
    });
    if late {
        clear();
    }
    Worked { panicked: done.is_none(), slot: done }
}

fn remove(context: &Context, removal: Removal) -> Panicked {
    let Removal { instance, reason, discarded } = removal;
    let mut panicked = false;
    let mut left = discarded;
    if !mutated!(context.registry().mutations(), RunDiscarded) {
        // One by one: a drop that panics must not keep the others from being dropped.
        for call in left.drain(..) {
            panicked |= contained(context, "drop of a callback", || drop(call)).is_none();
        }
    }
    if let Some(instance) = instance {
        panicked |= contained(context, "remove", || instance.remove(reason)).is_none();
    }
    if !mutated!(context.registry().mutations(), ThreadsOutlive) {
        context.join_threads();
    }
    for call in left {
        panicked |= work(context, call).panicked;
    }
    panicked
}

/// Runs something of a driver; `None` if it panicked.
pub(super) fn contained<T>(context: &Context, what: &str, run: impl FnOnce() -> T) -> Option<T> {
    let panic = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => return Some(done),
        Err(panic) => panic,
    };
    let why = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    if is_shown(&PANICS) {
        let (instance, why) = (context.offer().instance, why.unwrap_or("it does not say why"));
        log::error!(target: "vmbus::registry", "device {instance}: its driver's {what} panicked: {why} {SHOWN}");
    }
    // What it panicked with is the driver's, too.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic))).map_err(std::mem::forget);
    None
}
