//! The first scenario on the VMM's host, and the example for others: `vmm-first-light`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::device::{UIO_DRIVER, expect_driver};
use super::super::{Scenario, Scene, vmm};
use super::KERNEL;
use crate::lab::control_wire::Device;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    every_time: true,
    ..vmm("vmm-first-light", "a device comes, is seen, goes to UIO and back, and is taken away", first_light)
}];

/// The newest versions of the kernels; the host takes them all.
const VERSIONS: [&str; 2] = ["Vmbus version:5.3", "Vmbus version:6.0"];

/// The kernel connects; a device is offered, listed, bound, unbound and rescinded; its relid is released once.
fn first_light(scene: &mut Scene<'_>) -> Result<()> {
    let log = scene.guest.shell("dmesg")?;
    let line = log.lines().find(|line| line.contains("Vmbus version:")).context("hv_vmbus names no version")?;
    ensure!(VERSIONS.iter().any(|version| line.ends_with(version)), "one of {VERSIONS:?} expected: {line}");
    scene.say(line.trim());

    let device = Device { kind: "echo".to_owned(), number: 1, monitored: true, ..Device::default() };
    let offer = scene.control()?.offer(device)?;
    let offered = scene.offered(offer)?;
    let (instance, relid) = (offered.instance, offered.relid.context("an offer without a relid")?);
    scene.await_device(&instance, true)?;
    let sysfs = scene.guest.shell(&format!("cat /sys/bus/vmbus/devices/{instance}/id"))?;
    ensure!(sysfs == relid.to_string(), "the host says relid {relid}, sysfs says {sysfs}");
    let listed = scene.listed(&instance)?.context("vmbusctl does not list the device")?;
    ensure!(listed.get("relid") == Some(&Value::from(relid)), "the host says relid {relid}: {listed}");
    scene.say(format!("offer {offer}: instance {instance}, relid {relid}; sysfs and vmbusctl agree"));

    scene.vmbusctl(&["bind", &instance], 0)?;
    expect_driver(scene.guest, &instance, UIO_DRIVER)?;
    scene.vmbusctl(&["unbind", &instance], 0)?;
    expect_driver(scene.guest, &instance, "")?;
    scene.say("bound to UIO and unbound");

    scene.control()?.rescind(offer)?;
    scene.await_device(&instance, false)?;
    scene.control()?.wait_state(offer, "gone", KERNEL)?;
    let released = scene.control()?.released(relid)?;
    ensure!(released == 1, "relid {relid} was released {released} times");
    ensure!(scene.listed(&instance)?.is_none(), "vmbusctl still lists the device");
    scene.say("taken back: gone from sysfs, its relid released once");
    let counters = scene.control()?.counters()?;
    scene.say(format!("the host counts {counters}"));
    Ok(())
}
