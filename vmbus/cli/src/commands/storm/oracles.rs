//! What must hold when a storm is over: asked of both sides.

use std::sync::atomic::Ordering;

use anyhow::{Context, ensure};
use vmbus_channels::Counters;
use vmbus_simhost::Violation;

use super::Storming;
use super::report::{Oracle, RSS_CYCLES, RSS_SLACK_BYTES, Report};
use super::worker::Done;
use crate::simulated::{PATIENCE, Simulated};

/// What both sides say at the end.
pub(super) struct Found {
    guest: Counters,
    host: vmbus_simhost::Counters,
    live_gpadls: usize,
    rss_delta_bytes: i64,
}

/// Waits until nothing is under way on either side.
pub(super) fn settle(both: &Simulated) -> anyhow::Result<()> {
    let quiet = both.host.wait_quiet(PATIENCE).context("the simulated host has ended")?;
    ensure!(quiet, "the host is not quiet after {} s", PATIENCE.as_secs());
    Ok(())
}

pub(super) fn ask(both: &mut Simulated, rss_delta_bytes: i64) -> anyhow::Result<Found> {
    Ok(Found {
        guest: both.bus.counters()?,
        host: both.host.counters()?,
        live_gpadls: both.host.live_gpadls()?.len(),
        rss_delta_bytes,
    })
}

impl Found {
    pub(super) fn report(
        &self,
        violations: &[Violation],
        failures: Vec<String>,
        done: &Done,
        of: Storming<'_>,
    ) -> Report {
        let (guest, host) = (&self.guest, &self.host);
        let unreleased = host.offers.saturating_sub(host.released);
        let host_gpadls = u64::try_from(self.live_gpadls).unwrap_or(u64::MAX);
        let in_tables = guest.channels + guest.waiting + guest.dispatch.entries + guest.dispatch.markers;
        let in_use = guest.open + guest.gpadls + host_gpadls;
        let stale_events = done.stale.load(Ordering::Relaxed);
        let first = violations.first().map_or_else(|| "none".to_owned(), |violation| format!("{violation:?}"));
        let mut oracles = vec![
            oracle(
                "RELID_RELEASED once per offer",
                host.offers == host.released && guest.control.offers == guest.control.released,
                format!("{} offers, {} releases", host.offers, host.released),
            ),
            oracle(
                "tables and maps are empty",
                in_tables == 0,
                format!(
                    "{} channels, {} waiting, {} in maps, {} markers",
                    guest.channels, guest.waiting, guest.dispatch.entries, guest.dispatch.markers
                ),
            ),
            oracle(
                "no reference and no memory is left",
                in_use == 0,
                format!("{} channels in use, {} GPADLs here, {host_gpadls} at the host", guest.open, guest.gpadls),
            ),
            oracle(
                "no event reached another channel",
                stale_events == 0,
                format!("{stale_events}; {} strays dropped", guest.dispatch.stray_events),
            ),
            oracle("the host has seen no violation", violations.is_empty(), format!("{} ({first})", violations.len())),
            oracle("every cycle went by the plan", failures.is_empty(), format!("{} failures", failures.len())),
        ];
        if of.args.cycles >= RSS_CYCLES {
            let holds = self.rss_delta_bytes <= RSS_SLACK_BYTES;
            let found = format!("{:+} KiB", self.rss_delta_bytes / 1024);
            oracles.push(oracle("resident memory is where it was", holds, found));
        }
        let cycles = done.cycles.load(Ordering::Relaxed);
        Report {
            passed: oracles.iter().all(|oracle| oracle.passed),
            seed: of.seed,
            cycles,
            threads: of.args.threads,
            version: of.version,
            offers: host.offers,
            released: host.released,
            opens: done.opens.load(Ordering::Relaxed),
            packets: done.packets.load(Ordering::Relaxed),
            leaked: unreleased.saturating_add(in_tables).saturating_add(in_use),
            stale_events,
            stray_events: guest.dispatch.stray_events,
            rss_delta_bytes: self.rss_delta_bytes,
            seconds: of.took.as_secs_f64(),
            cycles_per_second: cycles as f64 / of.took.as_secs_f64().max(f64::MIN_POSITIVE),
            oracles,
            failures,
        }
    }
}

fn oracle(name: &'static str, passed: bool, detail: String) -> Oracle {
    Oracle { name, passed, detail }
}
