//! One connection's socket: a thread that reads it, and one that writes it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::line::{self, Said, SocketEnd};
use crate::Error;
use crate::device::{Conduit, Device};
use crate::plain::Plain;
use crate::server::{Wake, spawn};

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 64 * 1024;

/// Makes a conduit to this socket, has `offer` put it into the host's hands, and carries until both ends are said or one
/// side is gone. If it comes to nothing, the socket's peer is reset.
pub(super) fn over(
    plain: Arc<Plain>,
    host: Arc<Wake>,
    offer: impl FnOnce(Box<dyn Device>) -> Result<(), Error>,
) -> Result<(), Error> {
    let lines = line::line(host).map_err(|error| Error::System { what: "create a line", error });
    let offered = lines.and_then(|(host_end, socket_end)| {
        let writer = (Arc::clone(&plain), socket_end.clone());
        let thread = spawn("simhost-carry", move || write(&writer.0, &writer.1))?;
        if let Err(error) = offer(Box::new(Conduit::new(Box::new(host_end)))) {
            socket_end.break_off();
            return Err(error);
        }
        Ok((socket_end, thread))
    });
    let (line, thread) = offered.inspect_err(|_| plain.reset())?;
    read(&plain, &line);
    if thread.join().is_err() {
        log::error!(target: "vmbus::simhost", "a thread that carries bytes panicked");
    }
    Ok(())
}

/// Carries what the guest says.
fn write(plain: &Plain, line: &SocketEnd) {
    let mut bytes = VecDeque::new();
    let carried = loop {
        let said = line.hear(&mut bytes);
        let (first, second) = bytes.as_slices();
        let written = match said {
            Said::Gone => break Err(io::ErrorKind::ConnectionReset.into()),
            Said::End => break plain.end(),
            Said::Bytes => plain.write_all(first, line.writer()).and_then(|()| plain.write_all(second, line.writer())),
        };
        if written.is_err() {
            break written;
        }
    };
    give_up_on(carried, plain, line);
}

/// Carries what the socket's peer says.
fn read(plain: &Plain, line: &SocketEnd) {
    let mut bytes = vec![0; READ_BYTES];
    let carried = loop {
        match plain.read(&mut bytes, line.reader()) {
            Ok(0) => {
                line.say_end();
                break Ok(());
            }
            Ok(count) if line.say(bytes.get(..count).unwrap_or_default()) => {}
            // The guest is gone: the writer knows whether it had said all.
            Ok(_) => break Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    give_up_on(carried, plain, line);
}

fn give_up_on(carried: io::Result<()>, plain: &Plain, line: &SocketEnd) {
    if let Err(error) = carried {
        log::debug!(target: "vmbus::simhost", "a connection of {} is reset: {error}", plain.peer());
        plain.reset();
        line.break_off();
    }
}
