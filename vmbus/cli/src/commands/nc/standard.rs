//! Standard input and output at this end of a connection.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};

use anyhow::Context as _;
use vmbus_devices::socket::VmStream;

use super::READ_BYTES;
use crate::sockets::error::of_vm_socket;

/// What is over.
enum Over {
    /// Standard input was sent to its end, and so was the end.
    Input,
    /// The peer's end came, and everything before it was printed.
    Output,
}

/// Carries both ways until both ends were said; or, `until_end`, until the peer's was.
///
/// Each direction has a thread: none keeps the other waiting, whatever the terminal, the pipe or the peer does.
pub(super) fn run(stream: &Arc<VmStream>, until_end: bool) -> anyhow::Result<()> {
    let (done, over) = channel();
    let (says, hears) = (Arc::downgrade(stream), Arc::clone(stream));
    start("stdin", &done, move || send(&says))?;
    start("stdout", &done, move || print(&hears))?;
    let mut left = 2;
    while left > 0 {
        match over.recv().context("the threads have ended")?? {
            Over::Output if until_end => break,
            Over::Output | Over::Input => left -= 1,
        }
    }
    // If standard input goes on, the peer hears the end all the same.
    stream.shutdown(Shutdown::Write).or_else(gone).map_err(|error| of_vm_socket("end", place(stream), error))?;
    Ok(())
}

fn start(
    name: &str,
    done: &Sender<anyhow::Result<Over>>,
    work: impl FnOnce() -> anyhow::Result<Over> + Send + 'static,
) -> anyhow::Result<()> {
    let done = done.clone();
    let run = move || drop(done.send(work()));
    std::thread::Builder::new().name(name.to_owned()).spawn(run).context("cannot start a thread")?;
    Ok(())
}

/// Sends standard input, then the end. While it waits for input it does not keep the stream.
fn send(stream: &Weak<VmStream>) -> anyhow::Result<Over> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Err(rustix::io::Errno::INTR) => continue,
            read => read.map_err(|error| vmbus::Error::io("read", "standard input", error))?,
        };
        let Some(stream) = stream.upgrade() else { return Ok(Over::Input) };
        if read == 0 {
            stream
                .shutdown(Shutdown::Write)
                .or_else(gone)
                .map_err(|error| of_vm_socket("end", place(&stream), error))?;
            return Ok(Over::Input);
        }
        let sent = (&*stream).write_all(buffer.get(..read).unwrap_or_default());
        sent.map_err(|error| of_vm_socket("send to", place(&stream), error))?;
    }
}

/// Prints what the peer says, until its end.
fn print(stream: &VmStream) -> anyhow::Result<Over> {
    // Not std's, which keeps lines back: what the peer said is to be seen.
    let mut output = File::from(rustix::stdio::stdout().try_clone_to_owned()?);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match (&mut &*stream).read(&mut buffer) {
            Ok(0) => return Ok(Over::Output),
            Ok(read) => output.write_all(buffer.get(..read).unwrap_or_default())?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(of_vm_socket("receive from", place(stream), error).into()),
        }
    }
}

/// A peer that is gone needs no end.
fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}

/// The peer, for messages.
pub(super) fn place(stream: &VmStream) -> String {
    stream.peer_addr().map_or_else(|_| "the peer".to_owned(), |addr| addr.to_string())
}
