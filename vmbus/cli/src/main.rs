//! vmbusctl: lists VMBus devices, hands them to user space and back, and drives them.
//!
//! The only code of the workspace that prints. Files: `args` the command line, `commands` one file each, `exit` and
//! `failure` how it ends, `output` and `table` how it looks, `sockets` what commands on VM sockets have in common.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod context;
mod exit;
mod failure;
mod link;
mod output;
mod selector;
mod simulated;
mod sockets;
mod table;
mod time;

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error).into(),
    };
    let command = cli.command.unwrap_or(Command::Demo);
    start_log(cli.global.log.as_deref(), &command, cli.global.quiet);
    let context = Context::new(cli.global);
    let exit = match commands::run(&context, command) {
        Ok(exit) => exit,
        Err(error) => Failure::of(&error).map_or(Exit::Ok, |failure| failure.report(context.json)),
    };
    exit.into()
}

/// Ends a run whose command line was not understood, or asked for help.
fn refuse(error: &clap::Error) -> Exit {
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let asked_for_json =
        std::env::args_os().take_while(|arg| arg != OsStr::new("--")).any(|arg| arg == OsStr::new("--json"));
    if !help && asked_for_json {
        return Failure::usage(&error.to_string()).report(true);
    }
    // Nobody reads it any more: nothing to do about that.
    drop(error.print());
    if help { Exit::Ok } else { Exit::Usage }
}

/// Logs to standard error what `filter`, `VMBUS_LOG` or `RUST_LOG` ask for. Without them what stays logs warnings; a
/// command that ends at once logs errors only, as what it warns of is in the error that it ends with.
fn start_log(filter: Option<&str>, command: &Command, quiet: bool) {
    let from_environment =
        || ["VMBUS_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let stays = matches!(
        command,
        Command::Balloon(_) | Command::Watch(_) | Command::Sim(_) | Command::Forward(_) | Command::Echo(_)
    );
    let default = || if quiet || !stays { "error" } else { "warn" }.to_owned();
    let filter = filter.map(str::to_owned).or_else(from_environment).unwrap_or_else(default);
    env_logger::Builder::new().parse_filters(&filter).init();
}
