//! The scenarios: what each proves, what it needs, and the code that plays it in a booted guest.

mod balloon;
mod binding;
mod device;
mod lifetime;
mod lsvmbus;
mod old_kernel;
mod registry;
mod vmm;
mod watch;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::control::Control;
use super::guest::{Guest, Job, describe};
use super::host::Host;
use super::kernel::Kernel;
use super::machine::Shape;
use super::progress::Progress;
use super::wire::Finished;

/// Longest time for a `vmbusctl` command that does something and ends.
const COMMAND: Duration = Duration::from_secs(30);

/// One scenario.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Its name on the command line and in reports.
    pub(crate) name: &'static str,
    /// What it proves.
    pub(crate) summary: &'static str,
    /// Whose VMBus it is about.
    pub(crate) host: Host,
    /// Kernels it can be played on; on the first one, unless asked for others or for all.
    pub(crate) kernels: &'static [Kernel],
    /// It is among those that are played each time, not only when all are.
    pub(crate) every_time: bool,
    /// It may leave the guest in a state that nobody else should start from.
    pub(crate) own_boot: bool,
    /// It begins without any module of the bus, so only a fresh boot will do, as the first one in it.
    pub(crate) bare: bool,
    /// The machine that it needs; a boot is shared only where machines are alike.
    pub(crate) shape: Shape,
    /// It compares with the kernel's own `lsvmbus`, which is in the guest then.
    pub(crate) lsvmbus: bool,
    /// Parts of the words for violations (of the guest, counted by the VMM's host) that are to be expected.
    pub(crate) tolerates: &'static [&'static str],
    /// Plays it.
    pub(crate) play: fn(&mut Scene<'_>) -> Result<()>,
}

const NEW: &[Kernel] = &[Kernel::V6_12];

/// All but those that refuse channels without a monitor id.
const SINCE_6_10: &[Kernel] = &[Kernel::V6_12, Kernel::Trixie, Kernel::TrixieBackports, Kernel::Sid];

/// A scenario on QEMU's host that shares a boot and is played each time.
const fn shared(name: &'static str, summary: &'static str, play: fn(&mut Scene<'_>) -> Result<()>) -> Scenario {
    let shape = Shape::of(Host::Qemu);
    let (every_time, own_boot, bare, lsvmbus) = (true, false, false, false);
    let (host, kernels, tolerates) = (Host::Qemu, NEW, &[]);
    Scenario { name, summary, host, kernels, every_time, own_boot, bare, shape, lsvmbus, tolerates, play }
}

/// A scenario on the VMM's host, on all kernels, that shares a boot and is played only when all are.
const fn vmm(name: &'static str, summary: &'static str, play: fn(&mut Scene<'_>) -> Result<()>) -> Scenario {
    let (host, kernels, shape) = (Host::Vmm, &Kernel::ALL, Shape::of(Host::Vmm));
    Scenario { host, kernels, shape, every_time: false, ..shared(name, summary, play) }
}

/// Scenarios on QEMU's host, in the order they are played in.
static QEMU: [Scenario; 14] = [
    // First: it wants a guest in which nothing is loaded, and leaves one that the others can use.
    Scenario {
        bare: true,
        ..shared("watch", "vmbusctl watch prints every arrival and removal, in order", watch::everything_in_order)
    },
    Scenario {
        kernels: &Kernel::ALL,
        ..shared("list", "vmbusctl lists the device as sysfs has it, in every format", binding::list)
    },
    Scenario {
        kernels: SINCE_6_10,
        ..shared("bind-restore", "to UIO and back; the kernel's hv_balloon negotiates again", binding::bind_restore)
    },
    Scenario {
        kernels: &Kernel::ALL,
        every_time: false,
        lsvmbus: true,
        ..shared("lsvmbus", "the kernel's own lsvmbus prints what vmbusctl does", lsvmbus::equal)
    },
    shared("busy", "a second process gets exit 5, and an open device is not unbound", lifetime::busy),
    shared("late-bind", "a device bound after the driver began to wait is seen by uevent", binding::late_bind),
    shared("kill9", "killed while open, then restored and opened again", lifetime::kill9),
    shared("reopen-100", "opened and closed a hundred times, and nothing leaks", lifetime::reopen),
    Scenario {
        kernels: SINCE_6_10,
        ..shared("negotiate", "the host's numbers equal those the driver says it sent", balloon::negotiate)
    },
    shared("inflate-deflate", "the host takes 32 MiB out and gives them back, exactly", balloon::inflate_deflate),
    Scenario {
        own_boot: true,
        kernels: SINCE_6_10,
        ..shared("unbind-under-load", "unbound while two threads hammer its rings: exit 6", lifetime::unbind_under_load)
    },
    Scenario {
        own_boot: true,
        every_time: false,
        ..shared(
            "unbind-contiguous",
            "the same with a mapping that the kernel leaves behind",
            lifetime::unbind_contiguous,
        )
    },
    Scenario {
        own_boot: true,
        every_time: false,
        ..shared(
            "registry-100",
            "bound and unbound a hundred times under a registered driver",
            registry::bound_100_times,
        )
    },
    Scenario {
        kernels: &[Kernel::V6_1],
        ..shared("old-kernel", "6.1 refuses the channel, and doctor says why", old_kernel::refused)
    },
];

/// All scenarios, in the order they are played in.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    QEMU.iter().chain(vmm::SCENARIOS.iter().copied().flatten())
}

/// What a scenario plays in.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    /// The guest.
    pub(crate) guest: &'a mut Guest,
    /// The scenario's name.
    pub(crate) name: &'static str,
    /// Where steps are told.
    pub(crate) progress: &'a Progress,
    /// Number of the kernel log record that came first after the scenario's start.
    pub(crate) log_start: u64,
    /// The steps told so far.
    pub(crate) steps: Vec<String>,
    /// What was measured so far, by name.
    pub(crate) figures: Vec<(String, f64)>,
}

impl Scene<'_> {
    /// Tells a step that is done.
    fn say(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.progress.say(format!("  {}: {text}", self.name));
        self.steps.push(text);
    }

    /// Runs `vmbusctl` and insists on its exit code.
    fn vmbusctl(&mut self, arguments: &[&str], code: i32) -> Result<Finished> {
        let argv: Vec<&str> = std::iter::once("vmbusctl").chain(arguments.iter().copied()).collect();
        let finished = self.guest.run(&argv, COMMAND)?;
        if finished.code != Some(code) {
            bail!("`{}`: exit {code} expected, got {}", argv.join(" "), describe(&finished));
        }
        Ok(finished)
    }

    /// Runs `vmbusctl ... --json` and parses what it prints.
    fn vmbusctl_json(&mut self, arguments: &[&str], code: i32) -> Result<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let finished = self.vmbusctl(&arguments, code)?;
        serde_json::from_str(&finished.stdout)
            .with_context(|| format!("`vmbusctl {}` printed no JSON: {}", arguments.join(" "), describe(&finished)))
    }

    /// The VMM's control socket.
    fn control(&mut self) -> Result<&mut Control> {
        self.guest.control()
    }

    /// Forgets what the host has reported so far.
    fn qmp_forget(&mut self) -> Result<()> {
        self.guest.qmp()?.forget_events()
    }

    /// The guest kernel's log since the scenario began.
    fn kernel_log(&mut self) -> Result<Vec<String>> {
        Ok(self.guest.kernel_log(self.log_start)?.0)
    }

    /// Waits until the guest kernel's log since the scenario's start has a line that `matches`.
    fn await_kernel_log(&mut self, what: &str, timeout: Duration, matches: fn(&str) -> bool) -> Result<String> {
        eventually(what, timeout, || Ok(self.kernel_log()?.into_iter().find(|line| matches(line))))
    }
}

/// Asks again and again until there is an answer.
fn eventually<T>(what: &str, timeout: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = std::time::Instant::now() + timeout;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if std::time::Instant::now() >= deadline {
            bail!("{what}: not within {} s", timeout.as_secs());
        }
        crate::process::check_interrupt()?;
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A running `vmbusctl balloon` and the events it has told.
#[derive(Debug)]
struct Driver {
    job: Job,
}

impl Driver {
    /// Starts it, with `arguments` in addition.
    fn start(scene: &mut Scene<'_>, arguments: &[&str]) -> Result<Self> {
        let argv: Vec<&str> = ["vmbusctl", "balloon", "--json"].iter().chain(arguments).copied().collect();
        Ok(Self { job: scene.guest.spawn(&argv)? })
    }

    /// The next event of this name; others are passed over.
    fn event(&mut self, scene: &mut Scene<'_>, name: &str, timeout: Duration) -> Result<Value> {
        let deadline = std::time::Instant::now() + timeout;
        while std::time::Instant::now() < deadline {
            let Some(line) = self.job.line(scene.guest, Duration::from_secs(1))? else {
                let state = self.job.poll(scene.guest, Duration::ZERO)?;
                if !state.timed_out {
                    bail!("the driver ended instead of telling `{name}`: {}", describe(&state));
                }
                continue;
            };
            let event: Value = serde_json::from_str(&line).with_context(|| format!("the driver printed: {line}"))?;
            if event.get("event").and_then(Value::as_str) == Some(name) {
                return Ok(event);
            }
        }
        let state = self.job.poll(scene.guest, Duration::ZERO)?;
        bail!("the driver did not tell `{name}` in {} s: {}", timeout.as_secs(), describe(&state))
    }

    /// Waits until host and guest agree, and returns the version.
    fn negotiated(&mut self, scene: &mut Scene<'_>) -> Result<String> {
        let event = self.event(scene, "negotiated", COMMAND)?;
        Ok(event.get("version").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Asks it to end with SIGTERM and insists on exit 0.
    fn stop(self, scene: &mut Scene<'_>) -> Result<()> {
        self.job.kill(scene.guest, 15)?;
        let finished = self.job.wait(scene.guest, COMMAND)?;
        if finished.code != Some(0) {
            bail!("after SIGTERM the driver should exit 0, not {}", describe(&finished));
        }
        Ok(())
    }
}
