//! TCP and Unix sockets under one type, whose waits a bell ends.
//!
//! What carries bytes between a VM socket and the rest of the world has two of these threads for each connection, and
//! must be able to end both at once without telling the peer that all was said.

mod addr;
mod bell;
mod listener;

pub use addr::{ParsePlainAddrError, PlainAddr};
pub use bell::Bell;
pub use listener::PlainListener;

use std::io;
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};

/// A connected TCP or Unix socket.
#[derive(Debug)]
pub enum Plain {
    /// TCP, without delay of small packets.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Plain {
    /// Connects, waiting so long at most for each address that a name stands for.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut`, no such name or path.
    pub fn connect(to: &PlainAddr, timeout: Duration) -> io::Result<Self> {
        let name = match to {
            PlainAddr::Unix(path) => return Ok(Self::Unix(UnixStream::connect(path)?)),
            PlainAddr::Tcp(name) => name,
        };
        let mut failed = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name stands for no address");
        for address in name.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(socket) => return Self::of_tcp(socket),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn of_tcp(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self::Tcp(socket))
    }

    /// Reads, waiting for something to read; nothing is the peer's end.
    ///
    /// # Errors
    /// `ConnectionReset` and the like; `ConnectionAborted` once the bell has rung.
    pub fn read(&self, buffer: &mut [u8], bell: &Bell) -> io::Result<usize> {
        loop {
            match rustix::net::recv(self, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((bytes, _)) => return Ok(bytes),
                Err(Errno::AGAIN) => bell.wait(self, PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes all of it, waiting for room.
    ///
    /// # Errors
    /// `BrokenPipe`, `ConnectionReset` and the like; `ConnectionAborted` once the bell has rung.
    pub fn write_all(&self, mut bytes: &[u8], bell: &Bell) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::AGAIN) => bell.wait(self, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn end(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Self::Unix(socket) => socket.shutdown(Shutdown::Write),
        }
    }

    /// The drop of this socket will be a reset rather than an end. Unix sockets know none: their peers see an end, unless
    /// something that they wrote was not read.
    pub fn reset(&self) {
        if let Self::Tcp(socket) = self {
            // A socket that is gone already needs none.
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }

    /// What the peer is called, for messages. Unix sockets' peers have no names.
    #[must_use]
    pub fn peer(&self) -> String {
        match self {
            Self::Tcp(socket) => socket.peer_addr().map_or_else(|_| "tcp".into(), |address| format!("tcp:{address}")),
            Self::Unix(_) => "unix".into(),
        }
    }
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests;
