//! `vmbusctl completions` and `vmbusctl manpages`: what packages install besides the program.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::{self, Exit};
use crate::output;

pub(crate) fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vmbusctl", &mut script);
    output::stdout().write_all(&script)?;
    Ok(Exit::Ok)
}

pub(crate) fn manpages(folder: &Path) -> anyhow::Result<Exit> {
    let in_folder = || format!("cannot write manual pages to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(in_folder)?;
    // The table of exit codes belongs on each page: a manual page has no "see --help".
    let command =
        Cli::command().disable_help_flag(true).mut_subcommands(|command| command.after_long_help(exit::TABLE));
    clap_mangen::generate_to(command, folder).with_context(in_folder)?;
    Ok(Exit::Ok)
}
