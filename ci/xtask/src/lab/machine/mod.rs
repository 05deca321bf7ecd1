//! How the guest under test gets a VMBus host: QEMU and the VMM need KVM that emulates Hyper-V, so without one the lab
//! nests: an emulated AMD machine runs L1, whose KVM runs L2, the guest under test.

mod qemu;
mod vmm;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::fetch::Software;
use super::host::Host;
use super::programs::Programs;

/// What runs the guest's processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Acceleration {
    /// This machine's KVM.
    Kvm,
    /// A KVM inside an emulated machine.
    Nested,
}

impl std::fmt::Display for Acceleration {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Kvm => "on KVM",
            Self::Nested => "nested under emulation",
        })
    }
}

/// What the guest's machine is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Virtual processors of the guest.
    pub(crate) processors: u32,
    /// Memory of the guest, in MiB.
    pub(crate) memory_mib: u64,
    /// What the VMM's host is like from the start, as JSON of its `HostSettings`; empty for what it is by itself.
    pub(crate) settings: &'static str,
    /// A reset starts the guest anew, with its host as it was; otherwise it ends the machine. The VMM only.
    pub(crate) restarts: bool,
    /// It has Hyper-V's timers, without which a guest lives on when it unloads `hv_vmbus`.
    pub(crate) timers: bool,
}

impl Shape {
    /// What most scenarios play in. Under emulation a second processor costs the VMM's guest more than it gains.
    pub(crate) const fn of(host: Host) -> Self {
        let processors = match host {
            Host::Qemu => 2,
            Host::Vmm => 1,
        };
        Self { processors, memory_mib: 512, settings: "", restarts: false, timers: true }
    }
}

/// Who sits in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Occupant {
    /// The lab's agent.
    Agent,
    /// A person at a terminal of this kind, as TERM says it.
    Person(String),
}

impl Occupant {
    /// The guest kernel's command line. A quiet console, since each byte costs a nested guest two exits.
    fn append(&self) -> String {
        let mut append = APPEND.to_owned();
        if let Self::Person(term) = self {
            let plain: String = term.chars().filter(|it| it.is_ascii_alphanumeric() || "-_+".contains(*it)).collect();
            let _ = write!(append, " LAB_SHELL=1 TERM={plain}");
        }
        append
    }
}

/// A guest to be run.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Its host.
    pub(crate) host: Host,
    /// Its machine.
    pub(crate) shape: Shape,
    /// Who sits in it.
    pub(crate) occupant: &'a Occupant,
}

/// Files and folders on this machine that a guest needs.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// Kernel to boot, the guest's or L1's.
    pub(crate) kernel: PathBuf,
    /// File system to boot with.
    pub(crate) initrd: PathBuf,
    /// Folder for sockets.
    pub(crate) sockets: &'a Path,
    /// Folder for logs.
    pub(crate) logs: &'a Path,
}

const APPEND: &str = "console=ttyS0 panic=-1 mitigations=off quiet";

/// L1 is only the way to L2, so what costs it time and proves nothing is left out.
const L1_APPEND: &str = "console=ttyS0 panic=-1 mitigations=off quiet nokaslr cryptomgr.notests nmi_watchdog=0 lsm=";

/// Finds out by trying whether this machine's KVM can run the guest; the text says why or why not.
///
/// # Errors
/// This process was interrupted.
pub(crate) fn probe(host: Host, software: &Software, programs: &Programs) -> Result<(Acceleration, String)> {
    if !Path::new("/dev/kvm").exists() {
        return Ok((Acceleration::Nested, "this machine has no /dev/kvm".to_owned()));
    }
    let cannot = match host {
        Host::Qemu => qemu::probe(software)?,
        Host::Vmm => vmm::probe(software, programs)?,
    };
    Ok(match cannot {
        None => (Acceleration::Kvm, "this machine's KVM has what it takes".to_owned()),
        Some(why) => (Acceleration::Nested, format!("this machine's KVM cannot: {why}")),
    })
}

/// Command line of a guest that runs right on this machine's KVM.
///
/// # Errors
/// The VMM was not built.
pub(crate) fn direct(plan: &Plan<'_>, software: &Software, programs: &Programs, at: &Places<'_>) -> Result<Command> {
    match plan.host {
        Host::Qemu => Ok(qemu::direct(plan, software, at)),
        Host::Vmm => vmm::direct(plan, programs, at),
    }
}

/// Arguments, as L1's shell takes them, that run the guest there, wired to L1's ports of the same purpose.
pub(crate) fn nested_inner(plan: &Plan<'_>) -> String {
    match plan.host {
        Host::Qemu => qemu::nested(plan),
        Host::Vmm => vmm::nested(plan),
    }
}

/// Command line of the emulated machine that runs L1. Its serial ports have an interrupt line each: on the customary two
/// lines, ports that share one stall. The agent and the VMM's control have virtio ports all the way, because a serial one
/// costs the nested guest two exits a byte, which is 2 KB/s.
///
/// With any inner VMM but QEMU one thread emulates one processor: with more, the emulated SVM now and then injects an
/// interrupt twice.
pub(crate) fn nested_outer(plan: &Plan<'_>, software: &Software, at: &Places<'_>) -> Command {
    let console = |name: &str| format!("file,path={}", at.logs.join(name).display());
    let mut serial = vec![
        ("l1", console("l1-console.log"), "index=0,iobase=0x3f8,irq=4"),
        ("console", console("console.log"), "index=2,iobase=0x3e8,irq=5"),
    ];
    let mut virtio = vec![("agent", 1)];
    let (threads, processors) = match plan.host {
        Host::Qemu => {
            serial.push(("qmp", socket(at.sockets, "qmp"), "index=1,iobase=0x2f8,irq=3"));
            ("tcg,thread=multi", "2")
        }
        Host::Vmm => {
            virtio.push(("control", 2));
            ("tcg,thread=single", "1")
        }
    };
    let mut command = software.qemu();
    command.args(["-accel", threads, "-cpu", "max", "-m", "2048", "-smp", processors]);
    command.args(["-display", "none", "-vga", "none", "-nodefaults", "-no-reboot"]);
    for (name, backend, place) in serial {
        command.args(["-chardev", &named(name, &backend), "-device", &format!("isa-serial,chardev={name},{place}")]);
    }
    command.args(["-device", "virtio-serial-pci"]);
    for (name, number) in virtio {
        command.args(["-chardev", &named(name, &socket(at.sockets, name))]);
        command.args(["-device", &format!("virtserialport,chardev={name},nr={number}")]);
    }
    command.arg("-kernel").arg(&at.kernel).arg("-initrd").arg(&at.initrd).args(["-append", L1_APPEND]);
    command
}

/// A backend of QEMU's with a name.
fn named(name: &str, backend: &str) -> String {
    let (kind, rest) = backend.split_once(',').unwrap_or((backend, ""));
    format!("{kind},id={name},{rest}")
}

fn socket(sockets: &Path, name: &str) -> String {
    format!("socket,path={},server=on,wait=off", sockets.join(name).display())
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::{Host, Occupant, Plan, Shape, nested_inner, quoted};

    #[test]
    fn the_vmm_is_told_everything_and_words_stay_whole() {
        let occupant = Occupant::Person("xterm' panic=0".to_owned());
        let shape = Shape { settings: r#"{"versions":["4.1"]}"#, ..Shape::of(Host::Vmm) };
        let arguments = nested_inner(&Plan { host: Host::Vmm, shape, occupant: &occupant });
        assert!(arguments.contains("LAB_SHELL=1 TERM=xtermpanic0'"), "{arguments}");
        assert!(arguments.contains(r#"'{"versions":["4.1"]}'"#), "{arguments}");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
