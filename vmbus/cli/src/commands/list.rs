//! `vmbusctl list`: the devices on the bus, as a table, as JSON, or as lsvmbus prints them.

use std::io::Write;

use serde::Serialize;
use vmbus::sysfs::{Broken, Channel, Device};

use super::describe::{Described, bytes};
use super::{lsvmbus, offers};
use crate::args::{Format, List};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, BOLD, DIM};
use crate::table::{Columns, or_dash};

/// The shape of `list --json`.
#[derive(Serialize)]
struct Listing<'a> {
    devices: Vec<Described<'a>>,
    /// Devices whose files could not be read, with the reason.
    broken: &'a [Broken],
}

pub(crate) fn run(context: &Context, args: &List) -> anyhow::Result<Exit> {
    if let Some(link) = &args.link {
        return offers::run(context, link);
    }
    let scan = context.bus.scan()?;
    if context.json {
        let devices = scan.devices.iter().map(Described::new).collect();
        output::json(&Listing { devices, broken: &scan.broken })?;
        return Ok(Exit::Ok);
    }
    match (args.format, args.verbose) {
        (Format::Lsvmbus, verbose) => lsvmbus::print(&scan.devices, verbose)?,
        (Format::Table, 0) => brief(&scan.devices)?,
        (Format::Table, 1) => wide(&scan.devices)?,
        (Format::Table, _) => scan.devices.iter().try_for_each(everything)?,
    }
    if args.format == Format::Table {
        scan.broken.iter().try_for_each(warn)?;
    }
    if scan.devices.is_empty() && scan.broken.is_empty() && args.format == Format::Table && !context.quiet {
        output::line("VMBus is there, but the host offers no devices on it.")?;
    }
    Ok(Exit::Ok)
}

/// A device that cannot be shown is not passed over in silence.
fn warn(broken: &Broken) -> anyhow::Result<()> {
    Ok(writeln!(anstream::stderr(), "vmbusctl: warning: device {} is left out: {}", broken.name, broken.error)?)
}

fn brief(devices: &[Device]) -> anyhow::Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut table = Columns::new(&["RELID", "CLASS", "DESCRIPTION", "DRIVER", "NODE"]);
    for device in devices {
        table.row([
            device.relid.to_string(),
            or_dash(device.class.short_name()),
            device.class.title().to_owned(),
            or_dash(device.driver.as_deref()),
            node(device),
        ]);
    }
    table.print(0)
}

fn wide(devices: &[Device]) -> anyhow::Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut table = Columns::new(&["RELID", "CLASS", "INSTANCE", "DRIVER", "NODE", "STATE", "MONITOR", "CHANNELS"]);
    for device in devices {
        table.row([
            device.relid.to_string(),
            device.class.short_name().map_or_else(|| device.class.to_string(), str::to_owned),
            device.instance.to_string(),
            or_dash(device.driver.as_deref()),
            node(device),
            or_dash(device.state),
            or_dash(device.monitor_id),
            device.channels.len().to_string(),
        ]);
    }
    table.print(0)
}

fn everything(device: &Device) -> anyhow::Result<()> {
    let class = device.class.short_name().unwrap_or("device");
    output::line(format!("{BOLD}{} {class}{BOLD:#} {}", device.relid, device.class.title()))?;
    for (key, value) in facts(device) {
        output::line(format!("  {DIM}{key:<10}{DIM:#} {value}"))?;
    }
    if !device.channels.is_empty() {
        channels(&device.channels)?;
    }
    Ok(())
}

/// What sysfs says about a device, in the order in which people ask for it.
pub(super) fn facts(device: &Device) -> Vec<(&'static str, String)> {
    let hex = |number: Option<u32>| number.map(|number| format!("{number:#06x}"));
    let numa = match device.numa_node {
        Some(node) if node >= 0 => node.to_string(),
        _ => "any".to_owned(),
    };
    let mut facts = vec![
        ("instance", device.instance.to_string()),
        ("class", device.class.to_string()),
        ("driver", or_dash(device.driver.as_deref())),
        ("node", node(device)),
        ("state", or_dash(device.state)),
        ("monitor", or_dash(device.monitor_id)),
        ("numa node", numa),
        ("vendor", format!("{}, product {}", or_dash(hex(device.vendor_id)), or_dash(hex(device.product_id)))),
        ("sysfs", device.path.display().to_string()),
    ];
    if let Some(driver) = &device.driver_override {
        facts.insert(3, ("only for", driver.clone()));
    }
    facts
}

/// The table of a device's channels.
pub(super) fn channels(channels: &[Channel]) -> anyhow::Result<()> {
    let header = ["CHANNEL", "INDEX", "CPU", "MONITOR", "RING FILE", "TO READ", "FREE", "INTERRUPTS", "SIGNALS"];
    let mut table = Columns::new(&header);
    for channel in channels {
        table.row([
            channel.relid.to_string(),
            channel.subchannel_index.to_string(),
            channel.cpu.to_string(),
            or_dash(channel.monitor_id),
            or_dash(channel.ring.as_ref().map(|ring| bytes(ring.bytes))),
            or_dash(channel.fill.map(|fill| fill.readable_bytes)),
            or_dash(channel.fill.map(|fill| fill.writable_bytes)),
            or_dash(channel.counters.interrupts),
            or_dash(channel.counters.signals),
        ]);
    }
    table.print(2)
}

/// The device's node for user space.
pub(super) fn node(device: &Device) -> String {
    or_dash(device.uio.as_ref().map(|uio| format!("/dev/{uio}")))
}
