//! Scenario about a kernel that cannot hand this device over: `old-kernel`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Scene;
use super::device::{KERNEL_DRIVER, expect_driver, instance};

/// Binding fails with a reason, the device is with its own driver afterwards, and `doctor` knows why.
pub(super) fn refused(scene: &mut Scene<'_>) -> Result<()> {
    let instance = instance(scene.guest)?;
    expect_driver(scene.guest, &instance, KERNEL_DRIVER)?;
    let refused = scene.vmbusctl(&["bind", "balloon"], 1)?;
    let said = refused.stderr.trim().lines().last().unwrap_or_default().to_owned();
    scene.say(format!("bind: {said}"));
    let line = scene.await_kernel_log("the kernel says why", Duration::from_secs(10), |line| {
        line.contains("vmbus channel requires hypercall")
    })?;
    scene.say(line);
    let findings = scene.vmbusctl_json(&["doctor"], 1)?;
    let findings = findings.get("findings").and_then(Value::as_array).context("`doctor --json` has no `findings`")?;
    let monitor = findings.iter().find(|finding| finding.get("id").and_then(Value::as_str) == Some("monitor"));
    let monitor = monitor.context("doctor has no finding about monitor ids")?;
    ensure!(monitor.get("severity").and_then(Value::as_str) == Some("failure"), "doctor plays it down: {monitor}");
    scene.say(format!("doctor: {}", monitor.get("title").and_then(Value::as_str).unwrap_or_default()));
    scene.vmbusctl(&["restore", "--all"], 0)?;
    expect_driver(scene.guest, &instance, KERNEL_DRIVER)
}
