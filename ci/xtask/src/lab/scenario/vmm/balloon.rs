//! The kernel's `hv_balloon` and our host's Dynamic Memory: `vmm-balloon`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::{Scenario, Scene, eventually, vmm};
use crate::lab::control_wire::{Call, Device, Until};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    every_time: true,
    ..vmm("vmm-balloon", "the kernel's hv_balloon negotiates, reports, gives 32 MiB and gets them back", alone)
}];

/// Pages that the host takes.
const PAGES: u64 = 32 << 8;

/// Where the kernel says what it has given.
const STATE: &str = "/sys/kernel/debug/hv-balloon";

/// How long all of it may take the kernel, which reports once a second.
const PATIENCE: Duration = Duration::from_secs(30);

fn alone(scene: &mut Scene<'_>) -> Result<()> {
    let text = there_and_back(scene)?;
    scene.say(text);
    Ok(())
}

/// Negotiation, reports, a balloon and its end; what to tell.
pub(super) fn there_and_back(scene: &mut Scene<'_>) -> Result<String> {
    // By default it is silent for the first 45 s.
    scene.guest.shell("load hv_balloon pressure_report_delay=0")?;
    scene.guest.shell("[ -d /sys/kernel/debug/bdi ] || mount -t debugfs debugfs /sys/kernel/debug")?;
    let offer = scene.control()?.offer(Device { kind: "dynamic-memory".to_owned(), ..Device::default() })?;
    scene.control()?.wait(Until::Report { offer, name: "reports".to_owned(), at_least: 1 }, PATIENCE)?;
    let version = numbers(scene, offer)?.get("version").and_then(Value::as_u64).context("no version")?;
    ensure!(version == 2 << 16, "Dynamic Memory 2.0 expected, got {version:#x}");
    let committed = agreed(scene, offer)?;
    scene.control()?.call(Call::Command { offer, words: format!("balloon {PAGES}") })?;
    held(scene, offer, PAGES)?;
    let less = agreed(scene, offer)?;
    // Pages that the host holds count as committed.
    ensure!(less.abs_diff(committed) <= PAGES + STRAY, "{committed} pages were committed, and {less} with a balloon");
    scene.control()?.call(Call::Command { offer, words: "target 0".to_owned() })?;
    held(scene, offer, 0)?;
    scene.control()?.rescind(offer)?;
    scene.control()?.wait_state(offer, "gone", super::KERNEL)?;
    Ok(format!("balloon 2.0 of {PAGES} pages and back, {committed} pages committed as reported"))
}

/// Pages by which what is committed changes while nothing is asked for.
const STRAY: u64 = 4096;

fn numbers(scene: &mut Scene<'_>, offer: u64) -> Result<Value> {
    scene.control()?.call(Call::Report { offer })
}

/// Waits until host and kernel say the same about the balloon, and that.
fn held(scene: &mut Scene<'_>, offer: u64, pages: u64) -> Result<()> {
    eventually(&format!("{pages} pages in the balloon"), PATIENCE, || {
        let report = numbers(scene, offer)?;
        let number = |name: &str| report.get(name).and_then(Value::as_u64);
        let host = (number("ballooned"), number("owed")) == (Some(pages), Some(0));
        Ok((host && of_kernel(scene, "pages_ballooned")? == pages).then_some(()))
    })
}

/// Waits until the last report has the number that the kernel has now: pages that are committed.
fn agreed(scene: &mut Scene<'_>, offer: u64) -> Result<u64> {
    eventually("a report that says what the kernel says", PATIENCE, || {
        let committed = numbers(scene, offer)?.get("committed").and_then(Value::as_u64).context("no `committed`")?;
        Ok((of_kernel(scene, "total_pages_committed")? == committed).then_some(committed))
    })
}

/// A number of the kernel's own account.
fn of_kernel(scene: &mut Scene<'_>, name: &str) -> Result<u64> {
    // By the agent itself: a program that reads it is memory committed.
    let all = scene.guest.read_at(STATE, 0)?.text;
    let line = all.lines().find_map(|line| line.split_once(':').filter(|(of, _)| of.trim() == name));
    let (_, number) = line.with_context(|| format!("no {name} in {STATE}: {all}"))?;
    number.trim().parse().with_context(|| format!("{name} is {number}"))
}
