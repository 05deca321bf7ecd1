//! The VMM of `tests/vmm` as the guest's machine, with the simulated host.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Places, Plan, qemu, quoted};
use crate::lab::fetch::Software;
use crate::lab::programs::Programs;
use crate::process::{Guarded, ending};

/// Exit code of programs that do not know an argument.
const USAGE: i32 = 2;

/// Why this machine's KVM cannot run a guest, if so. A VMM that cannot tell needs what QEMU needs.
pub(super) fn probe(software: &Software, programs: &Programs) -> Result<Option<String>> {
    let mut command = Command::new(programs.vmm()?);
    command.arg("--probe");
    let mut vmm = Guarded::spawn(&command)?;
    let ended = vmm.wait(Duration::from_secs(10))?;
    match ended.map(|status| status.code()) {
        Some(Some(0)) => return Ok(None),
        Some(Some(USAGE)) => return qemu::probe(software),
        _ => vmm.kill(),
    }
    let words = vmm.words();
    let why = words.trim().lines().last().map(|line| line.trim_start_matches("error: ").to_owned());
    Ok(Some(why.filter(|why| !why.is_empty()).unwrap_or_else(|| ending(ended))))
}

/// Command line of a guest on this machine's KVM.
pub(super) fn direct(plan: &Plan<'_>, programs: &Programs, at: &Places<'_>) -> Result<Command> {
    let mut command = Command::new(programs.vmm()?);
    command.arg("--kernel").arg(&at.kernel).arg("--initrd").arg(&at.initrd);
    command.arg("--console").arg(at.logs.join("console.log"));
    for port in ["agent", "control"] {
        command.arg(format!("--{port}")).arg(format!("unix:{}", at.sockets.join(port).display()));
    }
    command.args(guest(plan));
    Ok(command)
}

/// Arguments of a guest in L1.
pub(super) fn nested(plan: &Plan<'_>) -> String {
    let words: Vec<String> = guest(plan).iter().map(|word| quoted(word)).collect();
    format!(
        "--kernel /vmlinuz --initrd /initrd --console /dev/ttyS2 --agent /dev/vport0p1 --control /dev/vport0p2 {}",
        words.join(" ")
    )
}

fn guest(plan: &Plan<'_>) -> Vec<String> {
    let shape = &plan.shape;
    let (processors, memory) = (shape.processors.to_string(), shape.memory_mib.to_string());
    let mut arguments = vec!["--append".to_owned(), plan.occupant.append()];
    arguments.extend(["--memory".to_owned(), memory, "--cpus".to_owned(), processors]);
    if shape.restarts {
        arguments.extend(["--on-reset", "restart"].map(str::to_owned));
    }
    if !shape.timers {
        arguments.push("--no-timers".to_owned());
    }
    if !shape.settings.is_empty() {
        arguments.extend(["--host".to_owned(), shape.settings.to_owned()]);
    }
    arguments
}
