//! Who plays the VMBus host for a guest, and the line to it from the outside.

use std::fmt;

use anyhow::{Context, Result, bail};

use super::control::Control;
use super::qmp::Qmp;

/// The VMBus host of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Host {
    /// QEMU's: foreign, with one device that neither comes nor goes. It judges our driver.
    Qemu,
    /// The simulated host in the VMM of `tests/vmm`: anything at any time. The kernel's drivers judge it.
    Vmm,
}

impl Host {
    /// Its name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Vmm => "vmm",
        }
    }

    /// Name of the socket by which scenarios talk to it.
    pub(crate) fn socket(self) -> &'static str {
        match self {
            Self::Qemu => "qmp",
            Self::Vmm => "control",
        }
    }

    /// Modules that make the bus, in their order, each with its options. (By default `hv_balloon` is silent for 45 s.)
    pub(crate) fn bus_modules(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &["hv_vmbus", "uio", "uio_hv_generic", "hv_balloon pressure_report_delay=0"],
            Self::Vmm => &["hv_vmbus", "uio", "uio_hv_generic"],
        }
    }

    /// Modules without which the agent has no port.
    pub(crate) fn port_modules(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &["virtio_pci", "virtio_console"],
            Self::Vmm => &["virtio_mmio", "virtio_console"],
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The line to the host of a guest.
#[derive(Debug)]
pub(crate) enum HostLine {
    /// QEMU's monitor.
    Qmp(Qmp),
    /// The VMM's control socket.
    Control(Control),
}

impl HostLine {
    /// Says hello in the host's own way, once the guest is up.
    ///
    /// # Errors
    /// No or an odd answer.
    pub(crate) fn greet(&mut self) -> Result<()> {
        match self {
            Self::Qmp(qmp) => qmp.negotiate().context("set up QMP"),
            Self::Control(control) => control.greet().context("set up the control line"),
        }
    }

    /// QEMU's monitor.
    ///
    /// # Errors
    /// The host is another.
    pub(crate) fn qmp(&mut self) -> Result<&mut Qmp> {
        match self {
            Self::Qmp(qmp) => Ok(qmp),
            Self::Control(_) => bail!("this guest's host is not QEMU: it has no QMP"),
        }
    }

    /// The VMM's control socket.
    ///
    /// # Errors
    /// The host is another.
    pub(crate) fn control(&mut self) -> Result<&mut Control> {
        match self {
            Self::Control(control) => Ok(control),
            Self::Qmp(_) => bail!("this guest's host is QEMU: it has no control socket"),
        }
    }
}
