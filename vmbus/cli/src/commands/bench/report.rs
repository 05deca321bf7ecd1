//! What was measured, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::output::{self, DIM};
use crate::table::Columns;

pub(super) const THROUGHPUT_64K: &str = "throughput_64k";
pub(super) const THROUGHPUT_1K: &str = "throughput_1k";
pub(super) const PINGPONG_BLOCKING: &str = "pingpong_blocking";
pub(super) const PINGPONG_POLLING: &str = "pingpong_polling";
pub(super) const CONNECTIONS: &str = "connections";

/// Which side of the bar is good.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bar {
    /// The ratio is how many times as much we do.
    AtLeast(f64),
    /// The ratio is how many times as long we take.
    AtMost(f64),
}

/// What is expected of each race.
fn bar(name: &str) -> Bar {
    match name {
        THROUGHPUT_64K => Bar::AtLeast(1.5),
        THROUGHPUT_1K => Bar::AtLeast(5.0),
        PINGPONG_BLOCKING => Bar::AtMost(1.0),
        PINGPONG_POLLING => Bar::AtMost(0.2),
        _ => Bar::AtLeast(0.3),
    }
}

/// The rounds of one race, in nanoseconds for each write, round trip or connection.
#[derive(Debug)]
pub(super) struct Measure {
    name: &'static str,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Measure {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, ours: Vec::new(), theirs: Vec::new() }
    }

    pub(super) fn add(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }
}

/// Times in nanoseconds over all rounds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Times {
    least: f64,
    lower_quartile: f64,
    median: f64,
}

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |of_4: usize| times.get(times.len().saturating_sub(1) * of_4 / 4).copied().unwrap_or(f64::NAN);
        Self { least: at(0), lower_quartile: at(1), median: at(2) }
    }
}

/// One race.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    /// Of the medians.
    ratio: f64,
    lower_quartile_ratio: f64,
    least_ratio: f64,
    bar: f64,
    passed: bool,
    vm_socket_ns: Times,
    unix_socket_ns: Times,
}

impl Row {
    fn of(measure: Measure) -> Self {
        let (ours, theirs) = (Times::of(measure.ours), Times::of(measure.theirs));
        let bar = bar(measure.name);
        let ratio = |time: fn(&Times) -> f64| match bar {
            Bar::AtLeast(_) => time(&theirs) / time(&ours),
            Bar::AtMost(_) => time(&ours) / time(&theirs),
        };
        let middle = ratio(|times| times.median);
        let (limit, passed) = match bar {
            Bar::AtLeast(limit) => (limit, middle >= limit),
            Bar::AtMost(limit) => (limit, middle <= limit),
        };
        Self {
            name: measure.name,
            ratio: middle,
            lower_quartile_ratio: ratio(|times| times.lower_quartile),
            least_ratio: ratio(|times| times.least),
            bar: limit,
            passed,
            vm_socket_ns: ours,
            unix_socket_ns: theirs,
        }
    }

    /// The bar, as people read it.
    fn bar(&self) -> String {
        match bar(self.name) {
            Bar::AtLeast(limit) => format!(">= {limit}"),
            Bar::AtMost(limit) => format!("<= {limit}"),
        }
    }
}

/// The shape of `bench socket --json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// All bars hold.
    pub(super) passed: bool,
    /// By name: how many times as much VM sockets do, and of round trips how many times as long they take.
    ratios: BTreeMap<&'static str, f64>,
    rounds: u32,
    races: Vec<Row>,
}

impl Report {
    pub(super) fn new(measures: Vec<Measure>, rounds: u32) -> Self {
        let races: Vec<Row> = measures.into_iter().map(Row::of).collect();
        let ratios = races.iter().map(|row| (row.name, row.ratio)).collect();
        Self { passed: races.iter().all(|row| row.passed), ratios, rounds, races }
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut table =
            Columns::new(&["RACE", "RATIO", "QUARTILE", "LEAST", "BAR", "RESULT", "VM SOCKET US", "UNIX SOCKET US"]);
        for row in &self.races {
            table.row([
                row.name.to_owned(),
                format!("{:.2}", row.ratio),
                format!("{:.2}", row.lower_quartile_ratio),
                format!("{:.2}", row.least_ratio),
                row.bar(),
                if row.passed { "holds" } else { "FAILS" }.to_owned(),
                format!("{:.2}", row.vm_socket_ns.median / 1e3),
                format!("{:.2}", row.unix_socket_ns.median / 1e3),
            ]);
        }
        table.print(0)?;
        output::line(format!(
            "\n{DIM}Two processes, medians of {} rounds in turn; times are of one write, round trip or connection. Ratios: how \
             many times as much VM sockets do; of round trips, how many times as long they take.{DIM:#}",
            self.rounds
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(name: &'static str, ours: &[f64], theirs: &[f64]) -> Row {
        Row::of(Measure { name, ours: ours.to_vec(), theirs: theirs.to_vec() })
    }

    #[test]
    fn more_is_better_but_for_round_trips() {
        let fast = measure(THROUGHPUT_64K, &[2.0, 1.0, 9.0], &[4.0, 4.0, 4.0]);
        assert!(fast.passed && fast.ratio == 2.0 && fast.least_ratio == 4.0, "{fast:?}");
        let slow = measure(PINGPONG_BLOCKING, &[2.0, 1.0, 9.0], &[1.5; 3]);
        assert!(!slow.passed && slow.ratio > 1.3 && slow.least_ratio < 1.0, "{slow:?}");
        assert!(measure(PINGPONG_POLLING, &[0.2], &[1.0]).passed);
        assert!(!measure(CONNECTIONS, &[4.0], &[1.0]).passed);
        // Nothing measured is nothing passed.
        assert!(!measure(CONNECTIONS, &[], &[]).passed);
    }
}
