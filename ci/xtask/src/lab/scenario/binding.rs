//! Scenarios about finding the device and handing it over: `list`, `bind-restore`, `late-bind`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::device::{CLASS, KERNEL_DRIVER, UIO_DRIVER, expect_driver, instance};
use super::{Driver, Scene};
use crate::lab::wire::TEXT_LIMIT;

/// `vmbusctl list` agrees with sysfs in each of its formats. Also tries how much the lab's own line to the guest holds.
pub(super) fn list(scene: &mut Scene<'_>) -> Result<()> {
    let text = "0123456789abcdef".repeat(TEXT_LIMIT / 16);
    let start = Instant::now();
    ensure!(scene.guest.echo(&text)? == text, "the line to the agent changes text");
    scene.say(format!("the line to the agent: {TEXT_LIMIT} B there and back in {} ms", start.elapsed().as_millis()));
    let instance = instance(scene.guest)?;
    let listing = scene.vmbusctl_json(&["list"], 0)?;
    let devices = listing.get("devices").and_then(Value::as_array).context("`list --json` has no `devices`")?;
    let [device] = devices.as_slice() else { bail!("one device expected: {listing}") };
    let relid = scene.guest.shell(&format!("cat /sys/bus/vmbus/devices/{instance}/id"))?;
    for (field, expected) in [
        ("instance", Value::from(instance.clone())),
        ("class", Value::from(CLASS)),
        ("class_name", Value::from("balloon")),
        ("driver", Value::from(KERNEL_DRIVER)),
        ("relid", Value::from(relid.parse::<u64>()?)),
        ("monitor_id", Value::Null),
    ] {
        let listed = device.get(field).unwrap_or(&Value::Null);
        ensure!(*listed == expected, "`list --json` says {field} is {listed}, sysfs says {expected}");
    }
    scene.say(format!("relid {relid}, instance {instance}"));
    let table = scene.vmbusctl(&["list"], 0)?.stdout;
    ensure!(table.contains("balloon") && table.contains(KERNEL_DRIVER), "odd table:\n{table}");
    let lines = scene.vmbusctl(&["list", "--format", "lsvmbus"], 0)?.stdout;
    ensure!(lines == format!("VMBUS ID {relid:>2}: [Dynamic Memory]\n"), "not as lsvmbus prints it: {lines:?}");
    Ok(())
}

/// The device goes to UIO and comes back, and the kernel's driver speaks to the host again.
pub(super) fn bind_restore(scene: &mut Scene<'_>) -> Result<()> {
    let instance = instance(scene.guest)?;
    expect_driver(scene.guest, &instance, KERNEL_DRIVER)?;
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    expect_driver(scene.guest, &instance, UIO_DRIVER)?;
    let node = scene.guest.shell(&format!("ls /sys/bus/vmbus/devices/{instance}/uio"))?;
    let maps = scene.guest.shell(&format!(
        "test -c /dev/{node} && cd /sys/class/uio/{node}/maps && for m in map*; do echo $(cat $m/name $m/size); done"
    ))?;
    ensure!(maps.lines().any(|map| map.starts_with("txrx_rings ")), "no rings among the maps: {maps}");
    scene.say(format!("/dev/{node}: {}", maps.replace('\n', ", ")));
    scene.qmp_forget()?;
    scene.vmbusctl(&["restore", "balloon"], 0)?;
    expect_driver(scene.guest, &instance, KERNEL_DRIVER)?;
    let line = scene.await_kernel_log("hv_balloon negotiates again", Duration::from_secs(20), |line| {
        line.contains("hv_balloon") && line.contains("protocol version")
    })?;
    scene.say(line);
    let report =
        scene.guest.qmp()?.next_report(Duration::from_secs(20))?.context("no report from the kernel's driver")?;
    scene.say(format!("the kernel's driver reports again: {} MiB available", report.available >> 20));
    Ok(())
}

/// A driver that waits sees the device arrive at UIO, opens it and speaks.
pub(super) fn late_bind(scene: &mut Scene<'_>) -> Result<()> {
    let mut driver = Driver::start(scene, &["--wait", "60"])?;
    driver.event(scene, "waiting", Duration::from_secs(20))?;
    scene.say("the driver waits, the device is still with the kernel's driver");
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    driver.event(scene, "opened", Duration::from_secs(20))?;
    let version = driver.negotiated(scene)?;
    scene.say(format!("bound, seen, opened; version {version}"));
    driver.stop(scene)?;
    scene.vmbusctl(&["restore", "balloon"], 0)?;
    Ok(())
}
