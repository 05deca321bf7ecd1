//! What the demonstration found, for people and programs.

use std::time::Duration;

use serde::Serialize;

use crate::output::{self, BOLD, DIM};
use crate::table::Columns;

/// What went through in how long.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Traffic {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) messages_per_second: f64,
    pub(super) megabytes_per_second: f64,
}

impl Traffic {
    pub(super) fn new(messages: u64, bytes: u64, took: Duration) -> Self {
        let seconds = took.as_secs_f64().max(1e-9);
        Self {
            messages,
            bytes,
            messages_per_second: messages as f64 / seconds,
            megabytes_per_second: bytes as f64 / seconds / 1e6,
        }
    }
}

/// Times from sending to having the answer, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Latency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Latency {
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |of_100: usize| {
            let index = times.len().saturating_sub(1) * of_100 / 100;
            times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self { p50_us: at(50), p99_us: at(99) }
    }
}

/// One device and what was done with it.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) device: &'static str,
    pub(super) class: String,
    pub(super) instance: String,
    pub(super) relid: u32,
    /// What was moved, in words.
    pub(super) work: String,
    pub(super) traffic: Option<Traffic>,
    pub(super) latency: Option<Latency>,
}

/// The shape of `demo --json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: String,
    pub(super) processors: usize,
    pub(super) devices: Vec<Row>,
    /// Channels taken back while they were busy.
    pub(super) rescinded_under_load: u64,
    pub(super) events: u64,
    pub(super) offers: u64,
    pub(super) releases: u64,
    /// Offers not released, channels, references and buffers left behind.
    pub(super) leaks: u64,
    /// What the simulated host saw the guest do wrong.
    pub(super) violations: Vec<String>,
    pub(super) seconds: f64,
}

impl Report {
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut table = Columns::new(&["DEVICE", "RELID", "WORK", "MESSAGES/S", "MB/S", "P50 US", "P99 US"]);
        for row in &self.devices {
            let number = |value: Option<f64>, digits: usize| match value {
                Some(value) => format!("{value:.digits$}"),
                None => "-".to_owned(),
            };
            table.row([
                row.device.to_owned(),
                row.relid.to_string(),
                row.work.clone(),
                number(row.traffic.map(|traffic| traffic.messages_per_second), 0),
                number(row.traffic.map(|traffic| traffic.megabytes_per_second), 1),
                number(row.latency.map(|latency| latency.p50_us), 1),
                number(row.latency.map(|latency| latency.p99_us), 1),
            ]);
        }
        table.print(0)?;
        output::line("")?;
        let mut table = Columns::new(&["RESCINDED UNDER LOAD", "EVENTS", "OFFERS", "RELEASES", "LEAKS", "SECONDS"]);
        table.row([
            self.rescinded_under_load.to_string(),
            self.events.to_string(),
            self.offers.to_string(),
            self.releases.to_string(),
            self.leaks.to_string(),
            format!("{:.1}", self.seconds),
        ]);
        table.print(0)?;
        for violation in &self.violations {
            output::line(format!("{BOLD}violation:{BOLD:#} {violation}"))?;
        }
        output::line(format!(
            "\n{DIM}VMBus {} over the wire link, against a simulated host in this process, on {} processors.{DIM:#}",
            self.version, self.processors
        ))
    }
}
