//! Which devices are there, and in whose hands.

use vmbus_channels::{ChannelId, Offer};

use super::super::driver::is_primary;
use super::super::input::{DriverId, Panicked, Probed, Tie};
use super::super::mutation::mutated;
use super::super::sync::queue::Post;
use super::super::{Context, Reason};
use super::Table;
use super::binding::{Binding, Device, Ending, Phase};
use super::drivers::Record;
use crate::Error;

impl Table {
    pub(super) fn arrived(&mut self, offer: Offer) {
        if !is_primary(&offer) {
            self.counters.subchannels += 1;
            return;
        }
        let (channel, arrival) = (offer.id, self.next_serial());
        if let Some(device) = self.devices.get_mut(&channel) {
            // Told anew after a gap; or twice, which the bus does not do.
            if self.resynchronising.is_some() && device.present {
                device.told = arrival;
            } else {
                self.counters.duplicate_arrivals += 1;
            }
            return;
        }
        self.counters.arrivals += 1;
        let device = Device {
            offer,
            arrival,
            told: arrival,
            present: true,
            asked: std::collections::BTreeSet::new(),
            binding: None,
            failure: None,
        };
        self.devices.insert(channel, device);
        self.claim(channel);
    }

    pub(super) fn departed(&mut self, offer: &Offer) {
        if !is_primary(offer) {
            return;
        }
        match self.devices.get(&offer.id) {
            Some(device) if device.present => self.depart(offer.id),
            _ => self.counters.unknown_departures += 1,
        }
    }

    fn depart(&mut self, channel: ChannelId) {
        let mutations = self.mutations;
        let Some(device) = self.devices.get_mut(&channel) else { return };
        device.present = false;
        self.counters.departures += 1;
        let phase = device.binding.as_ref().map(|binding| binding.phase);
        if matches!(phase, None | Some(Phase::Queued)) && device.asked.is_empty() {
            self.counters.departed_unprobed += 1;
        }
        if phase == Some(Phase::Queued) && mutated!(mutations, ProbeDeparted) {
            return;
        }
        match phase {
            None => self.forget_device(channel),
            Some(_) => self.end(channel, Reason::Rescinded),
        }
    }

    pub(super) fn lagged(&mut self) {
        self.counters.resynchronisations += 1;
        self.resynchronising = Some(self.serial);
    }

    pub(super) fn all_arrived(&mut self) {
        let Some(before) = self.resynchronising.take() else { return };
        let missed = |(_, device): &(&ChannelId, &Device)| device.present && device.told <= before;
        let gone: Vec<_> = self.devices.iter().filter(missed).map(|(channel, _)| *channel).collect();
        for channel in gone {
            self.depart(channel);
        }
    }

    pub(super) fn bus_ended(&mut self) {
        self.resynchronising = None;
        let present: Vec<_> = self.devices.iter().filter(|(_, device)| device.present).map(|(id, _)| *id).collect();
        for channel in present {
            self.depart(channel);
        }
    }

    pub(super) fn reprobe(&mut self, channel: ChannelId, reply: &Post<Result<(), Error>>) {
        let outcome = match self.devices.get_mut(&channel) {
            Some(device) if device.present => {
                device.asked.clear();
                Ok(())
            }
            _ => Err(Error::NoDevice(channel)),
        };
        self.claim(channel);
        reply.post(outcome);
    }

    /// Gives a device that is in nobody's hands to the driver that was registered first among those that match and
    /// were not asked yet. Taking it and seeing that it is free is one step: who else comes finds it taken.
    pub(super) fn claim(&mut self, channel: ChannelId) {
        let Some(device) = self.devices.get(&channel) else { return };
        let taken = device.binding.is_some() && !mutated!(self.mutations, ClaimTwice);
        if self.ending || taken || !device.present || self.waits_for_former(device) {
            return;
        }
        let wants = |id: &DriverId, record: &Record| {
            record.leaving.is_none() && !device.asked.contains(id) && record.ids.matches(&device.offer)
        };
        let Some(driver) = self.drivers.iter().find(|(id, record)| wants(id, record)).map(|(id, _)| *id) else {
            return;
        };
        let offer = device.offer.clone();
        let tie = Tie { channel, driver, serial: self.next_serial() };
        let context = Context::new(tie, offer, self.handle.clone(), self.vmbus.clone());
        if let Some(device) = self.devices.get_mut(&channel) {
            device.binding = Some(Binding::new(tie, context));
        }
        self.make_ready(channel);
    }

    /// Whether the same device is there under an earlier channel: on its way out; or still present, if the host gives
    /// one instance id to two devices.
    pub(super) fn waits_for_former(&self, device: &Device) -> bool {
        let former = |other: &Device| other.offer.instance == device.offer.instance && other.arrival < device.arrival;
        self.devices.values().any(former) && !mutated!(self.mutations, ProbeBeforeRemoved)
    }

    /// Begins to take a device from its driver.
    pub(super) fn end(&mut self, channel: ChannelId, reason: Reason) {
        let mutations = self.mutations;
        let Some(binding) = self.devices.get_mut(&channel).and_then(|device| device.binding.as_mut()) else { return };
        if binding.phase == Phase::Queued {
            // Never asked.
            self.unbind(channel);
            return;
        }
        if binding.ending.is_some() {
            return;
        }
        let drained = binding.context.close() || mutated!(mutations, SkipDrain);
        let discarded = binding.take_calls(&mut self.counters.discarded);
        binding.ending = Some(Ending { reason, drained, discarded });
        if mutated!(mutations, RemoveWhileWorking) && binding.phase == Phase::Working {
            binding.phase = Phase::Idle;
        }
        self.alarms.retain(|(_, of, _)| *of != channel);
        self.make_ready(channel);
    }

    /// The device is in nobody's hands now: it goes, or goes to the next driver.
    fn unbind(&mut self, channel: ChannelId) {
        let Some(device) = self.devices.get_mut(&channel) else { return };
        let binding = device.binding.take();
        if device.present {
            self.claim(channel);
        } else {
            self.forget_device(channel);
        }
        if let Some(binding) = binding {
            self.release_if_left(binding.tie.driver);
        }
    }

    /// A device that departed and is in nobody's hands; the same one may be back already.
    fn forget_device(&mut self, channel: ChannelId) {
        let Some(gone) = self.devices.remove(&channel) else { return };
        let same = |(_, device): &(&ChannelId, &Device)| device.offer.instance == gone.offer.instance;
        let waiting: Vec<_> = self.devices.iter().filter(same).map(|(id, _)| *id).collect();
        for channel in waiting {
            self.claim(channel);
        }
    }

    pub(super) fn binding(&mut self, tie: Tie) -> Option<&mut Binding> {
        let binding = self.devices.get_mut(&tie.channel)?.binding.as_mut()?;
        (binding.tie == tie).then_some(binding)
    }

    pub(super) fn give_up(&mut self, tie: Tie, why: String, panicked: Panicked) {
        self.counters.panics += u64::from(panicked);
        if self.binding(tie).is_none() {
            return;
        }
        if let Some(device) = self.devices.get_mut(&tie.channel) {
            device.failure = Some(why);
        }
        self.end(tie.channel, if panicked { Reason::Panicked } else { Reason::GaveUp });
    }

    /// An active user was the last to leave.
    pub(super) fn drained(&mut self, tie: Tie) {
        if let Some(ending) = self.binding(tie).and_then(|binding| binding.ending.as_mut()) {
            ending.drained = true;
            self.make_ready(tie.channel);
        }
    }

    pub(super) fn probed(&mut self, tie: Tie, probed: Probed) {
        self.finished(tie, probed.panicked);
        self.counters.failed_probes += u64::from(probed.instance.is_err());
        let Some(device) = self.devices.get_mut(&tie.channel) else { return };
        let departed = !device.present;
        let Some(binding) = device.binding.as_mut().filter(|binding| binding.tie == tie) else { return };
        binding.phase = Phase::Idle;
        match probed.instance {
            Ok(instance) => {
                (binding.probed, binding.instance) = (true, Some(instance));
                if binding.ending.is_none() {
                    device.failure = None;
                }
                if departed {
                    self.end(tie.channel, Reason::Rescinded);
                }
            }
            Err(why) => {
                device.failure = Some(why);
                // What it spawned is discarded, and there is no instance to tell.
                self.end(tie.channel, Reason::GaveUp);
            }
        }
        self.make_ready(tie.channel);
    }

    pub(super) fn removed(&mut self, tie: Tie, panicked: Panicked) {
        self.finished(tie, panicked);
        if self.binding(tie).is_some() {
            self.unbind(tie.channel);
        }
    }
}
