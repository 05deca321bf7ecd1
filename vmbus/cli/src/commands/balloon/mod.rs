//! `vmbusctl balloon`: the Dynamic Memory driver in the foreground.

mod event;
mod find;
mod signals;
mod teller;

use anyhow::Context as _;
use vmbus::uio::BusLink;
use vmbus_channels::Vmbus;
use vmbus_devices::balloon::{self, Settings};

use self::event::Event;
use self::signals::Stop;
use self::teller::Teller;
use super::describe::name;
use crate::args::Balloon;
use crate::context::Context;
use crate::exit::Exit;

/// Dynamic Memory's pages in a MiB: they have 4 KiB whatever the system's pages have.
const PAGES_PER_MIB: u64 = 256;

pub(crate) fn run(context: &Context, args: &Balloon) -> anyhow::Result<Exit> {
    let mut teller = Teller::new(context);
    let stop = Stop::install()?;
    match args.wait {
        Some(_) => teller.tell(&Event::Waiting { selector: args.device.clone() })?,
        None => find::expect_ready(context, &args.device)?,
    }
    let vmbus = Vmbus::start(Box::new(BusLink::new(context.bus.clone())?), vmbus_channels::Settings::default())?;
    let (offer, device, node) = find::offered(context, &vmbus, &args.device, args.wait)?;
    let floor_pages = args.floor_mib.unwrap_or(0).saturating_mul(PAGES_PER_MIB);
    let settings = Settings { floor_pages, ..Settings::default() };
    let driver = balloon::Balloon::open(&vmbus, &offer, &context.bus, settings)?;
    let waker = driver.waker();
    stop.wakes(waker.clone());
    teller.tell(&Event::Opened { device: name(&device), node: node.display().to_string() })?;

    // Printing may fail at any time (nobody reads any more); that ends the driver as cleanly as a signal does.
    let mut told = Ok(());
    let served = driver.run(|event| {
        teller.alive();
        if told.is_ok() {
            told = teller.tell(&Event::from(event));
            if told.is_err() {
                waker.wake();
            }
        }
    });
    let last = match &served {
        Err(error) if error.is_rescinded() => Some(Event::Rescinded),
        Err(_) => None,
        Ok(_) => Some(Event::Closed),
    };
    if told.is_ok()
        && let Some(last) = last
    {
        told = teller.tell(&last);
    }
    teller.finish();
    let ended = vmbus.shutdown();
    served.with_context(|| format!("the balloon driver of {} ended", name(&device)))?;
    told?;
    ended?;
    log::debug!("ended by {}", if stop.asked() { "a signal" } else { "a closed output" });
    Ok(Exit::Ok)
}
