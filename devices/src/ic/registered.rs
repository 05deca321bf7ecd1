//! Integration components as drivers of the registry: each device is served on a thread of its own until it is removed.

use std::sync::Arc;

use vmbus::class::Class;
use vmbus_channels::Offer;

use super::component::Component;
use super::event::Event;
use super::service::{Service, Settings};
use crate::Error;
use crate::registry::{Context, DeviceIds, Driver, Instance, Reason};

type Observer = dyn Fn(&Offer, &Event) + Send + Sync;
type Maker = dyn Fn() -> Result<Box<dyn Component>, Error> + Send + Sync;

/// Drives every device of one component's class (a virtual machine has one of each).
pub struct ComponentDriver {
    name: &'static str,
    class: Class,
    make: Box<Maker>,
    settings: Settings,
    observer: Arc<Observer>,
}

impl ComponentDriver {
    /// A driver that makes a component with `make` for each device that comes, and tells `observer` of all that happens,
    /// on the thread of the device. The observer must not wait for the registry; `unregister` is refused there.
    #[must_use]
    pub fn new(
        name: &'static str,
        class: Class,
        make: impl Fn() -> Result<Box<dyn Component>, Error> + Send + Sync + 'static,
        settings: Settings,
        observer: impl Fn(&Offer, &Event) + Send + Sync + 'static,
    ) -> Self {
        Self { name, class, make: Box::new(make), settings, observer: Arc::new(observer) }
    }
}

impl std::fmt::Debug for ComponentDriver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ComponentDriver").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Driver for ComponentDriver {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn ids(&self) -> DeviceIds {
        DeviceIds::class(self.class)
    }

    fn probe(&self, context: &Context, offer: Offer) -> Result<Box<dyn Instance>, Error> {
        let service = Service::open(context.vmbus()?, &offer, (self.make)()?, self.settings)?;
        let (waker, observer) = (service.waker(), Arc::clone(&self.observer));
        context.thread(self.name, move |context| match service.run(|event| observer(context.offer(), event)) {
            Ok(summary) => {
                log::info!(target: "vmbus::ic", "device {}: ended, {summary:?}", context.offer().instance);
            }
            // A device that has departed is being removed, or will be: refused then.
            Err(error) => context.give_up(&error),
        })?;
        Ok(Box::new(Running(waker)))
    }
}

/// A service on a thread. The registry joins the thread after `remove`.
struct Running(vmbus_channels::Waker);

impl Instance for Running {
    fn remove(self: Box<Self>, _: Reason) {
        self.0.wake();
    }
}
