//! Traffic on a device whose host writes nonsense: each end is told, and the device is opened again and again.
//!
//! Prints `storm`, a line for each kind of end when it comes for the first time, `recovering` when the storm is over by
//! the clock (or earlier, with --once), and `end`. Ends with 0 when the device works after it all.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use vmbus::uio::Options;
use vmbus_channels::{Error, Offer, OpenOptions, Vmbus};

use crate::bus::{self, Selector};
use crate::say::Say;
use crate::traffic::{Plan, Tally, Traffic, Trouble, word_for};

/// Which device, and for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct HostileArgs {
    /// The device: class, GUID, relid or uioN. It is waited for.
    #[arg(default_value = "echo")]
    selector: String,
    /// How long the host is expected to write nonsense.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// End at the first trouble, with its message and its exit code.
    #[arg(long)]
    once: bool,
    /// Packets under way at a time.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Bytes of payload.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// A channel without a reply for so long is closed.
    #[arg(long, default_value_t = 1000)]
    silent_ms: u64,
    /// How long the device may take to work again, and to come back when it is taken away.
    #[arg(long, default_value_t = 20)]
    recover_seconds: u64,
}

/// What happened.
#[derive(Debug, Default)]
struct Seen {
    opened: u64,
    received: u64,
    asked: u64,
    /// Ends of channels by their word, and the first message of each.
    ends: BTreeMap<&'static str, (u64, String)>,
    /// Opens and closes that failed, likewise.
    refused: BTreeMap<&'static str, (u64, String)>,
    /// The longest that an open, or a close, took.
    slowest: Duration,
}

impl Seen {
    fn to_json(&self) -> Value {
        let tally = |ends: &BTreeMap<&'static str, (u64, String)>| -> Value {
            ends.iter().map(|(word, (times, first))| (*word, json!({ "times": times, "first": first }))).collect()
        };
        json!({
            "event": "end", "opened": self.opened, "received": self.received, "asked": self.asked, "ends": tally(&self.ends),
            "refused": tally(&self.refused), "slowest_ms": self.slowest.as_millis(),
        })
    }
}

/// Plays on the kernel's bus.
///
/// # Errors
/// As [`play`].
pub(crate) fn run(args: &HostileArgs) -> anyhow::Result<ExitCode> {
    let vmbus = bus::connect(Options::default())?;
    let code = play(&vmbus, &Selector::resolve(&args.selector)?, args, &Say::aloud())?;
    vmbus.shutdown()?;
    Ok(ExitCode::from(code))
}

/// Opens, talks, closes, again and again; then once more until it works; the exit code.
///
/// # Errors
/// The device does not come back; it does not work in the end.
fn play(vmbus: &Vmbus, selector: &Selector, args: &HostileArgs, say: &Say) -> anyhow::Result<u8> {
    let (start, mut seen) = (Instant::now(), Seen::default());
    let limit = Duration::from_secs_f64(args.seconds.max(0.0));
    say.line(&json!({ "event": "storm" }))?;
    while start.elapsed() < limit {
        let offer = bus::find(vmbus, selector, Duration::from_secs(args.recover_seconds))?;
        let Err(trouble) = one(vmbus, &offer, args, &mut seen, |_| start.elapsed() < limit) else { continue };
        let (word, text) = (trouble.word(), trouble.to_string());
        let end = seen.ends.entry(word).or_insert_with(|| (0, text.clone()));
        end.0 += 1;
        if end.0 == 1 {
            say.line(&json!({ "event": word, "error": text }))?;
        }
        if args.once {
            say.line(&seen.to_json())?;
            log::error!("{trouble}");
            return Ok(trouble.code());
        }
    }
    say.line(&json!({ "event": "recovering" }))?;
    let (since, patience) = (Instant::now(), Duration::from_secs(args.recover_seconds));
    let recovered = loop {
        let outcome = match bus::find(vmbus, selector, patience) {
            Ok(offer) => one(vmbus, &offer, args, &mut seen, |sent| sent < 100),
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(()) => break Ok(()),
            Err(trouble) if since.elapsed() > patience => break Err(trouble),
            Err(_) => {}
        }
    };
    say.line(&seen.to_json())?;
    recovered.map(|()| 0).map_err(|trouble| anyhow::Error::new(trouble).context("the device does not work again"))
}

/// One open channel, until it ends or `more`, which is told how much was sent, says that it is enough. Closed in any case.
fn one(
    vmbus: &Vmbus,
    offer: &Offer,
    args: &HostileArgs,
    seen: &mut Seen,
    more: impl Fn(u64) -> bool,
) -> Result<(), Trouble> {
    let channel = match timed(&mut seen.slowest, || vmbus.open(offer.id, OpenOptions::default())) {
        Ok(channel) => channel,
        Err(error) => {
            refused(seen, &error);
            return Err(error.into());
        }
    };
    seen.opened += 1;
    let patience = Duration::from_millis(args.silent_ms);
    let plan =
        Plan { words: args.bytes.div_ceil(8).clamp(1, 4096), window: args.batch.max(1), patience, ..Plan::PLAIN };
    let mut traffic = Traffic::new(channel, plan);
    let outcome = traffic.run(|traffic| more(traffic.tally.sent));
    let Tally { received, asked, .. } = traffic.tally;
    seen.received += received;
    seen.asked += asked;
    let channel = traffic.into_channel();
    if let Err(error) = timed(&mut seen.slowest, || channel.close()) {
        refused(seen, &error);
    }
    outcome
}

fn timed<T>(slowest: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    *slowest = start.elapsed().max(*slowest);
    done
}

fn refused(seen: &mut Seen, error: &Error) {
    let refused = seen.refused.entry(word_for(error)).or_insert_with(|| (0, error.to_string()));
    refused.0 += 1;
}
