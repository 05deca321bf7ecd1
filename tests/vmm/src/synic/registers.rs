//! What the guest has told each processor's SynIC: kept by the processors' threads, read by the bus's.

use std::sync::atomic::{AtomicU64, Ordering};

use vmbus_simhost::{Memory, PAGE_BYTES};

use crate::bus_memory::BusMemory;
use crate::exits;

/// Bit 0 of each of the three registers: on.
const ON: u64 = 1;

/// The registers of all processors.
#[derive(Debug)]
pub struct Registers {
    processors: Vec<Processor>,
}

#[derive(Debug, Default)]
struct Processor {
    control: AtomicU64,
    events: AtomicU64,
    messages: AtomicU64,
}

impl Registers {
    /// All off.
    #[must_use]
    pub fn new(processors: u32) -> Self {
        Self { processors: (0..processors).map(|_| Processor::default()).collect() }
    }

    /// All off again.
    pub(crate) fn reset(&self) {
        for Processor { control, events, messages } in &self.processors {
            [control, events, messages].iter().for_each(|register| register.store(0, Ordering::SeqCst));
        }
    }

    /// Takes note of a register write. A page that is newly enabled is cleared, as the hypervisor's own would be: KVM
    /// leaves that to us, and what was there before must not be taken for a message.
    pub(crate) fn write(&self, vp: u32, synic: exits::Synic, memory: &BusMemory) {
        let Some(processor) = self.of(vp) else { return };
        let page = |register: &AtomicU64, value: u64| {
            let before = register.load(Ordering::SeqCst);
            if value & ON != 0 && value != before && !memory.write(address(value), &[0; 4096]) {
                log::warn!(target: "vmbus::vmm", "processor {vp}: a SynIC page at {:#x}, outside memory", address(value));
            }
            register.store(value, Ordering::SeqCst);
        };
        page(&processor.events, synic.event_page);
        page(&processor.messages, synic.message_page);
        processor.control.store(synic.control, Ordering::SeqCst);
    }

    /// Whether there is such a processor.
    pub(crate) fn has(&self, vp: u32) -> bool {
        self.of(vp).is_some()
    }

    /// Where the processor's message page is, while its SynIC and the page are on.
    pub(crate) fn messages(&self, vp: u32) -> Option<u64> {
        self.page(vp, |processor| &processor.messages)
    }

    /// Where its event flags are, likewise.
    pub(crate) fn events(&self, vp: u32) -> Option<u64> {
        self.page(vp, |processor| &processor.events)
    }

    fn page(&self, vp: u32, of: impl Fn(&Processor) -> &AtomicU64) -> Option<u64> {
        let processor = self.of(vp)?;
        let on = |register: &AtomicU64| Some(register.load(Ordering::SeqCst)).filter(|value| value & ON != 0);
        on(&processor.control).and_then(|_| on(of(processor))).map(address)
    }

    fn of(&self, vp: u32) -> Option<&Processor> {
        self.processors.get(usize::try_from(vp).ok()?)
    }
}

/// The address of a page in a register.
fn address(register: u64) -> u64 {
    register & !(PAGE_BYTES - 1)
}
