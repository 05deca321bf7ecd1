//! Offer, bind, open, traffic, rescind, close, release: over and over, with the host offering and rescinding outside.
//!
//! Prints `waiting`, a line each fifty cycles, and `end` with what is in use after it all, compared with after the
//! warm-up. `bind` has the ways in which an offer comes to `uio_hv_generic`.

mod bind;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;
use vmbus::uio::Options;
use vmbus_channels::{Channel, Offer, OpenOptions, Vmbus};

use crate::bus::{self, Selector, Watch};
use crate::level::{Level, Slack};
use crate::say::Say;
use crate::traffic::{self, Plan, Traffic, Trouble};
use bind::{Bind, Binding};

/// How often, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct CyclesArgs {
    /// The device: class, GUID or relid.
    #[arg(default_value = "echo")]
    selector: String,
    /// How many cycles, after those of the warm-up.
    #[arg(long, default_value_t = 1000)]
    count: u32,
    /// Cycles before the level is looked at.
    #[arg(long, default_value_t = 20)]
    warm_up: u32,
    /// What is under way when the device goes.
    #[arg(long, value_enum, default_value_t = During::Mixed)]
    during: During,
    /// Packets before that.
    #[arg(long, default_value_t = 8)]
    packets: u64,
    /// Who binds a new offer.
    #[arg(long, value_enum, default_value_t = Bind::NewId)]
    bind: Bind,
    /// How long to wait for an offer, and for its end.
    #[arg(long, default_value_t = 30)]
    patience_seconds: u64,
    #[command(flatten)]
    slack: Slack,
}

/// What is under way when the device goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum During {
    /// The channel has just been opened, or is about to be.
    Opening,
    /// Nothing, after some packets.
    Idle,
    /// Packets without pause.
    Load,
    /// The channel is closed, or about to be, after some packets.
    Closing,
    /// Each of these in turn.
    Mixed,
}

impl During {
    fn of_cycle(self, cycle: u32) -> Self {
        match (self, cycle % 4) {
            (Self::Mixed, 0) => Self::Opening,
            (Self::Mixed, 1) => Self::Idle,
            (Self::Mixed, 2) => Self::Load,
            (Self::Mixed, _) => Self::Closing,
            (of_all, _) => of_all,
        }
    }
}

/// What happened so far.
#[derive(Debug, Default)]
struct Seen {
    opened: u32,
    /// Devices that went before they were open.
    too_late: u32,
    /// Opens that failed although the device was offered still.
    refused: u32,
    received: u64,
    /// How the channels ended, by the word for it.
    ended: BTreeMap<&'static str, u32>,
    /// The first of what was said at ends that are no rescinds.
    odd: Vec<String>,
}

impl Seen {
    fn odd(&mut self, cycle: u32, error: &impl ToString) {
        if self.odd.len() < 8 {
            self.odd.push(format!("cycle {cycle}: {}", error.to_string()));
        }
    }
}

/// Plays on the kernel's bus.
///
/// # Errors
/// As [`play`].
pub(crate) fn run(args: &CyclesArgs) -> anyhow::Result<ExitCode> {
    let selector = Selector::resolve(&args.selector)?;
    let mut binding = Binding::begin(args.bind, &selector)?;
    let vmbus = bus::connect(Options::default())?;
    let played = play(&vmbus, &selector, args, &mut binding, &Say::aloud());
    binding.end()?;
    played?;
    vmbus.shutdown()?;
    Ok(ExitCode::SUCCESS)
}

/// Plays all cycles.
///
/// # Errors
/// An offer or its end does not come in time; replies are wrong; something is left; a level has risen.
fn play(vmbus: &Vmbus, selector: &Selector, args: &CyclesArgs, binding: &mut Binding, say: &Say) -> anyhow::Result<()> {
    let mut watch = Watch::begin(vmbus)?;
    let (mut seen, start) = (Seen::default(), Instant::now());
    let (mut before, mut after) = (None, None);
    let patience = Duration::from_secs(args.patience_seconds);
    let slack = args.slack.after(args.count);
    let last = args.warm_up.saturating_add(args.count.max(1));
    say.line(&json!({ "event": "waiting", "cycles": last }))?;
    for cycle in 1..=last {
        let offer =
            binding.arrival(&mut watch, patience, selector).with_context(|| format!("cycle {cycle}: {seen:?}"))?;
        // Both levels with a device that is bound and not open yet.
        if cycle == args.warm_up.saturating_add(1) {
            before = Some(Level::now()?);
        }
        if let (Some(before), true) = (&before, cycle == last) {
            after = Some(Level::settled(before, &slack, Duration::from_secs(5))?);
        }
        let during = args.during.of_cycle(cycle);
        one(vmbus, &offer, during, args, cycle, &mut seen)
            .with_context(|| format!("cycle {cycle}, {during:?}: {seen:?}"))?;
        ensure!(watch.departure(patience, &offer)?, "cycle {cycle}, {during:?}: the device does not go: {seen:?}");
        if cycle % 50 == 0 {
            say.line(
                &json!({ "event": "cycles", "done": cycle, "opened": seen.opened, "ms": start.elapsed().as_millis() }),
            )?;
        }
    }
    let counters = vmbus.counters()?;
    let grown = before.zip(after).map(|(before, after)| after.grown_kib(&before));
    let wrong = before.zip(after).map(|(before, after)| after.risen(&before, &slack)).unwrap_or_default();
    say.line(&json!({
        "event": "end", "cycles": last, "opened": seen.opened, "too_late": seen.too_late, "refused": seen.refused, "received": seen.received,
        "ended": seen.ended, "odd": seen.odd, "before": before, "after": after, "grown_kib": grown, "risen": wrong,
        "binding": binding.tally(), "counters": counters, "ms": start.elapsed().as_millis(),
    }))?;
    ensure!(counters.open == 0, "{} channels are still open", counters.open);
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// One cycle, from the open on.
fn one(
    vmbus: &Vmbus,
    offer: &Offer,
    during: During,
    args: &CyclesArgs,
    cycle: u32,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let patience = Duration::from_secs(args.patience_seconds);
    let start = Instant::now();
    let channel = loop {
        match vmbus.open(offer.id, OpenOptions::default()) {
            Ok(channel) => break channel,
            Err(error)
                if vmbus.find(offer.instance).is_ok_and(|now| now.id == offer.id) && start.elapsed() < patience =>
            {
                // It is offered still, which may be for a moment only: what refused it is told, and it is tried again.
                seen.refused += 1;
                seen.odd(cycle, &error);
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => {
                seen.too_late += 1;
                if traffic::word_for(&error) != "rescinded" {
                    seen.odd(cycle, &error);
                }
                return Ok(());
            }
        }
    };
    seen.opened += 1;
    let mut traffic = Traffic::new(channel, Plan { window: 4, patience, ..Plan::PLAIN });
    let outcome = match during {
        During::Opening => traffic.idle(patience),
        During::Idle => traffic.exchange(args.packets).and_then(|()| traffic.idle(patience)),
        During::Load => traffic.run(|_| true),
        During::Closing | During::Mixed => traffic.exchange(args.packets),
    };
    seen.received += traffic.tally.received;
    let word = outcome.as_ref().map_or_else(Trouble::word, |()| "closed");
    *seen.ended.entry(word).or_default() += 1;
    close(traffic.into_channel())?;
    match outcome {
        Ok(()) if during != During::Closing => bail!("the device is still there after {} s", patience.as_secs()),
        Err(trouble) if word != "rescinded" => Err(trouble.into()),
        _ => Ok(()),
    }
}

/// Closes, and says how long that took where it took long.
fn close(channel: Channel) -> anyhow::Result<()> {
    let start = Instant::now();
    let closed = channel.close();
    if start.elapsed() > Duration::from_secs(1) {
        log::warn!("a close took {} ms", start.elapsed().as_millis());
    }
    Ok(closed?)
}
