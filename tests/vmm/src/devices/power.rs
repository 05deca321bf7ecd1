//! The power registers that the ACPI tables name: off, and reset.

use crate::ending::{Ender, Ending};
use crate::exits::Ports;
use crate::layout::POWER_PORT;

/// Port of the sleep control register (ACPI 6.5, 4.8.3.7).
pub const SLEEP_CONTROL_PORT: u16 = POWER_PORT;
/// Port of the sleep status register.
pub const SLEEP_STATUS_PORT: u16 = POWER_PORT + 1;
/// Port of the reset register.
pub const RESET_PORT: u16 = POWER_PORT + 2;
/// Bytes of power registers.
pub const POWER_PORTS: u16 = 3;
/// What resets when it is written there.
pub const RESET_VALUE: u8 = 1;
/// The sleep type that is off.
pub const SLEEP_TYPE_OFF: u8 = 5;

/// Bit of the sleep control register that makes it so.
const SLEEP_ENABLE: u8 = 1 << 5;

/// The power registers.
#[derive(Debug)]
pub struct Power {
    ender: Ender,
}

impl Power {
    /// Registers that end the machine by `ender`.
    #[must_use]
    pub fn new(ender: Ender) -> Self {
        Self { ender }
    }
}

impl Ports for Power {
    fn read(&self, _offset: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        let Some(value) = data.first() else { return };
        match POWER_PORT.saturating_add(offset) {
            SLEEP_CONTROL_PORT if value & SLEEP_ENABLE != 0 && (value >> 2) & 7 == SLEEP_TYPE_OFF => {
                self.ender.end(Ending::PowerOff);
            }
            RESET_PORT if *value == RESET_VALUE => self.ender.end(Ending::Reset("by its reset register".to_owned())),
            other => log::debug!(target: "vmbus::vmm", "power register {other:#x}: {value:#x} ignored"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{POWER_PORT, Power, RESET_PORT, SLEEP_CONTROL_PORT};
    use crate::ending::{Ender, Ending};
    use crate::exits::Ports;

    fn after(port: u16, value: u8) -> Option<Ending> {
        let (ender, ended) = Ender::new();
        Power::new(ender).write(port - POWER_PORT, &[value]);
        ended.try_recv().ok()
    }

    #[test]
    fn off_is_off_and_other_sleep_is_not() {
        assert_eq!(after(SLEEP_CONTROL_PORT, (5 << 2) | (1 << 5)), Some(Ending::PowerOff));
        assert_eq!(after(SLEEP_CONTROL_PORT, 5 << 2), None);
        assert_eq!(after(SLEEP_CONTROL_PORT, (3 << 2) | (1 << 5)), None);
    }

    #[test]
    fn reset_is_no_power_off() {
        assert_eq!(after(RESET_PORT, 1).map(|ending| ending.code()), Some(3));
        assert_eq!(after(RESET_PORT, 0), None);
    }
}
