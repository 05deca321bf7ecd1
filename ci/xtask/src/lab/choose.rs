//! Which scenarios are played on which kernels, from the command line's words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::fetch::{Software, Wanted};
use super::host::Host;
use super::kernel::{Kernel, KernelChoice, resolve};
use super::scenario::{Scenario, all};
use crate::process::Usage;

/// A scenario and the kernel to play it on.
pub(crate) type Chosen = (&'static Scenario, Kernel);

/// What the command line says about that.
#[derive(Debug, Default)]
pub(crate) struct Choice<'a> {
    /// Names of scenarios; all if none is named.
    pub(crate) names: &'a [String],
    /// Hosts; both if none is named.
    pub(crate) hosts: &'a [Host],
    /// Kernels; if none is named, each scenario's first or, with `all`, all of its kernels.
    pub(crate) kernels: &'a [KernelChoice],
    /// Also what is not played every time.
    pub(crate) all: bool,
}

impl Choice<'_> {
    /// The scenarios that are wanted, whatever the kernel.
    ///
    /// # Errors
    /// [`Usage`] for a name that is no scenario's, or not one of the wanted hosts'.
    pub(crate) fn scenarios(&self) -> Result<Vec<&'static Scenario>> {
        for name in self.names {
            let Some(scenario) = all().find(|scenario| scenario.name == name) else {
                let known: Vec<&str> = all().map(|scenario| scenario.name).collect();
                bail!(Usage(format!("there is no scenario {name:?}; there are: {}", known.join(", "))));
            };
            if !self.of_wanted_host(scenario) {
                bail!(Usage(format!("scenario {name:?} is about host {}", scenario.host)));
            }
        }
        let wanted = |scenario: &&Scenario| match self.names {
            [] => self.of_wanted_host(scenario) && (self.all || scenario.every_time),
            names => names.iter().any(|name| name == scenario.name),
        };
        Ok(all().filter(wanted).collect())
    }

    fn of_wanted_host(&self, scenario: &Scenario) -> bool {
        self.hosts.is_empty() || self.hosts.contains(&scenario.host)
    }

    /// What has to be there before [`Choice::pairs`] can tell more.
    ///
    /// # Errors
    /// As [`Choice::scenarios`].
    pub(crate) fn wanted(&self, update: bool) -> Result<Wanted> {
        let scenarios = self.scenarios()?;
        let kernels: BTreeSet<Kernel> = if self.kernels.is_empty() {
            scenarios.iter().flat_map(|scenario| self.of(scenario)).copied().collect()
        } else {
            self.kernels.iter().flat_map(|choice| choice.candidates()).copied().collect()
        };
        let lsvmbus = scenarios.iter().any(|scenario| scenario.lsvmbus);
        Ok(Wanted { kernels, lsvmbus, update })
    }

    /// The kernels of a scenario if none is named.
    fn of(&self, scenario: &Scenario) -> &'static [Kernel] {
        if self.all { scenario.kernels } else { scenario.kernels.get(..1).unwrap_or_default() }
    }

    /// The scenarios, each with the kernels it is to be played on.
    ///
    /// # Errors
    /// [`Usage`] for a named scenario that can be played on none of the named kernels, or as [`Choice::scenarios`].
    pub(crate) fn pairs(&self, newest: impl Fn(&[Kernel]) -> Kernel) -> Result<Vec<Chosen>> {
        let kernels = resolve(self.kernels, newest);
        let mut pairs = Vec::new();
        for scenario in self.scenarios()? {
            let before = pairs.len();
            if self.kernels.is_empty() {
                pairs.extend(self.of(scenario).iter().map(|kernel| (scenario, *kernel)));
            } else {
                let on = scenario.kernels.iter().filter(|kernel| kernels.contains(kernel));
                pairs.extend(on.map(|kernel| (scenario, *kernel)));
            }
            if pairs.len() == before && !self.names.is_empty() {
                let names: Vec<&str> = kernels.iter().map(|kernel| kernel.name()).collect();
                bail!(Usage(format!("scenario {:?} cannot be played on kernel {}", scenario.name, names.join(", "))));
            }
        }
        Ok(pairs)
    }

    /// The kernel for a guest without scenarios.
    pub(crate) fn one_kernel(&self, software: &Software) -> Kernel {
        let kernels = resolve(self.kernels, |several| software.newest(several));
        kernels.into_iter().next().unwrap_or(Kernel::V6_12)
    }

    /// What there is to choose from, as a table without a network.
    ///
    /// # Errors
    /// As [`Choice::scenarios`].
    pub(crate) fn list(&self) -> Result<String> {
        let all = Choice { all: true, ..*self };
        let chosen = |scenario: &Scenario| {
            let resolved = |several: &[Kernel]| several.last().copied().unwrap_or(Kernel::Sid);
            let kernels = resolve(self.kernels, resolved);
            self.kernels.is_empty() || scenario.kernels.iter().any(|kernel| kernels.contains(kernel))
        };
        let scenarios: Vec<_> = all.scenarios()?.into_iter().filter(|scenario| chosen(scenario)).collect();
        let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
        let mut list = String::new();
        for scenario in scenarios {
            let Scenario { name, summary, host, .. } = scenario;
            let often = if scenario.every_time { "every time" } else { "with --all" };
            let kernels: Vec<&str> = scenario.kernels.iter().map(|kernel| kernel.name()).collect();
            let _ = writeln!(list, "{name:width$}  {host:4}  {often}  {summary}  [{}]", kernels.join(" "));
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::{Choice, Host, Kernel, KernelChoice, Usage};

    fn names(choice: &Choice<'_>) -> Vec<(&'static str, Kernel)> {
        let pairs = choice.pairs(|several| several[0]).unwrap();
        pairs.iter().map(|(scenario, kernel)| (scenario.name, *kernel)).collect()
    }

    #[test]
    fn a_name_that_is_no_scenario_is_a_usage_error_that_names_them() {
        let error =
            Choice { names: &["lisst".to_owned()], ..Choice::default() }.pairs(|several| several[0]).unwrap_err();
        assert!(error.is::<Usage>());
        assert!(error.to_string().contains("late-bind"), "{error}");
        let choice = Choice { names: &["list".to_owned()], hosts: &[Host::Vmm], ..Choice::default() };
        assert!(choice.scenarios().unwrap_err().is::<Usage>());
    }

    #[test]
    fn a_kernel_limits_what_is_played() {
        let hosts = &[Host::Qemu];
        assert_eq!(names(&Choice { hosts, ..Choice::default() }).len(), 11);
        let old = Choice { hosts, kernels: &[KernelChoice::V6_1], ..Choice::default() };
        assert_eq!(names(&old), [("list", Kernel::V6_1), ("old-kernel", Kernel::V6_1)]);
        let refused = Choice { names: &["kill9".to_owned()], ..old };
        assert!(refused.pairs(|several| several[0]).unwrap_err().is::<Usage>());
    }

    #[test]
    fn all_means_every_scenario_on_each_of_its_kernels() {
        let all = Choice { all: true, hosts: &[Host::Qemu], ..Choice::default() };
        let names = names(&all);
        assert_eq!(names.iter().filter(|(name, _)| *name == "list").count(), 5);
        assert_eq!(names.iter().filter(|(name, _)| *name == "registry-100").count(), 1);
        assert_eq!(all.wanted(false).unwrap().kernels.len(), 5);
        let newest = Choice { kernels: &[KernelChoice::Newest], ..Choice::default() };
        assert_eq!(newest.wanted(false).unwrap().kernels.len(), 3);
        assert!(!Choice::default().wanted(false).unwrap().kernels.contains(&Kernel::Sid));
    }

    #[test]
    fn the_list_shows_host_and_kernels() {
        let list = Choice::default().list().unwrap();
        assert!(list.lines().any(|line| line.starts_with("list ") && line.contains("qemu") && line.contains("sid")));
        assert!(list.lines().any(|line| line.starts_with("registry-100 ") && line.contains("with --all")));
        assert!(list.lines().any(|line| line.starts_with("vmm-first-light ") && line.contains("every time")), "{list}");
    }
}
