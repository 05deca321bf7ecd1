//! The repository's own commands: `cargo xtask test` and, beside it, the guest lab.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command's output")]

mod test;

use std::process::ExitCode;

use clap::Parser;

/// The repository's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Run every check and test of the repository.
    Test(test::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    match Command::parse() {
        Command::Test(args) => test::run(&args),
    }
}
