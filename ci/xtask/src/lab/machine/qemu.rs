//! QEMU as the guest's machine, with its own VMBus host.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Places, Plan, named, quoted, socket};
use crate::lab::fetch::Software;
use crate::process::{Guarded, ending};

/// `kvm=off`, because a guest that sees KVM first does not look for Hyper-V.
const CPU: &str = "host,kvm=off,hv-relaxed,hv-vapic,hv-time,hv-vpindex,hv-runtime,hv-synic,hv-stimer,hv-frequencies";

/// Which character devices stand for the guest's serial console, the agent's port, and its QEMU's monitor.
#[derive(Debug)]
struct Wiring {
    console: String,
    agent: String,
    monitor: String,
}

/// Why this machine's KVM cannot run a guest, if so.
pub(super) fn probe(software: &Software) -> Result<Option<String>> {
    let mut command = software.qemu();
    command.args(["-machine", "q35", "-accel", "kvm", "-cpu", CPU, "-m", "64", "-nodefaults", "-no-reboot"]);
    command.args(["-display", "none", "-vga", "none", "-device", "vmbus-bridge"]);
    let mut qemu = Guarded::spawn(&command)?;
    // A processor that cannot be created ends QEMU at once; one that cannot run shows when the guest boots.
    let ended = qemu.wait(Duration::from_secs(2))?;
    if ended.is_none() {
        return Ok(None);
    }
    let words = qemu.words();
    let why = words.trim().rsplit('\n').next().unwrap_or_default().rsplit("qemu-system-x86_64: ").next();
    Ok(Some(why.filter(|why| !why.is_empty()).map_or_else(|| ending(ended), str::to_owned)))
}

/// Command line of a guest on this machine's KVM.
pub(super) fn direct(plan: &Plan<'_>, software: &Software, at: &Places<'_>) -> Command {
    let wiring = Wiring {
        console: format!("file,path={}", at.logs.join("console.log").display()),
        agent: socket(at.sockets, "agent"),
        monitor: socket(at.sockets, "qmp"),
    };
    let mut command = software.qemu();
    command.args(guest(plan, &wiring));
    command.arg("-kernel").arg(&at.kernel).arg("-initrd").arg(&at.initrd).args(["-append", &plan.occupant.append()]);
    command
}

/// Arguments of a guest in L1.
pub(super) fn nested(plan: &Plan<'_>) -> String {
    let wiring = Wiring {
        console: "serial,path=/dev/ttyS2".to_owned(),
        agent: "pipe,path=/dev/vport0p1".to_owned(),
        monitor: "serial,path=/dev/ttyS1".to_owned(),
    };
    let append = quoted(&plan.occupant.append());
    format!("-L /qemu {} -kernel /vmlinuz -initrd /initrd -append {append}", guest(plan, &wiring).join(" "))
}

fn guest(plan: &Plan<'_>, wiring: &Wiring) -> Vec<String> {
    let mut arguments: Vec<String> = ["-machine", "q35", "-accel", "kvm", "-cpu", CPU].map(str::to_owned).into();
    let (processors, memory) = (plan.shape.processors.to_string(), plan.shape.memory_mib.to_string());
    arguments.extend(["-smp".to_owned(), processors, "-m".to_owned(), memory]);
    arguments.extend(["-display", "none", "-vga", "none", "-nodefaults", "-no-reboot"].map(str::to_owned));
    arguments.extend(["-device", "vmbus-bridge", "-device", "hv-balloon,id=b0,status-report=on"].map(str::to_owned));
    for (name, backend) in [("console", &wiring.console), ("agent", &wiring.agent), ("monitor", &wiring.monitor)] {
        arguments.extend(["-chardev".to_owned(), named(name, backend)]);
    }
    arguments.extend(["-serial", "chardev:console", "-mon", "chardev=monitor,mode=control"].map(str::to_owned));
    arguments
        .extend(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,nr=1"].map(str::to_owned));
    arguments
}
