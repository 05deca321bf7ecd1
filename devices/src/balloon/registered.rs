//! Dynamic Memory as a driver of the registry: each device is served on a thread of its own until it is removed.

use std::path::PathBuf;

use vmbus::class::Class;
use vmbus::memory::Pinner;
use vmbus_channels::{Offer, OpenOptions};

use super::driver::Balloon;
use super::{Event, Settings, Summary};
use crate::Error;
use crate::registry::{Context, DeviceIds, Driver, Instance, Reason};

type Observer = dyn Fn(&Offer, &Event) + Send + Sync;

/// Drives every Dynamic Memory device (a virtual machine has one).
///
/// When it is unregistered the channel closes first, then the pages go back into use: see [`Balloon::run`]. If the
/// loop ends by itself, as the host broke the protocol or will not agree, the instance gives up.
pub struct BalloonDriver {
    settings: Settings,
    meminfo: PathBuf,
    observer: std::sync::Arc<Observer>,
}

impl BalloonDriver {
    /// A driver that tells `observer` of all that happens, on the thread of the device. The observer must not wait for
    /// the registry; `unregister` is refused there.
    #[must_use]
    pub fn new(settings: Settings, observer: impl Fn(&Offer, &Event) + Send + Sync + 'static) -> Self {
        Self { settings, meminfo: PathBuf::from("/proc/meminfo"), observer: std::sync::Arc::new(observer) }
    }
}

impl std::fmt::Debug for BalloonDriver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BalloonDriver").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Driver for BalloonDriver {
    fn name(&self) -> String {
        "balloon".to_owned()
    }

    fn ids(&self) -> DeviceIds {
        DeviceIds::class(Class::DYNAMIC_MEMORY)
    }

    fn probe(&self, context: &Context, offer: Offer) -> Result<Box<dyn Instance>, Error> {
        // Before the channel, so that the pins are older: a killed process closes its channel first.
        let pinner = Pinner::open()?;
        let channel = context.vmbus()?.open(offer.id, OpenOptions::default())?;
        let balloon = Balloon::over(channel, pinner, self.meminfo.clone(), self.settings);
        let (waker, observer) = (balloon.waker(), std::sync::Arc::clone(&self.observer));
        serve(context, move || waker.wake(), move |context| balloon.run(|event| observer(context.offer(), event)))
    }
}

/// Runs the loop on a thread of the instance; `stop` ends it.
fn serve(
    context: &Context,
    stop: impl FnOnce() + Send + 'static,
    run: impl FnOnce(&Context) -> Result<Summary, Error> + Send + 'static,
) -> Result<Box<dyn Instance>, Error> {
    context.thread("balloon", move |context| match run(context) {
        Ok(summary) => {
            log::info!(target: "vmbus::balloon", "device {}: ended, {summary:?}", context.offer().instance);
        }
        // A device that has departed is being removed, or will be: refused then.
        Err(error) => context.give_up(&error),
    })?;
    Ok(Box::new(Running { stop: Some(stop) }))
}

/// A loop on a thread. The registry joins the thread after `remove`.
struct Running<S> {
    stop: Option<S>,
}

impl<S: FnOnce() + Send + 'static> Instance for Running<S> {
    fn remove(mut self: Box<Self>, _: Reason) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}

#[cfg(test)]
mod tests;
