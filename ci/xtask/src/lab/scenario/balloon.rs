//! Scenarios about Dynamic Memory itself, host and guest compared: `negotiate`, `inflate-deflate`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::device::meminfo;
use super::{Driver, Scene, eventually};
use crate::lab::machine::MEMORY_MIB;
use crate::lab::qmp::Report;

const MIB: u64 = 1 << 20;

/// How much the host takes out.
const TAKEN_MIB: u64 = 32;

/// QEMU's device waits 50 s after the capabilities before its first request; the rest is for slow machines.
const FIRST_REQUEST: Duration = Duration::from_secs(110);

/// How far the guest's free memory may stray from the exact figure: other things go on in it.
const STRAY_KIB: u64 = 8 * 1024;

/// Each report the host received is one the driver says it sent, page for page.
pub(super) fn negotiate(scene: &mut Scene<'_>) -> Result<()> {
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    scene.qmp_forget()?;
    let mut driver = Driver::start(scene, &[])?;
    let version = driver.negotiated(scene)?;
    ensure!(version == "2.0", "version 2.0 expected, got {version:?}");
    for number in 1..=3 {
        let sent = report(&driver.event(scene, "status", Duration::from_secs(20))?)?;
        let received = scene.guest.qmp.next_report(Duration::from_secs(20))?.context("the host got no report")?;
        ensure!(sent == received, "report {number}: the driver sent {sent:?}, the host received {received:?}");
        scene.say(format!("report {number}: {} B committed, {} B available", sent.committed, sent.available));
    }
    driver.job.kill(scene.guest, 19)?;
    let mut sent = None;
    while let Some(line) = driver.job.line(scene.guest, Duration::ZERO)? {
        let event: Value = serde_json::from_str(&line)?;
        if event.get("event").and_then(Value::as_str) == Some("status") {
            sent = Some(report(&event)?);
        }
    }
    let mut received = None;
    while let Some(report) = scene.guest.qmp.next_report(Duration::ZERO)? {
        received = Some(report);
    }
    ensure!(sent == received, "after a stop the driver has sent {sent:?}, the host has received {received:?}");
    let last = scene.guest.qmp.last_report()?;
    ensure!(received.is_none_or(|report| report == last), "the host's last event and its last report differ: {last:?}");
    driver.job.kill(scene.guest, 18)?;
    driver.stop(scene)?;
    scene.vmbusctl(&["restore", "balloon"], 0)?;
    Ok(())
}

/// The host takes memory out and gives it back; both sides agree on how much, to the byte.
pub(super) fn inflate_deflate(scene: &mut Scene<'_>) -> Result<()> {
    let full = MEMORY_MIB * MIB;
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    let mut driver = Driver::start(scene, &["--floor-mib", "64"])?;
    driver.negotiated(scene)?;
    let before = scene.guest.qmp.query_balloon()?;
    ensure!(before == full, "before the first request the guest should have {full} bytes, the host says {before}");
    driver.event(scene, "status", Duration::from_secs(20))?;
    let free = meminfo(scene.guest, "MemFree")?;
    scene.guest.qmp.balloon(full - TAKEN_MIB * MIB)?;
    scene.say("asked for 32 MiB; the host's device begins 50 s after the start");
    let taken = driver.event(scene, "ballooned", FIRST_REQUEST)?;
    settled(scene, full - TAKEN_MIB * MIB)?;
    let low = meminfo(scene.guest, "MemFree")?;
    let gone = free.saturating_sub(low);
    scene.say(format!("the host has {TAKEN_MIB} MiB ({taken}); MemFree fell from {free} to {low} KiB"));
    ensure!(gone.abs_diff(TAKEN_MIB * 1024) <= STRAY_KIB, "MemFree fell by {gone} KiB, not by {}", TAKEN_MIB * 1024);
    scene.guest.qmp.balloon(full)?;
    let given = driver.event(scene, "deflated", Duration::from_secs(60))?;
    settled(scene, full)?;
    let what = format!("MemFree is back at about {free} KiB after deflating");
    let again = eventually(&what, Duration::from_secs(10), || {
        let again = meminfo(scene.guest, "MemFree")?;
        Ok((again.abs_diff(free) <= STRAY_KIB).then_some(again))
    })?;
    scene.say(format!("the host has given it back ({given}); MemFree is {again} KiB"));
    driver.stop(scene)?;
    scene.vmbusctl(&["restore", "balloon"], 0)?;
    Ok(())
}

/// Waits until the host believes that the guest has exactly this many bytes.
fn settled(scene: &mut Scene<'_>, bytes: u64) -> Result<()> {
    let what = format!("query-balloon says {bytes}");
    eventually(&what, Duration::from_secs(40), || Ok((scene.guest.qmp.query_balloon()? == bytes).then_some(())))
}

/// A `status` event in the unit the host uses.
fn report(event: &Value) -> Result<Report> {
    let bytes = |field: &str| {
        let pages = event.get(field).and_then(Value::as_u64);
        pages.map(|pages| pages * 4096).with_context(|| format!("no {field} in {event}"))
    };
    Ok(Report { committed: bytes("committed_pages")?, available: bytes("available_pages")? })
}
