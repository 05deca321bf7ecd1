//! How fast our driver is beside the kernel's hv_sock, on the same host and in the same guest: `vmm-speed`. It reports
//! ratios and judges none: what it insists on is that every message came back.

use std::collections::BTreeMap;
use std::fmt;
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
const ROUNDS: u64 = 5;
const TURN_MS: u64 = 250;
/// What the others are compared with.
const SOCKETS: &str = "hv_sock";

/// One turn of one of them.
#[derive(Debug, Clone, Deserialize)]
struct Turn {
    way: String,
    round: u64,
    bytes: u64,
    batch: u64,
    sent: u64,
    received: u64,
    per_second: f64,
    signals: f64,
    interrupts: f64,
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
    let argv: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Its lines are read when it has ended: they are too many for an answer, and nobody disturbs it meanwhile.
    let mut job = scene.guest.spawn(&argv)?;
    let finished = job.wait(scene.guest, Duration::from_secs(120))?;
    ensure!(finished.code == Some(0), "the comparison: {}", describe(&finished));
    let mut lines = Vec::new();
    while let Some(line) = job.line(scene.guest, Duration::ZERO)? {
        lines.push(serde_json::from_str::<Value>(&line).with_context(|| format!("an odd line: {line}"))?);
    }
    let turns = lines.into_iter().filter(|line| line.get("event").and_then(Value::as_str) == Some("turn"));
    let turns = turns.map(serde_json::from_value::<Turn>).collect::<Result<Vec<_>, _>>()?;
    for turn in &turns {
        let Turn { way, bytes, batch, sent, received, .. } = turn;
        ensure!(sent == received && *sent > 0, "{way}, {bytes} B, {batch} at a time: {received} of {sent} came back");
    }
    for (bytes, batch) in LOADS {
        let load = format!("{bytes} B, {batch} at a time");
        let measured = medians(turns.iter().filter(|turn| (turn.bytes, turn.batch) == (bytes, batch)));
        let sockets = *measured.get(SOCKETS).context("the sockets had no turn")?;
        scene.say(format!("{load}: {SOCKETS}: {sockets}"));
        scene.figures.push((format!("{load}: {SOCKETS}, messages per second"), sockets.per_second));
        for (way, figures) in measured.iter().filter(|(way, _)| **way != SOCKETS) {
            let ratio = ratio(&turns, way, (bytes, batch));
            scene.say(format!("{load}: {way}: {ratio:.2} x {SOCKETS}: {figures}"));
            scene.figures.push((format!("{load}: {way}, x {SOCKETS}"), ratio));
        }
    }
    for offer in offers {
        scene.control()?.call(Call::RescindDevice { offer })?;
    }
    Ok(())
}

/// Medians over the turns of one way.
#[derive(Debug, Clone, Copy)]
struct Figures {
    per_second: f64,
    batch: f64,
    signals: f64,
    interrupts: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The mean, from the same numbers: what a guest's clock shows between two looks at it means little where an
        // emulator stops it while the host works, and catches up later.
        let round_trip_us = 1e6 * self.batch / self.per_second;
        write!(
            formatter,
            "{:.0}/s, a round trip {round_trip_us:.0} us, {:.2} signals and {:.2} interrupts a message",
            self.per_second, self.signals, self.interrupts
        )
    }
}

/// The median of the ratios of one round each: what slows the machine down slows the turns of a round down alike.
fn ratio(turns: &[Turn], way: &str, load: (u64, u64)) -> f64 {
    let of = |way: &str| -> BTreeMap<u64, f64> {
        let chosen = turns.iter().filter(|turn| turn.way == way && (turn.bytes, turn.batch) == load);
        chosen.map(|turn| (turn.round, turn.per_second)).collect()
    };
    let sockets = of(SOCKETS);
    let ratio = |(round, per_second): (u64, f64)| sockets.get(&round).map(|sockets| per_second / sockets);
    median(of(way).into_iter().filter_map(ratio))
}

/// What each way reached.
fn medians<'a>(turns: impl Iterator<Item = &'a Turn>) -> BTreeMap<&'a str, Figures> {
    let mut ways: BTreeMap<&str, Vec<&Turn>> = BTreeMap::new();
    turns.for_each(|turn| ways.entry(&turn.way).or_default().push(turn));
    let count = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    let of = |turns: &[&Turn]| Figures {
        per_second: median(turns.iter().map(|turn| turn.per_second)),
        batch: median(turns.iter().map(|turn| count(turn.batch))),
        signals: median(turns.iter().map(|turn| turn.signals / count(turn.received.max(1)))),
        interrupts: median(turns.iter().map(|turn| turn.interrupts / count(turn.received.max(1)))),
    };
    ways.into_iter().map(|(way, turns)| (way, of(&turns))).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{SOCKETS, Turn, medians, ratio};

    #[test]
    fn the_median_of_each_way_is_taken() {
        let turn = |way: &str, round, per_second| Turn {
            way: way.to_owned(),
            round,
            bytes: 64,
            batch: 4,
            sent: 10,
            received: 10,
            per_second,
            signals: 5.0,
            interrupts: 20.0,
        };
        let turns = [turn("a", 0, 9.0), turn("a", 1, 1.0), turn("b", 0, 7.0), turn("a", 2, 2.0)];
        let medians = medians(turns.iter());
        assert_eq!((medians["a"].per_second, medians["b"].per_second), (2.0, 7.0));
        assert_eq!((medians["a"].signals, medians["a"].interrupts), (0.5, 2.0));
        let turns =
            [turn(SOCKETS, 0, 4.0), turn("a", 0, 8.0), turn(SOCKETS, 1, 1.0), turn("a", 1, 9.0), turn("a", 2, 1.0)];
        assert!((ratio(&turns, "a", (64, 4)) - 9.0).abs() < 1e-9, "the later of two, and none without its sockets");
        assert!(medians["a"].to_string().contains("a round trip 2000000 us"), "{}", medians["a"]);
    }
}
