//! How the guest under test gets a VMBus host: QEMU needs KVM that emulates Hyper-V, so without one the lab nests:
//! an emulated AMD machine runs L1, whose KVM runs L2, the guest under test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::fetch::Software;
use crate::process::{Guarded, ending};

/// What runs the guest's processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Acceleration {
    /// This machine's KVM.
    Kvm,
    /// A KVM inside an emulated machine.
    Nested,
}

/// Memory of the guest under test, in MiB.
pub(crate) const MEMORY_MIB: u64 = 512;

const APPEND: &str = "console=ttyS0 panic=-1 mitigations=off quiet";

/// Shows in a guest as /dev/vport0p1.
const AGENT_PORT: [&str; 4] = ["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,nr=1"];

/// `kvm=off`, because a guest that sees KVM first does not look for Hyper-V.
const CPU: &str = "host,kvm=off,hv-relaxed,hv-vapic,hv-time,hv-vpindex,hv-runtime,hv-synic,hv-stimer,hv-frequencies";

/// Which character devices stand for the guest's serial console, the agent's virtio port, and its QEMU's monitor.
#[derive(Debug)]
struct Wiring {
    console: String,
    agent: String,
    monitor: String,
}

/// Finds out by trying whether this machine's KVM can run the guest; the text says why or why not.
///
/// # Errors
/// This process was interrupted.
pub(crate) fn probe(software: &Software) -> Result<(Acceleration, String)> {
    if !Path::new("/dev/kvm").exists() {
        return Ok((Acceleration::Nested, "this machine has no /dev/kvm".to_owned()));
    }
    let mut command = software.qemu();
    command.args(["-machine", "q35", "-accel", "kvm", "-cpu", CPU, "-m", "64", "-nodefaults", "-no-reboot"]);
    command.args(["-display", "none", "-vga", "none", "-device", "vmbus-bridge"]);
    let mut qemu = Guarded::spawn(&command)?;
    // A processor that cannot be created ends QEMU at once; one that cannot run shows when the guest boots.
    let ended = qemu.wait(Duration::from_secs(2))?;
    if ended.is_none() {
        return Ok((Acceleration::Kvm, "this machine's KVM has what it takes".to_owned()));
    }
    let mut words = String::new();
    if let (_, Some(mut stderr)) = qemu.take_pipes() {
        let _ = std::io::Read::read_to_string(&mut stderr, &mut words);
    }
    let why = words.trim().rsplit('\n').next().unwrap_or_default().rsplit("qemu-system-x86_64: ").next();
    let why = why.filter(|why| !why.is_empty()).map_or_else(|| ending(ended), str::to_owned);
    Ok((Acceleration::Nested, format!("this machine's KVM cannot: {why}")))
}

/// Command line of a guest that runs right on this machine's KVM, sockets and logs below the two folders.
pub(crate) fn direct(software: &Software, kernel: &Path, initrd: &Path, sockets: &Path, logs: &Path) -> Command {
    let wiring = Wiring {
        console: format!("file,path={}", logs.join("console.log").display()),
        agent: socket(sockets, "agent"),
        monitor: socket(sockets, "qmp"),
    };
    let mut command = software.qemu();
    command.args(guest(&wiring));
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", APPEND]);
    command
}

/// Shell command inside L1 that runs the guest, wired to L1's ports of the same purpose.
pub(crate) fn nested_inner() -> String {
    let wiring = Wiring {
        console: "serial,path=/dev/ttyS2".to_owned(),
        agent: "pipe,path=/dev/vport0p1".to_owned(),
        monitor: "serial,path=/dev/ttyS1".to_owned(),
    };
    format!("-L /qemu {} -kernel /vmlinuz -initrd /initrd -append '{APPEND}'", guest(&wiring).join(" "))
}

/// Command line of the emulated machine that runs L1. Its three serial ports have an interrupt line each: on the
/// customary two lines, ports that share one stall. The agent has a virtio port all the way, because a serial one
/// costs the nested guest two exits a byte, which is 2 KB/s.
pub(crate) fn nested_outer(software: &Software, kernel: &Path, initrd: &Path, sockets: &Path, logs: &Path) -> Command {
    let console = |name: &str| format!("file,path={}", logs.join(name).display());
    let ports = [
        ("l1", console("l1-console.log"), "index=0,iobase=0x3f8,irq=4"),
        ("qmp", socket(sockets, "qmp"), "index=1,iobase=0x2f8,irq=3"),
        ("console", console("console.log"), "index=2,iobase=0x3e8,irq=5"),
    ];
    let mut command = software.qemu();
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2048", "-smp", "2"]);
    command.args(["-display", "none", "-vga", "none", "-nodefaults", "-no-reboot"]);
    for (name, backend, place) in ports {
        let (kind, rest) = backend.split_once(',').unwrap_or((&backend, ""));
        command.args(["-chardev", &format!("{kind},id={name},{rest}")]);
        command.args(["-device", &format!("isa-serial,chardev={name},{place}")]);
    }
    command.args(["-chardev", &socket(sockets, "agent").replacen(',', ",id=agent,", 1)]).args(AGENT_PORT);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", APPEND]);
    command
}

fn socket(sockets: &Path, name: &str) -> String {
    format!("socket,path={},server=on,wait=off", sockets.join(name).display())
}

fn guest(wiring: &Wiring) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["-machine", "q35", "-accel", "kvm", "-cpu", CPU, "-smp", "2"].map(str::to_owned).into();
    arguments.extend(["-m".to_owned(), MEMORY_MIB.to_string()]);
    arguments.extend(["-display", "none", "-vga", "none", "-nodefaults", "-no-reboot"].map(str::to_owned));
    arguments.extend(["-device", "vmbus-bridge", "-device", "hv-balloon,id=b0,status-report=on"].map(str::to_owned));
    for (name, backend) in [("console", &wiring.console), ("agent", &wiring.agent), ("monitor", &wiring.monitor)] {
        let (kind, rest) = backend.split_once(',').unwrap_or((backend, ""));
        arguments.extend(["-chardev".to_owned(), format!("{kind},id={name},{rest}")]);
    }
    arguments.extend(["-serial", "chardev:console", "-mon", "chardev=monitor,mode=control"].map(str::to_owned));
    arguments.extend(AGENT_PORT.map(str::to_owned));
    arguments
}
