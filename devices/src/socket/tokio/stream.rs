//! A stream for tokio.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::connect::connect;
use super::ready::Ready;
use super::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::socket::{self, Family, ToPlace};

/// A connection to a peer: [`socket::VmStream`] for tasks. One task may read while another writes:
/// [`split`](Self::split), [`into_split`](Self::into_split).
///
/// `AsyncWrite::poll_shutdown` says the end, and waits for nobody. All reads and writes are cancel-safe: what a dropped
/// future has not said that it took, it has not taken.
#[derive(Debug)]
pub struct VmStream {
    stream: socket::VmStream,
    reads: Ready,
    writes: Ready,
    /// The last write found no room.
    full: AtomicBool,
}

impl VmStream {
    /// Connects, waiting for the peer as long as its family does; `tokio::time::timeout` sets a limit. Dropping the future
    /// closes the connect.
    ///
    /// # Errors
    /// As [`socket::VmStream::connect`].
    pub async fn connect(to: impl ToPlace) -> io::Result<Self> {
        Self::from_std(connect(to).await?)
    }

    /// Two streams in this process, each the other's peer.
    ///
    /// # Errors
    /// A system call failed.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socket::VmStream::pair()?;
        Ok((Self::from_std(one)?, Self::from_std(other)?))
    }

    /// The same stream, from now on nonblocking, for all its clones.
    ///
    /// # Errors
    /// No descriptors are left.
    ///
    /// # Panics
    /// There is no runtime with I/O.
    pub fn from_std(stream: socket::VmStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let room = match stream.family() {
            Family::Vsock | Family::Local => Interest::WRITABLE,
            Family::Hvsock | Family::Pipe => Interest::READABLE,
        };
        let reads = Ready::new(stream.as_fd(), Interest::READABLE, None)?;
        let writes = Ready::new(stream.as_fd(), room, None)?;
        Ok(Self { stream, reads, writes, full: AtomicBool::new(false) })
    }

    /// The stream that blocks, or would: it is nonblocking still.
    #[must_use]
    pub fn into_std(self) -> socket::VmStream {
        self.stream
    }

    /// Addresses, errors, shutting sides down: what needs no waiting is done with this.
    #[must_use]
    pub fn stream(&self) -> &socket::VmStream {
        &self.stream
    }

    /// Waits until a read would not: there are bytes, the end, or an error.
    ///
    /// # Errors
    /// The runtime is gone.
    pub async fn readable(&self) -> io::Result<()> {
        // What peek finds, and be it an error, a read finds as well.
        match self.reads.io(|| self.stream.peek(&mut [0])).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until a write may find room. (It may also find none again.)
    ///
    /// # Errors
    /// The runtime is gone.
    pub async fn writable(&self) -> io::Result<()> {
        if self.full.load(Ordering::Acquire) {
            self.writes.event().await?;
            self.full.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; as reading.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.stream).read(buffer)
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; as writing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    /// The same from several slices.
    ///
    /// # Errors
    /// As [`try_write`](Self::try_write).
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = (&self.stream).write_vectored(slices);
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Release);
        }
        written
    }

    /// Copies what a read would begin with.
    ///
    /// # Errors
    /// As reading.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads.io(|| self.stream.peek(buffer)).await
    }

    /// Two halves that borrow it, one for each direction.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf { stream: self }, WriteHalf { stream: self })
    }

    /// Two halves that own it together, for two tasks. The drop of the writing one says the end.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let stream = Arc::new(self);
        (OwnedReadHalf::new(Arc::clone(&stream)), OwnedWriteHalf::new(stream))
    }

    pub(super) fn poll_read_half(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = std::task::ready!(self.reads.poll(context, || (&self.stream).read(buffer.initialize_unfilled())));
        Poll::Ready(read.map(|bytes| buffer.advance(bytes)))
    }

    pub(super) fn poll_write_half(&self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.writes.poll(context, || (&self.stream).write_vectored(slices))
    }

    pub(super) fn end(&self) -> io::Result<()> {
        match self.stream.shutdown(Shutdown::Write) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            outcome => outcome,
        }
    }
}

impl AsFd for VmStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsyncRead for VmStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_half(context, buffer)
    }
}

impl AsyncWrite for VmStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_half(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_half(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }
}
