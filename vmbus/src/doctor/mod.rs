//! Says what is wrong with a machine before a driver trips over it: kernel, modules, rights, monitor need, memory.
//! Reads through an injectable root, changes nothing, prints nothing: [`examine`] returns a [`Report`].

mod checks;
mod facts;
mod finding;
mod known;
mod log;
mod resources;
#[cfg(test)]
mod tests;

pub use facts::{Facts, Module};
pub use finding::{Finding, Report, Severity};
pub use known::{Applies, KNOWN_BUGS, KnownBug, Series, Verdict};
pub use log::KernelLog;

use crate::sysfs::Bus;

/// Examines the machine that `bus` belongs to. What cannot be read is left out or said to be unknown; nothing here
/// fails.
///
/// ```
/// use vmbus::doctor::{Severity, examine};
/// use vmbus::sysfs::Bus;
///
/// let report = examine(&Bus::at("/nowhere"));
/// assert_eq!(report.worst(), Severity::Failure); // there is no bus
/// ```
#[must_use]
pub fn examine(bus: &Bus) -> Report {
    examine_facts(&Facts::gather(bus))
}

/// Judges facts that were gathered elsewhere.
#[must_use]
pub fn examine_facts(facts: &Facts) -> Report {
    let checks = [
        checks::bus,
        checks::uio_module,
        checks::kernel,
        checks::monitor,
        checks::rings,
        checks::left_open,
        checks::log,
        resources::rights,
        resources::pinning,
        resources::memory,
    ];
    Report::new(facts.kernel.clone(), checks.iter().flat_map(|check| check(facts)).collect())
}
