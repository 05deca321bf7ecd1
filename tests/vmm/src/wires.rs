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

impl Wires for Box<dyn Wires> {
    fn interrupt(&mut self, vp: u32, sint: u8) -> Result<()> {
        (**self).interrupt(vp, sint)
    }

    fn ended(&self, vp: u32, sint: u8) -> Option<BorrowedFd<'_>> {
        (**self).ended(vp, sint)
    }

    fn assign(&mut self, connection: u32, event: &OwnedFd) -> Result<()> {
        (**self).assign(connection, event)
    }
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

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::sync::{Arc, Condvar, Mutex};
    use std::time::Duration;

    use anyhow::{Context, Result, ensure};

    use super::Wires;

    /// Processors of the machine below.
    pub(crate) const PROCESSORS: u32 = 2;

    /// A machine of wires only.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct FakeWires {
        state: Arc<(Mutex<State>, Condvar)>,
        ends: BTreeMap<(u32, u8), Arc<OwnedFd>>,
        /// KVM has no room for eventfds.
        takes_no_signals: bool,
    }

    #[derive(Debug, Default)]
    struct State {
        interrupts: BTreeMap<(u32, u8), u32>,
        events: BTreeMap<u32, OwnedFd>,
    }

    impl FakeWires {
        pub(crate) fn new() -> Self {
            let places = (0..PROCESSORS).flat_map(|vp| [(vp, 2), (vp, 5)]);
            let ends = places.map(|place| (place, Arc::new(crate::event::new().unwrap()))).collect();
            Self { ends, ..Self::default() }
        }

        /// The same, with signals as hypercalls.
        pub(crate) fn without_signals() -> Self {
            Self { takes_no_signals: true, ..Self::new() }
        }

        /// The guest writes EOM, or ends an interrupt.
        pub(crate) fn end(&self, vp: u32, sint: u8) {
            rustix::io::write(&self.ends[&(vp, sint)], &1_u64.to_ne_bytes()).unwrap();
        }

        /// Interrupts since the last time.
        pub(crate) fn interrupts(&self, vp: u32, sint: u8) -> u32 {
            self.state.0.lock().unwrap().interrupts.remove(&(vp, sint)).unwrap_or(0)
        }

        /// Waits until the processor is interrupted; whether it was.
        pub(crate) fn wait(&self, vp: u32, sint: u8) -> bool {
            let (state, interrupted) = &*self.state;
            let none = |state: &mut State| !state.interrupts.contains_key(&(vp, sint));
            let waited = interrupted.wait_timeout_while(state.lock().unwrap(), Duration::from_secs(20), none);
            waited.unwrap().0.interrupts.remove(&(vp, sint)).is_some()
        }

        /// What KVM does with HvSignalEvent: whether it has an eventfd for it.
        pub(crate) fn signal(&self, connection: u32) -> bool {
            let state = self.state.0.lock().unwrap();
            let event = state.events.get(&connection);
            event.map(|event| rustix::io::write(event, &1_u64.to_ne_bytes()).unwrap()).is_some()
        }
    }

    impl Wires for FakeWires {
        fn interrupt(&mut self, vp: u32, sint: u8) -> Result<()> {
            ensure!(vp < PROCESSORS, "no processor {vp}");
            *self.state.0.lock().unwrap().interrupts.entry((vp, sint)).or_default() += 1;
            self.state.1.notify_all();
            Ok(())
        }

        fn ended(&self, vp: u32, sint: u8) -> Option<BorrowedFd<'_>> {
            self.ends.get(&(vp, sint)).map(|event| event.as_fd())
        }

        fn assign(&mut self, connection: u32, event: &OwnedFd) -> Result<()> {
            ensure!(!self.takes_no_signals, "no room");
            let event = event.try_clone().context("one more descriptor")?;
            ensure!(self.state.0.lock().unwrap().events.insert(connection, event).is_none(), "EEXIST");
            Ok(())
        }
    }
}
