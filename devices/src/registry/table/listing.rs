//! What the table tells of itself.

use super::super::{DeviceEntry, DeviceState};
use super::Table;
use super::binding::{Device, Phase};

impl Table {
    pub(super) fn list(&self) -> Vec<DeviceEntry> {
        let entry = |device: &Device| DeviceEntry {
            channel: device.offer.id,
            relid: device.offer.relid,
            class: device.offer.class,
            instance: device.offer.instance,
            present: device.present,
            driver: self.driver_of(device),
            state: self.state_of(device),
            failure: device.failure.clone(),
        };
        self.devices.values().map(entry).collect()
    }

    fn driver_of(&self, device: &Device) -> Option<String> {
        let driver = device.binding.as_ref()?.tie.driver;
        Some(self.drivers.get(&driver)?.name.clone())
    }

    fn state_of(&self, device: &Device) -> DeviceState {
        let Some(binding) = &device.binding else {
            return match &device.failure {
                _ if self.waits_for_former(device) => DeviceState::Waiting,
                Some(_) => DeviceState::Failed,
                None => DeviceState::Unclaimed,
            };
        };
        match (binding.phase, &binding.ending) {
            (Phase::Queued, _) => DeviceState::Queued,
            // Also a probe that has failed, until nothing of it is left.
            _ if !binding.probed => DeviceState::Probing,
            (_, Some(ending)) => DeviceState::Removing(ending.reason),
            _ => DeviceState::Driven,
        }
    }
}
