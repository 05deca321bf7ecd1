//! Scenario about hearing everything: `watch`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::device::{KERNEL_DRIVER, UIO_DRIVER, instance};
use super::{COMMAND, Scene};
use crate::lab::guest::{Job, describe};

/// Times that the device changes hands as fast as a shell can make it.
const FAST: usize = 20;

/// Takes the bus away and brings it back, then lets the device change hands with `vmbusctl` and as fast as possible.
/// The lines of two watchers are compared with what was done.
pub(super) fn everything_in_order(scene: &mut Scene<'_>) -> Result<()> {
    let instance = instance(scene.guest)?;
    let mut watch = scene.guest.spawn(&["vmbusctl", "watch", "--json"])?;
    let first = expect(scene, &mut watch, &[("present", None)])?;
    for (field, expected) in [("instance", Value::from(instance.clone())), ("class_name", Value::from("balloon"))] {
        ensure!(first.get(field) == Some(&expected), "{field} should be {expected}: {first}");
    }
    let mut late = scene.guest.spawn(&["vmbusctl", "watch", "--json", "--no-initial"])?;
    await_listener(scene)?;
    scene.guest.shell("rmmod uio_hv_generic && rmmod hv_vmbus")?;
    for job in [&mut watch, &mut late] {
        expect(scene, job, &[("removed", None)])?;
    }
    scene.guest.shell("insmod /lib/hv_vmbus.ko && insmod /lib/uio_hv_generic.ko")?;
    for job in [&mut watch, &mut late] {
        let arrived = expect(scene, job, &[("arrived", None)])?;
        for field in ["instance", "class", "relid"] {
            ensure!(arrived.get(field) == first.get(field), "another {field} than before: {arrived}");
        }
    }
    scene.say("the whole bus was taken away and came back: removed, arrived");

    scene.guest.load_kernel_driver()?;
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    let mut done = vec![("bound", Some(KERNEL_DRIVER)), ("unbound", Some(KERNEL_DRIVER)), ("bound", Some(UIO_DRIVER))];
    let folder = format!("/sys/bus/vmbus/drivers/{UIO_DRIVER}");
    let cycle = format!("echo {instance} > {folder}/unbind; echo {instance} > {folder}/bind");
    scene.guest.shell(&format!("for n in $(seq {FAST}); do {cycle}; done"))?;
    for _ in 0..FAST {
        done.extend([("unbound", Some(UIO_DRIVER)), ("bound", Some(UIO_DRIVER))]);
    }
    scene.vmbusctl(&["restore", "balloon"], 0)?;
    done.extend([("unbound", Some(UIO_DRIVER)), ("bound", Some(KERNEL_DRIVER))]);
    expect(scene, &mut watch, &done)?;
    expect(scene, &mut late, &done)?;
    scene.say(format!("{} changes of hands, {FAST} of them as fast as can be: all told, in order", FAST + 2));

    for job in [watch, late] {
        job.kill(scene.guest, 15)?;
        let finished = job.wait(scene.guest, COMMAND)?;
        ensure!(finished.code == Some(0), "after SIGTERM watch should exit 0: {}", describe(&finished));
        ensure!(!finished.stdout.contains("\"lost\""), "announcements were lost");
    }
    Ok(())
}

/// The second watcher says nothing at first; it listens as soon as it has a socket for that.
fn await_listener(scene: &mut Scene<'_>) -> Result<()> {
    super::eventually("two watchers that listen", Duration::from_secs(20), || {
        // Family 15 is NETLINK_KOBJECT_UEVENT, group 1 the kernel's.
        let count = scene.guest.shell("awk '$2 == 15 && $4 == \"00000001\"' /proc/net/netlink | wc -l")?;
        Ok((count == "2").then_some(()))
    })
}

/// Insists that the next lines are these events with these drivers; the last of them.
fn expect(scene: &mut Scene<'_>, job: &mut Job, events: &[(&str, Option<&str>)]) -> Result<Value> {
    let mut last = Value::Null;
    for (number, (event, driver)) in events.iter().enumerate() {
        let line = job.line(scene.guest, Duration::from_secs(20))?;
        let line = line.with_context(|| format!("line {} should be `{event}`, and nothing comes", number + 1))?;
        last = serde_json::from_str(&line).with_context(|| format!("watch printed: {line}"))?;
        let is = |field: &str, expected: Value| last.get(field) == Some(&expected);
        let right = is("event", Value::from(*event)) && is("driver", driver.map_or(Value::Null, Value::from));
        ensure!(right, "line {} should be `{event}` of {driver:?}: {last}", number + 1);
    }
    Ok(last)
}
