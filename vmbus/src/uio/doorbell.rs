//! How one channel signals the host: by a bit that the host polls, or by a system call.

use crate::signal_bits::SignalBits;

/// How to signal the host about one channel. See [`OpenDevice::ring`](super::OpenDevice::ring).
#[derive(Debug, Clone)]
pub struct Doorbell(pub(super) Kind);

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// The host polls a bit (or the hypervisor traps on it); no system call, and nothing fails when the device is gone.
    Monitor(SignalBits),
    /// The 4-byte write, which signals on all channels of the device that have no monitor id.
    Write,
}

impl Doorbell {
    /// Whether signalling unmasks the interrupts of all channels of the device, as the 4-byte write does. Who keeps a
    /// ring masked must then mask it again.
    #[must_use]
    pub fn unmasks(&self) -> bool {
        matches!(self.0, Kind::Write)
    }
}
