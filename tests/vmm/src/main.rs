//! The VMM's command line: arguments, the exit code, and why on standard error.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use vmbus_vmm::bus::Bus;
use vmbus_vmm::bus_memory::BusMemory;
use vmbus_vmm::control::wire::HostSettings;
use vmbus_vmm::control::{self, Serving};
use vmbus_vmm::ending::Ending;
use vmbus_vmm::exits::Hyperv;
use vmbus_vmm::kvm::Vm;
use vmbus_vmm::machine::{self, Host, Parts, Settings};
use vmbus_vmm::wires::VmWires;

/// Boots a Linux guest on KVM, with the simulated host as its VMBus.
///
/// Ends with 0 when the guest powers off, 3 when it is reset, 1 when the machine itself fails.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Kernel of the guest: a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Initial file system of the guest
    #[arg(long, value_name = "FILE")]
    initrd: PathBuf,
    /// Command line of the guest's kernel
    #[arg(long, value_name = "TEXT", default_value = "console=ttyS0 panic=-1")]
    append: String,
    /// Memory of the guest
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    memory: u64,
    /// Processors of the guest
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Without Hyper-V's timers, so that the guest lives on when it unloads hv_vmbus
    #[arg(long)]
    no_timers: bool,
    /// Where the serial console's output goes: a file or character device
    #[arg(long, value_name = "PATH")]
    console: PathBuf,
    /// What the guest's /dev/vport0p1 is connected with: a character device, or `unix:PATH` to listen there
    #[arg(long, value_name = "PATH")]
    agent: String,
    /// Where requests to the host are served: a character device, or `unix:PATH` to listen there
    #[arg(long, value_name = "PATH")]
    control: Option<String>,
    /// What a reset does; the host stays as it is
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnReset::End)]
    on_reset: OnReset,
    /// What the host is like
    #[arg(long, value_name = "JSON")]
    host: Option<String>,
}

/// What a reset does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnReset {
    /// Ends the machine.
    End,
    /// Boots the guest anew.
    Restart,
}

/// The bus as the machine has it.
struct Started(Arc<Bus>);

impl Host for Started {
    fn hyperv(&self) -> Arc<dyn Hyperv> {
        self.0.hyperv()
    }

    fn restart(&self, vm: &Vm) -> Result<()> {
        self.0.restart(VmWires::new(vm.clone()))
    }
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let arguments = Arguments::parse();
    let ending = run(&arguments).unwrap_or_else(|error| Ending::Failed(format!("{error:#}")));
    // There is nobody left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr(), "vmbus-vmm: {ending}");
    ExitCode::from(ending.code())
}

fn run(arguments: &Arguments) -> Result<Ending> {
    let settings = Settings {
        kernel: arguments.kernel.clone(),
        initrd: arguments.initrd.clone(),
        append: arguments.append.clone(),
        memory_mib: arguments.memory,
        processors: arguments.cpus,
        timers: !arguments.no_timers,
        console: arguments.console.clone(),
        agent: arguments.agent.clone(),
        restarts: arguments.on_reset == OnReset::Restart,
    };
    let host = arguments.host.as_deref().map_or_else(|| Ok(HostSettings::default()), serde_json::from_str);
    let host = host.context("--host is no JSON of the host's settings")?;
    let mut bus = None;
    let ending = machine::run(&settings, |parts| {
        let started = Arc::clone(bus.insert(Arc::new(start_bus(&host, parts)?)));
        if let Some(path) = &arguments.control {
            Serving::start(path, control::Host::new(&started, parts.processors, parts.ender.clone()))?;
        }
        Ok(Started(started))
    });
    // The host ends before the guest's memory goes.
    drop(bus);
    ending
}

/// The host, on a thread of its own.
fn start_bus(host: &HostSettings, parts: &Parts) -> Result<Bus> {
    let memory = BusMemory::new(parts.vm.ram().file())?;
    let wires = VmWires::new(parts.vm.clone());
    Bus::start(control::config(host)?, control::server_settings(host), &memory, parts.processors, wires)
}
