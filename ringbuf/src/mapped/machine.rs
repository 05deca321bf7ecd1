//! What this machine can do, asked once: in a virtual machine each cpuid ends up in the hypervisor, tens of microseconds
//! away, which is more than the rest of what it takes to open a ring.
#![deny(unsafe_code)]

use core::sync::atomic::{AtomicUsize, Ordering};

use super::vector::Machine;

/// Not asked yet: no registers have no bytes.
const UNKNOWN: usize = 0;
/// A bit that no number of bytes has: strings are never best.
const NO_STRINGS: usize = 1;
/// From where strings are best, if they ever are: as [`Machine::ask`] says.
const STRINGS_FROM: usize = 4032;

static KNOWN: AtomicUsize = AtomicUsize::new(UNKNOWN);

impl Machine {
    /// The copies of the machine that this runs on. (Threads that ask at the same time find the same.)
    pub(super) fn this() -> Self {
        let known = match KNOWN.load(Ordering::Relaxed) {
            UNKNOWN => {
                let asked = Self::ask().code();
                KNOWN.store(asked, Ordering::Relaxed);
                asked
            }
            known => known,
        };
        Self::of_code(known)
    }

    const fn code(self) -> usize {
        if self.strings_from == usize::MAX { self.register_bytes | NO_STRINGS } else { self.register_bytes }
    }

    const fn of_code(code: usize) -> Self {
        let strings_from = if code & NO_STRINGS == 0 { STRINGS_FROM } else { usize::MAX };
        Self { register_bytes: code & !NO_STRINGS, strings_from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_is_what_is_known() {
        let of = |machine: Machine| (machine.register_bytes, machine.strings_from);
        for machine in [Machine::PLAIN, Machine::ask()] {
            assert_eq!(of(Machine::of_code(machine.code())), of(machine));
        }
        assert_eq!(of(Machine::this()), of(Machine::ask()), "the first time");
        assert_eq!(of(Machine::this()), of(Machine::ask()), "from memory");
    }
}
