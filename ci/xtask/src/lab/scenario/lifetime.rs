//! Scenarios about who has the device open, and what happens when that ends: `busy`, `kill9`, `reopen-100`,
//! `unbind-under-load`, `unbind-contiguous`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::device::{KERNEL_DRIVER, Memory, UIO_DRIVER, expect_driver, instance};
use super::{Driver, Scene};
use crate::lab::guest::describe;

/// Memory that a hundred cycles may use up for good: caches that grow once. One leaked ring buffer is 4 MiB.
const LEAK_KIB: u64 = 3 * 1024;

/// While one process has the device, others are told so and change nothing.
pub(super) fn busy(scene: &mut Scene<'_>) -> Result<()> {
    let instance = instance(scene.guest)?;
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    let mut driver = Driver::start(scene, &[])?;
    driver.negotiated(scene)?;
    for arguments in [["balloon", "balloon"], ["unbind", "balloon"], ["restore", "balloon"]] {
        let refused = scene.vmbusctl(&arguments, 5)?;
        let said = refused.stderr.lines().next().unwrap_or_default().to_owned();
        scene.say(format!("{}: {said}", arguments.join(" ")));
    }
    expect_driver(scene.guest, &instance, UIO_DRIVER)?;
    driver.event(scene, "status", Duration::from_secs(20)).context("after the refusals")?;
    driver.stop(scene)?;
    scene.vmbusctl(&["unbind", "balloon"], 0)?;
    expect_driver(scene.guest, &instance, KERNEL_DRIVER)
}

/// A driver that is killed leaves a device that can be restored, and opened again.
pub(super) fn kill9(scene: &mut Scene<'_>) -> Result<()> {
    let instance = instance(scene.guest)?;
    for round in ["killed and restored", "bound again, killed, and opened again without restoring"] {
        scene.vmbusctl(&["bind", "balloon"], 0)?;
        let mut driver = Driver::start(scene, &[])?;
        driver.negotiated(scene)?;
        driver.job.kill(scene.guest, 9)?;
        let finished = driver.job.wait(scene.guest, Duration::from_secs(20))?;
        ensure!(finished.signal == Some(9), "kill -9: {}", describe(&finished));
        expect_driver(scene.guest, &instance, UIO_DRIVER)?;
        if round.starts_with("bound") {
            let mut driver = Driver::start(scene, &[])?;
            driver.negotiated(scene)?;
            driver.stop(scene)?;
        }
        scene.vmbusctl(&["restore", "balloon"], 0)?;
        expect_driver(scene.guest, &instance, KERNEL_DRIVER)?;
        scene.say(round);
    }
    Ok(())
}

/// A hundred opens and closes; the memory they took comes back.
pub(super) fn reopen(scene: &mut Scene<'_>) -> Result<()> {
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    let reopen = |scene: &mut Scene<'_>, times: &str| -> Result<()> {
        let argv = ["vmbus-lab-guest", "reopen", "balloon", "--times", times];
        let finished = scene.guest.run(&argv, Duration::from_secs(60))?;
        ensure!(finished.code == Some(0), "reopen {times} times: {}", describe(&finished));
        scene.say(finished.stdout.trim());
        Ok(())
    };
    reopen(scene, "2")?;
    let before = Memory::read(scene.guest)?;
    reopen(scene, "100")?;
    let after = Memory::read(scene.guest)?;
    let gone = before.kib("MemAvailable")?.saturating_sub(after.kib("MemAvailable")?);
    scene.say(format!("{gone} KiB less are available than before"));
    ensure!(gone <= LEAK_KIB, "{gone} KiB less are available than before: {}", after.changes(&before));
    let mut driver = Driver::start(scene, &[])?;
    driver.negotiated(scene)?;
    driver.stop(scene)?;
    scene.say("and the host still negotiates");
    scene.vmbusctl(&["restore", "balloon"], 0)?;
    Ok(())
}

/// The rings are mapped twice through sysfs; the kernel takes that mapping away with the file, which shows as a bus error.
pub(super) fn unbind_under_load(scene: &mut Scene<'_>) -> Result<()> {
    unbind_under(scene, "mirrored")
}

/// The rings are mapped through the device; the kernel leaves that mapping behind although it frees the pages.
pub(super) fn unbind_contiguous(scene: &mut Scene<'_>) -> Result<()> {
    unbind_under(scene, "contiguous")
}

/// The device is taken away under two threads that hammer its rings. The kernel cannot close the channel any more, so
/// nothing can be played in this guest afterwards.
fn unbind_under(scene: &mut Scene<'_>, layout: &str) -> Result<()> {
    let instance = instance(scene.guest)?;
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    let mut job = scene.guest.spawn(&["vmbus-lab-guest", "hammer", "balloon", "--layout", layout])?;
    let Some(ready) = job.line(scene.guest, Duration::from_secs(40))? else {
        let state = job.poll(scene.guest, Duration::ZERO)?;
        anyhow::bail!("the hammer does not begin: {}", describe(&state));
    };
    scene.say(format!("hammering: {ready}"));
    scene
        .guest
        .write(&format!("/sys/bus/vmbus/drivers/{UIO_DRIVER}/unbind"), &instance)
        .context("unbind under load")?;
    let finished = job.wait(scene.guest, Duration::from_secs(40))?;
    ensure!(finished.code == Some(6), "the hammer should exit 6: {}", describe(&finished));
    let last = finished.stdout.lines().last().unwrap_or_default();
    let end: Value = serde_json::from_str(last).with_context(|| format!("the hammer ended with {last:?}"))?;
    ensure!(end.get("only_zeroes") == Some(&Value::Bool(true)), "a ring was reachable after revocation: {end}");
    scene.say(format!("exit 6, only zeroes afterwards: {end}"));
    let lost = scene.guest.shell("ps -o stat,comm | awk '$1 ~ /^[DZ]/ && $2 ~ /vmbus/'")?;
    ensure!(lost.is_empty(), "processes that never end: {lost}");
    expect_driver(scene.guest, &instance, "")
}
