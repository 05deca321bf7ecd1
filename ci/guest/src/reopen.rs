//! Opens and closes a device over and over (scenario `reopen-100`). Prints one JSON line when it is done.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::json;
use vmbus::sysfs::Bus;
use vmbus::uio::BusLink;
use vmbus_channels::{OpenOptions, Settings, Vmbus};

use crate::say;

/// What to open, and how often.
#[derive(Debug, Args)]
pub(crate) struct ReopenArgs {
    /// The device: class, GUID, relid or uioN. It must be bound to uio_hv_generic.
    selector: String,
    /// How often.
    #[arg(long, default_value_t = 100)]
    times: u32,
}

/// Opens and closes the device over and over; each time the channel must be new.
///
/// # Errors
/// When an open or a close fails, or the channel is not new.
pub(crate) fn run(args: &ReopenArgs) -> anyhow::Result<ExitCode> {
    let bus = Bus::system();
    let device = bus.find(&args.selector)?;
    let vmbus = Vmbus::start(Box::new(BusLink::new(bus.clone())?), Settings::default())?;
    let offer = vmbus.find(device.instance)?;
    let (mut opening, mut closing) = (Duration::ZERO, Duration::ZERO);
    for time in 1..=args.times {
        let mut open = || -> anyhow::Result<()> {
            let start = Instant::now();
            let channel = vmbus.open(offer.id, OpenOptions::default())?;
            opening += start.elapsed();
            let rings = bus.refresh(&device)?.rings.context("sysfs shows no open rings")?;
            ensure!(rings.outgoing.write_index == 0, "the outgoing ring of a new channel is at {:?}", rings.outgoing);
            let start = Instant::now();
            channel.close()?;
            closing += start.elapsed();
            Ok(())
        };
        open().with_context(|| format!("open number {time}"))?;
    }
    let counters = vmbus.counters()?;
    ensure!(counters.open == 0 && counters.gpadls == 0, "something is left: {counters:?}");
    vmbus.shutdown()?;
    let (opening, closing) = (opening.as_millis(), closing.as_millis());
    say(&json!({ "event": "end", "opened": args.times, "opening_ms": opening, "closing_ms": closing }))?;
    Ok(ExitCode::SUCCESS)
}
