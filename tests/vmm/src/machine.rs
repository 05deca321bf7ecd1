//! Puts a machine together, starts its processors, and waits for its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::Builder;

use anyhow::{Context, Result, bail};

use crate::devices::clock::Clock;
use crate::devices::power::Power;
use crate::devices::serial::Console;
use crate::devices::virtio_console::VirtioConsole;
use crate::ending::{Ender, Ending};
use crate::endpoint::Endpoint;
use crate::exits::Hyperv;
use crate::kvm::{Line, Vcpu, Vm};
use crate::layout::{SERIAL_LINE, VIRTIO_CONSOLE_LINE};
use crate::memory::GuestRam;
use crate::vcpu::{self, Devices};
use crate::{acpi, boot, cpuid};

/// Most processors a guest can have: more than any scenario wants.
const PROCESSORS_AT_MOST: u32 = 16;

/// What the machine is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A bzImage.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub append: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Number of processors.
    pub processors: u32,
    /// Whether it has Hyper-V's timers. When Linux unloads hv_vmbus it stops them for good, if they interrupt without the
    /// SynIC as KVM's do, and stands still; without them it uses those of its processors.
    pub timers: bool,
    /// Where the serial console's output goes.
    pub console: PathBuf,
    /// The agent's far end, as [`Endpoint::open`] takes it.
    pub agent: String,
}

/// What the bus is made from, when the machine is there and before its guest runs.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The machine, with memory and processors.
    pub vm: Vm,
    /// Number of processors.
    pub processors: u32,
    /// Ends the machine.
    pub ender: Ender,
}

/// Boots a guest whose Hyper-V side is what `bus` makes, and runs it to its end. Its threads end with the process, so
/// there is one machine a process.
///
/// # Errors
/// The machine can't be put together.
pub fn run(settings: &Settings, bus: impl FnOnce(&Parts) -> Result<Arc<dyn Hyperv>>) -> Result<Ending> {
    if !(1..=PROCESSORS_AT_MOST).contains(&settings.processors) {
        bail!("a guest has 1 to {PROCESSORS_AT_MOST} processors, not {}", settings.processors);
    }
    let ram = GuestRam::new(settings.memory_mib)?;
    let loaded = boot::load(&ram, &settings.kernel, &settings.initrd, &settings.append, acpi::RSDP)?;
    acpi::write(&ram, settings.processors)?;

    let vm = Vm::new(ram)?;
    let vcpus = processors(&vm, settings.processors, settings.timers)?;
    if let Some(first) = vcpus.first() {
        let (special, general) = boot::first_processor(vm.ram(), loaded, first.special_registers()?)?;
        first.set_registers(&special, &general)?;
    }
    let (ender, ended) = Ender::new();
    let hyperv = bus(&Parts { vm: vm.clone(), processors: settings.processors, ender: ender.clone() })?;
    let devices = Arc::new(Devices {
        serial: Console::new(&settings.console, vm.line(SERIAL_LINE))?,
        agent: agent(&vm, &settings.agent)?,
        power: Power::new(ender.clone()),
        clock: Clock::default(),
        hyperv,
        ender,
    });
    for vcpu in vcpus {
        let devices = Arc::clone(&devices);
        let name = format!("vcpu-{}", vcpu.index());
        Builder::new().name(name).spawn(move || vcpu::run(vcpu, &devices)).context("start a processor's thread")?;
    }
    let ending = ended.recv().context("every thread of the machine is gone")?;
    devices.serial.flush();
    Ok(ending)
}

fn processors(vm: &Vm, count: u32, timers: bool) -> Result<Vec<Vcpu>> {
    let supported = vm.supported_leaves()?;
    let vcpus = (0..count).map(|index| vm.add_vcpu(index)).collect::<Result<Vec<_>>>()?;
    for vcpu in &vcpus {
        vcpu.set_cpuid(&cpuid::leaves(&supported, &vcpu.hyperv_leaves()?, vcpu.index(), timers)?)?;
    }
    Ok(vcpus)
}

fn agent(vm: &Vm, endpoint: &str) -> Result<VirtioConsole> {
    let endpoint = Endpoint::open(endpoint).context("the agent's line")?;
    let line = vm.line(VIRTIO_CONSOLE_LINE);
    let console = VirtioConsole::new(vm.ram().mapped().clone(), move || interrupt(&line));
    console.connect(endpoint)?;
    Ok(console)
}

fn interrupt(line: &Line) {
    if let Err(error) = line.pulse() {
        log::warn!(target: "vmbus::vmm", "{error:#}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Settings, run};
    use crate::exits::NoBus;

    fn refuse(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings {
            kernel: "/none/kernel".into(),
            initrd: "/none/initrd".into(),
            append: String::new(),
            memory_mib: 64,
            processors: 1,
            timers: true,
            console: "/none/console".into(),
            agent: "/none/agent".to_owned(),
        };
        change(&mut settings);
        format!("{:#}", run(&settings, |_| Ok(Arc::new(NoBus))).unwrap_err())
    }

    #[test]
    fn what_can_not_be_is_refused_before_a_machine_is_made() {
        assert!(refuse(|settings| settings.processors = 0).contains("1 to 16 processors, not 0"));
        assert!(refuse(|settings| settings.processors = 17).contains("not 17"));
        assert!(refuse(|settings| settings.memory_mib = 4096).contains("64 to 3072 MiB"));
        assert!(refuse(|_| ()).contains("open the kernel /none/kernel"));
    }
}
