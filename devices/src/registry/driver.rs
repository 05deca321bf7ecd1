//! What a driver is: which devices it wants, and the two calls it gets for each.

use uuid::Uuid;
use vmbus::class::Class;
use vmbus_channels::Offer;

use super::Context;
use crate::Error;

/// Something that drives devices of certain classes, or certain devices. One driver has any number of devices.
///
/// All calls run on workers of the registry. Those for one device never run at the same time; those for different
/// devices do. A callback that panics is contained and counted, and the device then counts as not driven.
pub trait Driver: Send + Sync + 'static {
    /// Its name, for listings and logs. Read once, at registration.
    fn name(&self) -> String;

    /// Which devices it wants. Read once, at registration.
    fn ids(&self) -> DeviceIds;

    /// Begins to drive a device that matches. It may open the channel, spawn work, and arm timers; these run after
    /// `probe` has returned a running instance, and never if it fails.
    ///
    /// It is called once for each arrival of a device: after a failure not again, unless [`Handle::reprobe`] asks for
    /// it. A device that departs meanwhile ([`Context::is_operable`] tells) is removed right after `probe` returned.
    ///
    /// # Errors
    /// Whatever keeps the driver from driving the device. The next driver that matches is asked then.
    ///
    /// [`Handle::reprobe`]: super::Handle::reprobe
    fn probe(&self, context: &Context, offer: Offer) -> Result<Box<dyn Instance>, Error>;
}

/// A device that is being driven.
pub trait Instance: Send + 'static {
    /// Ends it: closes the channel, and tells threads of its own to end. Before this call the registry has dropped all
    /// work that had not begun, has waited for what was running, also for each [`Use`](super::Use), and refuses
    /// everything new. After it the registry joins the [threads](Context::thread) of the instance. Then nothing of the
    /// driver runs for this device, and a device that comes back may be probed.
    fn remove(self: Box<Self>, reason: Reason);
}

/// Why an instance is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The device has departed: its channel is rescinded, or the bus suspended or lost.
    Rescinded,
    /// The driver is being unregistered; the device is there.
    Unregistered,
    /// The registry is being shut down; the device is there.
    Shutdown,
    /// A callback or a thread of the instance panicked; the device is there.
    Panicked,
    /// The instance itself said that it can't go on: [`Context::give_up`]. The device is there.
    GaveUp,
}

/// Which devices a driver wants: classes, instances, or both. Only primary channels match; a device's subchannels
/// belong to whoever drives the device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceIds {
    classes: Vec<Class>,
    instances: Vec<Uuid>,
}

impl DeviceIds {
    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self { classes: Vec::new(), instances: Vec::new() }
    }

    /// All devices of a class.
    #[must_use]
    pub fn class(class: Class) -> Self {
        Self::none().and_class(class)
    }

    /// One device.
    #[must_use]
    pub fn instance(instance: Uuid) -> Self {
        Self::none().and_instance(instance)
    }

    /// And all devices of a class.
    #[must_use]
    pub fn and_class(mut self, class: Class) -> Self {
        self.classes.push(class);
        self
    }

    /// And one device.
    #[must_use]
    pub fn and_instance(mut self, instance: Uuid) -> Self {
        self.instances.push(instance);
        self
    }

    /// Whether an offered channel is one of these.
    #[must_use]
    pub fn matches(&self, offer: &Offer) -> bool {
        is_primary(offer) && (self.classes.contains(&offer.class) || self.instances.contains(&offer.instance))
    }
}

/// Whether a channel is a device's first.
pub(super) fn is_primary(offer: &Offer) -> bool {
    offer.subchannel_index == 0 && offer.primary.is_none()
}
