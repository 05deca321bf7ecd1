//! Scenario about drivers that are registered while devices come and go: `registry-100`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Scene;
use super::device::{expect_driver, instance};
use crate::lab::guest::describe;

/// A hundred times bound, probed, unbound, removed; and once unbound while the driver has it open, after which the
/// kernel can't open it again before the next boot.
pub(super) fn bound_100_times(scene: &mut Scene<'_>) -> Result<()> {
    let instance = instance(scene.guest)?;
    scene.vmbusctl(&["bind", "balloon"], 0)?;
    let argv = ["vmbus-lab-guest", "registry", "balloon", "--times", "100"];
    let finished = scene.guest.run(&argv, Duration::from_secs(150))?;
    ensure!(finished.code == Some(0), "the program with the driver: {}", describe(&finished));
    let last = finished.stdout.lines().last().unwrap_or_default();
    let cycles = finished.stdout.lines().rev().nth(1).unwrap_or_default();
    scene.say(format!("milliseconds for probe, unbind, removal, bind: {cycles}"));
    let end: Value = serde_json::from_str(last).with_context(|| format!("it ended with {last:?}"))?;
    for (field, expected) in [
        ("bound", json!(101)),
        ("probed", json!(101)),
        ("talked", json!(101)),
        ("removed", json!(101)),
        ("overlapped", json!(false)),
        ("other_reasons", json!([])),
        ("left", json!(0)),
    ] {
        ensure!(end.get(field) == Some(&expected), "{field} should be {expected}: {end}");
    }
    scene.say("101 times bound, each probed once, talked to, and removed once before the next; nothing is left");
    let counters = end.get("counters").context("no counters")?;
    for (field, expected) in [("offers", 101), ("released", 101)] {
        ensure!(counters.get(field) == Some(&json!(expected)), "{field} should be {expected}: {counters}");
    }
    scene.say("the last time it was unbound while the driver had it open: removed once, too");
    expect_driver(scene.guest, &instance, "")
}
