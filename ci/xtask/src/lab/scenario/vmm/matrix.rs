//! What differs from kernel to kernel: `vmm-doctor` looks at this one, writes it down, and holds against it what `doctor`
//! says of it and what its table of known bugs has.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::super::device::{UIO_DRIVER, driver, expect_driver};
use super::super::{Scenario, Scene, vmm};
use super::{KERNEL, LINUX};
use crate::lab::control_wire::Device;
use crate::lab::guest::describe;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    tolerates: LINUX,
    ..vmm("vmm-doctor", "what this kernel does with channels, and that doctor says the same of it", doctor)
}];

/// Network adapters, which have buffers of the kernel's, and which open subchannels.
const NIC: &str = "f8615163-df3e-46c5-913f-f2d2f965ed0e";
/// The guest file copy service, whose rings are small on many kernels.
const FCOPY: &str = "34d14be3-dee4-41c8-9ae7-6b174977c192";
/// The page of a ring that holds its indices.
const PAGE: u64 = 4096;

/// What a kernel does by itself, as the program in the guest found.
#[derive(Debug, Deserialize)]
struct Ways {
    data_bytes: u64,
    masks_after_interrupt: bool,
    unmasks_by_signal: Option<bool>,
}

/// What doctor says.
struct Diagnosis {
    kernel: Value,
    findings: Vec<(String, String, String)>,
}

impl Diagnosis {
    fn of(scene: &mut Scene<'_>) -> Result<Self> {
        let finished = scene.guest.run(&["vmbusctl", "doctor", "--json"], Duration::from_secs(30))?;
        let mut said: Value = serde_json::from_str(&finished.stdout).with_context(|| describe(&finished))?;
        let text = |finding: &Value, field| finding.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let findings = said.get("findings").and_then(Value::as_array).context("`doctor --json` has no `findings`")?;
        let findings = findings.iter().map(|it| (text(it, "id"), text(it, "severity"), text(it, "title"))).collect();
        let kernel = said.get_mut("kernel").map(Value::take).context("`doctor --json` has no `kernel`")?;
        let diagnosis = Self { kernel, findings };
        let code = i32::from(!diagnosis.failures().is_empty());
        ensure!(finished.code == Some(code), "doctor: {}, and {}", diagnosis.words(), describe(&finished));
        Ok(diagnosis)
    }

    /// The names of what fails.
    fn failures(&self) -> Vec<&str> {
        let bad = self.findings.iter().filter(|(_, severity, _)| severity == "failure");
        bad.map(|(id, ..)| id.as_str()).collect()
    }

    /// How bad a finding is; nothing where there is none of that name.
    fn severity(&self, id: &str) -> Option<&str> {
        let worst = self.findings.iter().filter(|(of, ..)| of == id);
        // All others of the same name are no worse than what is looked for.
        worst.map(|(_, severity, _)| severity.as_str()).find(|severity| *severity != "ok")
    }

    /// All that is not in order, in words.
    fn words(&self) -> String {
        let bad = self.findings.iter().filter(|(_, severity, _)| severity != "ok");
        let words: Vec<String> = bad.map(|(id, severity, title)| format!("{severity} {id} ({title})")).collect();
        if words.is_empty() { "nothing is wrong".to_owned() } else { words.join("; ") }
    }
}

fn doctor(scene: &mut Scene<'_>) -> Result<()> {
    let first = Diagnosis::of(scene)?;
    ensure!(first.kernel.get("precision").and_then(Value::as_str) == Some("exact"), "an odd kernel: {}", first.kernel);
    ensure!(first.failures().is_empty(), "with nothing on the bus: {}", first.words());
    scene.say(format!("Linux {}: {}", first.kernel.get("version").unwrap_or(&Value::Null), first.words()));

    // With a monitor id all kernels take it.
    let (echo, instance) = offer(scene, 91, None, true)?;
    let maps = bound(scene, &instance)?;
    scene.say(format!("an echo device with a monitor id: {}", maps.words));
    let monitored = ways(scene, &instance, &maps)?;
    unbind(scene, &instance)?;

    let (plain, instance) = offer(scene, 92, None, false)?;
    let diagnosis = Diagnosis::of(scene)?;
    let refused = diagnosis.failures() == ["monitor"];
    ensure!(refused || diagnosis.failures().is_empty(), "doctor: {}", diagnosis.words());
    let mut called = None;
    if refused {
        let said = scene.vmbusctl(&["bind", &instance], 1).context("doctor says that it would be refused")?;
        scene.say(format!("without a monitor id: {}", said.stderr.trim().lines().last().unwrap_or_default()));
        scene.await_kernel_log("the kernel says why", KERNEL, |line| {
            line.contains("vmbus channel requires hypercall")
        })?;
        scene.vmbusctl(&["restore", "--all"], 0)?;
        scene.control()?.rescind(plain)?;
        scene.await_device(&instance, false)?;
    } else {
        let maps = bound(scene, &instance)?;
        scene.say(format!("without a monitor id: {}", maps.words));
        called = Some(ways(scene, &instance, &maps)?);
        scene.control()?.rescind(plain)?;
        scene.await_device(&instance, false)?;
    }

    let masks = [Some(&monitored), called.as_ref()].into_iter().flatten().any(|ways| ways.masks_after_interrupt);
    let believed = first.severity("interrupt-mask-race").is_some();
    scene.say(format!("with a monitor id: {monitored:?}; without: {called:?}"));
    ensure!(masks == believed, "the kernel masks after an interrupt: {masks}; doctor believes: {believed}");
    // A signal by system call opens the masks; drivers that keep theirs closed have to close it again.
    ensure!(called.as_ref().is_none_or(|ways| ways.unmasks_by_signal == Some(true)), "no unmasking: {called:?}");

    classes(scene)?;
    released_while_open(scene, echo)
}

/// Rings and buffers of classes that the kernel knows. Some kernels bind file copy to UIO by themselves.
fn classes(scene: &mut Scene<'_>) -> Result<()> {
    for (number, class, name) in [(93, NIC, "a network adapter"), (94, FCOPY, "file copy")] {
        let (offer, instance) = offer(scene, number, Some(class), true)?;
        let alone = driver(scene.guest, &instance)? == UIO_DRIVER;
        let diagnosis = Diagnosis::of(scene)?;
        ensure!(diagnosis.failures().is_empty(), "doctor, of {name}: {}", diagnosis.words());
        let maps = bound(scene, &instance)?;
        let by = if alone { ", bound by the kernel" } else { "" };
        scene.say(format!("{name}{by}: {}; doctor: {}", maps.words, diagnosis.words()));
        ensure!(class != NIC || maps.has_buffers(), "a network adapter without buffers: {}", maps.words);
        scene.control()?.rescind(offer)?;
        scene.await_device(&instance, false)?;
    }
    Ok(())
}

/// A device that is taken back while it is open is given up, which it was not before CVE-2024-46739 was mended.
fn released_while_open(scene: &mut Scene<'_>, offer: u64) -> Result<()> {
    let offered = scene.offered(offer)?;
    let (instance, relid) = (offered.instance, offered.relid.context("an offer without a relid")?);
    bound(scene, &instance)?;
    let job = scene.guest.spawn(&["vmbus-lab-guest", "echo", &instance])?;
    scene.control()?.wait_state(offer, "open", KERNEL)?;
    scene.control()?.rescind(offer)?;
    let finished = job.wait(scene.guest, Duration::from_secs(30))?;
    ensure!(finished.code == Some(6), "taken back: exit 6 expected, got {}", describe(&finished));
    scene.control()?.wait_state(offer, "gone", KERNEL)?;
    let released = scene.control()?.released(relid)?;
    ensure!(released == 1, "relid {relid} was released {released} times");
    let end = Diagnosis::of(scene)?;
    ensure!(end.severity("cve-2024-46739").is_none() && end.failures().is_empty(), "doctor: {}", end.words());
    scene.say("taken back while open: exit 6, its relid released once");
    Ok(())
}

/// What the kernel shows of a device that is bound.
struct Maps {
    words: String,
    maps: Vec<(String, u64)>,
}

impl Maps {
    fn rings(&self) -> Result<u64> {
        let rings = self.maps.iter().find(|(name, _)| name == "txrx_rings");
        rings.map(|(_, bytes)| *bytes).with_context(|| format!("no rings among {}", self.words))
    }

    fn has_buffers(&self) -> bool {
        let has = |kind: &str| self.maps.iter().any(|(name, _)| name.starts_with(kind));
        has("recv:") && has("send:")
    }
}

fn offer(scene: &mut Scene<'_>, number: u64, class: Option<&str>, monitored: bool) -> Result<(u64, String)> {
    let (kind, class) = (if class.is_some() { "mute" } else { "echo" }, class.map(str::to_owned));
    let offer =
        scene.control()?.offer(Device { kind: kind.to_owned(), number, class, monitored, ..Device::default() })?;
    let instance = scene.offered(offer)?.instance;
    scene.await_device(&instance, true)?;
    Ok((offer, instance))
}

/// Binds a device to UIO, and says what that gave.
fn bound(scene: &mut Scene<'_>, instance: &str) -> Result<Maps> {
    scene.vmbusctl(&["bind", instance], 0)?;
    expect_driver(scene.guest, instance, UIO_DRIVER)?;
    let text = scene.guest.shell(&format!(
        "cd /sys/bus/vmbus/devices/{instance}; for m in uio/uio*/maps/map*; do echo $(cat $m/name) $(cat $m/size); done; \
         for r in channels/*/ring; do echo ring-file $(stat -c %s $r); done"
    ))?;
    let mut maps = Vec::new();
    for line in text.lines() {
        let (name, bytes) = line.rsplit_once(' ').with_context(|| format!("an odd map: {line:?}"))?;
        let parsed = match bytes.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => bytes.parse(),
        };
        maps.push((name.to_owned(), parsed.with_context(|| format!("an odd map: {line:?}"))?));
    }
    let mut words = String::new();
    for (name, bytes) in &maps {
        let _ = write!(words, "{}{name} {bytes:#x}", if words.is_empty() { "" } else { ", " });
    }
    Ok(Maps { words, maps })
}

fn unbind(scene: &mut Scene<'_>, instance: &str) -> Result<()> {
    scene.vmbusctl(&["unbind", instance], 0)?;
    expect_driver(scene.guest, instance, "")
}

/// Has one packet echoed, and compares the ring that was mapped with what the kernel shows.
fn ways(scene: &mut Scene<'_>, instance: &str, maps: &Maps) -> Result<Ways> {
    let finished = scene.guest.run(&["vmbus-lab-guest", "kernel-ways", instance], Duration::from_secs(60))?;
    if finished.code != Some(0) {
        bail!("a packet to {instance}: {}", describe(&finished));
    }
    let ways: Ways =
        serde_json::from_str(&finished.stdout).with_context(|| format!("odd ways: {}", finished.stdout))?;
    let rings = 2 * (ways.data_bytes + PAGE);
    ensure!(maps.rings()? == rings, "rings of {rings:#x} were mapped: {}", maps.words);
    Ok(ways)
}
