//! Scenarios on the VMM's host: what a guest's kernel and our driver make of devices that come, go and misbehave. Each
//! file has the table of its own scenarios; all are listed here, in the order they are played in.

mod bound;
mod buffers;
mod cycles;
mod first_light;
mod hostile;
mod matrix;
mod monitor;
mod rescind;
mod revocation;
mod speed;
mod subchannels;

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Scenario, Scene, eventually, lsvmbus, vmm};
use crate::lab::control::Offered;
use crate::lab::kernel::Kernel;

/// The tables of all files.
pub(super) const SCENARIOS: &[&[Scenario]] = &[
    first_light::SCENARIOS,
    rescind::SCENARIOS,
    monitor::SCENARIOS,
    buffers::SCENARIOS,
    hostile::SCENARIOS,
    cycles::SCENARIOS,
    revocation::SCENARIOS,
    subchannels::SCENARIOS,
    LSVMBUS,
    matrix::SCENARIOS,
    speed::SCENARIOS,
];

const LSVMBUS: &[Scenario] = &[Scenario {
    lsvmbus: true,
    ..vmm("vmm-lsvmbus", "the same as lsvmbus prints, with a dozen devices", lsvmbus::equal_for_many)
}];

/// Kernels on which channels are played with: the lab's own, and the newest of all.
const UIO: &[Kernel] = &[Kernel::V6_12, Kernel::Sid];

/// Longest wait for something that the guest's kernel does by itself, such as making a device that it was offered.
const KERNEL: Duration = Duration::from_secs(20);

/// What Linux does as a matter of course with a channel that was rescinded: it takes none of its GPADLs down, and frees
/// their pages before it releases the relid.
const LINUX: &[&str] = &["ReleasedWithGpadls", "GpadlStale"];

impl Scene<'_> {
    /// A channel as the host lists it.
    fn offered(&mut self, offer: u64) -> Result<Offered> {
        self.control()?.offered(offer)
    }

    /// Waits until sysfs has a device (or until it has none any more).
    pub(super) fn await_device(&mut self, instance: &str, there: bool) -> Result<()> {
        let (what, test) = if there { ("in", "-e") } else { ("gone from", "! -e") };
        eventually(&format!("device {instance} {what} sysfs"), KERNEL, || {
            let line = format!("test {test} /sys/bus/vmbus/devices/{instance} && echo yes || true");
            Ok((self.guest.shell(&line)? == "yes").then_some(()))
        })
    }

    /// What `vmbusctl list` says about a device, if it lists that.
    fn listed(&mut self, instance: &str) -> Result<Option<serde_json::Value>> {
        let listing = self.vmbusctl_json(&["list"], 0)?;
        let devices = listing.get("devices").and_then(serde_json::Value::as_array);
        let devices = devices.context("`list --json` has no `devices`")?;
        let is = |device: &&serde_json::Value| device.get("instance").and_then(|it| it.as_str()) == Some(instance);
        Ok(devices.iter().find(is).cloned())
    }
}
