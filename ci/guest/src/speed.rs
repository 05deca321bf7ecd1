//! Our driver beside the kernel's hv_sock on the same host: messages in a second, and how long each takes.
//!
//! One process has all of them open and uses them in turns, so that whatever slows this guest down slows all of them
//! down. One line for each turn; the lab compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};
use vmbus::uio::Options;
use vmbus_channels::{Channel, OpenOptions};
use vsock::VsockStream;

use crate::bus::{self, Selector};
use crate::say::Say;
use crate::traffic::{Plan, Traffic};
use crate::vsock as sockets;

/// Where the kernel has the devices of the bus.
const DEVICES: &str = "/sys/bus/vmbus/devices";

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
struct Way {
    name: String,
    /// Where the kernel counts its channel's signals and interrupts.
    counters: PathBuf,
    by: By,
}

#[derive(Debug)]
enum By {
    /// Our driver, sleeping or polling; the channel is away only during a turn.
    Driver { polls: bool, channel: usize },
    /// The kernel's sockets.
    Socket(VsockStream),
}

impl Way {
    /// Signals to the host, and interrupts from it, so far. (Documentation/ABI/stable/sysfs-bus-vmbus.)
    fn counts(&self) -> anyhow::Result<[u64; 2]> {
        let read = |name| -> anyhow::Result<u64> {
            let path = self.counters.join(name);
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            text.trim().parse().with_context(|| format!("{} holds {text:?}", path.display()))
        };
        Ok([read("events")?, read("interrupts")?])
    }
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
        let offer = bus::find(&vmbus, &Selector::resolve(device)?, Duration::from_secs(20))?;
        let signals = if offer.monitor_id.is_some() { "monitor" } else { "call" };
        for polls in [false, true].into_iter().take(if args.poll { 2 } else { 1 }) {
            let name = format!("{} by {signals}", if polls { "polling" } else { "interrupts" });
            let counters = Path::new(DEVICES).join(format!("{}/channels/{}", offer.instance, offer.relid));
            ways.push(Way { name, counters, by: By::Driver { polls, channel: channels.len() } });
        }
        channels.push(Some(vmbus.open(offer.id, OpenOptions::default())?));
    }
    if let Some(port) = args.port {
        let by = By::Socket(sockets::to_host(port, sockets::Patience::SHORT)?);
        ways.push(Way { name: "hv_sock".to_owned(), counters: socket_counters()?, by });
    }
    let say = Say::aloud();
    let turn = Duration::from_millis(args.turn_ms);
    for round in 0..args.rounds {
        for load in &args.load {
            for way in &ways {
                let before = way.counts()?;
                let mut line = play(way, &mut channels, *load, turn)?;
                let [signals, interrupts] = way.counts()?;
                let counted = json!({
                    "event": "turn", "way": way.name, "round": round, "bytes": load.words * 8, "batch": load.batch,
                    "signals": signals.wrapping_sub(before[0]), "interrupts": interrupts.wrapping_sub(before[1]),
                });
                if let (Value::Object(line), Value::Object(counted)) = (&mut line, counted) {
                    line.extend(counted);
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

/// Where the channel of the only socket is. A socket is connected before its channel is in sysfs: the kernel's driver runs
/// while the device is still being made. So this looks again for a while.
fn socket_counters() -> anyhow::Result<PathBuf> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match find_socket_counters() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            found => return found,
        }
    }
}

fn find_socket_counters() -> anyhow::Result<PathBuf> {
    let inside = |folder: &Path| -> anyhow::Result<Option<PathBuf>> {
        let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
        let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        Ok(paths.into_iter().find(|path| path.join("channels").is_dir() || path.join("events").exists()))
    };
    let device = inside(Path::new("/sys/bus/vmbus/drivers/hv_sock"))?.context("hv_sock has no device")?;
    inside(&device.join("channels"))?.context("the socket has no channel")
}

/// One turn of one of them.
fn play(way: &Way, channels: &mut [Option<Channel>], load: Load, turn: Duration) -> anyhow::Result<Value> {
    let (polls, channel) = match &way.by {
        By::Socket(stream) => {
            let (seconds, bytes) = (turn.as_secs_f64(), load.words * 8);
            return sockets::messages(stream, &sockets::Messages { seconds, count: None, bytes, batch: load.batch });
        }
        By::Driver { polls, channel } => (*polls, *channel),
    };
    let place = channels.get_mut(channel).context("there is no such channel")?;
    let plan = Plan { words: load.words, window: load.batch, polls, ..Plan::PLAIN };
    let mut traffic = Traffic::new(place.take().context("the channel was lost")?, plan);
    let start = Instant::now();
    traffic.run(|_| start.elapsed() < turn)?;
    let took = start.elapsed().as_secs_f64();
    let (sent, received) = (traffic.tally.sent, traffic.tally.received);
    ensure!(sent == received, "{}: {sent} messages were sent, {received} came back", way.name);
    let per_second = f64::from(u32::try_from(received).unwrap_or(u32::MAX)) / took.max(1e-9);
    let round_trips = traffic.round_trips();
    *place = Some(traffic.into_channel());
    Ok(json!({
        "sent": sent, "received": received, "seconds": took, "per_second": per_second, "round_trip_ns": round_trips,
    }))
}
