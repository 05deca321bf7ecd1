//! The SynIC: message slots and event flags in pages that the guest has chosen, and the interrupts that announce them.
//!
//! Format: the TLFS's synthetic interrupt controller (Linux' include/asm-generic/hyperv-tlfs.h): a message page has 16
//! slots of 256 bytes {type: u32, size: u8, flags: u8, reserved: u16, origin: u64, payload}; an event flags page 16
//! times 2048 flags.

mod registers;
mod slot;
#[cfg(test)]
mod tests;

pub use registers::Registers;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vmbus::message::Message;

use crate::bus_memory::BusMemory;
use crate::shared::Shared;
use crate::wires::Wires;
use slot::Slot;

/// Event flags of an interrupt source.
const FLAGS: u32 = 2048;
/// Bytes of the event flags of one interrupt source.
const FLAGS_BYTES: u64 = 256;
/// Interrupt sources of a SynIC.
const SINTS: u8 = 16;
/// Messages that wait for slots before the bus stops to take more out of the host.
const WAITING_AT_MOST: usize = 1024;
/// A guest ends a message that has others behind it by a register write. One that does not is looked after so often.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Messages and event flags on their way to the guest. Owned by the bus's thread.
#[derive(Debug)]
pub struct Synic<W> {
    memory: BusMemory,
    shared: Arc<Shared>,
    wires: W,
    /// Messages that wait for a slot, by processor and SINT; none of these is empty.
    waiting: BTreeMap<(u32, u8), VecDeque<Message>>,
}

impl<W: Wires> Synic<W> {
    /// With nothing on its way.
    pub fn new(memory: BusMemory, shared: Arc<Shared>, wires: W) -> Self {
        Self { memory, shared, wires, waiting: BTreeMap::new() }
    }

    /// The machine.
    pub fn wires(&mut self) -> &mut W {
        &mut self.wires
    }

    /// Whether another message may be posted.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.shared.stats.waiting.load(Ordering::Relaxed) < WAITING_AT_MOST
    }

    /// Puts a message into the slot of a SINT, behind those that wait for it; and interrupts.
    ///
    /// # Errors
    /// There is no such processor or SINT: the message is lost.
    pub fn post(&mut self, vp: u32, sint: u8, message: Message) -> Result<()> {
        ensure!(self.shared.registers.has(vp) && sint < SINTS, "no SINT {sint} on processor {vp}: a message is lost");
        self.waiting.entry((vp, sint)).or_default().push_back(message);
        self.shared.stats.waiting.fetch_add(1, Ordering::Relaxed);
        self.deliver(vp, sint)
    }

    /// Looks whether slots that messages wait for are free.
    pub fn retry(&mut self) {
        let places: Vec<_> = self.waiting.keys().copied().collect();
        for (vp, sint) in places {
            // First taken note of, and then looked: what the guest ends after the look is readable again.
            let ended = self.wires.ended(vp, sint).is_some_and(crate::event::take);
            let before = self.shared.stats.waiting.load(Ordering::Relaxed);
            if let Err(error) = self.deliver(vp, sint) {
                log::debug!(target: "vmbus::vmm", "{error:#}");
            }
            if !ended && self.shared.stats.waiting.load(Ordering::Relaxed) != before {
                self.shared.stats.slots_found.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What to wait on for slots to become free.
    pub fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.waiting.keys().filter_map(|(vp, sint)| self.wires.ended(*vp, *sint))
    }

    /// How long to wait for that at most. Where a SynIC is off the guest switches it on before anything can move, and
    /// that comes as an exit.
    #[must_use]
    pub fn look_again(&self) -> Option<Duration> {
        let on = self.waiting.keys().any(|(vp, _)| self.shared.registers.messages(*vp).is_some());
        on.then_some(LOOK_AGAIN)
    }

    /// Sets an event flag, and interrupts if it was clear: one that is set means that the guest was interrupted and has
    /// not looked yet. The guest takes flags by an atomic exchange, and looks at what they announce after that; so what
    /// was published before the flag was found set is seen by that look.
    ///
    /// # Errors
    /// There is no such processor, SINT or flag, or the guest has no page for it: the interrupt is lost.
    pub fn set_flag(&mut self, vp: u32, sint: u8, flag: u32) -> Result<()> {
        let lost = || format!("flag {flag} of SINT {sint} on processor {vp} is lost");
        ensure!(flag < FLAGS && sint < SINTS, lost());
        let page = self.shared.registers.events(vp);
        let address = page.and_then(|page| page.checked_add(u64::from(sint) * FLAGS_BYTES + u64::from(flag / 64) * 8));
        let word = address.and_then(|address| self.memory.words(address, 1)?.first());
        let word = word.with_context(|| format!("{}: its guest has no page for event flags there", lost()))?;
        let bit = 1_u64 << (flag % 64);
        // A full barrier, on both sides: see above.
        if word.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
            self.shared.stats.flags_found_set.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.wires.interrupt(vp, sint).with_context(lost)?;
        self.shared.stats.interrupts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Fills the slot from its queue as long as the guest empties it.
    fn deliver(&mut self, vp: u32, sint: u8) -> Result<()> {
        let Some(queue) = self.waiting.get_mut(&(vp, sint)) else { return Ok(()) };
        let page = self.shared.registers.messages(vp);
        let Some(slot) = page.and_then(|page| Slot::of(&self.memory, page, sint)) else { return Ok(()) };
        let mut outcome = Ok(());
        while let Some(message) = queue.front() {
            if !slot.put(message) {
                return outcome;
            }
            queue.pop_front();
            self.shared.stats.waiting.fetch_sub(1, Ordering::Relaxed);
            self.shared.stats.messages.fetch_add(1, Ordering::Relaxed);
            outcome = self.wires.interrupt(vp, sint);
        }
        self.waiting.remove(&(vp, sint));
        outcome
    }
}
