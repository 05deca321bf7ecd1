//! Boots a guest: images, QEMU, the agent's greeting; with a bound on the time, and one more try for a boot that
//! hangs or that the emulator breaks.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::agent::Agent;
use super::fetch::Software;
use super::guest::{Guest, Parts};
use super::line::{Gone, Line};
use super::machine::{self, Acceleration};
use super::post_mortem::post_mortem;
use super::programs::Programs;
use super::progress::Progress;
use super::qmp::Qmp;
use super::{Kernel, image};
use crate::process::{Guarded, Interrupted};

/// Everything a boot needs.
#[derive(Debug)]
pub(crate) struct Nursery {
    /// QEMU, firmware, kernels.
    pub(crate) software: Software,
    /// What runs in the guest.
    pub(crate) programs: Programs,
    /// Folder that gets a folder of logs for each boot.
    logs: PathBuf,
    /// Longest wait for the agent's greeting.
    timeout: Duration,
    /// Where to tell what goes on.
    pub(crate) progress: Progress,
    /// Guests run nested; set when they turn out not to boot on KVM.
    nested: Cell<bool>,
    /// How guests run was asked for, so it stays that way.
    fixed: bool,
    /// Boots that were tried twice, and why.
    repeated: RefCell<Vec<String>>,
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
    /// A nursery whose boots may take `timeout_seconds`. If `fixed`, guests run that way and no other.
    pub(crate) fn new(
        (software, programs): (Software, Programs),
        (acceleration, fixed): (Acceleration, bool),
        logs: PathBuf,
        timeout_seconds: u64,
        progress: &Progress,
    ) -> Self {
        let (timeout, progress) = (Duration::from_secs(timeout_seconds), progress.clone());
        let nested = Cell::new(acceleration == Acceleration::Nested);
        Self { software, programs, logs, timeout, progress, nested, fixed, repeated: RefCell::default() }
    }

    /// How the next guest will run.
    pub(crate) fn acceleration(&self) -> Acceleration {
        if self.nested.get() { Acceleration::Nested } else { Acceleration::Kvm }
    }

    /// Boots a guest with the given kernel; `name` names its logs. A boot that fails is tried once more, nested if
    /// KVM was only believed to work.
    ///
    /// # Errors
    /// [`BootFailed`] twice, or something around the boot fails.
    pub(crate) fn boot(&self, kernel: Kernel, name: &str) -> Result<Guest> {
        match self.attempt(kernel, name) {
            Err(error) if error.is::<BootFailed>() => {
                self.repeated.borrow_mut().push(format!("{name}: {error}"));
                if !self.fixed && !self.nested.replace(true) {
                    self.progress.say(format!("{error}; trying nested under emulation"));
                } else {
                    self.progress.say(format!("{error}; trying once more"));
                }
                self.attempt(kernel, &format!("{name}-again"))
            }
            result => result,
        }
    }

    /// Boots that were tried twice so far, each with the reason.
    pub(crate) fn repeated(&self) -> Vec<String> {
        self.repeated.borrow().clone()
    }

    fn attempt(&self, kernel: Kernel, name: &str) -> Result<Guest> {
        let logs = self.logs.join(name);
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let sockets = tempfile::Builder::new().prefix("vmbus-lab-").tempdir().context("folder for sockets")?;
        let acceleration = self.acceleration();
        let how = match acceleration {
            Acceleration::Kvm => "KVM",
            Acceleration::Nested => "nested under emulation",
        };
        let start = Instant::now();
        let task = self.progress.task(format!("booting {name}: kernel {kernel}, {how}"));
        let command = self.command(kernel, sockets.path(), &logs)?;
        fs::write(logs.join("command"), format!("{command:?}\n")).context("write a log")?;
        let output = fs::File::create(logs.join("qemu.log")).context("create a log")?;
        let mut qemu = Guarded::spawn_with(&command, output.try_clone()?.into(), output.into())?;
        let failed = |_| {
            let words = fs::read_to_string(logs.join("qemu.log")).unwrap_or_default();
            BootFailed { why: format!("QEMU did not start: {}", words.trim()), logs: logs.clone() }
        };
        let paths = ["agent", "qmp"].map(|port| sockets.path().join(port));
        while !paths.iter().all(|path| path.exists()) && start.elapsed() < self.timeout {
            if qemu.wait(Duration::from_millis(20))?.is_some() {
                break;
            }
        }
        let [agent, qmp] = paths.map(|path| Line::connect(&path, Duration::ZERO));
        let (agent, qmp) = (Agent::new(agent.map_err(failed)?, 1), Qmp::new(qmp.map_err(failed)?));
        let parts = Parts { qemu, qmp, agent, acceleration, logs: logs.clone(), sockets };
        let guest = Guest::greet(parts, self.timeout);
        fs::remove_file(logs.join("initrd")).context("remove the initial file system")?;
        let guest = guest.or_else(|error| {
            if error.is::<Interrupted>() {
                return Err(error);
            }
            let why = match post_mortem(&logs, acceleration) {
                Some(sign) => format!("{error:#}; {}", sign.text),
                None if error.is::<Gone>() => format!("{error:#} early"),
                None => format!("{error:#} in {} s", start.elapsed().as_secs()),
            };
            bail!(BootFailed { why, logs: logs.clone() })
        })?;
        drop(task);
        self.progress.say(format!(
            "{name}: Linux {} is up after {:.0} s, {how}",
            guest.hello.release,
            start.elapsed().as_secs_f64()
        ));
        Ok(guest)
    }

    fn command(&self, kernel: Kernel, sockets: &Path, logs: &Path) -> Result<std::process::Command> {
        let image_of = |kernel| -> Result<PathBuf> {
            Ok(self.software.file(&format!("boot/vmlinuz-{}", self.software.release(kernel)?)))
        };
        let (inner, vmlinuz) = (image::inner(&self.software, kernel, &self.programs)?, image_of(kernel)?);
        let initrd = logs.join("initrd");
        if self.acceleration() == Acceleration::Kvm {
            fs::write(&initrd, inner).context("write the initial file system")?;
            return Ok(machine::direct(&self.software, &vmlinuz, &initrd, sockets, logs));
        }
        let outer = image::outer(&self.software, &inner, &vmlinuz, &machine::nested_inner())?;
        fs::write(&initrd, outer).context("write the initial file system")?;
        Ok(machine::nested_outer(&self.software, &image_of(Kernel::V6_12)?, &initrd, sockets, logs))
    }
}
