//! Binds and unbinds a device over and over under a registered driver (scenario `registry-100`), and once more while the
//! driver has it open. Prints one JSON line for every tenth time and one when it is done.

use std::fs;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;
use vmbus::bind::UIO_DRIVER;
use vmbus::class::Class;
use vmbus::sysfs::{Bus, Device};
use vmbus::uio::BusLink;
use vmbus_channels::{Channel, Offer, OpenOptions, OutgoingPacket, Vmbus, Wake};
use vmbus_devices::balloon::wire::{GuestMessage, HostMessage, MAX_MESSAGE_BYTES, Version, parse};
use vmbus_devices::registry::{Context, DeviceIds, DeviceState, Driver, Instance, Reason, Registry, Settings};

use crate::say;

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to bind, and how often.
#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    /// The Dynamic Memory device: class, GUID, relid or uioN. It must be bound to uio_hv_generic.
    selector: String,
    /// How often.
    #[arg(long, default_value_t = 100)]
    times: u32,
}

/// What the driver has seen.
#[derive(Debug, Default)]
struct Seen {
    probed: u32,
    /// Probes in which the host answered.
    talked: u32,
    removed: u32,
    /// The reasons of all removals but `Rescinded`.
    other_reasons: Vec<Reason>,
    /// A probe began before the removal before it had ended.
    overlapped: bool,
    /// Whether the driver is to keep the channel open.
    keeps_open: bool,
}

#[derive(Debug, Clone, Default)]
struct Diary(Arc<(Mutex<Seen>, Condvar)>);

impl Diary {
    fn open(&self) -> MutexGuard<'_, Seen> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.open());
        self.0.1.notify_all();
    }

    fn await_that(&self, what: &str, holds: impl Fn(&Seen) -> bool) -> anyhow::Result<()> {
        let (seen, timeout) = self
            .0
            .1
            .wait_timeout_while(self.open(), PATIENCE, |seen| !holds(seen))
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(!timeout.timed_out(), "{what} was awaited in vain: {seen:?}");
        Ok(())
    }
}

/// Opens the channel, asks the host for a version, and lets go of it again, or not.
#[derive(Debug)]
struct Talker(Diary);

#[derive(Debug)]
struct Talking {
    diary: Diary,
    channel: Option<Channel>,
}

impl Driver for Talker {
    fn name(&self) -> String {
        "talker".to_owned()
    }

    fn ids(&self) -> DeviceIds {
        DeviceIds::class(Class::DYNAMIC_MEMORY)
    }

    fn probe(&self, context: &Context, offer: Offer) -> Result<Box<dyn Instance>, vmbus_devices::Error> {
        self.0.note(|seen| {
            seen.overlapped |= seen.probed != seen.removed;
            seen.probed += 1;
        });
        let mut channel = context.vmbus()?.open(offer.id, OpenOptions::default())?;
        let answered = talk(&mut channel)?;
        let channel = if self.0.open().keeps_open {
            Some(channel)
        } else {
            channel.close()?;
            None
        };
        self.0.note(|seen| seen.talked += u32::from(answered));
        Ok(Box::new(Talking { diary: self.0.clone(), channel }))
    }
}

impl Instance for Talking {
    fn remove(self: Box<Self>, reason: Reason) {
        drop(self.channel);
        self.diary.note(|seen| {
            seen.removed += 1;
            seen.other_reasons.extend((reason != Reason::Rescinded).then_some(reason));
        });
    }
}

/// Asks for a version of Dynamic Memory; whether the host answered.
fn talk(channel: &mut Channel) -> Result<bool, vmbus_channels::Error> {
    let request = GuestMessage::VersionRequest { version: Version::V2_0, last: false }.to_bytes(1);
    channel.send(OutgoingPacket::in_band(0), &[&request], Some(PATIENCE))?;
    let start = Instant::now();
    let mut answered = false;
    while !answered && start.elapsed() < PATIENCE {
        if channel.wait(Some(PATIENCE.saturating_sub(start.elapsed())))? == Wake::Packets {
            channel.receive(8, |packet| {
                let mut copy = [0; MAX_MESSAGE_BYTES];
                let bytes = copy.get_mut(..packet.payload().len()).unwrap_or_default();
                let copied = packet.payload().copy_part(0, bytes).is_ok();
                let message = parse(bytes).map(|incoming| incoming.message);
                answered |= copied && matches!(message, Ok(HostMessage::VersionResponse { .. }));
                Ok::<_, vmbus_channels::Error>(())
            })?;
        }
    }
    Ok(answered)
}

/// Binds and unbinds; see the head of this file.
///
/// # Errors
/// When the driver is called too often or too late, or something is left.
pub(crate) fn run(args: &RegistryArgs) -> anyhow::Result<ExitCode> {
    let bus = Bus::system();
    let device = bus.find(&args.selector)?;
    let vmbus = Vmbus::start(Box::new(BusLink::new(bus.clone())?), vmbus_channels::Settings::default())?;
    let registry = Registry::start(&vmbus, Settings::default())?;
    let diary = Diary::default();
    let registration = registry.register(Talker(diary.clone()))?;
    // Milliseconds for: the probe, the unbind, the removal, the bind.
    let mut spent = [0; 4];
    for time in 1..=args.times {
        let mut round = || -> anyhow::Result<()> {
            let mut start = Instant::now();
            let mut lap = |index: usize| {
                spent.get_mut(index).into_iter().for_each(|spent| *spent += start.elapsed().as_millis());
                start = Instant::now();
            };
            diary.await_that("the probe", |seen| seen.talked == time)?;
            registry.settle()?;
            lap(0);
            let devices = registry.devices()?;
            let [entry] = devices.as_slice() else { bail!("one device expected: {devices:?}") };
            ensure!(entry.state == DeviceState::Driven, "{entry:?}");
            tell_kernel("unbind", &device)?;
            lap(1);
            diary.await_that("the removal", |seen| seen.removed == time)?;
            nothing_left(&registry)?;
            lap(2);
            // The last one is bound with the driver that keeps it open.
            diary.note(|seen| seen.keeps_open = time == args.times);
            tell_kernel("bind", &device)?;
            lap(3);
            Ok(())
        };
        round().with_context(|| format!("time number {time}"))?;
        if time % 10 == 0 {
            say(&json!({ "event": "cycles", "times": time, "milliseconds": spent }))?;
        }
    }
    diary.await_that("the last probe", |seen| seen.talked == args.times + 1)?;
    registry.settle()?;
    tell_kernel("unbind", &device)?;
    diary.await_that("the removal of an open device", |seen| seen.removed == args.times + 1)?;
    nothing_left(&registry)?;
    registration.unregister()?;
    let counted = registry.counters()?;
    registry.shutdown()?;
    let counters = vmbus.counters()?;
    vmbus.shutdown()?;
    let seen = diary.open();
    say(&json!({
        "event": "end", "bound": args.times + 1, "probed": seen.probed, "talked": seen.talked, "removed": seen.removed,
        "overlapped": seen.overlapped, "other_reasons": seen.other_reasons,
        "left": counters.channels + counters.open + counters.gpadls, "registry": counted, "counters": counters,
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// Gives the device to `uio_hv_generic`, or takes it away.
fn tell_kernel(what: &str, device: &Device) -> anyhow::Result<()> {
    let file = format!("/sys/bus/vmbus/drivers/{UIO_DRIVER}/{what}");
    fs::write(&file, &device.name).with_context(|| format!("write {file}"))
}

/// Waits until no device is listed. A removed device is taken off the list right after its driver's last call.
fn nothing_left(registry: &Registry) -> anyhow::Result<()> {
    registry.settle()?;
    let devices = registry.devices()?;
    ensure!(devices.is_empty(), "left behind: {devices:?}");
    Ok(())
}
