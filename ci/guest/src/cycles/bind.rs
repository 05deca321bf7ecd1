//! Who binds a new offer to `uio_hv_generic`: the kernel, told once by class; this program, each device anew; or nobody.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde_json::{Value, json};
use vmbus::bind::{BindOptions, Binder, UIO_DRIVER};
use vmbus::class::Class;
use vmbus::sysfs::Bus;
use vmbus_channels::Offer;

use crate::bus::{Selector, Watch};

/// Between two looks for devices that nobody has bound.
const LOOK: Duration = Duration::from_millis(5);
/// File exists: the class is known to the driver already.
const EEXIST: i32 = 17;

/// Who binds a new offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Bind {
    /// The kernel: the class is written to the driver's `new_id` once, and holds for all offers until the end.
    NewId,
    /// This program, by the library: each device's own `driver_override`, at each offer.
    Override,
    /// Somebody else, or nobody has to.
    None,
}

/// The way that was chosen.
#[derive(Debug)]
pub(super) struct Binding {
    by_hand: Option<(Bus, Binder, Class)>,
    /// The class that the driver did not know before.
    told: Option<Class>,
    bound: u32,
    /// The first binds that failed; a device that goes meanwhile is one.
    failed: Vec<String>,
}

impl Binding {
    /// # Errors
    /// The selector names no class; the driver does not take it.
    pub(super) fn begin(bind: Bind, selector: &Selector) -> anyhow::Result<Self> {
        let class = || selector.class().context("give a class to bind by it");
        let mut told = None;
        let by_hand = match bind {
            Bind::None => None,
            Bind::NewId => {
                let file = format!("/sys/bus/vmbus/drivers/{UIO_DRIVER}/new_id");
                match fs::write(&file, class()?.to_string()) {
                    Err(error) if error.raw_os_error() == Some(EEXIST) => {}
                    written => {
                        written.with_context(|| format!("write {file}"))?;
                        told = Some(class()?);
                    }
                }
                None
            }
            Bind::Override => {
                let bus = Bus::system();
                let binder = Binder::new(&bus, "/tmp/vmbus-lab-guest");
                Some((bus, binder, class()?))
            }
        };
        Ok(Self { by_hand, told, bound: 0, failed: Vec::new() })
    }

    /// Waits for the device, binding it where that is to be done here.
    ///
    /// # Errors
    /// It does not come in time.
    pub(super) fn arrival(&mut self, watch: &mut Watch, limit: Duration, selector: &Selector) -> anyhow::Result<Offer> {
        let start = Instant::now();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            let wait = if self.by_hand.is_some() { left.min(LOOK) } else { left };
            if let Some(offer) = watch.arrival(wait, |offer| selector.matches(offer))? {
                return Ok(offer);
            }
            if start.elapsed() >= limit {
                bail!("no device was offered and bound within {} s; failed binds: {:?}", limit.as_secs(), self.failed);
            }
            self.bind_all();
        }
    }

    /// Binds what has no driver.
    fn bind_all(&mut self) {
        let Some((bus, binder, class)) = &self.by_hand else { return };
        let Ok(devices) = bus.devices() else { return };
        for device in devices.iter().filter(|device| device.class == *class && device.driver.is_none()) {
            match binder.bind(device, BindOptions::default()) {
                Ok(_) => self.bound += 1,
                Err(error) if self.failed.len() < 8 => self.failed.push(error.to_string()),
                Err(_) => {}
            }
        }
    }

    /// Whoever comes next finds the driver as it was.
    ///
    /// # Errors
    /// The driver does not forget the class.
    pub(super) fn end(self) -> anyhow::Result<()> {
        let Some(class) = self.told else { return Ok(()) };
        let file = format!("/sys/bus/vmbus/drivers/{UIO_DRIVER}/remove_id");
        fs::write(&file, class.to_string()).with_context(|| format!("write {file}"))
    }

    pub(super) fn tally(&self) -> Value {
        json!({ "bound": self.bound, "failed": self.failed })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_that_is_there_is_what_the_number_says() {
        let error = std::io::Error::from_raw_os_error(super::EEXIST);
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    }
}
