//! Listening on TCP and Unix sockets.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::PollFlags;

use super::{Bell, Plain, PlainAddr};

/// Takes connections to a TCP or Unix socket. A Unix socket's path goes with it.
#[derive(Debug)]
pub struct PlainListener(Way);

#[derive(Debug)]
enum Way {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl PlainListener {
    /// Listens. A path whose owner was killed is taken over.
    ///
    /// # Errors
    /// `AddrInUse`; no such address.
    pub fn bind(to: &PlainAddr) -> io::Result<Self> {
        let way = match to {
            PlainAddr::Tcp(name) => {
                let listener = TcpListener::bind(name.as_str())?;
                listener.set_nonblocking(true)?;
                Way::Tcp(listener)
            }
            PlainAddr::Unix(path) => {
                remove_stale(path);
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Way::Unix(listener, path.clone())
            }
        };
        Ok(Self(way))
    }

    /// The next connection, waiting for it.
    ///
    /// # Errors
    /// `ConnectionAborted` once the bell has rung; there are no descriptors, which passes.
    pub fn accept(&self, bell: &Bell) -> io::Result<Plain> {
        loop {
            bell.wait(self, PollFlags::IN)?;
            let accepted = match &self.0 {
                Way::Tcp(listener) => listener.accept().and_then(|(socket, _)| Plain::of_tcp(socket)),
                Way::Unix(listener, _) => listener.accept().map(|(socket, _)| Plain::Unix(socket)),
            };
            match accepted {
                // It has gone again, or another took it.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
                other => return other,
            }
        }
    }

    /// Where it listens: with the port that was chosen if none was said.
    ///
    /// # Errors
    /// A system call failed.
    pub fn local(&self) -> io::Result<PlainAddr> {
        Ok(match &self.0 {
            Way::Tcp(listener) => PlainAddr::Tcp(listener.local_addr()?.to_string()),
            Way::Unix(_, path) => PlainAddr::Unix(path.clone()),
        })
    }
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket());
    let refuses = || UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && refuses() {
        // If it fails, so does what follows, and says so.
        let _ = std::fs::remove_file(path);
    }
}

impl AsFd for PlainListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Way::Tcp(listener) => listener.as_fd(),
            Way::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for PlainListener {
    fn drop(&mut self) {
        if let Way::Unix(_, path) = &self.0 {
            // Gone already, perhaps.
            let _ = std::fs::remove_file(path);
        }
    }
}
