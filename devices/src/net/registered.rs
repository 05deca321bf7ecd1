//! Network adapters as a driver of the registry: each is served on a thread of its own until it is removed.

use super::{Adapter, Settings};
use crate::Error;
use crate::registry::{Context, DeviceIds, Driver, Instance, Reason};
use std::sync::Arc;
use vmbus::class::Class;
use vmbus_channels::{Offer, Waker};

type Serve = dyn Fn(&Context, Adapter) -> Result<(), Error> + Send + Sync;

/// Drives every network adapter.
///
/// When the device departs or the driver is unregistered, the waker of the adapter's first queue is used: then `serve` is
/// to close the adapter and to return, after threads of its own for other queues have ended.
pub struct NetworkDriver {
    settings: Settings,
    serve: Arc<Serve>,
}

impl NetworkDriver {
    /// A driver that opens each adapter and has it served by `serve`, on a thread of the instance. If that returns an
    /// error, the instance gives up.
    #[must_use]
    pub fn new(
        settings: Settings,
        serve: impl Fn(&Context, Adapter) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        Self { settings, serve: Arc::new(serve) }
    }
}

impl std::fmt::Debug for NetworkDriver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NetworkDriver").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Driver for NetworkDriver {
    fn name(&self) -> String {
        "network".to_owned()
    }

    fn ids(&self) -> DeviceIds {
        DeviceIds::class(Class::NIC)
    }

    fn probe(&self, context: &Context, offer: Offer) -> Result<Box<dyn Instance>, Error> {
        let mut adapter = Adapter::open(context.vmbus()?, &offer, self.settings.clone())?;
        let (waker, serve) = (adapter.queue().waker(), Arc::clone(&self.serve));
        context.thread("network", move |context| match serve(context, adapter) {
            Ok(()) => log::info!(target: "vmbus::net", "device {}: ended", context.offer().instance),
            // A device that has departed is being removed, or will be: refused then.
            Err(error) => context.give_up(&error),
        })?;
        Ok(Box::new(Running { waker }))
    }
}

/// An adapter on a thread. The registry joins the thread after `remove`.
struct Running {
    waker: Waker,
}

impl Instance for Running {
    fn remove(self: Box<Self>, _: Reason) {
        self.waker.wake();
    }
}
