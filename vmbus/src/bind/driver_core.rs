//! The seam between the binder and the kernel: the writes it makes, and the points where it could be killed.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One change to the machine. The journal names it before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Write the device's `driver_override`.
    Override,
    /// Tell `uio_hv_generic` about the device's class.
    AddId,
    /// Take the device from the driver that has it.
    Unbind,
    /// Give the device to `uio_hv_generic`.
    Bind,
    /// Make `uio_hv_generic` forget the class.
    RemoveId,
    /// Take back what `uio_hv_generic` grabbed besides the device, since it was told about the class.
    ReleaseBystanders,
}

/// What the binder does to the outside world. Tests put a model of the driver core here.
pub(crate) trait DriverCore: fmt::Debug + Send + Sync {
    /// One `write(2)` of `value` to a sysfs attribute.
    fn write(&self, attribute: &Path, value: &str) -> io::Result<()>;

    /// The process is at a point where its death would leave a state of its own.
    fn at(&self, _point: Point) {}
}

/// See [`DriverCore::at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// A new journal is written beside the old one, and not yet in its place.
    JournalWritten,
    /// The journal is in its place.
    JournalInPlace,
    /// A write to sysfs has returned.
    Changed,
    /// The journal is gone.
    JournalDropped,
}

/// The machine's own kernel.
#[derive(Debug)]
pub(crate) struct System;

impl DriverCore for System {
    fn write(&self, attribute: &Path, value: &str) -> io::Result<()> {
        // One call: sysfs takes each write as a whole value.
        let written = OpenOptions::new().write(true).open(attribute)?.write(value.as_bytes())?;
        if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}
