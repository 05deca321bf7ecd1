//! What must be shown on the release build: the demonstration, two storms, and many seeded schedules.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::step::{self, Outcome};

/// Plays this many schedules of the control core against the simulated host.
const SCHEDULES: &str = "100000";
/// And so many against a model host, which says what no machine would.
const RAVINGS: &str = "20000";
/// The same storm each time; the second one's seed is fresh.
const FIXED_SEED: &str = "20151";

/// The README's first command: nothing may leak, and every class of device must be there.
pub(super) fn demo(root: &Path) -> Result<Outcome> {
    let text = step::output(root, &["run", "--release", "--quiet", "--", "demo", "--json"])?;
    let report: serde_json::Value = serde_json::from_str(&text).context("`demo --json` printed something else")?;
    let devices = report.get("devices").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
    let leaks = report.get("leaks").and_then(serde_json::Value::as_u64);
    step::say!("    {devices} devices, leaks: {leaks:?}, {} s", report.get("seconds").unwrap_or_default());
    if devices < 3 || leaks != Some(0) {
        bail!("{devices} devices, leaks: {leaks:?}");
    }
    Ok(Outcome::Passed)
}

/// Channels that come, are used and go, at random points on many threads; once with a fixed seed, once with a fresh one.
pub(super) fn storms(root: &Path, cycles: u64) -> Result<Outcome> {
    let cycles = cycles.to_string();
    let storm = ["run", "--release", "--quiet", "--", "storm", "--cycles", &cycles];
    step::cargo(root, &[&storm[..], &["--seed", FIXED_SEED]].concat(), &[])?;
    step::cargo(root, &storm, &[])
}

/// The control core under a seeded scheduler, with faults. A failure names its seed and how to play it again.
pub(super) fn schedules(root: &Path) -> Result<Outcome> {
    let test = ["test", "--release", "--package", "vmbus-tests", "--test", "schedules", "--", "--nocapture"];
    step::cargo(root, &test, &[("VMBUS_SEEDS", SCHEDULES)])?;
    let test = ["test", "--release", "--package", "vmbus-channels", "--test", "schedule", "--", "--nocapture"];
    step::cargo(root, &test, &[("VMBUS_SEEDS", RAVINGS)])
}
