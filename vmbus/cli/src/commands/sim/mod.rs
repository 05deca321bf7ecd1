//! `vmbusctl sim`: a simulated host on a path, for guest processes that connect over the wire link.

pub(crate) mod bridge;
pub(crate) mod fault;

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vmbus_devices::socket::VmSocketAddr;
use vmbus_devices::socket::addr::CID_ANY;
use vmbus_simhost::server::{Bridges, Control, Server, ServerSettings};
use vmbus_simhost::{Config, Error};

use self::bridge::Published;
use crate::args::Sim;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::simulated;

/// How often signals and guests are looked for.
const TURN: Duration = Duration::from_millis(100);

/// One line of output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Listening { path: String, seed: u64 },
    Published { address: String, service: String },
    Connected { guest: usize },
    Gone { guest: usize },
    Ended,
}

impl Event {
    fn sentence(&self) -> String {
        match self {
            Self::Listening { path, seed } => format!("listening on {path}, seed {seed}"),
            Self::Published { address, service } => format!("connections to {address} go to guests' {service}"),
            Self::Connected { guest } => format!("guest {guest} has connected"),
            Self::Gone { guest } => format!("guest {guest} has gone"),
            Self::Ended => "ended".to_owned(),
        }
    }
}

pub(crate) fn run(context: &Context, args: &Sim) -> anyhow::Result<Exit> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let config = config(args);
    let faults = args.fault.iter().map(|fault| fault.0).collect();
    let settings = ServerSettings { faults, bridges: bridges(args), ..ServerSettings::default() };
    let mut server = Server::listen(&args.listen, config, settings).map_err(|error| match error {
        Error::Listen { .. } => anyhow::Error::new(error),
        error => anyhow::Error::new(error).context(format!("cannot listen on {}", args.listen.display())),
    })?;
    let tell = |event: &Event| match (context.json, context.quiet) {
        (true, _) => output::json_line(event),
        (_, true) => Ok(()),
        _ => output::line(event.sentence()),
    };
    for (address, Published(_, service)) in server.published().iter().zip(&args.publish) {
        let service = VmSocketAddr::of_service(CID_ANY, *service).to_string();
        tell(&Event::Published { address: address.to_string(), service })?;
    }
    tell(&Event::Listening { path: args.listen.display().to_string(), seed: args.seed })?;
    let mut guests: Vec<(usize, Control)> = Vec::new();
    let mut number = 0;
    while signals.pending().next().is_none() {
        if let Some(guest) = server.next_guest(TURN) {
            number += 1;
            tell(&Event::Connected { guest: number })?;
            guests.push((number, guest));
        }
        let mut gone = Vec::new();
        // A simulation ends with its guest.
        guests.retain(|(number, guest)| {
            let is_there = guest.counters().is_ok();
            if !is_there {
                gone.push(*number);
            }
            is_there
        });
        for guest in gone {
            tell(&Event::Gone { guest })?;
        }
    }
    server.stop();
    tell(&Event::Ended)?;
    Ok(Exit::Ok)
}

/// What leads from guests to this machine, and back.
fn bridges(args: &Sim) -> Bridges {
    let services = args.service.iter().map(|bridge::Service(service, target)| (*service, target.clone())).collect();
    let published = args.publish.iter().map(|Published(addr, service)| (addr.clone(), *service)).collect();
    Bridges { services, published }
}

/// Echo devices, a byte pipe and Dynamic Memory.
fn config(args: &Sim) -> Config {
    let config = simulated::with_devices(Config::seeded(args.seed), u64::from(args.echo));
    if let Some(version) = args.protocol {
        return config.with_version(version);
    }
    config
}
