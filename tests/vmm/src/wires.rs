//! What the bus needs of the machine: interrupts at a SINT, and signals that KVM takes by itself.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::Result;

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
