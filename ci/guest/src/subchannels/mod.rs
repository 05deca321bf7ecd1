//! A device with its subchannels: traffic on all, moves between processors, and who hears of which end.
//!
//! Prints `open` (from here on the host may offer subchannels), `arrived` for each, `traffic` when all have had a reply,
//! `silent` or another end for each channel that stops, and `end`. `player` plays one channel, `moves` moves them.

mod moves;
mod player;
#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};
use vmbus::uio::Options;
use vmbus_channels::{Offer, Vmbus};

use crate::bus::{self, Selector, Watch};
use crate::echo::signals_by;
use crate::say::Say;
use crate::traffic::Trouble;
pub(crate) use moves::Mover;
use player::{Played, Player};

/// Which device, how many subchannels, and what to do with them.
#[derive(Debug, Clone, Args)]
pub(crate) struct SubchannelsArgs {
    /// The device: class, GUID, relid or uioN. It is waited for.
    #[arg(default_value = "echo")]
    selector: String,
    /// How many subchannels to wait for.
    #[arg(long, default_value_t = 1)]
    expect: usize,
    /// Traffic for so long.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Traffic until no channel is left that has any, or the device is gone.
    #[arg(long)]
    until_silent: bool,
    /// Packets under way at a time, on each channel.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// A channel without a reply for so long is silent.
    #[arg(long, default_value_t = 3000)]
    silent_ms: u64,
    /// Move a channel to the next processor this often, each in turn.
    #[arg(long)]
    retarget_ms: Option<u64>,
    /// Traffic on the primary channel while subchannels arrive. The kernel may not survive that where the device has no
    /// monitor id.
    #[arg(long)]
    noisy: bool,
    /// How long to wait for the device and for each subchannel.
    #[arg(long, default_value_t = 30)]
    patience_seconds: u64,
}

/// Plays on the kernel's bus.
///
/// # Errors
/// As [`play`].
pub(crate) fn run(args: &SubchannelsArgs) -> anyhow::Result<ExitCode> {
    let vmbus = bus::connect(Options::default())?;
    let patience = Duration::from_secs(args.patience_seconds);
    let primary = bus::find(&vmbus, &Selector::resolve(&args.selector)?, patience)?;
    let code = play(&vmbus, &primary, args, &Mover::through_sysfs(&primary)?, &Say::aloud())?;
    vmbus.shutdown()?;
    Ok(ExitCode::from(code))
}

/// Plays, and closes everything; the exit code: 6 when the device was taken back, 0 when nothing but single subchannels
/// fell silent.
///
/// # Errors
/// Subchannels do not come, or can't be opened; a channel can't be closed; replies are wrong.
pub(crate) fn play(
    vmbus: &Vmbus,
    primary: &Offer,
    args: &SubchannelsArgs,
    mover: &Mover,
    say: &Say,
) -> anyhow::Result<u8> {
    let patience = Duration::from_secs(args.patience_seconds);
    let mut watch = Watch::begin(vmbus)?;
    let mut first = Player::open(vmbus, primary, args)?;
    say.line(&json!({ "event": "open", "relid": primary.relid, "signals_by": signals_by(primary) }))?;
    let mut opened = Vec::new();
    while opened.len() < args.expect {
        let wait = if args.noisy { Duration::from_millis(1) } else { patience };
        let arrived = watch.arrival(wait, |offer| offer.primary == Some(primary.id))?;
        if args.noisy {
            first.exchange(16)?;
            ensure!(
                arrived.is_some() || first.opened.elapsed() < patience,
                "{} of {} subchannels",
                opened.len(),
                args.expect
            );
        } else {
            ensure!(arrived.is_some(), "{} of {} subchannels within {patience:?}", opened.len(), args.expect);
        }
        let Some(offer) = arrived else { continue };
        say.line(&json!({
            "event": "arrived", "relid": offer.relid, "subchannel": offer.subchannel_index, "signals_by": signals_by(&offer),
        }))?;
        opened.push(Player::open(vmbus, &offer, args)?);
    }
    let all = std::iter::once(first).chain(opened).collect();
    let played = traffic(all, vmbus, args, mover, say)?;
    close(played, args, mover, say)
}

/// Traffic on all channels, until its time is over or no channel has any.
fn traffic(
    all: Vec<Player>,
    vmbus: &Vmbus,
    args: &SubchannelsArgs,
    mover: &Mover,
    say: &Say,
) -> anyhow::Result<Vec<Played>> {
    let over = AtomicBool::new(false);
    let offers: Vec<Offer> = all.iter().map(|player| player.offer().clone()).collect();
    let limit = Duration::from_secs_f64(args.seconds.max(0.0));
    let count = all.len();
    let (replied, replies) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let players: Vec<_> = all
            .into_iter()
            .map(|player| {
                let (replied, over) = (replied.clone(), &over);
                scope.spawn(move || player.play(over, &replied, say))
            })
            .collect();
        drop(replied);
        // Also ends when a channel ends before its first reply: then there is one answer less.
        let first = replies.iter().take(count).count();
        let said = if first == count { say.line(&json!({ "event": "traffic", "channels": count })) } else { Ok(()) };
        let start = Instant::now();
        let running = || players.iter().any(|player| !player.is_finished());
        while running() && (args.until_silent || start.elapsed() < limit) {
            let pause = Duration::from_millis(args.retarget_ms.unwrap_or(20));
            thread::sleep(pause.min(limit.saturating_sub(start.elapsed()).max(Duration::from_millis(1))));
            if args.retarget_ms.is_some() {
                mover.next(vmbus, &offers);
            }
        }
        over.store(true, Ordering::Release);
        let joined = players.into_iter().map(|player| player.join());
        let played = joined.collect::<Result<Vec<_>, _>>().map_err(|_| anyhow::anyhow!("a player panicked"))?;
        said.map(|()| played)
    })
}

/// Closes all channels, subchannels first, and says what became of each.
fn close(mut played: Vec<Played>, args: &SubchannelsArgs, mover: &Mover, say: &Say) -> anyhow::Result<u8> {
    let mut channels: Vec<Value> = Vec::new();
    let (mut code, mut wrong, mut stuck) = (0, Vec::new(), Vec::new());
    let words: Vec<_> = played.iter().map(Played::word).collect();
    while let Some(Played { channel, tally, outcome, took, .. }) = played.pop() {
        let (relid, index, said_gone) =
            (channel.offer().relid, channel.offer().subchannel_index, channel.is_rescinded());
        let closing = Instant::now();
        let closed = channel.close();
        let close_ms = closing.elapsed().as_millis();
        let word = outcome.as_ref().map_or_else(Trouble::word, |()| "done");
        stuck.extend(closed.as_ref().err().map(|error| format!("channel {relid} can't be closed: {error}")));
        match &outcome {
            Err(trouble) if word == "rescinded" && index == 0 => code = trouble.code(),
            Err(trouble) if word != "rescinded" && word != "silent" => wrong.push(trouble.to_string()),
            Err(trouble) if index == 0 => wrong.push(trouble.to_string()),
            _ => {}
        }
        channels.push(json!({
            "relid": relid, "subchannel": index, "how": word, "known_gone": said_gone,
            "error": outcome.err().map(|trouble| trouble.to_string()), "sent": tally.sent, "received": tally.received,
            "seconds": took.as_secs_f64(), "close_ms": close_ms, "close_error": closed.err().map(|error| error.to_string()),
        }));
    }
    channels.reverse();
    let silent = words.iter().filter(|word| **word == "silent").count();
    say.line(&json!({
        "event": "end", "channels": channels, "silent": silent, "silent_ms": args.silent_ms,
        "moves": mover.moves(), "refused_moves": mover.refused(),
    }))?;
    ensure!(wrong.is_empty() && stuck.is_empty(), "{}", [wrong, stuck].concat().join("; "));
    Ok(code)
}
