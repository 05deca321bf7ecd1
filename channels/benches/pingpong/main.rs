//! Ping-pong with another process: a channel over the wire link, beside a Unix stream socket, in turns of the same run.
//!
//! `cargo bench -p vmbus-channels --bench pingpong [-- [--rounds N] [--turns N] [--pin | --apart] [FILTER]]`. Prints the median
//! and the lower quartile of each contestant in ns a round trip, and the ratio to the socket's. The exit status is that
//! of the bars. `--pin`: all on one processor; `--apart`: the other process on another.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

mod host;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use vmbus::wire::{Settings as WireSettings, WireLink};
use vmbus_channels::{Channel, Error, OpenOptions, OutgoingPacket, Placement, Receiver, Sender, Settings, Vmbus, Wake};

/// Bytes of a message.
const BYTES: usize = 64;
/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// Plays so many round trips.
type Race = Box<dyn FnMut(u64)>;

/// Another process, which ends with its handle.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn peer(arguments: &[&str], path: &Path) -> Peer {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if is_apart() {
        command.env(PEER_CPU, "1");
    }
    Peer(command.arg("--peer").args(arguments).arg(path).spawn().unwrap())
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("vmbus-pingpong-{}-{name}", std::process::id()))
}

fn unix() -> Race {
    let path = path("unix");
    let peer = peer(&["unix"], &path);
    let mut stream = host::connect(&path);
    let _ = std::fs::remove_file(&path);
    Box::new(move |turns| {
        let _ = &peer;
        let mut buffer = [1; BYTES];
        for _ in 0..turns {
            stream.write_all(&buffer).unwrap();
            stream.read_exact(&mut buffer).unwrap();
        }
    })
}

fn open(name: &str, polling: bool, placement: Placement) -> (Peer, Vmbus, Channel) {
    let path = path(name);
    let peer = peer(&[if polling { "polling" } else { "blocking" }], &path);
    let link = loop {
        match WireLink::connect(&path, WireSettings { processors: 2, memory_bytes: 64 << 20 }) {
            Ok(link) => break link,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let mut settings = Settings::default();
    settings.dispatch.direct = 1;
    settings.dispatch.pinned = false;
    let bus = Vmbus::start(Box::new(link), settings).unwrap();
    let offer = bus.offers().unwrap().pop().unwrap();
    let channel = bus.open(offer.id, OpenOptions { placement, ..OpenOptions::default() }).unwrap();
    assert_eq!(channel.is_direct(), placement == Placement::Direct);
    (peer, bus, channel)
}

/// One message there and back.
fn round_trip(receiver: &mut Receiver, sender: &mut Sender, buffer: &mut [u8; BYTES]) {
    sender.send(OutgoingPacket::in_band(0), &[buffer], None).unwrap();
    loop {
        let took = receiver.receive(1, |packet| {
            packet.payload().copy_to(&mut buffer[..]).unwrap();
            Ok::<_, Error>(())
        });
        if took.unwrap() == 1 {
            return;
        }
        assert_eq!(receiver.wait(Some(LONG)).unwrap(), Wake::Packets);
    }
}

fn wire(name: &'static str, polling: bool, placement: Placement) -> Race {
    let (peer, bus, channel) = open(name, polling, placement);
    let (mut receiver, mut sender) = channel.split().unwrap();
    if polling {
        receiver.set_busy_poll(LONG);
    }
    Box::new(move |turns| {
        let _ = (&peer, &bus);
        let mut buffer = [1; BYTES];
        for _ in 0..turns {
            round_trip(&mut receiver, &mut sender, &mut buffer);
        }
    })
}

/// A contestant, and what it may take of the socket's time.
struct Contestant {
    name: &'static str,
    at_most: Option<f64>,
    make: fn() -> Race,
}

const CONTESTANTS: [Contestant; 4] = [
    Contestant { name: "unix", at_most: None, make: unix },
    Contestant { name: "direct", at_most: Some(1.0), make: || wire("direct", false, Placement::Direct) },
    Contestant { name: "dispatcher", at_most: None, make: || wire("dispatcher", false, Placement::Shared) },
    Contestant { name: "polling", at_most: Some(0.2), make: || wire("polling", true, Placement::Direct) },
];

/// Lower quartile and median.
fn middle(values: &mut [f64]) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [values[values.len() / 4], values[values.len() / 2]]
}

/// On which processor the other process is to be, and the way in which it is told.
const PEER_CPU: &str = "VMBUS_PINGPONG_CPU";

fn is_apart() -> bool {
    std::env::args().any(|argument| argument == "--apart")
}

fn pin(cpu: usize) {
    let mut mask = rustix::thread::CpuSet::new();
    mask.set(cpu);
    rustix::thread::sched_setaffinity(None, &mask).unwrap();
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [peer, kind, path] = &arguments[..]
        && peer == "--peer"
    {
        if let Ok(cpu) = std::env::var(PEER_CPU) {
            pin(cpu.parse().unwrap());
        }
        match &**kind {
            "unix" => host::unix(Path::new(path), BYTES),
            kind => host::wire(Path::new(path), kind == "polling"),
        }
        return ExitCode::SUCCESS;
    }
    let after = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    let number = |name: &str, otherwise: u64| after(name).map_or(otherwise, |number| number.parse().unwrap());
    let (rounds, turns) = (number("--rounds", 21), number("--turns", 2000));
    if is_apart() || arguments.iter().any(|argument| argument == "--pin") {
        pin(0);
    }
    let filter = arguments.iter().find(|argument| argument.starts_with(|first: char| first.is_ascii_alphabetic()));
    let chosen = |name: &str| name == "unix" || filter.is_none_or(|filter| name.contains(filter.as_str()));
    let mut contestants: Vec<_> = CONTESTANTS.iter().filter(|contestant| chosen(contestant.name)).collect();
    // A host that polls takes a processor for itself: not beside others.
    let mut failed = 0;
    while !contestants.is_empty() {
        let polls = contestants.iter().position(|contestant| contestant.name == "polling");
        let group: Vec<_> = match polls {
            Some(polls) if contestants.len() > 2 => vec![contestants[0], contestants.remove(polls)],
            _ => std::mem::take(&mut contestants),
        };
        let mut races: Vec<Race> = group.iter().map(|contestant| (contestant.make)()).collect();
        let mut times = vec![Vec::new(); races.len()];
        for round in 0..=rounds {
            for (times, race) in times.iter_mut().zip(&mut races) {
                let start = Instant::now();
                race(turns);
                // The first round warms up.
                if round != 0 {
                    times.push(start.elapsed().as_secs_f64() * 1e9 / turns as f64);
                }
            }
        }
        let middles: Vec<[f64; 2]> = times.iter_mut().map(|times| middle(times)).collect();
        for (contestant, [quiet, median]) in group.iter().zip(&middles) {
            let ratios = [median / middles[0][1], quiet / middles[0][0]];
            let holds = contestant.at_most.is_none_or(|limit| ratios[0] <= limit);
            failed += usize::from(!holds);
            let verdict = match (contestant.at_most, holds) {
                (None, _) => String::new(),
                (Some(limit), true) => format!("PASS (bar {limit})"),
                (Some(limit), false) => format!("FAIL (bar {limit})"),
            };
            let _ = writeln!(
                std::io::stdout(),
                "{:<12} {median:>9.0} ns ({quiet:>7.0})  ratio {:>5.3} ({:.3})  {verdict}",
                contestant.name,
                ratios[0],
                ratios[1],
            );
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
