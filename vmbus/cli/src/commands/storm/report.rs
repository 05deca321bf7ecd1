//! What a storm found, for people and programs.

use serde::Serialize;

use crate::output::{self, BOLD};
use crate::table::Columns;

/// More resident memory than this at the end than at the beginning is a leak.
pub(super) const RSS_SLACK_BYTES: i64 = 1 << 20;

/// In fewer cycles than this, what is allocated once and for all is still on its way: memory is shown, not judged.
pub(super) const RSS_CYCLES: u64 = 20_000;

/// What must hold at the end of a storm, and whether it did.
#[derive(Debug, Serialize)]
pub(super) struct Oracle {
    pub(super) name: &'static str,
    pub(super) passed: bool,
    /// What was found.
    pub(super) detail: String,
}

/// The shape of `storm --json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) passed: bool,
    pub(super) seed: u64,
    pub(super) cycles: u64,
    pub(super) threads: usize,
    pub(super) version: String,
    pub(super) offers: u64,
    pub(super) released: u64,
    pub(super) opens: u64,
    pub(super) packets: u64,
    /// Offers that were not released, and channels, buffers or references that were still there.
    pub(super) leaked: u64,
    /// Events and packets that reached a channel they were not meant for.
    pub(super) stale_events: u64,
    /// Events for channels that had gone: dropped, as they should be.
    pub(super) stray_events: u64,
    pub(super) rss_delta_bytes: i64,
    pub(super) seconds: f64,
    pub(super) cycles_per_second: f64,
    pub(super) oracles: Vec<Oracle>,
    /// What ended workers before their time.
    pub(super) failures: Vec<String>,
}

impl Report {
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut table =
            Columns::new(&["CYCLES", "OFFERS", "RELEASED", "OPENS", "PACKETS", "LEAKED", "SECONDS", "CYCLES/S"]);
        table.row([
            self.cycles.to_string(),
            self.offers.to_string(),
            self.released.to_string(),
            self.opens.to_string(),
            self.packets.to_string(),
            self.leaked.to_string(),
            format!("{:.1}", self.seconds),
            format!("{:.0}", self.cycles_per_second),
        ]);
        table.print(0)?;
        output::line("")?;
        let mut table = Columns::new(&["ORACLE", "RESULT", "FOUND"]);
        for oracle in &self.oracles {
            let result = if oracle.passed { "holds" } else { "FAILS" };
            table.row([oracle.name.to_owned(), result.to_owned(), oracle.detail.clone()]);
        }
        table.print(0)?;
        for failure in &self.failures {
            output::line(format!("{BOLD}failed:{BOLD:#} {failure}"))?;
        }
        if self.passed {
            return Ok(());
        }
        output::line(format!(
            "\nplay the same plan again: vmbusctl storm --cycles {} --threads {} --seed {}",
            self.cycles, self.threads, self.seed
        ))
    }
}
