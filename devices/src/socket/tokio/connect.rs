//! A connect that a task awaits.

use std::io;
use std::os::fd::OwnedFd;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use super::VmStream;
use super::listener::{either, watched};
use crate::socket::{self, ToPlace, VmCloser};

/// A connect in progress, for tasks: [`socket::VmConnect`], awaited. Dropping it ends it.
#[derive(Debug)]
pub struct VmConnect {
    /// What shows its end, until then.
    ended: Option<AsyncFd<OwnedFd>>,
    /// The close, where the other descriptor does not show it.
    closed: Option<AsyncFd<OwnedFd>>,
    connect: socket::VmConnect,
}

impl VmConnect {
    /// Begins to connect.
    ///
    /// # Errors
    /// As [`socket::VmConnect::start`].
    ///
    /// # Panics
    /// Outside of a runtime, or in one without I/O, as tokio's own types.
    pub fn start(to: impl ToPlace) -> io::Result<Self> {
        let connect = socket::VmConnect::start(to)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let ended = connect.descriptor().map(|descriptor| watched(&descriptor, both)).transpose()?;
        let closed = connect.closed().map(|bell| watched(&bell, Interest::READABLE)).transpose()?;
        Ok(Self { ended, closed, connect })
    }

    /// Waits for the end of it. Cancelled, it goes on, and may be waited for again.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there; `ConnectionAborted` when it was closed; what the peer says.
    pub async fn wait(&mut self) -> io::Result<VmStream> {
        loop {
            if let Some(stream) = self.connect.try_wait()? {
                (self.ended, self.closed) = (None, None);
                return VmStream::from_std(stream);
            }
            let Some(ended) = &self.ended else { return Err(io::ErrorKind::NotConnected.into()) };
            let show = async {
                // What shows now was there before the look above, or comes again.
                let guard = ended.ready(Interest::READABLE | Interest::WRITABLE).await;
                guard.map(|mut guard| guard.clear_ready())
            };
            either(show, self.closed.as_ref().map(AsyncFd::readable)).await;
        }
    }

    /// What closes it from another task or thread.
    #[must_use]
    pub fn closer(&self) -> Option<VmCloser> {
        self.connect.closer()
    }
}
