//! A command at this end of a connection: what the peer says is its input, what it prints the peer hears.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustix::event::PollFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use vmbus_devices::socket::VmStream;
use vmbus_simhost::plain::Bell;

use super::READ_BYTES;
use super::standard::place;
use crate::sockets::error::of_vm_socket;

/// Runs it. The peer's end is the end of its input, the end of its output is ours; a peer that is gone ends it. It is over
/// when the command has ended.
pub(super) fn run(stream: &Arc<VmStream>, command: &str) -> anyhow::Result<()> {
    let spawned = Command::new("sh").args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child =
        spawned.with_context(|| format!("cannot run `{command}`")).map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let input = child.stdin.take().context("the command has no input")?;
    let hears = Arc::clone(stream);
    // By descriptor: by then the number may be another's.
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok();
    let bell = Arc::new(Bell::new().map_err(|error| anyhow::anyhow!("no descriptors are left: {error}"))?);
    let rings = Arc::clone(&bell);
    let feed = move || {
        let fed = feed(&hears, input);
        if fed.is_err() {
            if let Some(process) = process {
                // It may have ended by itself.
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
            // Those that it started may have its output still.
            rings.ring();
        }
        fed
    };
    let feeding = std::thread::Builder::new().name("feed".to_owned()).spawn(feed).context("cannot start a thread")?;
    let told = tell(stream, &mut child, &bell);
    let status = child.wait().with_context(|| format!("cannot wait for `{command}`"))?;
    // Nobody is there any more who would hear the peer.
    let _ = stream.shutdown(Shutdown::Read);
    match feeding.join() {
        Ok(fed) => fed.map_err(|error| of_vm_socket("receive from", place(stream), error))?,
        Err(_) => bail!("a thread panicked"),
    }
    told.map_err(|error| of_vm_socket("send to", place(stream), error))?;
    if !status.success() {
        bail!("`{command}` ended with {status}");
    }
    Ok(())
}

/// The peer's bytes are the command's input. What it does not read is thrown away: it may print all the same.
fn feed(stream: &VmStream, input: ChildStdin) -> io::Result<()> {
    let (mut input, mut buffer) = (Some(input), vec![0; READ_BYTES]);
    loop {
        let read = match (&mut &*stream).read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Some(open) = &mut input
            && open.write_all(buffer.get(..read).unwrap_or_default()).is_err()
        {
            input = None;
        }
    }
}

/// The command's output is ours, and its end is our end.
fn tell(stream: &VmStream, child: &mut Child, bell: &Bell) -> io::Result<()> {
    let Some(mut output) = child.stdout.take() else { return Ok(()) };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        bell.wait(&output, PollFlags::IN)?;
        match output.read(&mut buffer) {
            Ok(0) => return stream.shutdown(Shutdown::Write),
            Ok(read) => (&mut &*stream).write_all(buffer.get(..read).unwrap_or_default())?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
