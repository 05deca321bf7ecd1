//! The whole stack over the wire link, with the simulated host at its other end: open and close, and control messages,
//! per second. `cargo bench -p vmbus-tests --bench cycles [-- [--json] [--rounds N]]`; medians.
//!
//! The core by itself and the receive path are in the benches of `vmbus-channels`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

use std::io::Write;
use std::time::Instant;

use vmbus::wire::{self, WireLink};
use vmbus_channels::{ChannelId, OpenOptions, Settings, Vmbus};
use vmbus_simhost::server::{Control, Server, ServerSettings};
use vmbus_simhost::{Config, DeviceSpec};

/// Cycles of a round.
const CYCLES: u32 = 100;

/// The bus, and the simulated host in this process.
struct Stack {
    bus: Vmbus,
    host: Control,
    _server: Server,
}

impl Stack {
    fn new() -> Self {
        let config = Config { processors: 1, ..Config::seeded(1) }.with_device(DeviceSpec::echo(1));
        let (server, host, socket) = Server::in_process(config, ServerSettings::default()).unwrap();
        let settings = wire::Settings { processors: 1, ..wire::Settings::default() };
        let link = WireLink::over(socket, settings).unwrap();
        let bus = Vmbus::start(Box::new(link), Settings::default()).unwrap();
        Self { bus, host, _server: server }
    }

    fn open_close(&self, id: ChannelId) {
        self.bus.open(id, OpenOptions::default()).unwrap().close().unwrap();
    }

    /// Messages so far, both ways.
    fn messages(&self) -> u64 {
        let counters = self.host.counters().unwrap();
        counters.messages_in + counters.messages_out
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let after = arguments.iter().skip_while(|argument| *argument != "--rounds").nth(1);
    let rounds = after.map_or(21, |rounds| rounds.parse().unwrap());
    let stack = Stack::new();
    let id = stack.bus.offers().unwrap()[0].id;
    let (mut cycles, mut messages) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (before, start) = (stack.messages(), Instant::now());
        for _ in 0..CYCLES {
            stack.open_close(id);
        }
        let seconds = start.elapsed().as_secs_f64();
        cycles.push(f64::from(CYCLES) / seconds);
        messages.push((stack.messages() - before) as f64 / seconds);
    }
    stack.bus.shutdown().unwrap();
    for (case, per_second) in [("open+close, stack", median(cycles)), ("message, stack", median(messages))] {
        let line = if json {
            format!("{{\"case\":\"{case}\",\"per_second\":{per_second:.0}}}")
        } else {
            format!("{case:<18} {per_second:>10.0}/s")
        };
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}
