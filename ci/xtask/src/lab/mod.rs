//! The guest lab: an unmodified distribution kernel on a VMBus host: a foreign one, QEMU's, and our own in a VMM.
//! fetch -> programs -> image -> machine -> boot -> guest -> scenario -> runner -> report, a file or folder each.

mod agent;
mod boot;
mod choose;
mod control;
#[path = "../../../../tests/vmm/src/control/wire.rs"]
#[expect(unreachable_pub, reason = "the other end is a library")]
mod control_wire;
mod cpio;
mod fetch;
mod guest;
mod host;
mod image;
pub(crate) mod keep;
mod kernel;
mod kernel_log;
mod lanes;
mod line;
mod machine;
mod modules;
mod post_mortem;
mod programs;
mod progress;
mod qmp;
mod report;
mod runner;
mod scenario;
mod shell;
mod telnet;
mod verdict;
#[path = "../../../guest/src/wire.rs"]
mod wire;

use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::boot::Nursery;
use self::choose::{Choice, Chosen};
use self::fetch::{Software, Wanted};
use self::host::Host;
use self::kernel::KernelChoice;
use self::machine::Acceleration;
use self::programs::Programs;
use self::progress::Progress;
use self::report::Report;
use crate::process::catch_signals;

/// Command line of `lab`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// List the scenarios and end.
    #[arg(long)]
    list: bool,
    /// Play everything on every kernel, not only what is played every time.
    #[arg(long)]
    all: bool,
    /// Play only this scenario; can be given more than once.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Play only what is about this VMBus host.
    #[arg(long)]
    host: Vec<Host>,
    /// Play what can be played on this kernel, on this kernel; can be given more than once.
    #[arg(long)]
    kernel: Vec<KernelChoice>,
    /// Leave the last guest running until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Play nothing; boot a guest (of the VMM's host unless told otherwise) and get a shell in it.
    #[arg(long, conflicts_with_all = ["list", "all", "scenario", "keep", "json", "repeat"])]
    shell: bool,
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
    /// Guests at a time; without it as many as there are processors, at most four, and one with --keep.
    #[arg(long, value_name = "GUESTS", conflicts_with = "keep")]
    lanes: Option<NonZeroUsize>,
}

/// Plays the chosen scenarios; exits 1 if one failed.
///
/// # Errors
/// [`Usage`](crate::process::Usage) for a name that is no scenario's; else what kept the lab from playing.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let start = Instant::now();
    let choice = Choice { names: &options.scenario, hosts: &options.host, kernels: &options.kernel, all: options.all };
    if options.list {
        std::io::stdout().lock().write_all(choice.list()?.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = choice.wanted(options.update)?;
    let host = options.host.first().copied().unwrap_or(Host::Vmm);
    let vmm =
        if options.shell { host == Host::Vmm } else { choice.scenarios()?.iter().any(|one| one.host == Host::Vmm) };
    catch_signals()?;
    let repository =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().context("find the repository")?;
    let folder = repository.join("target/lab");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let progress = Progress::new();
    let _lock = lock(&folder, &progress)?;
    let nursery = prepare(options, &wanted, vmm, (&repository, &folder), &progress)?;
    if options.shell {
        return shell::run(&nursery, host, choice.one_kernel(&nursery.software));
    }
    let chosen = choice.pairs(|several| nursery.software.newest(several))?;
    let mut report = Report::default();
    let played = lanes::play(options, &nursery, &chosen, &mut report);
    report.facts = facts(&nursery, &chosen);
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

/// Gets the software and builds the programs side by side.
fn prepare(
    options: &Options,
    wanted: &Wanted,
    vmm: bool,
    (repository, folder): (&Path, &Path),
    progress: &Progress,
) -> Result<Nursery> {
    let (software, programs) = std::thread::scope(|scope| {
        let building = scope.spawn(|| Programs::build(repository, folder, vmm));
        let software = Software::obtain(folder, wanted, progress);
        if !building.is_finished() {
            progress.say("building the guest's programs");
        }
        let Ok(programs) = building.join() else { bail!("building the guest's programs ended oddly") };
        Ok((software?, programs?))
    })?;
    let logs = folder.join("logs");
    if logs.exists() {
        fs::remove_dir_all(&logs).context("remove the logs of the last run")?;
    }
    Ok(Nursery {
        software,
        programs,
        logs,
        timeout: Duration::from_secs(options.boot_timeout),
        progress: progress.clone(),
        fixed: options.acceleration,
        experience: Mutex::default(),
    })
}

/// What is worth knowing about a run: how guests ran, on which kernels, with which packages.
fn facts(nursery: &Nursery, chosen: &[Chosen]) -> Vec<(String, String)> {
    let experience = nursery.experience();
    let guests = experience.ways.iter().map(|(host, way)| (format!("guests of {host}"), way.to_string()));
    let mut facts: Vec<(String, String)> = guests.collect();
    facts.extend(nursery.fixed.map(|way| ("guests".to_owned(), way.to_string())));
    let kernels: std::collections::BTreeSet<_> = chosen.iter().map(|(_, kernel)| *kernel).collect();
    for kernel in kernels {
        let found = nursery.software.kernel(kernel);
        let text =
            found.map_or_else(|why| format!("none: {why}"), |files| format!("{} {}", files.package, files.version));
        facts.push((format!("kernel {kernel}"), text));
    }
    facts.extend(nursery.software.versions.iter().map(|(package, version)| (package.clone(), version.clone())));
    if let Ok(lsvmbus) = nursery.software.lsvmbus() {
        facts.push(("lsvmbus".to_owned(), format!("kernel source {}", lsvmbus.version)));
    }
    if experience.boots > 0 {
        let mean = experience.seconds / f64::from(experience.boots);
        facts.push(("boots".to_owned(), format!("{}, {mean:.1} s each", experience.boots)));
    }
    facts.extend(experience.repeated.iter().map(|why| ("booted twice".to_owned(), why.clone())));
    facts
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
