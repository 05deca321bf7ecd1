//! What the bus needs of the machine: interrupts at a SINT, and signals that KVM takes by itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result};

use crate::kvm::{SintInterrupt, Vm};

/// What the bus needs of the machine. All calls come on the bus's thread.
pub trait Wires: Send {
    /// Interrupts processor `vp` at SINT `sint`.
    ///
    /// # Errors
    /// There is no such processor, or the machine ran out of something.
    fn interrupt(&mut self, vp: u32, sint: u8) -> Result<()>;

    /// Readable after the guest has ended a message or an interrupt at that SINT; `None` where it was never interrupted.
    fn ended(&self, vp: u32, sint: u8) -> Option<BorrowedFd<'_>>;

    /// From now on HvSignalEvent on this connection is a write to the eventfd, and no hypercall for us.
    ///
    /// # Errors
    /// KVM does not take it; then the hypercall comes to us.
    fn assign(&mut self, connection: u32, event: &OwnedFd) -> Result<()>;
}

/// The wires of a machine on KVM.
#[derive(Debug)]
pub struct VmWires {
    vm: Vm,
    /// Made when they are needed first.
    sints: BTreeMap<(u32, u8), SintInterrupt>,
}

impl VmWires {
    /// Of this machine.
    #[must_use]
    pub fn new(vm: Vm) -> Self {
        Self { vm, sints: BTreeMap::new() }
    }
}

impl Wires for VmWires {
    fn interrupt(&mut self, vp: u32, sint: u8) -> Result<()> {
        let interrupt = match self.sints.entry((vp, sint)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.vm.sint_interrupt(vp, sint.into())?),
        };
        interrupt.trigger.write(1).with_context(|| format!("interrupt processor {vp} at SINT {sint}"))
    }

    fn ended(&self, vp: u32, sint: u8) -> Option<BorrowedFd<'_>> {
        Some(self.sints.get(&(vp, sint))?.ended_fd())
    }

    fn assign(&mut self, connection: u32, event: &OwnedFd) -> Result<()> {
        self.vm.assign_signal(connection, event)
    }
}
