//! A driver that does everything a driver may, and an oracle that watches it: the scenario of the model check.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use uuid::Uuid;
use vmbus::class::Class;
use vmbus_channels::{Announcement, ChannelId, Offer};
use vmbus_devices::Error;
use vmbus_devices::registry::mutation::Mutation;
use vmbus_devices::registry::{
    Context, DeviceIds, DeviceState, Driver, Handle, Instance, Reason, Registration, Registry, Settings, WakeUp,
};

const DEVICES: u32 = 3;

/// Device `number`, arrived for the `generation`th time.
fn offer(number: u32, generation: u32) -> Offer {
    Offer::made_up(ChannelId::made_up(number, generation), Class::KVP, Uuid::from_u128(u128::from(number)))
}

fn arrived(number: u32, generation: u32) -> Announcement {
    Announcement::Arrived(offer(number, generation))
}

fn departed(number: u32, generation: u32) -> Announcement {
    Announcement::Departed(offer(number, generation))
}

/// What was seen. Its lock is std's: never held across anything that shuttle may interrupt.
#[derive(Default)]
pub(crate) struct Oracle(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    violations: Vec<String>,
    /// Which channel has each device now, from the begin of its probe to the end of its removal.
    in_hands: BTreeMap<Uuid, ChannelId>,
    /// Channels whose instance was removed, or never came to be, by driver.
    over: BTreeSet<(ChannelId, &'static str)>,
    /// Probes, by channel and driver.
    probes: BTreeMap<(ChannelId, &'static str), usize>,
    /// Departed, and not listed any more.
    gone: BTreeSet<ChannelId>,
    /// Uses that last, by channel and driver.
    uses: BTreeMap<(ChannelId, &'static str), usize>,
    /// Callbacks that run now.
    inside: BTreeMap<ChannelId, usize>,
    /// Drivers whose unregistration has returned.
    unregistered: BTreeSet<&'static str>,
    /// What somebody left lying about.
    contexts: Vec<(&'static str, Context, WakeUp, Data)>,
    registrations: BTreeMap<&'static str, Arc<Registration>>,
}

/// Written before each wake, read by the callback: written, seen.
type Data = Arc<Mutex<(u32, u32)>>;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Oracle {
    pub(crate) fn violations(&self) -> Vec<String> {
        lock(&self.0).violations.clone()
    }

    fn violation(&self, what: String) {
        lock(&self.0).violations.push(what);
    }

    /// A callback of an instance begins: it may, and it is the only one.
    fn enter(&self, driver: &'static str, channel: ChannelId, what: &str, alone: bool) {
        let mut seen = lock(&self.0);
        if seen.over.contains(&(channel, driver)) {
            seen.violations.push(format!("R4.1: {what} of {driver} for {channel} after its removal"));
        }
        if seen.unregistered.contains(driver) {
            seen.violations.push(format!("R4.1: {what} of {driver} after it was unregistered"));
        }
        if alone {
            let inside = seen.inside.entry(channel).or_default();
            *inside += 1;
            if *inside > 1 {
                seen.violations.push(format!("{what} of {driver} for {channel} beside another callback"));
            }
        }
    }

    fn leave(&self, channel: ChannelId) {
        thread::yield_now();
        if let Some(inside) = lock(&self.0).inside.get_mut(&channel) {
            *inside -= 1;
        }
    }

    /// A callback as every one of them is: it takes a while, and looks at the devices and at its registration.
    fn callback(&self, driver: &'static str, context: &Context, what: &str, alone: bool) {
        let channel = context.offer().id;
        self.enter(driver, channel, what, alone);
        thread::yield_now();
        match thread_rng().gen_range(0..6) {
            0 => drop(context.registry().devices()),
            1 => {
                let registration = lock(&self.0).registrations.get(driver).cloned();
                let refused = registration.is_none_or(|registration| registration.unregister().is_err());
                if !refused {
                    self.violation(format!("R4.5: {what} of {driver} could unregister it"));
                }
            }
            2 => context.registry().settle().map_or((), |()| self.violation(format!("R4.5: {what} could settle"))),
            _ => thread::yield_now(),
        }
        if alone {
            self.leave(channel);
        }
    }

    /// A use of an instance outside of the registry's workers, which has begun.
    fn used(&self, driver: &'static str, context: &Context) {
        let channel = context.offer().id;
        *lock(&self.0).uses.entry((channel, driver)).or_default() += 1;
        self.callback(driver, context, "use", false);
        // The instance must be there as long as it lasts.
        self.enter(driver, channel, "use", false);
        *lock(&self.0).uses.entry((channel, driver)).or_default() -= 1;
    }
}

struct Double {
    name: &'static str,
    oracle: Arc<Oracle>,
    fails: bool,
}

impl Driver for Double {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn ids(&self) -> DeviceIds {
        DeviceIds::class(Class::KVP)
    }

    fn probe(&self, context: &Context, offer: Offer) -> Result<Box<dyn Instance>, Error> {
        let (name, oracle) = (self.name, Arc::clone(&self.oracle));
        {
            let mut seen = lock(&oracle.0);
            let probes = seen.probes.entry((offer.id, name)).or_default();
            *probes += 1;
            if *probes > 1 {
                seen.violations.push(format!("R4.4: {name} probed {} more than once", offer.id));
            }
            if let Some(other) = seen.in_hands.insert(offer.instance, offer.id) {
                seen.violations.push(format!("R4.4: {name} probed {} while {other} is in hands", offer.id));
            }
            if seen.gone.contains(&offer.id) {
                seen.violations.push(format!("{} had departed before its probe", offer.id));
            }
        }
        oracle.callback(name, context, "probe", true);
        let data = Data::default();
        let (of_work, of_timer, of_wake, written) =
            (Arc::clone(&oracle), Arc::clone(&oracle), Arc::clone(&oracle), Arc::clone(&data));
        let spawned = (|| {
            let timer = context.timer(move |context| {
                of_timer.callback(name, context, "timer", true);
                thread_rng().gen_bool(0.3).then_some(Duration::from_secs(1))
            })?;
            timer.arm(Duration::from_secs(1))?;
            let wake_up = context.wake_up(move |context| {
                let now = lock(&written).0;
                of_wake.callback(name, context, "wake-up", true);
                let mut data = lock(&written);
                data.1 = data.1.max(now);
            })?;
            lock(&oracle.0).contexts.push((name, context.clone(), wake_up, data));
            context.spawn(move |context| of_work.callback(name, context, "work", true))?;
            Ok::<_, Error>(timer)
        })();
        if self.fails || spawned.is_err() {
            let mut seen = lock(&oracle.0);
            seen.in_hands.remove(&offer.instance);
            return Err(Error::NoBus);
        }
        Ok(Box::new(DoubleInstance { name, oracle, context: context.clone(), timer: spawned? }))
    }
}

struct DoubleInstance {
    name: &'static str,
    oracle: Arc<Oracle>,
    context: Context,
    timer: vmbus_devices::registry::Timer,
}

impl Instance for DoubleInstance {
    fn remove(self: Box<Self>, _: Reason) {
        let Self { name, oracle, context, timer } = *self;
        if lock(&oracle.0).uses.get(&(context.offer().id, name)).is_some_and(|uses| *uses > 0) {
            oracle.violation(format!("R4.1: {name} is to remove what is in use"));
        }
        oracle.callback(name, &context, "remove", true);
        if timer.arm(Duration::ZERO).is_ok() || context.spawn(|_| ()).is_ok() {
            oracle.violation(format!("R4.2: {name} could begin something in remove"));
        }
        let mut seen = lock(&oracle.0);
        seen.in_hands.remove(&context.offer().instance);
        seen.over.insert((context.offer().id, name));
    }
}

/// Devices come and go; at the end those of the result are there.
fn host(oracle: &Oracle, handle: &Handle) -> BTreeSet<ChannelId> {
    let mut there: BTreeMap<u32, u32> = BTreeMap::new();
    let mut generation = 0;
    for _ in 0..thread_rng().gen_range(3..8) {
        let number = thread_rng().gen_range(1..=DEVICES);
        match there.remove(&number) {
            Some(former) => {
                handle.announce(departed(number, former));
                if thread_rng().gen_bool(0.5) {
                    let channel = offer(number, former).id;
                    let devices = handle.devices().unwrap();
                    match devices.iter().find(|device| device.channel == channel) {
                        Some(device) if device.state == DeviceState::Queued => {
                            oracle.violation(format!("{channel} departed and waits for its probe"));
                        }
                        Some(_) => {}
                        None => drop(lock(&oracle.0).gone.insert(channel)),
                    }
                }
                // Often back at once.
                if thread_rng().gen_bool(0.5) {
                    generation += 1;
                    handle.announce(arrived(number, generation));
                    there.insert(number, generation);
                }
            }
            None => {
                generation += 1;
                handle.announce(arrived(number, generation));
                there.insert(number, generation);
            }
        }
        thread::yield_now();
    }
    there.into_iter().map(|(number, generation)| offer(number, generation).id).collect()
}

/// Uses whatever drivers left, whether they are still there or not.
fn passer_by(oracle: &Oracle) {
    for _ in 0..8 {
        let found = {
            let seen = lock(&oracle.0);
            let at = thread_rng().gen_range(0..seen.contexts.len().max(1));
            seen.contexts.get(at).cloned()
        };
        if let Some((driver, context, wake_up, data)) = found {
            if thread_rng().gen_bool(0.6) {
                for _ in 0..3 {
                    lock(&data).0 += 1;
                    wake_up.wake();
                    thread::yield_now();
                }
            } else if let Ok(using) = context.enter() {
                oracle.used(driver, &context);
                drop(using);
            }
        }
        thread::yield_now();
    }
}

/// Registers a driver, and sometimes unregisters it.
fn owner(oracle: &Arc<Oracle>, handle: &Handle, name: &'static str, stays: bool, fails: bool) {
    thread::yield_now();
    let driver = Double { name, oracle: Arc::clone(oracle), fails };
    let registration = Arc::new(handle.register(driver).unwrap());
    lock(&oracle.0).registrations.insert(name, Arc::clone(&registration));
    if !stays {
        for _ in 0..thread_rng().gen_range(0..20) {
            thread::yield_now();
        }
        registration.unregister().unwrap();
        lock(&oracle.0).unregistered.insert(name);
    }
}

pub(crate) fn run(oracle: &Arc<Oracle>, without: Option<Mutation>) {
    let workers = thread_rng().gen_range(1..=3);
    let registry = Registry::by_hand(Settings { workers }, without).unwrap();
    let (stays, fails) = (thread_rng().gen_bool(0.5), thread_rng().gen_bool(0.2));
    let spawn = |body: Box<dyn FnOnce() + Send>| thread::spawn(body);
    let (one, two, three) = (Arc::clone(oracle), Arc::clone(oracle), Arc::clone(oracle));
    let (first, second) = (registry.handle(), registry.handle());
    let others = [
        spawn(Box::new(move || owner(&one, &first, "a", stays, false))),
        spawn(Box::new(move || owner(&two, &second, "b", false, fails))),
        spawn(Box::new(move || passer_by(&three))),
    ];
    let present = host(oracle, &registry);
    for other in others {
        other.join().unwrap();
    }
    registry.settle().unwrap();
    let devices = registry.devices().unwrap();
    let listed: BTreeSet<_> = devices.iter().map(|device| device.channel).collect();
    if listed != present {
        oracle.violation(format!("there is {present:?}, listed is {listed:?}"));
    }
    for device in devices.iter().filter(|device| stays != (device.state == DeviceState::Driven)) {
        oracle.violation(format!("R4.4: with a driver {stays}, {device:?}"));
    }
    let contexts = std::mem::take(&mut lock(&oracle.0).contexts);
    for (driver, context, _, data) in &contexts {
        let (written, seen) = *lock(data);
        if context.is_operable() && seen < written {
            oracle.violation(format!("a wake-up of {driver} was lost"));
        }
    }
    drop(contexts);
    registry.shutdown().unwrap();
    let registrations = std::mem::take(&mut lock(&oracle.0).registrations);
    drop(registrations);
    let seen = std::mem::take(&mut lock(&oracle.0).in_hands);
    if !seen.is_empty() {
        oracle.violation(format!("still in hands after the shutdown: {seen:?}"));
    }
}
