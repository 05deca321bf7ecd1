//! Scenarios about Dynamic Memory itself, host and guest compared: `negotiate`, `inflate-deflate`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::device::Memory;
use super::{Driver, Scene, eventually};
use crate::lab::host::Host;
use crate::lab::machine::Shape;
use crate::lab::qmp::Report;

const MIB: u64 = 1 << 20;

const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// How much the host takes out.
const TAKEN_MIB: u64 = 32;

/// QEMU's device waits 50 s after the capabilities before its first request; the rest is for slow machines.
const FIRST_REQUEST: Duration = Duration::from_secs(110);

/// How far the guest's free memory may stray from the exact figure: page tables, and what else goes on in it.
const STRAY_KIB: u64 = 2 * 1024;

/// Each report the host tells of is one the driver says it sent, page for page and in the same order; the last one the
/// host has is the last one sent. (QEMU tells of one report a second at most, so it may leave some out.)
pub(super) fn negotiate(scene: &mut Scene<'_>) -> Result<()> {
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    // The kernel's own driver has been reporting until now, and QEMU may hold its last report back for a second.
    while scene.guest.qmp()?.next_report(Duration::from_millis(1500))?.is_some() {}
    let mut driver = Driver::start(scene, &[])?;
    let version = driver.negotiated(scene)?;
    ensure!(version == "2.0", "version 2.0 expected, got {version:?}");
    for number in 1..=3 {
        let received = scene.guest.qmp()?.next_report(Duration::from_secs(20))?.context("the host got no report")?;
        let mut passed_over = Vec::new();
        loop {
            let event = driver.event(scene, "status", Duration::from_secs(5));
            let event = event.with_context(|| format!("host received {received:?}, driver sent {passed_over:?}"))?;
            match report(&event)? {
                sent if sent == received => break,
                sent => passed_over.push(sent),
            }
        }
        let Report { committed, available } = received;
        scene.say(format!("report {number}: {committed} B committed, {available} B available, on both sides"));
    }
    driver.job.kill(scene.guest, SIGSTOP)?;
    let mut sent = None;
    while let Some(line) = driver.job.line(scene.guest, Duration::ZERO)? {
        let event: Value = serde_json::from_str(&line)?;
        if event.get("event").and_then(Value::as_str) == Some("status") {
            sent = Some(report(&event)?);
        }
    }
    let last = scene.guest.qmp()?.last_report()?;
    ensure!(sent.is_none_or(|sent| sent == last), "stopped, the driver has sent {sent:?}, the host has {last:?}");
    driver.job.kill(scene.guest, SIGCONT)?;
    driver.stop(scene)?;
    scene.vmbusctl(&["restore", "balloon"], 0)?;
    Ok(())
}

/// The host takes memory out and gives it back; both sides agree on how much, to the byte.
pub(super) fn inflate_deflate(scene: &mut Scene<'_>) -> Result<()> {
    let full = Shape::of(Host::Qemu).memory_mib * MIB;
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    let mut driver = Driver::start(scene, &["--floor-mib", "64"])?;
    driver.negotiated(scene)?;
    let before = scene.guest.qmp()?.query_balloon()?;
    ensure!(before == full, "before the first request the guest should have {full} bytes, the host says {before}");
    driver.event(scene, "status", Duration::from_secs(20))?;
    scene.guest.qmp()?.balloon(full - TAKEN_MIB * MIB)?;
    scene.say("asked for 32 MiB; the host's device begins 50 s after the start");
    let before = Memory::read(scene.guest)?;
    let taken = driver.event(scene, "ballooned", FIRST_REQUEST)?;
    settled(scene, full - TAKEN_MIB * MIB)?;
    let low = Memory::read(scene.guest)?;
    scene.say(format!("the host has {TAKEN_MIB} MiB ({taken}): {}", low.changes(&before)));
    let gone = before.kib("Free")?.saturating_sub(low.kib("Free")?);
    ensure!(gone.abs_diff(TAKEN_MIB * 1024) <= STRAY_KIB, "free memory fell by {gone} KiB: {}", low.changes(&before));
    scene.guest.qmp()?.balloon(full)?;
    let given = driver.event(scene, "deflated", Duration::from_secs(60))?;
    settled(scene, full)?;
    let again = Memory::read(scene.guest)?;
    let missing = before.kib("Free")?.abs_diff(again.kib("Free")?);
    scene.say(format!("the host has given them back ({given}): {}", again.changes(&before)));
    ensure!(missing <= STRAY_KIB, "free memory is {missing} KiB off after deflating: {}", again.changes(&before));
    driver.stop(scene)?;
    scene.vmbusctl(&["restore", "balloon"], 0)?;
    Ok(())
}

/// Waits until the host believes that the guest has exactly this many bytes.
fn settled(scene: &mut Scene<'_>, bytes: u64) -> Result<()> {
    let what = format!("query-balloon says {bytes}");
    eventually(&what, Duration::from_secs(40), || Ok((scene.guest.qmp()?.query_balloon()? == bytes).then_some(())))
}

/// A `status` event in the unit the host uses.
fn report(event: &Value) -> Result<Report> {
    let bytes = |field: &str| {
        let pages = event.get(field).and_then(Value::as_u64);
        pages.map(|pages| pages * 4096).with_context(|| format!("no {field} in {event}"))
    };
    Ok(Report { committed: bytes("committed_pages")?, available: bytes("available_pages")? })
}
