//! The kernels that guests under test can have: series and suites of Debian, whose newest package is looked up.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a guest's kernel comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kernel {
    /// The newest of the series 6.12 for Debian 12. It hands any channel to user space, and L1 runs on it, too.
    #[serde(rename = "6.12")]
    V6_12,
    /// Debian 12's own. It refuses channels without a monitor id.
    #[serde(rename = "6.1")]
    V6_1,
    /// Debian 13's own.
    #[serde(rename = "trixie")]
    Trixie,
    /// The newest that Debian 13 can have.
    #[serde(rename = "trixie-backports")]
    TrixieBackports,
    /// The newest of all.
    #[serde(rename = "sid")]
    Sid,
}

impl Kernel {
    /// All, those of the lab's own release first.
    pub(crate) const ALL: [Self; 5] = [Self::V6_12, Self::V6_1, Self::Trixie, Self::TrixieBackports, Self::Sid];

    /// Its name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_12 => "6.12",
            Self::V6_1 => "6.1",
            Self::Trixie => "trixie",
            Self::TrixieBackports => "trixie-backports",
            Self::Sid => "sid",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What the command line says about kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KernelChoice {
    /// Debian 12's own.
    #[value(name = "6.1")]
    V6_1,
    /// The newest of this series for Debian 12.
    #[value(name = "6.12")]
    V6_12,
    /// Debian 13's own.
    Trixie,
    /// The newest that Debian 13 can have.
    TrixieBackports,
    /// Unstable's.
    Sid,
    /// Whichever of these suites has the newest.
    Newest,
}

impl KernelChoice {
    /// The kernels that have to be there to choose from.
    pub(crate) fn candidates(self) -> &'static [Kernel] {
        match self {
            Self::V6_1 => &[Kernel::V6_1],
            Self::V6_12 => &[Kernel::V6_12],
            Self::Trixie => &[Kernel::Trixie],
            Self::TrixieBackports => &[Kernel::TrixieBackports],
            Self::Sid => &[Kernel::Sid],
            Self::Newest => &[Kernel::Trixie, Kernel::TrixieBackports, Kernel::Sid],
        }
    }
}

/// The kernels that were asked for; `newest` picks one of several candidates.
pub(crate) fn resolve(choices: &[KernelChoice], newest: impl Fn(&[Kernel]) -> Kernel) -> BTreeSet<Kernel> {
    let pick = |choice: &KernelChoice| match choice.candidates() {
        [kernel] => *kernel,
        several => newest(several),
    };
    choices.iter().map(pick).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Kernel, KernelChoice, resolve};

    #[test]
    fn newest_is_one_of_the_suites() {
        let choices = [KernelChoice::V6_1, KernelChoice::Newest, KernelChoice::Sid];
        let resolved = resolve(&choices, |several| several[1]);
        assert_eq!(resolved, BTreeSet::from([Kernel::V6_1, Kernel::TrixieBackports, Kernel::Sid]));
    }
}
