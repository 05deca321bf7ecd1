//! The thread that hears the host, and sends what the socket did not take at once.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};

use super::connection::Connection;
use super::transport::{Buffer, FromHost, MAX_FRAME_BYTES, Received, receive};
use crate::Error;
use crate::link::{LinkEvent, Sink};
use crate::message::{HostMessage, MessageError};

/// Frames that are received before waiting messages get their turn.
const BATCH: usize = 256;

/// Why the thread ends.
enum End {
    /// It was told to, or nobody listens any more.
    Quiet,
    /// The connection is gone.
    Lost(Error),
}

/// What the socket had.
enum Turn {
    /// Nothing more, now.
    Drained,
    /// There may be more.
    More,
}

/// Runs until the connection ends, and says why; or until it is stopped.
pub(super) fn run(connection: &Connection, sink: &Sink) {
    let Err(end) = listen(connection, sink) else { return };
    if let End::Lost(error) = end {
        let why = if let Error::Disconnected { why } = &error { why.clone() } else { error.to_string() };
        connection.end(&why);
        sink(LinkEvent::Lost(error));
    }
}

fn listen(connection: &Connection, sink: &Sink) -> Result<(), End> {
    let mut more = false;
    loop {
        // An error here is the end, which is found (behind what came before it) below.
        let unsent = connection.flush().unwrap_or(false);
        if !more {
            wait(connection, unsent)?;
        }
        if connection.is_stopping() {
            return Err(End::Quiet);
        }
        // Asked before the socket is: what was said before the sender found the end is still heard, as far as one batch.
        let ended = connection.ended();
        more = match hear(connection, sink)? {
            Turn::More => true,
            Turn::Drained => false,
        };
        if let Some(why) = ended {
            return Err(End::Lost(Error::Disconnected { why }));
        }
    }
}

/// Waits for the socket, or to be woken.
fn wait(connection: &Connection, unsent: bool) -> Result<(), End> {
    let interest = if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let wake = connection.wake_fd();
    let mut waited = [PollFd::new(connection, interest), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
    match poll(&mut waited, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(End::Lost(Error::io("wait for", "the host", error))),
    }
    let [_, woken] = &waited;
    if !woken.revents().is_empty() {
        let _ = read(wake, &mut [0_u8; 8]);
    }
    Ok(())
}

fn hear(connection: &Connection, sink: &Sink) -> Result<Turn, End> {
    let mut buffer: Buffer = [0; MAX_FRAME_BYTES + 1];
    for _ in 0..BATCH {
        let received = receive(connection.as_fd(), &mut buffer);
        match received.map_err(|error| lost(format!("the socket says: {error}")))? {
            Received::Nothing => return Ok(Turn::Drained),
            Received::Ended => {
                let what = if connection.is_welcome() { "the host" } else { "the host, before it answered the hello," };
                return Err(lost(format!("{what} closed it or died")));
            }
            Received::Frame(frame) => {
                let event = understand(connection, frame)?;
                if event.is_some_and(|event| !sink(event)) {
                    return Err(End::Quiet);
                }
            }
        }
    }
    Ok(Turn::More)
}

fn understand(connection: &Connection, frame: &[u8]) -> Result<Option<LinkEvent>, End> {
    let malformed = |error: MessageError| Ok(Some(LinkEvent::Malformed(error)));
    let frame = FromHost::parse(frame);
    if !connection.is_welcome() {
        return match frame {
            Ok(FromHost::Welcome) => {
                connection.welcome();
                Ok(None)
            }
            Ok(FromHost::Refused(why)) => Err(refused(&format!("the host refused it: {}", text(why)))),
            Ok(FromHost::Message { .. }) => Err(refused("the host spoke before it answered the hello")),
            Err(error) => Err(refused(&format!("the host's first frame is no answer to a hello: {error}"))),
        };
    }
    match frame {
        Ok(FromHost::Message { bytes, .. }) => match HostMessage::parse(bytes, connection.protocol()) {
            Ok(message) => {
                connection.learn(&message);
                Ok(Some(LinkEvent::Message(message)))
            }
            Err(error) => malformed(error),
        },
        Ok(FromHost::Welcome | FromHost::Refused(_)) => Err(lost("the host answered the hello twice".to_owned())),
        Err(error) => malformed(error),
    }
}

/// The host's words, with nothing in them that a terminal would take for more than text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|character| !character.is_control()).collect()
}

fn lost(why: String) -> End {
    End::Lost(Error::Disconnected { why })
}

fn refused(why: &str) -> End {
    End::Lost(Error::Handshake { why: why.to_owned() })
}
