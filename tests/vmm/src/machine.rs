//! Puts a machine together, starts its processors, and waits for its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vmm_sys_util::signal::Killable;

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
/// Signal that takes a processor out of its run.
const KICK: i32 = signal_hook::consts::SIGUSR1;
/// Between two of them.
const KICK_AGAIN: Duration = Duration::from_millis(1);

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
    /// A reset starts the guest anew, instead of ending the machine.
    pub restarts: bool,
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

/// The Hyper-V side of a machine.
pub trait Host {
    /// Where the processors bring hypercalls and register writes.
    fn hyperv(&self) -> Arc<dyn Hyperv>;

    /// The guest is gone, and another will start in this machine. No processor runs.
    ///
    /// # Errors
    /// What the host needs of the machine is not to be had.
    fn restart(&self, vm: &Vm) -> Result<()>;
}

/// Boots a guest whose Hyper-V side is what `host` makes, and runs it to its end. Its threads end with the process, so
/// there is one machine a process.
///
/// # Errors
/// The machine can't be put together.
pub fn run<H: Host>(settings: &Settings, host: impl FnOnce(&Parts) -> Result<H>) -> Result<Ending> {
    if !(1..=PROCESSORS_AT_MOST).contains(&settings.processors) {
        bail!("a guest has 1 to {PROCESSORS_AT_MOST} processors, not {}", settings.processors);
    }
    let mut vm = Vm::new(GuestRam::new(settings.memory_mib)?)?;
    let vcpus = load(settings, &vm)?;
    let (ender, ended) = Ender::new();
    let host = host(&Parts { vm: vm.clone(), processors: settings.processors, ender: ender.clone() })?;
    let lines = [vm.line(SERIAL_LINE), vm.line(VIRTIO_CONSOLE_LINE)];
    let [serial, agent] = lines.clone();
    let devices = Arc::new(Devices {
        serial: Console::new(&settings.console, serial)?,
        agent: console(&vm, agent, &settings.agent)?,
        power: Power::new(ender.clone()),
        clock: Clock::default(),
        hyperv: host.hyperv(),
        ender,
    });
    // So that the signal ends nothing but a processor's run.
    signal_hook::flag::register(KICK, Arc::default()).context("have a signal that stops processors")?;
    let mut running = Running::start(vcpus, &devices)?;
    loop {
        let ending = ended.recv().context("every thread of the machine is gone")?;
        devices.serial.flush();
        let Ending::Reset(how) = &ending else { return Ok(ending) };
        if !settings.restarts {
            return Ok(ending);
        }
        log::info!(target: "vmbus::vmm", "the guest was reset: {how}");
        running.stop()?;
        // Other processors may have said something, too; only this is more than a reset.
        if let Some(ending) = ended.try_iter().find(|ending| !matches!(ending, Ending::Reset(_))) {
            return Ok(ending);
        }
        vm = Vm::new(vm.ram().clone())?;
        lines.iter().for_each(|line| line.rewire(&vm));
        devices.agent.reset();
        host.restart(&vm)?;
        vm.ram().clear()?;
        running = Running::start(load(settings, &vm)?, &devices)?;
    }
}

/// Puts a kernel into the memory, and makes processors that start it.
fn load(settings: &Settings, vm: &Vm) -> Result<Vec<Vcpu>> {
    let ram = vm.ram();
    let loaded = boot::load(ram, &settings.kernel, &settings.initrd, &settings.append, acpi::RSDP)?;
    acpi::write(ram, settings.processors)?;
    let vcpus = processors(vm, settings.processors, settings.timers)?;
    if let Some(first) = vcpus.first() {
        let (special, general) = boot::first_processor(ram, loaded, first.special_registers()?)?;
        first.set_registers(&special, &general)?;
    }
    Ok(vcpus)
}

/// The processors' threads.
struct Running {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Running {
    fn start(vcpus: Vec<Vcpu>, devices: &Arc<Devices>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |vcpu: Vcpu| {
            let (devices, stop) = (Arc::clone(devices), Arc::clone(&stop));
            let thread = Builder::new().name(format!("vcpu-{}", vcpu.index()));
            thread.spawn(move || vcpu::run(vcpu, &devices, &stop)).context("start a processor's thread")
        };
        let threads = vcpus.into_iter().map(start).collect::<Result<_>>()?;
        Ok(Self { threads, stop })
    }

    /// Stops the processors, wherever they are.
    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            // A signal that comes right before the processor runs is lost; so it comes again.
            while !thread.is_finished() {
                thread.kill(KICK).context("stop a processor")?;
                std::thread::sleep(KICK_AGAIN);
            }
            if thread.join().is_err() {
                bail!("a processor's thread panicked");
            }
        }
        Ok(())
    }
}

fn processors(vm: &Vm, count: u32, timers: bool) -> Result<Vec<Vcpu>> {
    let supported = vm.supported_leaves()?;
    let vcpus = (0..count).map(|index| vm.add_vcpu(index)).collect::<Result<Vec<_>>>()?;
    for vcpu in &vcpus {
        vcpu.set_cpuid(&cpuid::leaves(&supported, &vcpu.hyperv_leaves()?, vcpu.index(), timers)?)?;
    }
    Ok(vcpus)
}

fn console(vm: &Vm, line: Line, endpoint: &str) -> Result<VirtioConsole> {
    let endpoint = Endpoint::open(endpoint).context("the agent's line")?;
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

    use anyhow::Result;

    use super::{Host, Settings, run};
    use crate::exits::{Hyperv, NoBus};
    use crate::kvm::Vm;

    impl Host for NoBus {
        fn hyperv(&self) -> Arc<dyn Hyperv> {
            Arc::new(*self)
        }

        fn restart(&self, _vm: &Vm) -> Result<()> {
            Ok(())
        }
    }

    fn refuse(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings {
            kernel: "/none/kernel".into(),
            initrd: "/none/initrd".into(),
            append: String::new(),
            memory_mib: 64,
            processors: 1,
            timers: true,
            restarts: false,
            console: "/none/console".into(),
            agent: "/none/agent".to_owned(),
        };
        change(&mut settings);
        format!("{:#}", run(&settings, |_| Ok(NoBus)).unwrap_err())
    }

    #[test]
    fn what_can_not_be_is_refused_before_a_machine_is_made() {
        assert!(refuse(|settings| settings.processors = 0).contains("1 to 16 processors, not 0"));
        assert!(refuse(|settings| settings.processors = 17).contains("not 17"));
        assert!(refuse(|settings| settings.memory_mib = 4096).contains("64 to 3072 MiB"));
        assert!(refuse(|_| ()).contains("open the kernel /none/kernel"));
    }
}
