//! `vmbusctl status`: the bus, or one device in depth.

use serde::Serialize;
use vmbus::doctor::{Facts, Module};
use vmbus::holders::{self, Holder};
use vmbus::kernel::Kernel;
use vmbus::sysfs::{Device, RingIndices};
use vmbus::uio::{self, Map};

use super::bind::in_user_space;
use super::describe::{Described, name};
use super::list;
use crate::args::Status;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, BOLD, DIM};
use crate::table::{Columns, or_dash};

/// The shape of `status --json`.
#[derive(Serialize)]
struct BusStatus<'a> {
    kernel: &'a Kernel,
    /// As the kernel logged it when it connected; null where the log may not be read or is too old.
    vmbus_version: Option<&'a str>,
    modules: Modules,
    device_count: usize,
    /// The devices that user space has.
    bound: Vec<DeviceStatus<'a>>,
    /// Devices that the journal says were taken and not given back.
    journal: &'a [String],
}

#[derive(Serialize)]
struct Modules {
    hv_vmbus: Module,
    uio_hv_generic: Module,
}

/// The shape of `status --json DEVICE`.
#[derive(Serialize)]
struct DeviceStatus<'a> {
    #[serde(flatten)]
    device: Described<'a>,
    /// Whether the journal says that the device was taken and not given back.
    journalled: bool,
    /// The processes that have the device's node open, as far as this process may see.
    holders: Vec<Holder>,
    /// What the device's node offers to map.
    maps: Vec<Map>,
}

pub(crate) fn run(context: &Context, args: &Status) -> anyhow::Result<Exit> {
    // A journal that cannot be read must not keep anybody from seeing the bus.
    let pending = context.binder().pending().unwrap_or_else(|error| {
        log::warn!("the journal is left out: {error}");
        Vec::new()
    });
    match &args.device {
        Some(selector) => one(context, &context.bus.find(selector)?, &pending)?,
        None => all(context, &pending)?,
    }
    Ok(Exit::Ok)
}

fn look<'a>(context: &Context, device: &'a Device, pending: &[String]) -> DeviceStatus<'a> {
    // What can't be read is left out, and said: the rest of the picture is still worth having.
    let holders = holders::of(&context.bus, device).unwrap_or_else(left_out);
    let maps = uio::maps(device).unwrap_or_else(left_out);
    DeviceStatus { device: Described::new(device), journalled: pending.contains(&device.name), holders, maps }
}

fn left_out<T>(error: vmbus::Error) -> Vec<T> {
    log::warn!("left out: {error}");
    Vec::new()
}

fn all(context: &Context, pending: &[String]) -> anyhow::Result<()> {
    let devices = context.bus.devices()?;
    let facts = Facts::gather(&context.bus);
    let bound: Vec<&Device> = devices.iter().filter(|device| in_user_space(device)).collect();
    if context.json {
        return output::json(&BusStatus {
            kernel: &facts.kernel,
            vmbus_version: facts.bus_version(),
            modules: Modules { hv_vmbus: facts.bus_module, uio_hv_generic: facts.uio_module },
            device_count: devices.len(),
            bound: bound.iter().map(|device| look(context, device, pending)).collect(),
            journal: pending,
        });
    }
    let pair = |key: &str, value: &str| output::line(format!("{DIM}{key:<15}{DIM:#} {value}"));
    pair("kernel", &facts.kernel.to_string())?;
    pair("vmbus version", facts.bus_version().unwrap_or("unknown (the kernel's log does not say)"))?;
    pair("hv_vmbus", facts.bus_module.word())?;
    pair("uio_hv_generic", facts.uio_module.word())?;
    pair("devices", &format!("{}, {} in user space", devices.len(), bound.len()))?;
    if !pending.is_empty() {
        pair("journal", &format!("{} (`vmbusctl restore --all` gives them back)", pending.join(", ")))?;
    }
    if !bound.is_empty() {
        let mut table = Columns::new(&["RELID", "CLASS", "NODE", "HELD BY"]);
        for device in bound {
            let status = look(context, device, pending);
            table.row([
                device.relid.to_string(),
                or_dash(device.class.short_name()),
                list::node(device),
                held_by(&status),
            ]);
        }
        table.print(0)?;
    }
    Ok(())
}

fn one(context: &Context, device: &Device, pending: &[String]) -> anyhow::Result<()> {
    let status = look(context, device, pending);
    if context.json {
        return output::json(&status);
    }
    output::line(format!("{BOLD}{}{BOLD:#} {}", name(device), device.class.title()))?;
    let pair = |key: &str, value: &str| output::line(format!("  {DIM}{key:<10}{DIM:#} {value}"));
    for (key, value) in list::facts(device) {
        match key {
            "monitor" => pair(key, &monitor(device))?,
            _ => pair(key, &value)?,
        }
        if key == "node" && device.uio.is_some() {
            pair("held by", &held_by(&status))?;
        }
    }
    pair(
        "journal",
        if status.journalled { "taken from its driver; `vmbusctl unbind` gives it back" } else { "no entry" },
    )?;
    for map in &status.maps {
        pair("map", &format!("{} {}, {:#x} bytes", map.index, map.name, map.bytes))?;
    }
    if let Some(rings) = &device.rings {
        rings_table(&rings.outgoing, &rings.incoming)?;
    }
    if !device.channels.is_empty() {
        list::channels(&device.channels)?;
    }
    Ok(())
}

fn rings_table(outgoing: &RingIndices, incoming: &RingIndices) -> anyhow::Result<()> {
    let mut table = Columns::new(&["RING", "READ AT", "WRITE AT", "TO READ", "FREE", "INTERRUPTS"]);
    for (name, ring) in [("outgoing", outgoing), ("incoming", incoming)] {
        table.row([
            name.to_owned(),
            ring.read_index.to_string(),
            ring.write_index.to_string(),
            ring.readable_bytes.to_string(),
            ring.writable_bytes.to_string(),
            if ring.interrupt_mask == 0 { "on" } else { "masked" }.to_owned(),
        ]);
    }
    table.print(2)
}

fn monitor(device: &Device) -> String {
    match (device.monitor_id, device.primary()) {
        (None, _) => "none: the host is signalled by a write to the node".to_owned(),
        (Some(id), channel) => {
            let latency = channel.and_then(|channel| channel.monitor_latency);
            let pending = channel.and_then(|channel| channel.monitor_pending);
            format!(
                "bit {id}, polled every {} us, pending bits of its group {}",
                or_dash(latency.map(|units| units / 10)),
                or_dash(pending.map(|bits| format!("{bits:#x}")))
            )
        }
    }
}

fn held_by(status: &DeviceStatus<'_>) -> String {
    if status.holders.is_empty() {
        return "nobody that this process can see".to_owned();
    }
    status.holders.iter().map(|holder| format!("{} ({})", holder.pid, holder.command)).collect::<Vec<_>>().join(", ")
}
