//! Our driver beside the kernel's hv_sock on the same host: messages in a second, and how long each takes.
//!
//! One process has all of them open and uses them in turns, so that whatever slows this guest down slows all of them
//! down. One line for each turn; the lab compares.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};
use vmbus::uio::Options;
use vmbus_channels::{Channel, OpenOptions, Vmbus};
use vsock::VsockStream;

use crate::bus::{self, Selector};
use crate::echo::signals_by;
use crate::say::Say;
use crate::traffic::{Plan, Traffic};
use crate::vsock as sockets;

/// Who takes part, and how much is sent.
#[derive(Debug, Clone, Args)]
pub(crate) struct SpeedArgs {
    /// An echo device; can be given more than once. It is waited for.
    #[arg(long, required = true)]
    device: Vec<String>,
    /// The port of the host's hv_sock service, which sends back what it gets.
    #[arg(long)]
    port: Option<u32>,
    /// Bytes of a message and how many are under way at a time, such as 64x1; can be given more than once.
    #[arg(long, required = true, value_parser = Load::parse)]
    load: Vec<Load>,
    /// Turns of each.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long each turn is.
    #[arg(long, default_value_t = 300)]
    turn_ms: u64,
    /// Also look at the ring without pause, with interrupts off, instead of sleeping.
    #[arg(long)]
    poll: bool,
}

/// Messages of one kind.
#[derive(Debug, Clone, Copy)]
struct Load {
    words: usize,
    batch: usize,
}

impl Load {
    fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('x').and_then(|(bytes, batch)| Some((bytes.parse().ok()?, batch.parse().ok()?)));
        let (bytes, batch): (usize, usize) = parts.ok_or("bytes and a number are wanted, such as 64x1")?;
        Ok(Self { words: bytes.div_ceil(8).clamp(1, 4096), batch: batch.max(1) })
    }
}

/// One that takes part.
#[derive(Debug)]
enum Way {
    /// Our driver, sleeping or polling; the channel is away only during a turn.
    Ours { name: String, polls: bool, channel: usize },
    /// The kernel's sockets.
    Socket(VsockStream),
}

/// Opens all, and gives each its turns.
///
/// # Errors
/// Something is not there, or a message gets lost or comes back as another.
pub(crate) fn run(args: &SpeedArgs) -> anyhow::Result<ExitCode> {
    let vmbus = bus::connect(Options::default())?;
    let mut ways = Vec::new();
    let mut channels = Vec::new();
    for device in &args.device {
        let (signals, channel) = open(&vmbus, device)?;
        for polls in [false, true].into_iter().take(if args.poll { 2 } else { 1 }) {
            let name = format!("{} by {signals}", if polls { "polling" } else { "interrupts" });
            ways.push(Way::Ours { name, polls, channel: channels.len() });
        }
        channels.push(Some(channel));
    }
    if let Some(port) = args.port {
        ways.push(Way::Socket(sockets::to_host(port, sockets::Patience::SHORT)?));
    }
    let say = Say::aloud();
    let turn = Duration::from_millis(args.turn_ms);
    for round in 0..args.rounds {
        for load in &args.load {
            for way in &ways {
                let mut line = play(way, &mut channels, *load, turn)?;
                if let Some(fields) = line.as_object_mut() {
                    let Load { words, batch } = *load;
                    fields.extend([
                        ("event".to_owned(), "turn".into()),
                        ("round".to_owned(), round.into()),
                        ("bytes".to_owned(), (words * 8).into()),
                        ("batch".to_owned(), batch.into()),
                    ]);
                }
                say.line(&line)?;
            }
        }
    }
    drop(ways);
    for channel in channels.into_iter().flatten() {
        channel.close()?;
    }
    vmbus.shutdown()?;
    say.line(&json!({ "event": "end" }))?;
    Ok(ExitCode::SUCCESS)
}

fn open(vmbus: &Vmbus, device: &str) -> anyhow::Result<(&'static str, Channel)> {
    let offer = bus::find(vmbus, &Selector::resolve(device)?, Duration::from_secs(20))?;
    let signals = if offer.monitor_id.is_some() { "monitor" } else { "call" };
    log::debug!("{device} signals by {}", signals_by(&offer));
    Ok((signals, vmbus.open(offer.id, OpenOptions::default())?))
}

/// One turn of one of them.
fn play(way: &Way, channels: &mut [Option<Channel>], load: Load, turn: Duration) -> anyhow::Result<Value> {
    let (name, polls, channel) = match way {
        Way::Socket(stream) => {
            let messages = sockets::Messages {
                seconds: turn.as_secs_f64(),
                count: None,
                bytes: load.words * 8,
                batch: load.batch,
            };
            let mut line = sockets::messages(stream, &messages)?;
            if let Some(fields) = line.as_object_mut() {
                fields.insert("way".to_owned(), "hv_sock".into());
            }
            return Ok(line);
        }
        Way::Ours { name, polls, channel } => (name, *polls, *channel),
    };
    let place = channels.get_mut(channel).context("there is no such channel")?;
    let plan = Plan { words: load.words, window: load.batch, polls, ..Plan::PLAIN };
    let mut traffic = Traffic::new(place.take().context("the channel was lost")?, plan);
    let start = Instant::now();
    traffic.run(|_| start.elapsed() < turn)?;
    let took = start.elapsed().as_secs_f64();
    let (sent, received) = (traffic.tally.sent, traffic.tally.received);
    ensure!(sent == received, "{name}: {sent} messages were sent, {received} came back");
    let per_second = f64::from(u32::try_from(received).unwrap_or(u32::MAX)) / took.max(1e-9);
    let round_trips = traffic.round_trips();
    *place = Some(traffic.into_channel());
    Ok(json!({
        "way": name, "sent": sent, "received": received, "seconds": took,
        "per_second": per_second, "round_trip_ns": round_trips,
    }))
}
