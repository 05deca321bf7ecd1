//! The repository's own commands. This file only dispatches.
#![forbid(unsafe_code)]

mod lab;
mod process;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The repository's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prove the drivers in a guest whose VMBus host is QEMU.
    Lab(lab::Options),
    /// Run a command in the guest that `lab --keep` left running.
    LabGuest(lab::keep::Options),
    /// Become another program that the kernel ends when this one's parent ends.
    #[command(hide = true)]
    Held(process::Held),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Lab(options) => lab::run(&options),
        Command::LabGuest(options) => lab::keep::run(&options),
        Command::Held(held) => process::become_held(&held),
    };
    result.unwrap_or_else(|error| process::report(&error))
}
