//! A listener for tokio.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use tokio::io::Interest;

use super::VmStream;
use super::ready::Ready;
use crate::socket::{self, ToPlace, VmCloser, VmSocketAddr};

/// Takes connections to an address: [`socket::VmListener`] for tasks. Any number of them may wait in
/// [`accept`](Self::accept).
#[derive(Debug)]
pub struct VmListener {
    listener: socket::VmListener,
    ready: Ready,
}

impl VmListener {
    /// Listens on an address.
    ///
    /// # Errors
    /// As [`socket::VmListener::bind`]; there is no runtime with I/O.
    pub fn bind(to: impl ToPlace) -> io::Result<Self> {
        Self::from_std(socket::VmListener::bind(to)?)
    }

    /// The same listener, from now on nonblocking, for all its clones.
    ///
    /// # Errors
    /// No descriptors are left.
    ///
    /// # Panics
    /// There is no runtime with I/O.
    pub fn from_std(listener: socket::VmListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let ready = Ready::new(listener.as_fd(), Interest::READABLE, listener.bell())?;
        Ok(Self { listener, ready })
    }

    /// The listener that blocks, or would: it is nonblocking still.
    #[must_use]
    pub fn into_std(self) -> socket::VmListener {
        self.listener
    }

    /// The next connection and where it comes from. Cancel-safe: a connection that nobody was given waits for the next.
    ///
    /// # Errors
    /// As [`socket::VmListener::accept`].
    pub async fn accept(&self) -> io::Result<(VmStream, VmSocketAddr)> {
        let (stream, peer) = self.ready.io(|| self.listener.accept()).await?;
        Ok((VmStream::from_std(stream)?, peer))
    }

    /// The same by polling, for one task at a time.
    ///
    /// # Errors
    /// As [`accept`](Self::accept). Of the kernel's sockets a [`close`](VmCloser::close) elsewhere does not wake this.
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(VmStream, VmSocketAddr)>> {
        let accepted = std::task::ready!(self.ready.poll(context, || self.listener.accept()));
        Poll::Ready(accepted.and_then(|(stream, peer)| Ok((VmStream::from_std(stream)?, peer))))
    }

    /// The address, with the port that was chosen if none was said.
    ///
    /// # Errors
    /// A system call failed.
    pub fn local_addr(&self) -> io::Result<VmSocketAddr> {
        self.listener.local_addr()
    }

    /// What closes it from anywhere: who waits hears `ConnectionAborted`.
    #[must_use]
    pub fn closer(&self) -> VmCloser {
        self.listener.closer()
    }
}

impl AsFd for VmListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
