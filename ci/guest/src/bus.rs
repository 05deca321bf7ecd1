//! The bus as the programs of the guest see it: a device that is there or will come, and announcements in time.
//!
//! Nothing here asks which link is below: the same programs run over the kernel's and over the simulated host's.

use std::time::{Duration, Instant};

use anyhow::ensure;
use uuid::{Uuid, uuid};
use vmbus::class::Class;
use vmbus::sysfs::Bus;
use vmbus::uio::{BusLink, Options};
use vmbus_channels::{Announcement, Error, Offer, Settings, Subscription, Vmbus};

/// The class of the simulated host's echo devices, which the bus does not know.
pub(crate) const ECHO: Class = Class(uuid!("5f6563d0-686f-4e2b-9a41-3f2c0bd1e7a6"));

/// Connects to the kernel's bus.
pub(crate) fn connect(options: Options) -> anyhow::Result<Vmbus> {
    Ok(Vmbus::start(Box::new(BusLink::with_options(Bus::system(), options)?), Settings::default())?)
}

/// Which device of a bus is meant: a relid, an instance, a class by name or GUID, `echo`, or the name of a UIO device.
#[derive(Debug, Clone)]
pub(crate) struct Selector(String);

impl Selector {
    /// What a UIO device's name stands for is asked now, of the kernel.
    pub(crate) fn resolve(text: &str) -> anyhow::Result<Self> {
        let bare = text.trim_start_matches("/dev/");
        let name =
            if bare.starts_with("uio") { Bus::system().find(bare)?.instance.to_string() } else { bare.to_owned() };
        let selector = Self(name);
        let known =
            selector.0.parse::<u32>().is_ok() || Uuid::try_parse(&selector.0).is_ok() || selector.class().is_some();
        ensure!(known, "{text:?} is no relid, no GUID, no class and no UIO device");
        Ok(selector)
    }

    /// Whether a primary channel is of this device.
    pub(crate) fn matches(&self, offer: &Offer) -> bool {
        if offer.subchannel_index != 0 {
            return false;
        }
        match (self.0.parse::<u32>(), Uuid::try_parse(&self.0)) {
            (Ok(relid), _) => offer.relid == relid,
            (_, Ok(guid)) => offer.instance == guid || offer.class == Class(guid),
            _ => self.class().is_some_and(|class| class == offer.class),
        }
    }

    /// The class, where one is named.
    pub(crate) fn class(&self) -> Option<Class> {
        if self.0 == "echo" { Some(ECHO) } else { Class::parse(&self.0) }
    }
}

/// Announcements of one bus, and what to do when they do not come.
#[derive(Debug)]
pub(crate) struct Watch(Subscription);

impl Watch {
    /// From now on, what is present first.
    pub(crate) fn begin(vmbus: &Vmbus) -> Result<Self, Error> {
        Ok(Self(vmbus.subscribe()?))
    }

    /// The next channel to arrive that is wanted; `None` when none comes in time.
    pub(crate) fn arrival(&mut self, limit: Duration, wanted: impl Fn(&Offer) -> bool) -> Result<Option<Offer>, Error> {
        self.until(limit, |announcement| match announcement {
            Announcement::Arrived(offer) if wanted(&offer) => Some(offer),
            _ => None,
        })
    }

    /// Waits for the departure of a channel; whether it came in time.
    pub(crate) fn departure(&mut self, limit: Duration, of: &Offer) -> Result<bool, Error> {
        let gone =
            |announcement| matches!(announcement, Announcement::Departed(offer) if offer.id == of.id).then_some(());
        Ok(self.until(limit, gone)?.is_some())
    }

    /// Reads on until `found` has something to say about an announcement.
    pub(crate) fn until<T>(
        &mut self,
        limit: Duration,
        mut found: impl FnMut(Announcement) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let start = Instant::now();
        while let Some(announcement) = self.0.next(Some(limit.saturating_sub(start.elapsed())))? {
            if let Some(found) = found(announcement) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// The device that is meant, as soon as it is there.
///
/// # Errors
/// [`Error::NotFound`] when it does not come in time.
pub(crate) fn find(vmbus: &Vmbus, selector: &Selector, limit: Duration) -> Result<Offer, Error> {
    let found = Watch::begin(vmbus)?.arrival(limit, |offer| selector.matches(offer))?;
    found.ok_or_else(|| Error::NotFound(selector.0.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmbus_channels::ChannelId;

    #[test]
    fn a_device_is_selected_by_any_of_its_names() {
        let instance = uuid!("12345678-1234-1234-1234-123456789abc");
        let offer = Offer::made_up(ChannelId::made_up(0, 0), ECHO, instance);
        let matches = |text: &str| Selector::resolve(text).unwrap().matches(&offer);
        assert!(matches("echo") && matches("0") && matches(&instance.to_string()) && matches(&ECHO.to_string()));
        assert!(!matches("nic") && !matches("1") && !matches("22345678-1234-1234-1234-123456789abc"));
        assert!(Selector::resolve("ecko").is_err());
    }
}
