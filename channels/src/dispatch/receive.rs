//! From a word of event flags to the channels' callbacks. `ci/receive-path.sh` disassembles [`deliver`], by its name:
//! no locked instruction may be in it.

use super::entry::{Attention, Serve};
use super::ready::ReadyList;

/// What an event is looked up in: relid to callback is one load.
pub struct Targets {
    slots: Box<[Option<Box<dyn Serve>>]>,
    /// Who is being called, in case it panics.
    called: usize,
}

impl Targets {
    /// Room for relids below `relids`.
    #[must_use]
    pub fn new(relids: usize) -> Self {
        Self { slots: (0..relids).map(|_| None).collect(), called: 0 }
    }

    /// The one that was called last.
    pub(super) fn called(&self) -> usize {
        self.called
    }

    /// Who is in a slot.
    #[inline(always)]
    pub fn get_mut(&mut self, relid: usize) -> Option<&mut Box<dyn Serve>> {
        let target = self.slots.get_mut(relid)?.as_mut();
        if target.is_some() {
            self.called = relid;
        }
        target
    }

    /// Puts somebody into a slot.
    pub fn put(&mut self, relid: usize, target: Box<dyn Serve>) {
        if let Some(slot) = self.slots.get_mut(relid) {
            *slot = Some(target);
        }
    }

    /// Takes whoever is there out of a slot.
    pub fn take(&mut self, relid: usize) -> Option<Box<dyn Serve>> {
        self.slots.get_mut(relid)?.take()
    }
}

/// Calls the channel of each flag of a word; flag `n` is that of relid `first + n`. A flag is taken out of `flags` before
/// its channel is called, so that whoever catches a panic can go on. Returns the flags that are no channel's here.
#[inline(never)]
pub fn deliver(targets: &mut Targets, ready: &mut ReadyList, first: usize, flags: &mut u64) -> u64 {
    let mut strays = 0;
    while *flags != 0 {
        let flag = *flags & flags.wrapping_neg();
        // Below 64.
        let relid = first + flag.trailing_zeros() as usize;
        *flags ^= flag;
        #[cfg(receive_path_counts)]
        COUNTED.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        match targets.get_mut(relid) {
            Some(target) => {
                if target.event() == Attention::Ready {
                    ready.push(relid);
                }
            }
            None => strays |= flag,
        }
    }
    strays
}

/// What must not be: with it, the script has to fail.
#[cfg(receive_path_counts)]
static COUNTED: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
