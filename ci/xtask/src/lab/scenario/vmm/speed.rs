//! How fast our driver is beside the kernel's hv_sock, on the same host and in the same guest: `vmm-speed`. It reports
//! ratios and judges none: what it insists on is that every message came back.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::super::{Scenario, Scene, vmm};
use crate::lab::control_wire::{Call, Device, HostSettings};
use crate::lab::guest::describe;
use crate::lab::kernel::Kernel;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    kernels: &[Kernel::V6_12, Kernel::Sid],
    tolerates: super::LINUX,
    ..vmm("vmm-speed", "messages and round trips by our driver, as a ratio to the kernel's hv_sock", speed)
}];

/// A service of the host that sends back what it gets.
const PORT: &str = "5005";
/// Bytes of a message, and how many are under way at a time. All must fit into the rings of a socket.
const LOADS: [(u64, u64); 4] = [(64, 1), (64, 32), (4096, 1), (4096, 4)];
const ROUNDS: u64 = 3;
const TURN_MS: u64 = 400;
/// What the others are compared with.
const SOCKETS: &str = "hv_sock";

/// One turn of one of them.
#[derive(Debug, Clone, Deserialize)]
struct Turn {
    way: String,
    bytes: u64,
    batch: u64,
    sent: u64,
    received: u64,
    per_second: f64,
    round_trip_ns: Times,
}

#[derive(Debug, Clone, Deserialize)]
struct Times {
    p50: Option<u32>,
}

fn speed(scene: &mut Scene<'_>) -> Result<()> {
    scene.guest.shell("load hv_sock")?;
    let settings = HostSettings { services: Some(vec![PORT.to_owned()]), ..HostSettings::default() };
    scene.control()?.call(Call::Configure(settings))?;
    let mut arguments = vec!["vmbus-lab-guest".to_owned(), "speed".to_owned(), "--poll".to_owned()];
    let mut offers = Vec::new();
    for (number, monitored) in [(81, false), (82, true)] {
        let device = Device { kind: "echo".to_owned(), number, monitored, ..Device::default() };
        let offer = scene.control()?.offer(device)?;
        let instance = scene.offered(offer)?.instance;
        scene.await_device(&instance, true)?;
        scene.vmbusctl(&["bind", &instance], 0)?;
        arguments.extend(["--device".to_owned(), instance]);
        offers.push(offer);
    }
    arguments.extend(["--port".to_owned(), PORT.to_owned()]);
    arguments.extend(["--rounds".to_owned(), ROUNDS.to_string(), "--turn-ms".to_owned(), TURN_MS.to_string()]);
    for (bytes, batch) in LOADS {
        arguments.extend(["--load".to_owned(), format!("{bytes}x{batch}")]);
    }
    let clock = scene.guest.shell("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    let before = scene.control()?.counters()?;
    let argv: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let finished = scene.guest.run(&argv, Duration::from_secs(120))?;
    ensure!(finished.code == Some(0), "the comparison: {}", describe(&finished));
    let lines = finished.stdout.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let turns = lines.into_iter().filter(|line| line.get("event").and_then(Value::as_str) == Some("turn"));
    let turns = turns.map(serde_json::from_value::<Turn>).collect::<Result<Vec<_>, _>>()?;
    let after = scene.control()?.counters()?;
    scene.say(format!("clock {clock}; before {before}; after {after}"));
    for turn in &turns {
        let Turn { way, bytes, batch, sent, received, .. } = turn;
        ensure!(sent == received && *sent > 0, "{way}, {bytes} B, {batch} at a time: {received} of {sent} came back");
    }
    for (bytes, batch) in LOADS {
        for line in compare(turns.iter().filter(|turn| (turn.bytes, turn.batch) == (bytes, batch)))? {
            scene.say(format!("{bytes} B, {batch} at a time: {line}"));
        }
    }
    for offer in offers {
        scene.control()?.call(Call::RescindDevice { offer })?;
    }
    Ok(())
}

/// Each way in words, with its ratio to the sockets.
fn compare<'a>(turns: impl Iterator<Item = &'a Turn>) -> Result<Vec<String>> {
    let mut ways: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for turn in turns {
        let (rates, times) = ways.entry(&turn.way).or_default();
        rates.push(turn.per_second);
        times.extend(turn.round_trip_ns.p50.map(f64::from));
    }
    let medians: BTreeMap<&str, (f64, f64)> =
        ways.into_iter().filter_map(|(way, (rates, times))| Some((way, (median(rates)?, median(times)?)))).collect();
    let (base_rate, base_time) = *medians.get(SOCKETS).context("the sockets had no turn")?;
    let others = medians.iter().filter(|(way, _)| **way != SOCKETS);
    let words = others.map(|(way, (rate, time))| {
        format!(
            "{way}: {rate:.0}/s, {:.2} x {SOCKETS}'s {base_rate:.0}/s; a round trip {:.0} us, {:.2} x its {:.0} us",
            rate / base_rate,
            time / 1e3,
            time / base_time,
            base_time / 1e3,
        )
    });
    Ok(words.collect())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
