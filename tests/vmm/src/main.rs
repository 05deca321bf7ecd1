//! The VMM's command line: arguments, the exit code, and why on standard error.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use vmbus_vmm::bus::Bus;
use vmbus_vmm::bus_memory::BusMemory;
use vmbus_vmm::control::wire::HostSettings;
use vmbus_vmm::control::{self, Host, Serving};
use vmbus_vmm::ending::Ending;
use vmbus_vmm::machine::{self, Parts, Settings};
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
    /// What the host is like
    #[arg(long, value_name = "JSON")]
    host: Option<String>,
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
    };
    let host = arguments.host.as_deref().map_or_else(|| Ok(HostSettings::default()), serde_json::from_str);
    let host = host.context("--host is no JSON of the host's settings")?;
    let mut bus = None;
    let ending = machine::run(&settings, |parts| {
        let started = bus.insert(start_bus(&host, parts)?);
        if let Some(path) = &arguments.control {
            Serving::start(path, Host::new(started, parts.processors, parts.ender.clone()))?;
        }
        Ok(started.hyperv())
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
