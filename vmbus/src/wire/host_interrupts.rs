//! Interrupts and signals as a host sees them: event flags that it sets, bits that it takes.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::{Errno, ReadWriteFlags, preadv2, read, write};

use super::host_memory::HostMemory;
use super::layout::{EVENT_FLAGS, Layout, VMBUS_SINT};
use super::transport::is_eventfd;
use crate::Error;
use crate::memory::Mapping;
use crate::signal_bits::{SEND_HALF, TRIGGER_GROUP_BYTES, TRIGGER_GROUPS};

/// Interrupts of one guest's processors, and the signals that it sends. Shared by the threads of a host that serve this
/// guest.
///
/// The eventfds are the guest's: they come with `O_NONBLOCK`, but a guest that means harm can clear it and fill the
/// counter, and then [`raise`](Self::raise) waits. So a host has threads of its own for each guest; nobody else suffers.
#[derive(Debug)]
pub struct HostInterrupts {
    processors: Vec<Processor>,
    interrupt_page: Arc<Mapping>,
    monitor_page: Arc<Mapping>,
    signals: OwnedFd,
}

#[derive(Debug)]
struct Processor {
    flags: Arc<Mapping>,
    event: OwnedFd,
}

impl HostInterrupts {
    /// From a guest's memory and its eventfds, those of the processors first.
    pub(super) fn new(memory: &HostMemory, mut events: Vec<OwnedFd>) -> Result<Self, Error> {
        let layout = memory.layout();
        let refused = |why: String| Error::Handshake { why };
        let expected = layout.processors() + 1;
        if events.len() != expected {
            return Err(refused(format!("{expected} eventfds belong to the hello, and {} came", events.len())));
        }
        if !events.iter().all(is_eventfd) {
            return Err(refused("a descriptor is no eventfd that does not block".to_owned()));
        }
        let signals = events.pop().ok_or_else(|| refused("no eventfd came".to_owned()))?;
        let mut processors = Vec::with_capacity(events.len());
        for (number, event) in events.into_iter().enumerate() {
            let page = layout.event_flags_page(number).unwrap_or_default();
            processors.push(Processor { flags: memory.map(&[page])?, event });
        }
        let interrupt_page = memory.map(&[layout.interrupt_page()])?;
        let monitor_page = memory.map(&[layout.child_to_parent_page()])?;
        Ok(Self { processors, interrupt_page, monitor_page, signals })
    }

    /// Processors that can be interrupted.
    #[must_use]
    pub fn processors(&self) -> usize {
        self.processors.len()
    }

    /// Sets an event flag of the VMBus's interrupt source on a processor, and interrupts it if the flag was clear (a
    /// flag that is set means that the guest was interrupted and has not looked yet). Whether it was clear.
    ///
    /// # Errors
    /// [`Error::Io`] with `EINVAL` when there is no such processor or flag.
    pub fn raise(&self, processor: usize, flag: u32) -> Result<bool, Error> {
        self.raise_at(processor, VMBUS_SINT, flag)
    }

    /// As [`raise`](Self::raise), for any of the 16 interrupt sources: a guest must not mind the others.
    ///
    /// # Errors
    /// As [`raise`](Self::raise).
    pub fn raise_at(&self, processor: usize, source: usize, flag: u32) -> Result<bool, Error> {
        let failed = |error| Error::io("interrupt", format!("processor {processor}, flag {flag}"), error);
        let none = || failed(Errno::INVAL);
        let target = self.processors.get(processor).ok_or_else(none)?;
        let flag = usize::try_from(flag).ok().filter(|flag| *flag < EVENT_FLAGS).ok_or_else(none)?;
        let source_bytes = Layout::event_flags_offset() / VMBUS_SINT;
        let offset = source.checked_mul(source_bytes).and_then(|start| start.checked_add(flag / 32 * 4));
        let before = offset.and_then(|offset| target.flags.set_bits(offset, 1 << (flag % 32))).ok_or_else(none)?;
        let clear = before & (1 << (flag % 32)) == 0;
        if clear {
            interrupt(&target.event).map_err(failed)?;
        }
        Ok(clear)
    }

    /// Interrupts a processor without a flag, which a guest must not mind.
    ///
    /// # Errors
    /// As [`raise`](Self::raise).
    pub fn interrupt(&self, processor: usize) -> Result<(), Error> {
        let failed = |error| Error::io("interrupt", format!("processor {processor}"), error);
        let target = self.processors.get(processor).ok_or_else(|| failed(Errno::INVAL))?;
        interrupt(&target.event).map_err(failed)
    }

    /// Readable when the guest has signalled a channel without a monitor id.
    #[must_use]
    pub fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// Takes the guest's signals: each channel (by relid) with a bit in the interrupt page. Those of channels with a
    /// monitor id are among them, but the guest writes no eventfd for these: poll.
    ///
    /// The eventfd is read before the bits are taken; a signal that comes between makes it readable again.
    pub fn take_signals(&self, each: impl FnMut(u32)) {
        acknowledge(&self.signals);
        self.take_signal_bits(each);
    }

    /// As [`take_signals`](Self::take_signals), for who waits for the edges of [`signals`](Self::signals), by an epoll
    /// for one: the eventfd is not read, and each signal from now on is another edge.
    pub fn take_signal_bits(&self, mut each: impl FnMut(u32)) {
        // Half a page, and aligned: it is always there.
        let words = self.interrupt_page.words(SEND_HALF, SEND_HALF / size_of::<u64>()).unwrap_or_default();
        for (first, word) in (0_u32..).step_by(64).zip(words) {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // As `Mapping::take_word`: rings are looked at behind it.
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                each(first + bit);
            }
        }
    }

    /// Takes the bits of the monitor page: each monitor id that the guest has set since.
    pub fn take_monitors(&self, mut each: impl FnMut(u8)) {
        for (group, first) in [0_u8, 32, 64, 96].into_iter().enumerate() {
            let offset = TRIGGER_GROUPS + group * TRIGGER_GROUP_BYTES;
            let mut pending = self.monitor_page.load(offset).unwrap_or_default();
            if pending != 0 {
                pending = self.monitor_page.clear_bits(offset, pending).unwrap_or_default() & pending;
            }
            for bit in (0..32_u8).filter(|bit| pending & (1 << bit) != 0) {
                each(first + bit);
            }
        }
    }
}

/// One more interrupt on an eventfd. A counter that is full has not been looked at, and says so already.
pub(super) fn interrupt(event: &OwnedFd) -> Result<(), Errno> {
    loop {
        match write(event, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes the count of an eventfd, without waiting, also where the other side has made it block.
fn acknowledge(event: &OwnedFd) {
    let mut count = [0_u8; 8];
    // All ones: no position.
    let outcome = preadv2(event, &mut [IoSliceMut::new(&mut count)], u64::MAX, ReadWriteFlags::NOWAIT);
    if outcome == Err(Errno::OPNOTSUPP) {
        let _ = read(event, &mut count);
    }
}
