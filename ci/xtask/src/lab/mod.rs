//! The guest lab: an unmodified distribution kernel on a VMBus host that nobody here wrote.
//! fetch -> programs -> image -> machine -> boot -> guest -> scenario -> runner -> report, a file or folder each.

mod agent;
mod boot;
mod cpio;
mod fetch;
mod guest;
mod image;
pub(crate) mod keep;
mod kernel_log;
mod line;
mod machine;
mod post_mortem;
mod programs;
mod progress;
mod qmp;
mod report;
mod runner;
mod scenario;
#[path = "../../../guest/src/wire.rs"]
mod wire;

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::boot::Nursery;
use self::fetch::Software;
use self::machine::Acceleration;
use self::programs::Programs;
use self::progress::Progress;
use self::report::Report;
use self::scenario::{ALL, Scenario};
use crate::process::{Usage, catch_signals};

/// Command line of `lab`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// List the scenarios and end.
    #[arg(long)]
    list: bool,
    /// Play only this scenario; can be given more than once.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Leave the last guest running until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Play what can be played on this kernel, on this kernel.
    #[arg(long)]
    kernel: Option<Kernel>,
    /// Print the results as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Look for newer packages even if there are some already.
    #[arg(long)]
    update: bool,
    /// How guests run; found out if not given.
    #[arg(long)]
    acceleration: Option<Acceleration>,
    /// Longest time for one boot, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    boot_timeout: u64,
    /// Play everything so many times; ends with the first failure.
    #[arg(long, value_name = "TIMES", default_value_t = 1)]
    repeat: u32,
}

/// A series of Debian kernels for the guest under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
pub(crate) enum Kernel {
    /// Hands any channel to user space.
    #[value(name = "6.12")]
    #[serde(rename = "6.12")]
    V6_12,
    /// Refuses channels without a monitor id.
    #[value(name = "6.1")]
    #[serde(rename = "6.1")]
    V6_1,
}

impl Kernel {
    const ALL: [Self; 2] = [Self::V6_12, Self::V6_1];

    fn series(self) -> &'static str {
        match self {
            Self::V6_12 => "6.12",
            Self::V6_1 => "6.1",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.series())
    }
}

/// Plays the chosen scenarios; exits 1 if one failed.
///
/// # Errors
/// [`Usage`] for a name that is no scenario's; else what kept the lab from playing.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let start = Instant::now();
    let chosen = choose(&options.scenario, options.kernel)?;
    if options.list {
        let width = ALL.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
        let lines = chosen.iter().map(|(scenario, kernel)| {
            format!("{:width$}  {:4}  {}\n", scenario.name, kernel.series(), scenario.summary)
        });
        std::io::stdout().lock().write_all(lines.collect::<String>().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    catch_signals()?;
    let repository =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().context("find the repository")?;
    let folder = repository.join("target/lab");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let progress = Progress::new();
    let _lock = lock(&folder, &progress)?;
    let nursery = prepare(options, &repository, &folder, &progress)?;
    let mut report = Report { outcomes: Vec::new(), facts: facts(&nursery), seconds: 0.0 };
    let played = play(options, &nursery, &chosen, &mut report);
    report.facts.extend(nursery.repeated().into_iter().map(|why| ("booted twice".to_owned(), why)));
    report.seconds = start.elapsed().as_secs_f64();
    fs::write(folder.join("junit.xml"), report.junit()).context("write junit.xml")?;
    let mut stdout = std::io::stdout().lock();
    if options.json {
        writeln!(stdout, "{:#}", report.json())?;
    } else {
        writeln!(stdout, "{}", report.table())?;
    }
    drop(stdout);
    if let Some(guest) = played? {
        keep::hold(guest, &progress)?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Gets the software and builds the programs side by side, and finds out how guests can run.
fn prepare(options: &Options, repository: &Path, folder: &Path, progress: &Progress) -> Result<Nursery> {
    let (software, programs) = std::thread::scope(|scope| {
        let building = scope.spawn(|| Programs::build(repository, folder));
        let software = Software::obtain(folder, options.update, progress);
        if !building.is_finished() {
            progress.say("building the guest's programs");
        }
        let Ok(programs) = building.join() else { bail!("building the guest's programs ended oddly") };
        Ok((software?, programs?))
    })?;
    let (acceleration, why) = match options.acceleration {
        Some(acceleration) => (acceleration, "as asked for".to_owned()),
        None => machine::probe(&software)?,
    };
    let how = match acceleration {
        Acceleration::Kvm => "guests run on KVM",
        Acceleration::Nested => "guests run nested under emulation",
    };
    progress.say(format!("{how}: {why}"));
    let logs = folder.join("logs");
    if logs.exists() {
        fs::remove_dir_all(&logs).context("remove the logs of the last run")?;
    }
    let how = (acceleration, options.acceleration.is_some());
    Ok(Nursery::new((software, programs), how, logs, options.boot_timeout, progress))
}

/// Plays all rounds; gives back the last guest if it is to be kept.
fn play(
    options: &Options,
    nursery: &Nursery,
    chosen: &[(&'static Scenario, Kernel)],
    report: &mut Report,
) -> Result<Option<guest::Guest>> {
    let mut last = None;
    for time in 1..=options.repeat {
        for mut round in runner::rounds(chosen) {
            if options.repeat > 1 {
                round.name = format!("{time}-{}", round.name);
            }
            if let Some(mut guest) = last.take() {
                power_off(nursery, &mut guest)?;
            }
            last = runner::play(nursery, &round, &mut report.outcomes)?;
        }
        if !report.passed() {
            break;
        }
    }
    match last {
        Some(guest) if options.keep => Ok(Some(guest)),
        Some(mut guest) => power_off(nursery, &mut guest).map(|()| None),
        None => Ok(None),
    }
}

/// Ends a guest whose scenarios are over.
fn power_off(nursery: &Nursery, guest: &mut guest::Guest) -> Result<()> {
    if guest.resent() > 0 {
        nursery
            .progress
            .say(format!("the serial line lost {} requests or replies; they were repeated", guest.resent()));
    }
    if !guest.power_off()? {
        nursery.progress.say("the guest did not power off and was killed");
    }
    Ok(())
}

/// Scenarios by name (all if none is named), each with the kernel it is to be played on.
fn choose(names: &[String], kernel: Option<Kernel>) -> Result<Vec<(&'static Scenario, Kernel)>> {
    for name in names {
        if !ALL.iter().any(|scenario| scenario.name == name) {
            let known: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
            bail!(Usage(format!("there is no scenario {name:?}; there are: {}", known.join(", "))));
        }
    }
    let wanted = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    let mut chosen = Vec::new();
    for scenario in ALL.iter().filter(wanted) {
        match (kernel, scenario.kernels) {
            (None, [first, ..]) => chosen.push((scenario, *first)),
            (Some(kernel), kernels) if kernels.contains(&kernel) => chosen.push((scenario, kernel)),
            (Some(kernel), _) if !names.is_empty() => {
                bail!(Usage(format!("scenario {:?} cannot be played on kernel {kernel}", scenario.name)));
            }
            _ => {}
        }
    }
    Ok(chosen)
}

fn facts(nursery: &Nursery) -> Vec<(String, String)> {
    let guests = match nursery.acceleration() {
        Acceleration::Kvm => "on KVM",
        Acceleration::Nested => "nested under emulation",
    };
    let versions = nursery.software.versions.iter().map(|(package, version)| (package.clone(), version.clone()));
    std::iter::once(("guests".to_owned(), guests.to_owned())).chain(versions).collect()
}

/// One lab at a time in a repository: they share its folder.
fn lock(folder: &Path, progress: &Progress) -> Result<File> {
    let path: PathBuf = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        progress.say("waiting for another lab in this repository");
        while file.try_lock().is_err() {
            crate::process::check_interrupt()?;
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::{Kernel, Usage, choose};

    #[test]
    fn a_name_that_is_no_scenario_is_a_usage_error_that_names_them() {
        let error = choose(&["lisst".to_owned()], None).unwrap_err();
        assert!(error.is::<Usage>());
        assert!(error.to_string().contains("late-bind"), "{error}");
    }

    #[test]
    fn a_kernel_limits_what_is_played() {
        let names = |kernel| choose(&[], kernel).unwrap().iter().map(|(scenario, _)| scenario.name).collect::<Vec<_>>();
        assert_eq!(names(None).len(), 13);
        assert_eq!(names(Some(Kernel::V6_1)), ["list", "old-kernel"]);
        assert!(choose(&["kill9".to_owned()], Some(Kernel::V6_1)).unwrap_err().is::<Usage>());
    }
}
