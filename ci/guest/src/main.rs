//! What runs inside the guest of the lab: the agent that the lab talks to, and programs that load a device.
#![forbid(unsafe_code)]

mod agent;
mod buffers;
mod bus;
mod cycles;
mod echo;
mod hammer;
mod hostile;
mod kernel_ways;
mod level;
mod raw;
mod registry;
mod reopen;
mod revocation;
mod say;
mod speed;
mod subchannels;
#[cfg(test)]
mod testing;
mod traffic;
mod vsock;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

/// Programs of the guest lab; they run inside its guest.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the lab's requests until told to power off.
    Agent {
        /// A virtio port, such as /dev/vport0p1, or a serial device.
        device: PathBuf,
    },
    /// Hammer a device's rings with two threads until it is unbound; ends with exit code 6.
    Hammer(hammer::HammerArgs),
    /// Write and check the buffers that the kernel shares with the host for a device.
    Buffers(buffers::BuffersArgs),
    /// Open a device that the host offers and takes back over and over.
    Cycles(cycles::CyclesArgs),
    /// Send packets to an echo device and check the replies.
    Echo(echo::EchoArgs),
    /// Use a device whose host writes nonsense into its rings.
    Hostile(hostile::HostileArgs),
    /// What the kernel's UIO driver does by itself with the masks of an echo device.
    KernelWays(kernel_ways::KernelWaysArgs),
    /// Open and close a device over and over.
    Reopen(reopen::ReopenArgs),
    /// Bind and unbind a device over and over under a registered driver.
    Registry(registry::RegistryArgs),
    /// Write to a device's rings while the host takes it back, and look for late writes in all free memory.
    Revocation(revocation::RevocationArgs),
    /// Take all free memory, and look for writes of others in it.
    FillMemory(revocation::MemoryArgs),
    /// Messages to echo devices beside those to an echoing hv_sock service.
    Speed(speed::SpeedArgs),
    /// Traffic on a device and its subchannels, which are moved, or fall silent.
    Subchannels(subchannels::SubchannelsArgs),
    /// Connect to an echoing hv_sock service of the host, and check what comes back.
    VsockConnect(vsock::ConnectArgs),
    /// Accept hv_sock connections of the host, and send back what comes.
    VsockListen(vsock::ListenArgs),
    /// Messages to an echoing hv_sock service of the host: how many in a second, and how long each takes.
    VsockBench(vsock::BenchArgs),
}

fn main() -> ExitCode {
    env_logger::init();
    let result = match Cli::parse().command {
        Command::Agent { device } => agent::serve(&device).map(|()| ExitCode::SUCCESS),
        Command::Buffers(args) => buffers::run(&args),
        Command::Cycles(args) => cycles::run(&args),
        Command::Echo(args) => echo::run(&args),
        Command::Hammer(args) => hammer::run(&args),
        Command::Hostile(args) => hostile::run(&args),
        Command::KernelWays(args) => kernel_ways::run(&args),
        Command::Reopen(args) => reopen::run(&args),
        Command::Registry(args) => registry::run(&args),
        Command::Revocation(args) => revocation::run(&args),
        Command::FillMemory(args) => revocation::run_memory(&args),
        Command::Speed(args) => speed::run(&args),
        Command::Subchannels(args) => subchannels::run(&args),
        Command::VsockConnect(args) => vsock::connect(&args),
        Command::VsockListen(args) => vsock::listen(&args),
        Command::VsockBench(args) => vsock::bench(&args),
    };
    result.unwrap_or_else(|error| {
        log::error!("{error:#}");
        exit_code(&error)
    })
}

/// As the command has them: 6 where a device was taken back, for instance.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let of_channel = error.downcast_ref::<vmbus_channels::Error>().map(vmbus_channels::Error::kind);
    let kind = of_channel.or_else(|| error.downcast_ref::<vmbus::Error>().map(vmbus::Error::kind));
    kind.map_or(ExitCode::FAILURE, |kind| ExitCode::from(kind.exit_code()))
}

/// Prints a line for the lab.
fn say(line: &Value) -> anyhow::Result<()> {
    say::Say::aloud().line(line)
}
