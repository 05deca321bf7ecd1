//! Scenario about hearing everything: `watch`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::device::{KERNEL_DRIVER, UIO_DRIVER, instance};
use super::{COMMAND, Scene};
use crate::lab::guest::{Job, describe};

/// Times that the device changes hands as fast as a shell can make it.
const FAST: usize = 20;

/// Two watchers begin before there is a bus, and a third one later; the device arrives, then changes hands with
/// `vmbusctl` and as fast as possible. All lines are compared with what was done.
///
/// The device can't be removed: this host takes nothing back, and the kernel does not survive to lose the whole bus.
pub(super) fn everything_in_order(scene: &mut Scene<'_>) -> Result<()> {
    let mut watch = scene.guest.spawn(&["vmbusctl", "watch", "--json"])?;
    let mut plain = scene.guest.spawn(&["vmbusctl", "watch"])?;
    await_listeners(scene, 2)?;
    scene.guest.load_modules()?;
    let arrived = expect(scene, &mut watch, &[("arrived", None), ("bound", Some(KERNEL_DRIVER))])?;
    let instance = instance(scene.guest)?;
    for (field, expected) in [("instance", Value::from(instance.clone())), ("class_name", Value::from("balloon"))] {
        ensure!(arrived.get(field) == Some(&expected), "{field} should be {expected}: {arrived}");
    }
    scene.say("the bus came, then the device, then its driver: told as they came");
    let mut late = scene.guest.spawn(&["vmbusctl", "watch", "--json", "--no-initial"])?;
    await_listeners(scene, 3)?;

    scene.vmbusctl(&["bind", "balloon"], 0)?;
    let mut done = vec![("unbound", Some(KERNEL_DRIVER)), ("bound", Some(UIO_DRIVER))];
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
    let words: Vec<_> = [("arrived", None), ("bound", Some(KERNEL_DRIVER))].iter().chain(&done).copied().collect();
    for (event, driver) in words {
        let line = plain.line(scene.guest, Duration::from_secs(20))?.context("the plain watcher says nothing more")?;
        let driver = driver.unwrap_or("no driver");
        let parts = [format!("  {event} "), format!(" {instance}  relid "), format!("  {driver}")];
        ensure!(parts.iter().all(|part| line.contains(part)), "`{event}` of {driver} should be: {line}");
    }

    for job in [watch, plain, late] {
        job.kill(scene.guest, 15)?;
        let finished = job.wait(scene.guest, COMMAND)?;
        ensure!(finished.code == Some(0), "after SIGTERM watch should exit 0: {}", describe(&finished));
        ensure!(!finished.stdout.contains("\"lost\""), "announcements were lost");
    }
    Ok(())
}

/// They say nothing at first; they listen as soon as they have a socket for that.
fn await_listeners(scene: &mut Scene<'_>, count: usize) -> Result<()> {
    super::eventually("watchers that listen", Duration::from_secs(20), || {
        // Family 15 is NETLINK_KOBJECT_UEVENT, group 1 the kernel's.
        let found = scene.guest.shell("awk '$2 == 15 && $4 == \"00000001\"' /proc/net/netlink | wc -l")?;
        Ok((found == count.to_string()).then_some(()))
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
