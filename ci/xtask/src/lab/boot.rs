//! Boots a guest: images, its machine, the agent's greeting; with a bound on the time, and one more try for a boot that
//! hangs or that the emulator breaks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::agent::Agent;
use super::control::Control;
use super::fetch::Software;
use super::guest::{Guest, Parts};
use super::host::{Host, HostLine};
use super::image::{self, Runner};
use super::kernel::Kernel;
use super::line::{Gone, Line};
use super::machine::{self, Acceleration, Occupant, Places, Plan, Shape};
use super::post_mortem::post_mortem;
use super::programs::Programs;
use super::progress::Progress;
use super::qmp::Qmp;
use crate::process::{Guarded, Interrupted};

/// Everything a boot needs.
#[derive(Debug)]
pub(crate) struct Nursery {
    /// QEMU, firmware, kernels.
    pub(crate) software: Software,
    /// What runs in the guest.
    pub(crate) programs: Programs,
    /// Folder that gets a folder of logs for each boot.
    pub(crate) logs: PathBuf,
    /// Longest wait for the agent's greeting.
    pub(crate) timeout: Duration,
    /// Where to tell what goes on.
    pub(crate) progress: Progress,
    /// How guests run was asked for, so it stays that way.
    pub(crate) fixed: Option<Acceleration>,
    /// What the boots so far have shown.
    pub(crate) experience: Mutex<Experience>,
}

/// What boots have shown. Several may be under way.
#[derive(Debug, Default)]
pub(crate) struct Experience {
    /// How guests run, by host; found out when the first one boots.
    pub(crate) ways: BTreeMap<Host, Acceleration>,
    /// Boots that were tried twice, and why.
    pub(crate) repeated: Vec<String>,
    /// Seconds that boots took so far.
    pub(crate) seconds: f64,
    /// How many there were.
    pub(crate) boots: u32,
}

/// What to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Who plays the host.
    pub(crate) host: Host,
    /// The guest's kernel.
    pub(crate) kernel: Kernel,
    /// The guest's machine.
    pub(crate) shape: Shape,
    /// The kernel's own `lsvmbus` is in the guest.
    pub(crate) lsvmbus: bool,
}

/// A boot that failed: where its logs are, and whether the emulator is to blame.
#[derive(Debug)]
pub(crate) struct BootFailed {
    why: String,
    logs: PathBuf,
}

impl std::fmt::Display for BootFailed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the guest did not boot: {} (logs: {})", self.why, self.logs.display())
    }
}

impl std::error::Error for BootFailed {}

impl Nursery {
    /// What the boots so far have shown.
    pub(crate) fn experience(&self) -> MutexGuard<'_, Experience> {
        self.experience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the next guest of a host will run.
    ///
    /// # Errors
    /// It has to be found out by trying, and this process was interrupted.
    pub(crate) fn acceleration(&self, host: Host) -> Result<Acceleration> {
        let mut experience = self.experience();
        if let Some(way) = self.fixed.or(experience.ways.get(&host).copied()) {
            return Ok(way);
        }
        // Others wait: they want to know as well.
        let (way, why) = machine::probe(host, &self.software, &self.programs)?;
        self.progress.say(format!("guests of {host} run {way}: {why}"));
        experience.ways.insert(host, way);
        Ok(way)
    }

    /// Boots a guest; `name` names its logs. A boot that fails is tried once more, nested if KVM was only believed to
    /// work.
    ///
    /// # Errors
    /// [`BootFailed`] twice, or something around the boot fails.
    pub(crate) fn boot(&self, wish: &Wish, name: &str) -> Result<Guest> {
        // Most boots take a tenth of the time that is theirs; one that hangs is found sooner by a shorter first try.
        match self.attempt(wish, name, self.timeout / 2) {
            Err(error) if error.is::<BootFailed>() => {
                let mut experience = self.experience();
                experience.repeated.push(format!("{name}: {error}"));
                let before = experience.ways.get(&wish.host).copied();
                let what = if self.fixed.is_none() && before == Some(Acceleration::Kvm) {
                    experience.ways.insert(wish.host, Acceleration::Nested);
                    "trying nested under emulation"
                } else {
                    "trying once more"
                };
                drop(experience);
                self.progress.say(format!("{error}; {what}"));
                self.attempt(wish, &format!("{name}-again"), self.timeout)
            }
            result => result,
        }
    }

    fn attempt(&self, wish: &Wish, name: &str, timeout: Duration) -> Result<Guest> {
        let started = self.start(wish, name, &Occupant::Agent)?;
        let (start, logs, acceleration) = (started.since, started.logs.clone(), started.acceleration);
        let guest = started.agent().and_then(|parts| Guest::greet(parts, timeout));
        fs::remove_file(logs.join("initrd")).context("remove the initial file system")?;
        let guest = guest.or_else(|error| {
            if error.is::<Interrupted>() || error.is::<BootFailed>() {
                return Err(error);
            }
            let why = match post_mortem(&logs, acceleration) {
                Some(sign) => format!("{error:#}; {}", sign.text),
                None if error.is::<Gone>() => format!("{error:#} early"),
                None => format!("{error:#} in {} s", start.elapsed().as_secs()),
            };
            bail!(BootFailed { why, logs: logs.clone() })
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let mut experience = self.experience();
        experience.seconds += seconds;
        experience.boots += 1;
        drop(experience);
        self.progress.say(format!("{name}: Linux {} is up after {seconds:.1} s, {acceleration}", guest.hello.release));
        Ok(guest)
    }

    /// Starts a guest's machine and waits for its sockets.
    ///
    /// # Errors
    /// [`BootFailed`] if it does not start.
    pub(crate) fn start(&self, wish: &Wish, name: &str, occupant: &Occupant) -> Result<Started> {
        let logs = self.logs.join(name);
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let sockets = tempfile::Builder::new().prefix("vmbus-lab-").tempdir().context("folder for sockets")?;
        let acceleration = self.acceleration(wish.host)?;
        let since = Instant::now();
        let _task = self.progress.task(format!("booting {name}: {} with kernel {}", wish.host, wish.kernel));
        let plan = Plan { host: wish.host, shape: wish.shape, occupant };
        let command = self.command(wish, &plan, acceleration, sockets.path(), &logs)?;
        fs::write(logs.join("command"), format!("{command:?}\n")).context("write a log")?;
        let output = fs::File::create(logs.join("machine.log")).context("create a log")?;
        let mut machine = Guarded::spawn_with(&command, output.try_clone()?.into(), output.into())?;
        let paths = ["agent", wish.host.socket()].map(|port| sockets.path().join(port));
        while !paths.iter().all(|path| path.exists()) && since.elapsed() < self.timeout {
            if machine.wait(Duration::from_millis(20))?.is_some() {
                break;
            }
        }
        if !paths.iter().all(|path| path.exists()) {
            let words = fs::read_to_string(logs.join("machine.log")).unwrap_or_default();
            let why = format!("its machine did not start: {}", words.trim());
            bail!(BootFailed { why, logs });
        }
        Ok(Started { machine, host: wish.host, acceleration, logs, sockets, since })
    }

    fn command(
        &self,
        wish: &Wish,
        plan: &Plan<'_>,
        acceleration: Acceleration,
        sockets: &Path,
        logs: &Path,
    ) -> Result<Command> {
        let (software, programs) = (&self.software, &self.programs);
        let kernel = software.kernel(wish.kernel).map_err(anyhow::Error::msg)?;
        let lsvmbus = if wish.lsvmbus { Some(software.lsvmbus()?) } else { None };
        let inner = image::inner(software, kernel, wish.host, programs, lsvmbus)?;
        let mut at = Places { kernel: kernel.image()?, initrd: logs.join("initrd"), sockets, logs };
        fs::write(logs.join("console.log"), "").context("create a log")?;
        if acceleration == Acceleration::Kvm {
            fs::write(&at.initrd, inner).context("write the initial file system")?;
            return machine::direct(plan, software, programs, &at);
        }
        let runner = Runner { host: wish.host, programs, arguments: machine::nested_inner(plan) };
        let outer = image::outer(software, &inner, &at.kernel, &runner)?;
        fs::write(&at.initrd, outer).context("write the initial file system")?;
        at.kernel = software.kernel(Kernel::V6_12).map_err(anyhow::Error::msg)?.image()?;
        Ok(machine::nested_outer(plan, software, &at))
    }
}

/// A guest whose machine runs; nobody has talked to it yet.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its machine, or L1's, on this machine.
    pub(crate) machine: Guarded,
    /// Who plays the host.
    host: Host,
    /// How it runs.
    acceleration: Acceleration,
    /// Folder of the logs.
    pub(crate) logs: PathBuf,
    /// Folder of the sockets.
    pub(crate) sockets: tempfile::TempDir,
    /// When the boot began.
    since: Instant,
}

impl Started {
    /// Connects to the agent's port and to the host's.
    fn agent(self) -> Result<Parts> {
        let Self { machine, host, acceleration, logs, sockets, .. } = self;
        let connect = |port: &str| Line::connect(&sockets.path().join(port), Duration::from_secs(2));
        let (agent, line) = (Agent::new(connect("agent")?, 1), connect(host.socket())?);
        let line = match host {
            Host::Qemu => HostLine::Qmp(Qmp::new(line)),
            Host::Vmm => HostLine::Control(Control::new(line)),
        };
        Ok(Parts { machine, host: line, agent, acceleration, bus_modules: host.bus_modules(), logs, sockets })
    }
}
