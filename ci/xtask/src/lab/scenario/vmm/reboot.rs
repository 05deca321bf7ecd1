//! How a guest leaves its host: `vmm-reboot`, `vmm-unload`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::{Scenario, Scene, vmm};
use super::versions::{self, BOOT};
use super::{LINUX, balloon};
use crate::lab::control_wire::{Call, Device, HostSettings};
use crate::lab::host::Host;
use crate::lab::kernel::Kernel;
use crate::lab::machine::Shape;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        kernels: &[Kernel::V6_12, Kernel::Sid],
        own_boot: true,
        shape: Shape { restarts: true, ..Shape::of(Host::Vmm) },
        tolerates: LINUX,
        ..vmm("vmm-reboot", "rebooted with open channels, and after a panic, the guest finds its host again", again)
    },
    Scenario {
        // Since 7.0 the bus is built in.
        kernels: &[Kernel::V6_12],
        own_boot: true,
        shape: Shape { timers: false, ..Shape::of(Host::Vmm) },
        tolerates: LINUX,
        ..vmm("vmm-unload", "hv_vmbus is unloaded and loaded again, also at other versions", unload)
    },
];

/// What the host counts of guests that leave.
const LEAVING: [&str; 4] = ["contacts", "unloads", "left_open", "left_gpadls"];

/// A reboot says nothing to the host, and a panic says UNLOAD; after either the guest connects anew and all is well.
fn again(scene: &mut Scene<'_>) -> Result<()> {
    for (how, unloads) in [("reboot -f", 0), ("echo c > /proc/sysrq-trigger", 1)] {
        let device = Device { kind: "echo".to_owned(), number: 5, monitored: true, ..Device::default() };
        let offer = scene.control()?.offer(device)?;
        let instance = scene.offered(offer)?.instance;
        scene.await_device(&instance, true)?;
        scene.vmbusctl(&["bind", &instance], 0)?;
        scene.guest.spawn(&["vmbus-lab-guest", "echo", &instance])?;
        scene.control()?.wait_state(offer, "open", super::KERNEL)?;
        let before = counts(scene)?;
        scene.reset(how, BOOT)?;
        let gone = counts(scene)?;
        let changes: Vec<u64> = gone.iter().zip(&before).map(|(after, before)| after - before).collect();
        let text: Vec<String> = LEAVING.iter().zip(&changes).map(|(name, count)| format!("{name} {count}")).collect();
        scene.say(format!("`{how}` with an open channel: {}", text.join(", ")));
        ensure!(changes.get(1) == Some(&unloads), "{unloads} UNLOAD expected after `{how}`");
        ensure!(changes.get(2) == Some(&1), "the channel was open when the guest left");
        scene.guest.load_modules()?;
        // The host still has the device.
        scene.await_device(&instance, true)?;
        let text = balloon::there_and_back(scene).with_context(|| format!("after `{how}`"))?;
        scene.control()?.rescind(offer)?;
        scene.control()?.wait_state(offer, "gone", super::KERNEL)?;
        scene.say(format!("afterwards: the same device, and {text}"));
    }
    Ok(())
}

fn counts(scene: &mut Scene<'_>) -> Result<Vec<u64>> {
    let counters = scene.control()?.counters()?;
    let count = |name: &&str| counters.get(*name).and_then(Value::as_u64);
    LEAVING.iter().map(|name| count(name).with_context(|| format!("no counter {name}"))).collect()
}

/// The modules of the bus are unloaded and loaded again, as nobody does but who develops them; with a device there, which
/// the host still has afterwards.
fn unload(scene: &mut Scene<'_>) -> Result<()> {
    let device = Device { kind: "echo".to_owned(), number: 6, monitored: true, ..Device::default() };
    let offer = scene.control()?.offer(device)?;
    let instance = scene.offered(offer)?.instance;
    scene.await_device(&instance, true)?;
    for version in ["5.3", "4.1", "3.0"] {
        let before = counts(scene)?;
        scene.guest.shell("rmmod uio_hv_generic uio hv_vmbus")?;
        let after = counts(scene)?;
        ensure!(after.get(1) == before.get(1).map(|unloads| unloads + 1).as_ref(), "UNLOAD: {before:?}, {after:?}");
        let settings = HostSettings { versions: Some(vec![version.to_owned()]), ..HostSettings::default() };
        scene.control()?.call(Call::Configure(settings))?;
        scene.guest.load_modules()?;
        scene.await_device(&instance, true).with_context(|| format!("loaded again at {version}"))?;
        let text = versions::echo(scene).with_context(|| format!("loaded again at {version}"))?;
        scene.say(format!("unloaded by UNLOAD and loaded again at {version}: the device is back, and {text}"));
    }
    scene.control()?.rescind(offer)?;
    scene.control()?.wait_state(offer, "gone", super::KERNEL)
}
