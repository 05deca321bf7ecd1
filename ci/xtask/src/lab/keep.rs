//! A guest that outlives its scenarios: `lab --keep` leaves it running and passes requests on to its agent,
//! `lab-guest` sends one.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use super::agent::Agent;
use super::guest::Guest;
use super::host::{Host, HostLine};
use super::line::{Gone, Line};
use super::progress::Progress;
use super::wire::{self, Call, Finished, Reply, Request};
use crate::process::{Interrupted, Usage, check_interrupt};

/// Socket below the kept guest's folder that takes requests.
const SOCKET: &str = "guest";

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

/// Runs the command in the kept guest, and exits as it did (128 and the signal's number if one ended it).
///
/// # Errors
/// There is no such guest, or it does not answer.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let socket = options.folder.join(SOCKET);
    let line = Line::connect(&socket, Duration::ZERO).map_err(|_| {
        Usage(format!("no guest is kept at {}: `cargo xtask lab --keep` prints where", options.folder.display()))
    })?;
    let timeout = Duration::from_secs(options.timeout);
    let call = Call::Run { argv: options.argv.clone(), env: Vec::new(), timeout_ms: options.timeout * 1000 };
    let finished: Finished = Agent::new(line, 1).call(call, timeout)?;
    std::io::stdout().lock().write_all(finished.stdout.as_bytes())?;
    std::io::stderr().lock().write_all(finished.stderr.as_bytes())?;
    let code = finished.code.or(finished.signal.map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Leaves the guest running, and passes requests on to it, until a signal comes or it ends by itself.
///
/// # Errors
/// The guest's machine cannot be watched, or the socket cannot be made.
pub(crate) fn hold(guest: Guest, progress: &Progress) -> Result<()> {
    let host = match guest.host {
        HostLine::Qmp(_) => ("QEMU's monitor:  ", Host::Qemu.socket()),
        HostLine::Control(_) => ("the host:        ", Host::Vmm.socket()),
    };
    let (mut machine, mut agent, sockets, logs) = guest.into_kept();
    let listener = UnixListener::bind(sockets.path().join(SOCKET)).context("make a socket for requests")?;
    listener.set_nonblocking(true)?;
    let folder = sockets.path().display();
    progress.say("the guest stays; Ctrl-C ends it");
    progress.say(format!("  a command in it:  cargo xtask lab-guest {folder} vmbusctl list"));
    progress.say(format!("  {} socat - UNIX-CONNECT:{folder}/{}", host.0, host.1));
    progress.say(format!("  logs:             {}", logs.display()));
    loop {
        let step = check_interrupt().and_then(|()| match listener.accept() {
            Ok((client, _)) => serve(client, &mut agent).map(|()| None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => machine.wait(Duration::from_millis(200)),
            Err(error) => Err(error).context("accept a request"),
        });
        match step {
            Ok(None) => {}
            Err(error) if error.is::<Interrupted>() => return Ok(()),
            Err(error) if !error.is::<Gone>() => return Err(error),
            Ok(Some(_)) | Err(_) => {
                progress.say("the guest has ended");
                return Ok(());
            }
        }
    }
}

/// Passes one request on. A client that sends nothing sensible, or has gone, is nobody's fault but its own.
fn serve(mut client: UnixStream, agent: &mut Agent) -> Result<()> {
    let mut line = Vec::new();
    let ready = client.set_nonblocking(false).and_then(|()| client.set_read_timeout(Some(Duration::from_secs(5))));
    if ready.is_err() || BufReader::new(&client).read_until(b'\n', &mut line).is_err() {
        return Ok(());
    }
    if let Some(Request { id, call }) = wire::decode(&line) {
        let takes = match &call {
            Call::Run { timeout_ms, .. } | Call::Wait { timeout_ms, .. } => Duration::from_millis(*timeout_ms),
            _ => Duration::ZERO,
        };
        let result = agent.forward(call, takes)?;
        let _ = client.write_all(&wire::encode(&Reply { id, result })?);
    }
    Ok(())
}
