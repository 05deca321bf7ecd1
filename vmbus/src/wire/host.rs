//! The host's end of the socket: listening, a guest's hello, and control messages from and to it.
//!
//! The guest is not trusted: whatever it sends ends in an error for this guest alone, with every descriptor of it
//! closed. Nothing here waits, unless it says so.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::host_interrupts::HostInterrupts;
use super::host_memory::HostMemory;
use super::transport::{
    Buffer, Frame, FromGuest, Hello, MAX_FRAME_BYTES, Outbox, Received, TRANSPORT_VERSION, connect, listen, receive,
    receive_with, send_with,
};
use crate::Error;
use crate::message::Message;

/// Messages that wait for a guest that does not read: all channels offered and taken back, twice.
const OUTBOX_FRAMES: usize = 4 * 2048;

/// A path on which guests connect. Dropping it removes the path.
#[derive(Debug)]
pub struct HostListener {
    socket: OwnedFd,
    path: PathBuf,
}

impl HostListener {
    /// Listens on a path. A socket that a host left there when it was killed is replaced.
    ///
    /// # Errors
    /// [`Error::Busy`] when another host listens there; [`Error::Io`], [`Error::Permission`].
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let socket = match listen(&path) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(&path)?;
                listen(&path)
            }
            outcome => outcome,
        };
        let socket = socket.map_err(|error| Error::io("listen on", &path, error))?;
        Ok(Self { socket, path })
    }

    /// The next guest that has connected; `None` when there is none now.
    ///
    /// # Errors
    /// [`Error::Io`] when there are no descriptors left: try again when a guest has gone.
    pub fn accept(&self) -> Result<Option<Arrival>, Error> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => Ok(Some(Arrival::over(socket))),
            // The last one has gone again, before it was accepted.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(error) => Err(Error::io("accept a guest on", &self.path, error)),
        }
    }
}

impl AsFd for HostListener {
    /// Readable when a guest has connected.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for HostListener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!(target: "vmbus::wire", "{} stays: {error}", self.path.display());
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), Error> {
    let refused = |source: &std::io::Error| Errno::from_io_error(source) == Some(Errno::CONNREFUSED);
    // Connecting to a plain file is refused, too; it is not ours to remove.
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    match connect(path) {
        Err(Error::Io { source, .. }) if is_socket && refused(&source) => {
            std::fs::remove_file(path).map_err(|error| Error::io("remove the stale", path, error))
        }
        // It answers, is no socket of ours, or may not be asked.
        _ => {
            let why = "another process listens there, or it is no socket; use another path".to_owned();
            Err(Error::Busy { device: path.display().to_string(), why })
        }
    }
}

/// A connection on which the guest's hello is still to come.
#[derive(Debug)]
pub struct Arrival {
    socket: OwnedFd,
}

/// What became of an [`Arrival`].
#[derive(Debug)]
pub enum Greeting {
    /// The guest was welcomed.
    Guest(Guest),
    /// The hello is not there yet: wait for the socket to become readable.
    Waiting(Arrival),
}

/// A guest that was welcomed.
#[derive(Debug)]
pub struct Guest {
    /// Control messages.
    pub connection: HostConnection,
    /// Its memory.
    pub memory: Arc<HostMemory>,
    /// Its interrupts and signals.
    pub interrupts: Arc<HostInterrupts>,
}

impl Arrival {
    /// A guest over a connected socket: one of a [`pair`](super::transport::pair), or inherited.
    #[must_use]
    pub fn over(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Takes the hello and answers it, if it is there.
    ///
    /// # Errors
    /// [`Error::Handshake`] when it was refused (the guest was told why), [`Error::Disconnected`] when the guest has
    /// gone.
    pub fn greet(self) -> Result<Greeting, Error> {
        let mut buffer: Buffer = [0; MAX_FRAME_BYTES + 1];
        let (received, descriptors) = receive_with(self.socket.as_fd(), &mut buffer).map_err(lost)?;
        let frame = match received {
            Received::Nothing => return Ok(Greeting::Waiting(self)),
            Received::Ended => return Err(gone("the guest left without a hello")),
            Received::Frame(frame) => frame,
        };
        let (answer, outcome) = match admit(frame, descriptors) {
            Ok(admitted) => (Frame::welcome(), Ok(admitted)),
            Err(error) => {
                let why = if let Error::Handshake { why } = &error { why.clone() } else { error.to_string() };
                (Frame::refused(&why), Err(error))
            }
        };
        let answer = answer.ok_or_else(|| gone("its answer is too long"))?;
        // The socket is empty: if it takes no frame, the guest has gone, and a refusal has nobody to read it.
        let sent = send_with(self.socket.as_fd(), answer.as_ref(), &[]);
        let (memory, interrupts) = outcome?;
        sent.map_err(lost)?;
        let (memory, interrupts) = (Arc::new(memory), Arc::new(interrupts));
        let connection = HostConnection { socket: self.socket, outbox: Outbox::new(OUTBOX_FRAMES) };
        Ok(Greeting::Guest(Guest { connection, memory, interrupts }))
    }

    /// As [`greet`](Self::greet), but waits for the hello.
    ///
    /// # Errors
    /// As [`greet`](Self::greet); [`Error::Handshake`] when none comes in time.
    pub fn wait(mut self, timeout: Duration) -> Result<Guest, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.greet()? {
                Greeting::Guest(guest) => return Ok(guest),
                Greeting::Waiting(arrival) => self = arrival,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Handshake { why: format!("no hello within {} ms", timeout.as_millis()) });
            }
            let left = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self, PollFlags::IN)], left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("wait for", "a guest's hello", error)),
            }
        }
    }
}

impl AsFd for Arrival {
    /// Readable when [`greet`](Self::greet) has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Checks the hello and what came with it. Descriptors that are not kept are closed on the way out.
fn admit(frame: &[u8], descriptors: Option<Vec<OwnedFd>>) -> Result<(HostMemory, HostInterrupts), Error> {
    let refused = |why: String| Error::Handshake { why };
    let hello = match FromGuest::parse(frame) {
        Ok(FromGuest::Hello(hello)) => hello,
        Ok(FromGuest::Post { .. }) => return Err(refused("a message came before the hello".to_owned())),
        Err(error) => return Err(refused(format!("the first frame is no hello: {error}"))),
    };
    let Hello { version, .. } = hello;
    if version != TRANSPORT_VERSION {
        return Err(refused(format!("the guest's frames are of version {version}, the host's of {TRANSPORT_VERSION}")));
    }
    let descriptors = descriptors.ok_or_else(|| refused("the host lacks room for the descriptors".to_owned()))?;
    let mut descriptors = descriptors.into_iter();
    let memory = descriptors.next().ok_or_else(|| refused("no guest memory came with the hello".to_owned()))?;
    let memory = HostMemory::new(memory, hello)?;
    let interrupts = HostInterrupts::new(&memory, descriptors.collect())?;
    Ok((memory, interrupts))
}

/// A control message that the guest has posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Post {
    /// Where to.
    pub connection: u32,
    /// What.
    pub message: Message,
}

/// Control messages from and to one guest.
#[derive(Debug)]
pub struct HostConnection {
    socket: OwnedFd,
    outbox: Outbox,
}

impl HostConnection {
    /// The next message of the guest; `None` when there is none now.
    ///
    /// # Errors
    /// [`Error::Disconnected`] when the guest has gone or sends what is no message; the connection is of no more use.
    pub fn receive(&mut self) -> Result<Option<Post>, Error> {
        let mut buffer: Buffer = [0; MAX_FRAME_BYTES + 1];
        let frame = match receive(self.socket.as_fd(), &mut buffer).map_err(lost)? {
            Received::Nothing => return Ok(None),
            Received::Ended => return Err(gone("the guest closed it or died")),
            Received::Frame(frame) => frame,
        };
        match FromGuest::parse(frame) {
            Ok(FromGuest::Post { connection, bytes }) => {
                let message = Message::try_from(bytes).map_err(|error| gone(&format!("the guest sent {error}")))?;
                Ok(Some(Post { connection, message }))
            }
            Ok(FromGuest::Hello(_)) => Err(gone("the guest said hello twice")),
            Err(error) => Err(gone(&format!("the guest sent a bad frame: {error}"))),
        }
    }

    /// Sends a message to a processor of the guest, or queues it (see [`wants_write`](Self::wants_write)).
    ///
    /// # Errors
    /// [`Error::Disconnected`] when the guest has gone, or does not read for so long that the queue is full.
    pub fn send(&mut self, target_vp: u32, message: &Message) -> Result<(), Error> {
        let frame = Frame::message(target_vp, message.as_ref()).ok_or_else(|| gone("a message is too long"))?;
        if !self.outbox.push(frame) {
            return Err(gone("the guest does not read its messages"));
        }
        self.flush()
    }

    /// Whether messages wait for the guest to read others: then wait for the socket to become writable, too, and
    /// [`flush`](Self::flush).
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends what waits, as far as it goes now.
    ///
    /// # Errors
    /// [`Error::Disconnected`] when the guest has gone.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.outbox.flush(self.socket.as_fd()).map_err(lost)
    }
}

impl AsFd for HostConnection {
    /// Readable when [`receive`](Self::receive) has something to say.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn gone(why: &str) -> Error {
    Error::Disconnected { why: why.to_owned() }
}

fn lost(error: Errno) -> Error {
    Error::Disconnected { why: format!("the socket says: {error}") }
}
