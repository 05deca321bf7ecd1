//! The repository's own commands: `cargo xtask test` and, beside it, the guest lab.
#![forbid(unsafe_code)]

mod lab;
mod process;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// The repository's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Run every check and test of the repository.
    Test(test::Args),
    /// Prove the drivers in a guest whose VMBus host is QEMU.
    Lab(lab::Options),
    /// Run a command in the guest that `lab --keep` left running.
    LabGuest(lab::keep::Options),
    /// Become another program that the kernel ends when this one's parent ends.
    #[command(hide = true)]
    Held(process::Held),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Test(args) => test::run(&args),
        Command::Lab(options) => lab::run(&options),
        Command::LabGuest(options) => lab::keep::run(&options),
        Command::Held(held) => process::become_held(&held),
    };
    result.unwrap_or_else(|error| process::report(&error))
}
