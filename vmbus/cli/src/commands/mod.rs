//! One file per command. Each does its work, prints, and says how it ended.

mod balloon;
mod bench;
mod bind;
mod demo;
mod describe;
mod doctor;
mod echo;
mod forward;
mod generate;
mod list;
mod lsvmbus;
mod nc;
mod offers;
pub(crate) mod sim;
mod status;
mod storm;
mod watch;

use crate::args::Command;
use crate::context::Context;
use crate::exit::Exit;

/// Runs one command.
pub(crate) fn run(context: &Context, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::List(args) => list::run(context, &args),
        Command::Status(args) => status::run(context, &args),
        Command::Bind(args) => bind::bind(context, &args),
        Command::Unbind(args) => bind::unbind(context, &args),
        Command::Restore(args) => bind::restore(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Command::Balloon(args) => balloon::run(context, &args),
        Command::Sim(args) => sim::run(context, &args),
        Command::Demo => demo::run(context),
        Command::Storm(args) => storm::run(context, &args),
        Command::Bench(args) => bench::run(context, &args),
        Command::Watch(args) => watch::run(context, &args),
        Command::Nc(args) => nc::run(context, &args),
        Command::Forward(args) => forward::run(context, &args),
        Command::Echo(args) => echo::run(context, &args),
        Command::Completions { shell } => generate::completions(shell),
        Command::Manpages { folder } => generate::manpages(&folder),
    }
}
