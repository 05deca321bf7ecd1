//! `vmbusctl list --link`: what a host offers over the wire link, without the kernel in between.

use anyhow::Context as _;
use serde::Serialize;
use vmbus_channels::{Counters, Offer, Vmbus};
use vmbus_simhost::Config;

use crate::context::Context;
use crate::exit::Exit;
use crate::link::Link;
use crate::output;
use crate::simulated::{self, Simulated};
use crate::table::{Columns, or_dash};

/// The shape of `list --link --json`.
#[derive(Serialize)]
struct Listing {
    version: String,
    offers: Vec<Offered>,
    counters: Counters,
}

#[derive(Serialize)]
struct Offered {
    relid: u32,
    class: String,
    title: &'static str,
    instance: String,
    subchannel_index: u16,
    monitor_id: Option<u8>,
    connection_id: u32,
    flags: u16,
}

impl Offered {
    fn new(offer: &Offer) -> Self {
        Self {
            relid: offer.relid,
            class: offer.class.0.to_string(),
            title: simulated::title(offer.class),
            instance: offer.instance.to_string(),
            subchannel_index: offer.subchannel_index,
            monitor_id: offer.monitor_id,
            connection_id: offer.connection_id,
            flags: offer.flags.bits(),
        }
    }
}

pub(super) fn run(context: &Context, link: &Link) -> anyhow::Result<Exit> {
    match link {
        Link::Sim => {
            let config = simulated::with_devices(Config::seeded(1), 1);
            let both = Simulated::start(config, simulated::processors())?;
            print(context, &both.bus)?;
            both.finish()?;
        }
        Link::Path(path) => {
            let bus = simulated::connect(path)?;
            print(context, &bus)?;
            bus.shutdown().context("the host did not say goodbye")?;
        }
    }
    Ok(Exit::Ok)
}

fn print(context: &Context, bus: &Vmbus) -> anyhow::Result<()> {
    let offers: Vec<_> = bus.offers()?.iter().map(Offered::new).collect();
    if context.json {
        return output::json(&Listing { version: bus.version()?.to_string(), offers, counters: bus.counters()? });
    }
    let mut table = Columns::new(&["RELID", "INDEX", "DESCRIPTION", "CLASS", "INSTANCE", "MONITOR"]);
    for offer in offers {
        table.row([
            offer.relid.to_string(),
            offer.subchannel_index.to_string(),
            offer.title.to_owned(),
            offer.class,
            offer.instance,
            or_dash(offer.monitor_id),
        ]);
    }
    table.print(0)
}
