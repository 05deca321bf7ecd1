//! Scenarios on the VMM's host: what a guest's kernel and our driver make of devices that come, go and misbehave. Each
//! file has the table of its own scenarios; all are listed here, in the order they are played in.

mod balloon;
mod bound;
mod buffers;
mod cycles;
mod first_light;
mod hostile;
mod matrix;
mod monitor;
mod nc;
mod reboot;
mod rescind;
mod revocation;
mod sockets;
mod speed;
mod subchannels;
mod versions;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Scenario, Scene, eventually, lsvmbus, vmm};
use crate::lab::control::Offered;
use crate::lab::guest::describe;
use crate::lab::kernel::Kernel;
use crate::lab::kernel_log::complaints;

/// The tables of all files.
pub(super) const SCENARIOS: &[&[Scenario]] = &[
    first_light::SCENARIOS,
    balloon::SCENARIOS,
    sockets::SCENARIOS,
    nc::SCENARIOS,
    versions::SCENARIOS,
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
    reboot::SCENARIOS,
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
/// their pages before it releases the relid; and it closes and releases what is open behind its UNLOAD. See
/// `ViolationKind::LINUX` of the simulated host.
const LINUX: &[&str] = &["ReleasedWithGpadls", "GpadlStale", "AfterUnload"];

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

    /// Runs one of the programs of `vmbus-lab-guest` to its end, which must be good; its last line.
    fn program(&mut self, arguments: &[&str], timeout: Duration) -> Result<Value> {
        let argv: Vec<&str> = std::iter::once("vmbus-lab-guest").chain(arguments.iter().copied()).collect();
        let finished = self.guest.run(&argv, timeout)?;
        ensure!(finished.code == Some(0), "`{}`: {}", argv.join(" "), describe(&finished));
        let last = finished.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("`{}` printed: {last}", argv.join(" ")))
    }

    /// Has the guest reset itself, and goes on in the next one, whose log begins anew. The kernel must not have
    /// complained so far.
    fn reset(&mut self, how: &str, timeout: Duration) -> Result<()> {
        let log = self.kernel_log()?;
        if let Some(first) = complaints(log.iter().map(String::as_str), false).first() {
            anyhow::bail!("the guest's kernel complained before `{how}`: {}", first.line);
        }
        self.log_start = 0;
        self.guest.reset(how, timeout)
    }

    /// What `vmbusctl list` says about a device, if it lists that.
    fn listed(&mut self, instance: &str) -> Result<Option<Value>> {
        let listing = self.vmbusctl_json(&["list"], 0)?;
        let devices = listing.get("devices").and_then(Value::as_array);
        let devices = devices.context("`list --json` has no `devices`")?;
        let is = |device: &&Value| device.get("instance").and_then(|it| it.as_str()) == Some(instance);
        Ok(devices.iter().find(is).cloned())
    }
}
