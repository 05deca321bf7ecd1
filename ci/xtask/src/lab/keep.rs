//! A guest that outlives its scenarios: `lab --keep` leaves it running, `lab-guest` runs commands in it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::guest::{Guest, run_once};
use super::progress::Progress;
use crate::process::{Interrupted, check_interrupt};

/// Command line of `lab-guest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Folder that `lab --keep` printed.
    folder: PathBuf,
    /// Longest time the command may take, in seconds.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// The command, such as `vmbusctl list -vv`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    argv: Vec<String>,
}

/// Runs the command in the kept guest, and exits as it did.
///
/// # Errors
/// There is no such guest, or it does not answer.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let argv: Vec<&str> = options.argv.iter().map(String::as_str).collect();
    let finished = run_once(&options.folder.join("agent"), &argv, Duration::from_secs(options.timeout))?;
    std::io::stdout().lock().write_all(finished.stdout.as_bytes())?;
    std::io::stderr().lock().write_all(finished.stderr.as_bytes())?;
    let code = finished.code.and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Leaves the guest running until a signal comes or it ends by itself.
///
/// # Errors
/// The guest's QEMU cannot be watched.
pub(crate) fn hold(guest: Guest, progress: &Progress) -> Result<()> {
    let (mut qemu, sockets, logs) = guest.into_kept();
    let folder = sockets.path().display();
    progress.say("the guest stays; Ctrl-C ends it");
    progress.say(format!("  a command in it:  cargo xtask lab-guest {folder} vmbusctl list"));
    progress.say(format!("  QEMU's monitor:   socat - UNIX-CONNECT:{folder}/qmp"));
    progress.say(format!("  logs:             {}", logs.display()));
    loop {
        match check_interrupt().and_then(|()| qemu.wait(Duration::from_millis(500))) {
            Ok(None) => {}
            Ok(Some(_)) => {
                progress.say("the guest has ended");
                return Ok(());
            }
            Err(error) if error.is::<Interrupted>() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
