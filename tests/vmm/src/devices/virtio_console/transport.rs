//! The registers of a virtio device at memory addresses (virtio 1.2, 4.2.2): what the driver sets up, and what it asks.

use virtio_queue::{Queue, QueueT};

/// "virt".
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
const CONSOLE: u32 = 3;
const VENDOR: u32 = 0x5355_4256;

/// Descriptors of a queue at most.
const QUEUE_SIZE: u16 = 256;

/// The register by which the driver says how far it is; zero resets the device.
pub(super) const STATUS: u64 = 0x070;
const STATUS_FEATURES_OK: u32 = 8;
/// The device is gone wrong, and the driver must reset it.
const STATUS_NEEDS_RESET: u32 = 0x40;

/// Feature bits.
pub(super) const MULTIPORT: u64 = 1 << 1;
const EVENT_INDEX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
const FEATURES: u64 = MULTIPORT | EVENT_INDEX | VERSION_1;

/// What a register write asks of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing more.
    Nothing,
    /// Look at this queue.
    Notify(u32),
    /// Forget everything.
    Reset,
}

/// The registers, with the queues that they describe.
#[derive(Debug)]
pub(super) struct Registers {
    pub(super) queues: Vec<Queue>,
    selected_queue: u32,
    device_features_high: bool,
    driver_features_high: bool,
    driver_features: u64,
    status: u32,
    interrupts: u32,
    ports: u32,
}

impl Registers {
    /// The registers of a console of `ports` ports with `queues` queues, as after a reset.
    pub(super) fn new(queues: usize, ports: u32) -> Self {
        Self {
            // The size is a power of two, so this can't fail.
            queues: (0..queues).filter_map(|_| Queue::new(QUEUE_SIZE).ok()).collect(),
            selected_queue: 0,
            device_features_high: false,
            driver_features_high: false,
            driver_features: 0,
            status: 0,
            interrupts: 0,
            ports,
        }
    }

    /// The driver must read why it was interrupted.
    pub(super) fn raise_used(&mut self) {
        self.interrupts |= 1;
    }

    /// Says that the driver has made a mistake that can't be answered.
    pub(super) fn fail(&mut self) {
        self.status |= STATUS_NEEDS_RESET;
    }

    /// The register at `offset`.
    pub(super) fn read(&self, offset: u64) -> u32 {
        let queue = self.queue();
        match offset {
            0x000 => MAGIC,
            0x004 => VERSION,
            0x008 => CONSOLE,
            0x00c => VENDOR,
            0x010 => half(FEATURES, self.device_features_high),
            0x034 => queue.map_or(0, |queue| queue.max_size().into()),
            0x044 => queue.is_some_and(QueueT::ready).into(),
            0x060 => self.interrupts,
            STATUS => self.status,
            // Configuration: columns and rows, number of ports.
            0x104 => self.ports,
            _ => 0,
        }
    }

    /// Writes `value` to the register at `offset`.
    pub(super) fn write(&mut self, offset: u64, value: u32) -> Asked {
        match offset {
            0x014 => self.device_features_high = value != 0,
            0x020 => set_half(&mut self.driver_features, self.driver_features_high, value),
            0x024 => self.driver_features_high = value != 0,
            0x030 => self.selected_queue = value,
            0x050 => return Asked::Notify(value),
            0x064 => self.interrupts &= !value,
            STATUS => return self.set_status(value),
            0x038..0x050 | 0x080..0x0a8 => self.set_queue(offset, value),
            _ => log::debug!(target: "vmbus::vmm", "virtio register {offset:#x}: {value:#x} ignored"),
        }
        Asked::Nothing
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues.get(usize::try_from(self.selected_queue).ok()?)
    }

    fn set_queue(&mut self, offset: u64, value: u32) {
        let index = usize::try_from(self.selected_queue).unwrap_or(usize::MAX);
        let event_index = self.driver_features & EVENT_INDEX != 0;
        let Some(queue) = self.queues.get_mut(index) else { return };
        match offset {
            0x038 => queue.set_size(u16::try_from(value).unwrap_or(0)),
            0x044 => {
                queue.set_event_idx(event_index);
                queue.set_ready(value == 1);
            }
            0x080 => queue.set_desc_table_address(Some(value), None),
            0x084 => queue.set_desc_table_address(None, Some(value)),
            0x090 => queue.set_avail_ring_address(Some(value), None),
            0x094 => queue.set_avail_ring_address(None, Some(value)),
            0x0a0 => queue.set_used_ring_address(Some(value), None),
            0x0a4 => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32) -> Asked {
        if value == 0 {
            *self = Self::new(self.queues.len(), self.ports);
            return Asked::Reset;
        }
        self.status = value;
        if self.driver_features & !FEATURES != 0 || self.driver_features & VERSION_1 == 0 {
            // The driver reads the bit back to see whether its choice is accepted.
            self.status &= !STATUS_FEATURES_OK;
        }
        Asked::Nothing
    }
}

fn half(value: u64, high: bool) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    u32::from_le_bytes(if high { [e, f, g, h] } else { [a, b, c, d] })
}

fn set_half(value: &mut u64, high: bool, to: u32) {
    let (low, up) = (u64::from(half(*value, false)), u64::from(half(*value, true)));
    *value = if high { (u64::from(to) << 32) | low } else { (up << 32) | u64::from(to) };
}
