//! `vmbusctl balloon`: the Dynamic Memory driver in the foreground.

mod event;
mod signals;
mod teller;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use vmbus::Error;
use vmbus::bind::UIO_DRIVER;
use vmbus::class::Class;
use vmbus::sysfs::Device;
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
    let (device, node) = find(context, args, &teller)?;
    let floor_pages = args.floor_mib.unwrap_or(0).saturating_mul(PAGES_PER_MIB);
    let driver = balloon::Balloon::open(&context.bus, &device, Settings { floor_pages, ..Settings::default() })?;
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
    served.with_context(|| format!("the balloon driver of {} ended", name(&device)))?;
    told?;
    log::debug!("ended by {}", if stop.asked() { "a signal" } else { "a closed output" });
    Ok(Exit::Ok)
}

/// The device and its node, as soon as user space has it.
fn find(context: &Context, args: &Balloon, teller: &Teller) -> anyhow::Result<(Device, PathBuf)> {
    if let Some(seconds) = args.wait {
        teller.tell(&Event::Waiting { selector: args.device.clone() })?;
        return Ok(context.bus.wait_for_uio(&args.device, Duration::from_secs(seconds))?);
    }
    let device = context.bus.find(&args.device)?;
    if device.class != Class::DYNAMIC_MEMORY {
        let why = format!(
            "names a device of class {}; this driver is for {}",
            device.class.title(),
            Class::DYNAMIC_MEMORY.title()
        );
        return Err(Error::Selector { selector: args.device.clone(), why }.into());
    }
    match &device.uio {
        Some(uio) => {
            let node = context.bus.path("dev").join(uio);
            Ok((device, node))
        }
        None => Err(not_in_user_space(&device, &args.device).into()),
    }
}

fn not_in_user_space(device: &Device, selector: &str) -> Error {
    let what = match device.driver.as_deref() {
        Some(UIO_DRIVER) => format!("{UIO_DRIVER} has it, but made no node for it"),
        Some(driver) => format!("the kernel's driver {driver} has it"),
        None => "no driver has it".to_owned(),
    };
    let hint = match device.driver.as_deref() {
        Some(UIO_DRIVER) => "`vmbusctl doctor` may know why".to_owned(),
        _ => format!("run `vmbusctl bind {selector}` first, or wait for somebody else to do it with --wait SECONDS"),
    };
    Error::Unsupported { device: device.name.clone(), what, hint }
}
