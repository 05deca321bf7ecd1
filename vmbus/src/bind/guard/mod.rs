//! What must not be done to a device: taking the machine's network or disk away, and unbinding what is in use.

mod disk;
mod network;

use std::path::Path;

use crate::Error;
use crate::holders;
use crate::sysfs::{Bus, Device};

/// Refuses a device that the machine would miss. The caller skips this when the user insists.
pub(super) fn refuse(bus: &Bus, device: &Device) -> Result<(), Error> {
    let why = match network::carries_default_route(bus, device)? {
        Some(how) => Some(format!("it carries the default route ({how}), and this machine would lose its network")),
        None => disk::holds_file_system(bus, device)?,
    };
    let Some(why) = why else { return Ok(()) };
    let why = format!("{why}; use --force if that is what you want");
    Err(Error::Refused { device: device.name.clone(), why })
}

/// Refuses a device that is bound to UIO while a process has its node or its rings.
///
/// There is no way to insist: the kernel frees the rings when the device is unbound, and the process would go on
/// writing to memory that belongs to somebody else by then.
pub(super) fn refuse_if_held(bus: &Bus, device: &Device) -> Result<(), Error> {
    let holders = holders::of(bus, device)?;
    if holders.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = holders.iter().map(ToString::to_string).collect();
    let why = format!(
        "{} holds it open; unbinding it now would free memory that is still in use: end that process first",
        list.join(", ")
    );
    Err(Error::Busy { device: device.name.clone(), why })
}

/// Whether `path`, once its symbolic links are followed, lies in the device's own folder.
///
/// What can't be resolved is on its way out, and then not the device's any more.
fn is_below(bus: &Bus, path: &Path, device: &Device) -> bool {
    match (bus.resolve(path), bus.resolve(&device.path)) {
        (Ok(path), Ok(folder)) => path.starts_with(folder),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
