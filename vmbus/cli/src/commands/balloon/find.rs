//! The device that is to be driven, as soon as user space has it and the bus offers it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use vmbus::Error;
use vmbus::bind::UIO_DRIVER;
use vmbus::class::Class;
use vmbus::sysfs::Device;
use vmbus_channels::{Announcement, Offer, Vmbus};

use crate::context::Context;

/// What is bound is offered within this time, should it not be yet.
const PATIENCE: Duration = Duration::from_secs(1);
/// Not every change that matters here is one of the bus: a second device may make the selector ambiguous.
const LOOK: Duration = Duration::from_millis(500);

/// Says what is wrong with a device that should be with user space already.
pub(super) fn expect_ready(context: &Context, selector: &str) -> Result<(), Error> {
    let device = context.bus.find(selector)?;
    if device.class != Class::DYNAMIC_MEMORY {
        let why = format!(
            "names a device of class {}; this driver is for {}",
            device.class.title(),
            Class::DYNAMIC_MEMORY.title()
        );
        return Err(Error::Selector { selector: selector.to_owned(), why });
    }
    if device.uio.is_some() { Ok(()) } else { Err(not_in_user_space(&device, selector)) }
}

/// The offer of the device, with the device and its node.
pub(super) fn offered(
    context: &Context,
    vmbus: &Vmbus,
    selector: &str,
    wait: Option<u64>,
) -> anyhow::Result<(Offer, Device, PathBuf)> {
    let timeout = wait.map_or(PATIENCE, Duration::from_secs);
    let start = Instant::now();
    let mut arrivals = vmbus.subscribe()?;
    loop {
        let found = context.bus.look_for_uio(selector, timeout);
        if let Ok((device, node)) = &found
            && let Ok(offer) = vmbus.find(device.instance)
        {
            return Ok((offer, device.clone(), node.clone()));
        }
        let left = timeout.saturating_sub(start.elapsed());
        match found {
            Err(error @ Error::Timeout { .. }) if left.is_zero() => return Err(error.into()),
            Err(error) if !matches!(error, Error::Timeout { .. }) => return Err(error.into()),
            // Bound, and not offered: somebody unbinds it just now, or another driver of this process has it.
            Ok((device, _)) if left.is_zero() => return Err(Error::Rescinded { device: device.name }.into()),
            _ => {}
        }
        // Until something arrives; what has departed is not waited for.
        let mut heard = arrivals.next(Some(left.min(LOOK)));
        while let Ok(Some(Announcement::Departed(_) | Announcement::AllArrived)) = heard {
            heard = arrivals.next(Some(Duration::ZERO));
        }
        match heard {
            Err(vmbus_channels::Error::Lagged) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
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
