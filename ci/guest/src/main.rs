//! What runs inside the guest of the lab: the agent that the lab talks to, and programs that load a device.
#![forbid(unsafe_code)]

mod agent;
mod hammer;
mod raw;
mod registry;
mod reopen;
mod wire;

use std::io::Write as _;
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
    /// Open and close a device over and over.
    Reopen(reopen::ReopenArgs),
    /// Bind and unbind a device over and over under a registered driver.
    Registry(registry::RegistryArgs),
}

fn main() -> ExitCode {
    env_logger::init();
    let result = match Cli::parse().command {
        Command::Agent { device } => agent::serve(&device).map(|()| ExitCode::SUCCESS),
        Command::Hammer(args) => hammer::run(&args),
        Command::Reopen(args) => reopen::run(&args),
        Command::Registry(args) => registry::run(&args),
    };
    result.unwrap_or_else(|error| {
        log::error!("{error:#}");
        ExitCode::FAILURE
    })
}

/// Prints a line for the lab.
fn say(line: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
