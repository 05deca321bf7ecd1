//! Waiting for a descriptor on behalf of a task: try first, sleep when there is nothing, try again at each event.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a duplicate, as the runtime takes each descriptor but once.
#[expect(deprecated, reason = "its successor is unsafe for what may not own its descriptor, and this one does")]
fn watch(descriptor: BorrowedFd<'_>, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor.try_clone_to_owned()?, interest)
}

/// One direction of a socket, watched by the runtime.
#[derive(Debug)]
pub(super) struct Ready {
    descriptor: AsyncFd<OwnedFd>,
    /// What ends it from another thread, where that has a descriptor of its own.
    bell: Option<AsyncFd<OwnedFd>>,
    interest: Interest,
}

impl Ready {
    /// Watches a descriptor, and a bell.
    pub(super) fn new(
        descriptor: BorrowedFd<'_>,
        interest: Interest,
        bell: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let bell = bell.map(|bell| watch(bell, Interest::READABLE)).transpose()?;
        Ok(Self { descriptor: watch(descriptor, interest)?, bell, interest })
    }

    /// Tries until there is an answer, for the one task that uses this direction. Trying gets the socket ready to tell of
    /// what comes next, so an event between the try and the look at the descriptor is not lost.
    pub(super) fn poll<T>(
        &self,
        context: &mut Context<'_>,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        // One that always finds something must let other tasks have their turn, too.
        let turn = ready!(tokio::task::coop::poll_proceed(context));
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => {
                    turn.made_progress();
                    return Poll::Ready(outcome);
                }
            }
            let mut guard = ready!(if self.interest.is_writable() {
                self.descriptor.poll_write_ready(context)
            } else {
                self.descriptor.poll_read_ready(context)
            })?;
            guard.clear_ready();
        }
    }

    /// The same for any number of tasks.
    pub(super) async fn io<T>(&self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => return outcome,
            }
            self.event().await?;
        }
    }

    /// Waits until something has happened.
    pub(super) async fn event(&self) -> io::Result<()> {
        let mut descriptor = pin!(self.descriptor.ready(self.interest));
        let Some(bell) = &self.bell else {
            descriptor.await?.clear_ready();
            return Ok(());
        };
        let mut bell = pin!(bell.readable());
        poll_fn(|context| {
            if let Poll::Ready(event) = descriptor.as_mut().poll(context) {
                return Poll::Ready(event.map(|mut event| event.clear_ready()));
            }
            // It stays up: whoever looks is told.
            bell.as_mut().poll(context).map_ok(drop)
        })
        .await
    }
}
