//! Scenario about hearing everything: `watch`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::device::{KERNEL_DRIVER, UIO_DRIVER, instance};
use super::{COMMAND, Scene};
use crate::lab::guest::{Job, describe};

/// Times that the device changes hands as fast as a shell can make it.
const FAST: usize = 20;

/// Binds and unbinds, with `vmbusctl` and as fast as possible, then takes the whole bus away and brings it back. The
/// lines of two watchers are compared with what was done.
pub(super) fn everything_in_order(scene: &mut Scene<'_>) -> Result<()> {
    let instance = instance(scene.guest)?;
    let mut watch = scene.guest.spawn(&["vmbusctl", "watch", "--json"])?;
    let first = expect(scene, &mut watch, &[("present", Some(KERNEL_DRIVER))])?;
    for (field, expected) in [("instance", Value::from(instance.clone())), ("class_name", Value::from("balloon"))] {
        ensure!(first.get(field) == Some(&expected), "{field} should be {expected}: {first}");
    }
    let mut late = scene.guest.spawn(&["vmbusctl", "watch", "--json", "--no-initial"])?;
    await_listener(scene)?;
    let mut done = Vec::new();

    scene.vmbusctl(&["bind", "balloon"], 0)?;
    done.extend([("unbound", Some(KERNEL_DRIVER)), ("bound", Some(UIO_DRIVER))]);
    let folder = format!("/sys/bus/vmbus/drivers/{UIO_DRIVER}");
    let line =
        format!("for n in $(seq {FAST}); do echo {instance} > {folder}/unbind; echo {instance} > {folder}/bind; done");
    scene.guest.shell(&line)?;
    for _ in 0..FAST {
        done.extend([("unbound", Some(UIO_DRIVER)), ("bound", Some(UIO_DRIVER))]);
    }
    scene.vmbusctl(&["restore", "balloon"], 0)?;
    done.extend([("unbound", Some(UIO_DRIVER)), ("bound", Some(KERNEL_DRIVER))]);
    expect(scene, &mut watch, &done)?;
    expect(scene, &mut late, &done)?;
    scene.say(format!("{} changes of hands, {FAST} of them as fast as can be: all told, in order", FAST + 2));

    // The drivers first: they use the bus.
    scene.guest.shell("rmmod hv_balloon && rmmod uio_hv_generic && rmmod hv_vmbus")?;
    scene.guest.shell("for module in hv_vmbus uio_hv_generic hv_balloon; do insmod /lib/$module.ko; done")?;
    let away = [("unbound", Some(KERNEL_DRIVER)), ("removed", None)];
    let back = [("arrived", None), ("bound", Some(KERNEL_DRIVER))];
    for job in [&mut watch, &mut late] {
        expect(scene, job, &away)?;
        expect(scene, job, &back)?;
    }
    scene.say("the bus was taken away and came back: removed, arrived, bound");

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
