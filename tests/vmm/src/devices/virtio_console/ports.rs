//! The control messages of a virtio console (virtio 1.2, 5.3.6.2): how the agent's port comes to be, and is opened.

use std::collections::VecDeque;

/// Number of the agent's port: in the guest it is `/dev/vport0p1`, as with other monitors.
pub(super) const AGENT_PORT: u32 = 1;

/// More answers than a driver in its senses can have pending.
const PENDING_AT_MOST: usize = 16;

const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;

/// A control message: port, event, value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) port: u32,
    pub(super) event: u16,
    pub(super) value: u16,
}

impl Control {
    /// From its 8 bytes.
    pub(super) fn from_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self {
            port: u32::from_le_bytes([a, b, c, d]),
            event: u16::from_le_bytes([e, f]),
            value: u16::from_le_bytes([g, h]),
        }
    }

    /// To its 8 bytes.
    pub(super) fn to_bytes(self) -> [u8; 8] {
        let ([a, b, c, d], [e, f], [g, h]) =
            (self.port.to_le_bytes(), self.event.to_le_bytes(), self.value.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }
}

/// What the driver and the device have told each other.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// Messages for the driver, first to last.
    pub(super) pending: VecDeque<Control>,
    /// Whether a program in the guest holds the agent's port.
    pub(super) open: bool,
}

impl Ports {
    /// Takes a message of the driver.
    pub(super) fn hear(&mut self, said: Control) {
        let answer = match said {
            Control { event: DEVICE_READY, value: 1, .. } => Control { port: AGENT_PORT, event: PORT_ADD, value: 1 },
            Control { port: AGENT_PORT, event: PORT_READY, value: 1 } => {
                Control { port: AGENT_PORT, event: PORT_OPEN, value: 1 }
            }
            Control { port: AGENT_PORT, event: PORT_OPEN, value } => {
                self.open = value == 1;
                return;
            }
            other => {
                log::debug!(target: "vmbus::vmm", "virtio console: {other:?} ignored");
                return;
            }
        };
        if self.pending.len() < PENDING_AT_MOST {
            self.pending.push_back(answer);
        }
    }
}
