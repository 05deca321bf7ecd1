//! A listener whose connections tasks await.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::task::{Context, Poll};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use super::VmStream;
use super::source::registered;
use crate::socket::{self, ToPlace, VmCloser, VmSocketAddr};

/// Takes connections to an address, for tasks: [`socket::VmListener`], awaited.
#[derive(Debug)]
pub struct VmListener {
    waiting: AsyncFd<OwnedFd>,
    /// The close, where the other descriptor does not show it.
    closed: Option<AsyncFd<OwnedFd>>,
    listener: socket::VmListener,
}

/// A descriptor of its own for a runtime, which knows each once.
pub(super) fn watched(descriptor: &impl AsFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    registered(descriptor.as_fd().try_clone_to_owned()?, interest)
}

/// Until either is ready.
pub(super) async fn either(one: impl Future, other: Option<impl Future>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    std::future::poll_fn(|context| {
        let first = one.as_mut().poll(context).is_ready();
        let second = other.as_mut().as_pin_mut().is_some_and(|other| other.poll(context).is_ready());
        if first || second { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl VmListener {
    /// Listens on an address.
    ///
    /// # Errors
    /// As [`socket::VmListener::bind`].
    ///
    /// # Panics
    /// Outside of a runtime, or in one without I/O, as tokio's own types.
    pub fn bind(to: impl ToPlace) -> io::Result<Self> {
        Self::from_std(socket::VmListener::bind(to)?)
    }

    /// Has the runtime watch a listener. Its clones may be used beside it.
    ///
    /// # Errors
    /// A system call failed.
    ///
    /// # Panics
    /// As [`bind`](Self::bind).
    pub fn from_std(listener: socket::VmListener) -> io::Result<Self> {
        let waiting = watched(&listener, Interest::READABLE)?;
        let closed = listener.closed().map(|bell| watched(&bell, Interest::READABLE)).transpose()?;
        Ok(Self { waiting, closed, listener })
    }

    /// Takes it from the runtime.
    ///
    /// # Errors
    /// None so far.
    pub fn into_std(self) -> io::Result<socket::VmListener> {
        Ok(self.listener)
    }

    /// The next connection and where it comes from. Cancelled, it has taken none.
    ///
    /// # Errors
    /// `ConnectionAborted` once it was closed; a system call failed.
    pub async fn accept(&self) -> io::Result<(VmStream, VmSocketAddr)> {
        loop {
            if let Some(accepted) = self.try_accept() {
                return accepted;
            }
            either(self.waiting.readable(), self.closed.as_ref().map(AsyncFd::readable)).await;
        }
    }

    /// The same, for who polls. The last task that asked is woken.
    ///
    /// # Errors
    /// As there.
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(VmStream, VmSocketAddr)>> {
        loop {
            if let Some(accepted) = self.try_accept() {
                return Poll::Ready(accepted);
            }
            let waits = self.waiting.poll_read_ready(context).map_ok(drop)?;
            let closed = match &self.closed {
                Some(closed) => closed.poll_read_ready(context).map_ok(drop)?,
                None => Poll::Pending,
            };
            if waits.is_pending() && closed.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// One that waits, the close, or nothing: then whoever comes next rings.
    fn try_accept(&self) -> Option<io::Result<(VmStream, VmSocketAddr)>> {
        let closed = self.closed.as_ref().is_some_and(|bell| bell.try_io(Interest::READABLE, |_| Ok(())).is_ok());
        let accepted = if closed {
            self.listener.accept_now()
        } else {
            self.waiting.try_io(Interest::READABLE, |_| self.listener.accept_now())
        };
        match accepted {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            accepted => Some(accepted.and_then(|(stream, peer)| Ok((VmStream::from_std(stream)?, peer)))),
        }
    }

    /// The address, with the port that was chosen if none was said.
    ///
    /// # Errors
    /// A system call failed.
    pub fn local_addr(&self) -> io::Result<VmSocketAddr> {
        self.listener.local_addr()
    }

    /// An error of the socket's that nobody heard of.
    ///
    /// # Errors
    /// A system call failed.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.listener.take_error()
    }

    /// Stops to listen, for all clones, from any task or thread: who waits hears `ConnectionAborted`.
    pub fn close(&self) {
        self.listener.close();
    }

    /// What does that, for others.
    #[must_use]
    pub fn closer(&self) -> VmCloser {
        self.listener.closer()
    }
}
