//! Sends packets to an echo device, checks every reply, and says how fast it was.
//!
//! Prints `open`, then `traffic` at the first reply, then `end`; ends with exit code 6 when the device is taken back.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};
use vmbus::uio::Options;
use vmbus_channels::{Offer, OpenOptions, Vmbus};

use crate::bus::{self, Selector};
use crate::say::Say;
use crate::traffic::{Plan, Tally, Traffic, Trouble};

/// What to send, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct EchoArgs {
    /// The device: class, GUID, relid or uioN; `echo` is the class of echo devices. It is waited for.
    selector: String,
    #[command(flatten)]
    load: Load,
    /// How long to wait for the device.
    #[arg(long, default_value_t = 20)]
    find_seconds: u64,
}

/// How much is sent, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// Packets; without this and --seconds, until the device goes.
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// For so long.
    #[arg(long, conflicts_with = "count")]
    pub(crate) seconds: Option<f64>,
    /// Bytes of payload, rounded up to words of 8.
    #[arg(long, default_value_t = 64)]
    pub(crate) bytes: usize,
    /// Packets under way at a time.
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: usize,
    /// Look at the ring without pause, with interrupts off, instead of sleeping.
    #[arg(long)]
    pub(crate) poll: bool,
    /// Want a completion for each packet.
    #[arg(long)]
    pub(crate) completions: bool,
    /// Expect that each reply wants a completion, which it gets anyway.
    #[arg(long)]
    pub(crate) asks: bool,
    /// After this long without a reply something is wrong.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) patience_ms: u64,
}

impl Load {
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            words: self.bytes.div_ceil(8).clamp(1, 4096),
            window: self.batch.max(1),
            completions: self.completions,
            polls: self.poll,
            patience: Duration::from_millis(self.patience_ms),
        }
    }
}

/// Finds the device, and plays.
///
/// # Errors
/// There is no such device; what [`play`] says.
pub(crate) fn run(args: &EchoArgs) -> anyhow::Result<ExitCode> {
    let vmbus = bus::connect(Options::default())?;
    let offer = bus::find(&vmbus, &Selector::resolve(&args.selector)?, Duration::from_secs(args.find_seconds))?;
    let code = play(&vmbus, &offer, &args.load, &Say::aloud())?;
    vmbus.shutdown()?;
    Ok(ExitCode::from(code))
}

/// Opens the device, sends, checks, closes; the exit code.
///
/// # Errors
/// The device can't be opened or closed; completions that were expected are not asked for.
pub(crate) fn play(vmbus: &Vmbus, offer: &Offer, load: &Load, say: &Say) -> anyhow::Result<u8> {
    let channel = vmbus.open(offer.id, OpenOptions::default())?;
    say.line(
        &json!({ "event": "open", "device": channel.device(), "relid": offer.relid, "signals_by": signals_by(offer) }),
    )?;
    let mut traffic = Traffic::new(channel, load.plan());
    let first = traffic.exchange(1);
    if first.is_ok() {
        say.line(&json!({ "event": "traffic" }))?;
    }
    let start = Instant::now();
    let outcome = first.and_then(|()| send(&mut traffic, load, start));
    let end = end(&outcome, &mut traffic, start.elapsed());
    let Tally { received, asked, .. } = traffic.tally;
    traffic.into_channel().close()?;
    say.line(&end)?;
    if let Err(trouble) = outcome {
        log::error!("{trouble}");
        return Ok(trouble.code());
    }
    ensure!(!load.asks || asked == received, "{asked} of {received} replies asked for a completion");
    Ok(0)
}

fn send(traffic: &mut Traffic, load: &Load, start: Instant) -> Result<(), Trouble> {
    match (load.count, load.seconds) {
        // The first was one of them.
        (Some(count), _) => traffic.exchange(count.saturating_sub(1)),
        (None, Some(seconds)) => traffic.run(|_| start.elapsed().as_secs_f64() < seconds),
        (None, None) => traffic.run(|_| true),
    }
}

fn end(outcome: &Result<(), Trouble>, traffic: &mut Traffic, took: Duration) -> Value {
    let Tally { sent, received, bytes, asked } = traffic.tally;
    // What the first one took is not counted: its time is not, either.
    let counted = u32::try_from(received.saturating_sub(1)).unwrap_or(u32::MAX);
    json!({
        "event": "end", "how": outcome.as_ref().map_or_else(Trouble::word, |()| "done"),
        "error": outcome.as_ref().err().map(ToString::to_string),
        "sent": sent, "received": received, "bytes": bytes, "asked": asked,
        "seconds": took.as_secs_f64(), "per_second": f64::from(counted) / took.as_secs_f64().max(1e-9),
        "round_trip_ns": traffic.round_trips(),
    })
}

/// How the host is signalled.
pub(crate) fn signals_by(offer: &Offer) -> String {
    offer.monitor_id.map_or_else(|| "call".to_owned(), |monitor| format!("monitor bit {monitor}"))
}

#[cfg(test)]
mod tests;
