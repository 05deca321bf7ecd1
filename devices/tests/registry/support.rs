//! Drivers made of closures, and a log of what was called: shared by the tests of the registry.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus_channels::{Announcement, ChannelId, Offer};
use vmbus_devices::Error;
use vmbus_devices::registry::mutation::Mutation;
use vmbus_devices::registry::{Context, DeviceIds, DeviceState, Driver, Instance, Reason, Registry, Settings};

/// How long something may take that must happen. A test that waits that long has failed.
pub(crate) const FOREVER: Duration = Duration::from_secs(30);
/// How long a hang is watched before it is believed.
pub(crate) const HANG: Duration = Duration::from_millis(300);

/// What was called, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn say(&self, what: impl Into<String>) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(what.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self, start: &str) -> usize {
        self.lines().iter().filter(|line| line.starts_with(start)).count()
    }
}

/// Device `number`, arrived for the `generation`th time.
pub(crate) fn offer(number: u32, generation: u32) -> Offer {
    Offer::made_up(ChannelId::made_up(number, generation), Class::KVP, Uuid::from_u128(u128::from(number)))
}

pub(crate) fn arrived(number: u32, generation: u32) -> Announcement {
    Announcement::Arrived(offer(number, generation))
}

pub(crate) fn departed(number: u32, generation: u32) -> Announcement {
    Announcement::Departed(offer(number, generation))
}

type Probe = dyn Fn(&Context) -> Result<(), Error> + Send + Sync;
type Remove = dyn Fn(&Context, Reason) + Send + Sync;

/// A driver of [`Class::KVP`] that logs, and does what it is told.
pub(crate) struct Double {
    name: &'static str,
    ids: DeviceIds,
    log: Log,
    probe: Box<Probe>,
    remove: Arc<Remove>,
}

impl Double {
    pub(crate) fn new(name: &'static str, log: &Log) -> Self {
        let ids = DeviceIds::class(Class::KVP);
        Self { name, ids, log: log.clone(), probe: Box::new(|_| Ok(())), remove: Arc::new(|_, _| {}) }
    }

    pub(crate) fn ids(mut self, ids: DeviceIds) -> Self {
        self.ids = ids;
        self
    }

    pub(crate) fn probe(mut self, probe: impl Fn(&Context) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        self.probe = Box::new(probe);
        self
    }

    pub(crate) fn remove(mut self, remove: impl Fn(&Context, Reason) + Send + Sync + 'static) -> Self {
        self.remove = Arc::new(remove);
        self
    }
}

impl Driver for Double {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn ids(&self) -> DeviceIds {
        self.ids.clone()
    }

    fn probe(&self, context: &Context, offer: Offer) -> Result<Box<dyn Instance>, Error> {
        self.log.say(format!("{} probe {}", self.name, offer.id));
        (self.probe)(context)?;
        let (name, log, remove) = (self.name, self.log.clone(), Arc::clone(&self.remove));
        Ok(Box::new(DoubleInstance { name, log, remove, context: context.clone() }))
    }
}

struct DoubleInstance {
    name: &'static str,
    log: Log,
    remove: Arc<Remove>,
    context: Context,
}

impl Instance for DoubleInstance {
    fn remove(self: Box<Self>, reason: Reason) {
        (self.remove)(&self.context, reason);
        self.log.say(format!("{} removed {} {reason:?}", self.name, self.context.offer().id));
    }
}

pub(crate) fn start(workers: usize, without: Option<Mutation>) -> Registry {
    Registry::by_hand(Settings { workers }, without).unwrap()
}

pub(crate) fn state(registry: &Registry, number: u32, generation: u32) -> Option<DeviceState> {
    let id = offer(number, generation).id;
    registry.devices().unwrap().iter().find(|device| device.channel == id).map(|device| device.state)
}

pub(crate) fn shared<T>(pair: (Sender<T>, Receiver<T>)) -> (Mutex<Sender<T>>, Mutex<Receiver<T>>) {
    (Mutex::new(pair.0), Mutex::new(pair.1))
}

pub(crate) fn until_removal(context: &Context) {
    while context.is_operable() {
        thread::yield_now();
    }
}
