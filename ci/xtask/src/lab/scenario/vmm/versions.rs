//! The kernel's `hv_vmbus` at each version of the protocol: `vmm-echo` at the highest, `vmm-versions` at all.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::{Scenario, Scene, vmm};
use super::{balloon, sockets};
use crate::lab::control_wire::{Call, Device, HostSettings};
use crate::lab::host::Host;
use crate::lab::kernel::Kernel;
use crate::lab::machine::Shape;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { every_time: true, ..vmm("vmm-echo", "a thousand packets there and back by our driver", echo_alone) },
    Scenario {
        kernels: &[Kernel::V6_12, Kernel::Sid],
        bare: true,
        own_boot: true,
        shape: Shape { restarts: true, ..Shape::of(Host::Vmm) },
        ..vmm("vmm-versions", "the kernel connects at 6.0 or 5.3 to 3.0, and all its drivers work at each", each)
    },
];

/// All that Linux knows; the first only since 7.0.
const VERSIONS: [&str; 7] = ["6.0", "5.3", "5.2", "5.0", "4.1", "4.0", "3.0"];

/// The first that has hv_sock, as (major, minor).
const SOCKETS_SINCE: (u32, u32) = (4, 0);

/// Packets that the echo device gets at each version.
const PACKETS: u64 = 1000;

/// Longest boot of the guest alone.
pub(super) const BOOT: Duration = Duration::from_secs(90);

fn echo_alone(scene: &mut Scene<'_>) -> Result<()> {
    let text = echo(scene)?;
    scene.say(text);
    Ok(())
}

/// Each version in a kernel of its own, that finds the same host.
fn each(scene: &mut Scene<'_>) -> Result<()> {
    // Where the bus is built in, the kernel has connected before anybody could say at which version.
    let by_itself = connected_at(scene)?;
    let mut fresh = by_itself.is_none();
    // Kernels that know the first have the bus built in, and choose it by themselves.
    let from = usize::from(!by_itself.is_some_and(|line| line.ends_with(VERSIONS[0])));
    for version in VERSIONS.iter().skip(from) {
        let settings = HostSettings { versions: Some(vec![(*version).to_owned()]), ..HostSettings::default() };
        scene.control()?.call(Call::Configure(settings))?;
        if !std::mem::take(&mut fresh) {
            scene.reset("reboot -f", BOOT)?;
        }
        scene.guest.load_modules()?;
        at(scene, version).with_context(|| format!("at version {version}"))?;
    }
    Ok(())
}

/// What hv_vmbus says of the version that it connected at.
fn connected_at(scene: &mut Scene<'_>) -> Result<Option<String>> {
    let log = scene.guest.shell("dmesg")?;
    Ok(log.lines().find(|line| line.contains("Vmbus version:")).map(str::to_owned))
}

/// Plays everything at one version.
fn at(scene: &mut Scene<'_>, version: &str) -> Result<()> {
    let before = scene.control()?.violations()?;
    let wanted = format!("Vmbus version:{version}");
    let named = connected_at(scene)?.context("hv_vmbus names no version")?;
    ensure!(named.ends_with(&wanted), "`{wanted}` expected: {named}");
    let mut told = vec![echo(scene)?, balloon::there_and_back(scene)?];
    let numbers = version.split_once('.').context("a version has two numbers")?;
    if (numbers.0.parse()?, numbers.1.parse()?) >= SOCKETS_SINCE {
        told.push(sockets::both_ways(scene)?);
    } else {
        told.push(sockets::none(scene)?);
    }
    let after = scene.control()?.violations()?;
    told.push(deviations(&before.kept, &after.kept));
    scene.say(format!("{version}: {}", told.join("; ")));
    Ok(())
}

/// What the guest did that is not by the book, by kind.
fn deviations(before: &[String], after: &[String]) -> String {
    let mut kinds = BTreeMap::<&str, u32>::new();
    for words in after.iter().skip(before.len()) {
        *kinds.entry(words.split(' ').next().unwrap_or_default()).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, times)| format!("{kind} {times} times")).collect();
    if kinds.is_empty() { "by the book".to_owned() } else { format!("deviates: {}", kinds.join(", ")) }
}

/// An echo device comes, is bound, gives back a thousand packets by our driver, and is taken away; what to tell.
pub(super) fn echo(scene: &mut Scene<'_>) -> Result<String> {
    // A monitor id, since kernels before 6.10 take no other channel.
    let device = Device { kind: "echo".to_owned(), number: 77, monitored: true, ..Device::default() };
    let offer = scene.control()?.offer(device)?;
    let offered = scene.offered(offer)?;
    let (instance, relid) = (offered.instance, offered.relid.context("an offer without a relid")?);
    scene.await_device(&instance, true)?;
    scene.vmbusctl(&["bind", &instance], 0)?;
    let count = PACKETS.to_string();
    let end = scene.program(&["echo", &instance, "--count", &count, "--batch", "8"], Duration::from_secs(60))?;
    let number = |name: &str| end.get(name).and_then(serde_json::Value::as_u64);
    ensure!((number("sent"), number("received")) == (Some(PACKETS), Some(PACKETS)), "the guest says {end}");
    let report = scene.control()?.call(Call::Report { offer })?;
    let of_host = |name: &str| report.get(name).and_then(serde_json::Value::as_u64);
    ensure!((of_host("packets"), of_host("sent")) == (Some(PACKETS), Some(PACKETS)), "the host says {report}");
    // Not unbound before: what was open once has Linux 6.12 call its UIO driver when it is rescinded, bound or not.
    scene.control()?.rescind(offer)?;
    scene.control()?.wait_state(offer, "gone", super::KERNEL)?;
    let released = scene.control()?.released(relid)?;
    ensure!(released == 1, "relid {relid} was released {released} times");
    Ok(format!("{PACKETS} packets echoed"))
}
