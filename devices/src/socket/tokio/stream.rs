//! A stream that tasks read and write.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use ::tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::source::{Source, Watched};
use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use super::{ReuniteError, VmConnect};
use crate::socket::{self, Family, ToPlace, VmSocketAddr};

/// Bytes of a buffer that are made ready for one read: more do not come at once.
const READ_BYTES: usize = 64 * 1024;

/// A connection to a peer, for tasks: [`socket::VmStream`], awaited.
///
/// Reads and writes may be waited for at once, by one task or by two ([`split`](Self::split),
/// [`into_split`](Self::into_split)). Shutting down by [`AsyncWrite`] says the end, and leaves reading; the drop says it,
/// too. Nothing here waits for a timer: limit calls by tokio's own.
#[derive(Debug)]
pub struct VmStream {
    // Fields go in this order: the runtime lets go of the descriptors while they are there.
    reading: AsyncFd<Watched>,
    /// Where room has a descriptor of its own.
    writing: Option<AsyncFd<Watched>>,
    source: Arc<Source>,
}

impl VmStream {
    /// Connects. Whoever cancels this ends the connect.
    ///
    /// # Errors
    /// As [`socket::VmStream::connect`].
    ///
    /// # Panics
    /// Outside of a runtime, or in one without I/O, as tokio's own types.
    pub async fn connect(to: impl ToPlace) -> io::Result<Self> {
        VmConnect::start(to)?.wait().await
    }

    /// Two streams in this process, each the other's peer.
    ///
    /// # Errors
    /// A system call failed.
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socket::VmStream::pair()?;
        Ok((Self::from_std(one)?, Self::from_std(other)?))
    }

    /// Has the runtime watch a stream, which is nonblocking from here on, its clones included.
    ///
    /// # Errors
    /// `AlreadyExists` when a runtime watches a clone of it; a system call failed.
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    pub fn from_std(stream: socket::VmStream) -> io::Result<Self> {
        let source = Source::new(stream)?;
        let (reading, writing) = source.register()?;
        Ok(Self { reading, writing, source })
    }

    /// Takes it from the runtime. It stays nonblocking.
    ///
    /// # Errors
    /// None so far.
    pub fn into_std(self) -> io::Result<socket::VmStream> {
        let Self { reading, writing, source } = self;
        drop((reading, writing));
        let source = Arc::into_inner(source).ok_or(io::ErrorKind::ResourceBusy)?;
        Ok(source.into_stream())
    }

    /// Both sides, for one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split::borrowed(self)
    }

    /// Both sides, for two tasks. The writing one's drop says the end.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split::owned(self)
    }

    /// Puts two sides of one stream together again; as [`OwnedReadHalf::reunite`].
    ///
    /// # Errors
    /// They are of two streams.
    pub fn reunite(reader: OwnedReadHalf, writer: OwnedWriteHalf) -> Result<Self, ReuniteError> {
        reader.reunite(writer)
    }

    /// What carries it.
    #[must_use]
    pub fn family(&self) -> Family {
        self.source.family()
    }

    /// The address of this end.
    ///
    /// # Errors
    /// A system call failed.
    pub fn local_addr(&self) -> io::Result<VmSocketAddr> {
        self.source.stream().local_addr()
    }

    /// The address of the peer's end.
    ///
    /// # Errors
    /// A system call failed.
    pub fn peer_addr(&self) -> io::Result<VmSocketAddr> {
        self.source.stream().peer_addr()
    }

    /// An error of the stream that no call told: once.
    ///
    /// # Errors
    /// A system call failed.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.source.stream().take_error()
    }

    /// Until a read may bring something, an end or an error: or nothing, now and then.
    ///
    /// # Errors
    /// The runtime shuts down.
    pub async fn readable(&self) -> io::Result<()> {
        self.reading.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Until a write may find room, or an error: or nothing, now and then.
    ///
    /// # Errors
    /// The runtime shuts down.
    pub async fn writable(&self) -> io::Result<()> {
        let guard = match &self.writing {
            Some(writing) => writing.readable().await,
            None => self.reading.writable().await,
        };
        guard.map(|mut guard| guard.retain_ready())
    }

    /// The same, for who polls. The last task that asked is woken.
    ///
    /// # Errors
    /// As there.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_reading(context).map_ok(|mut guard| guard.retain_ready())
    }

    /// The same for room.
    ///
    /// # Errors
    /// As there.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writing(context).map_ok(|mut guard| guard.retain_ready())
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` for nothing; as those of reading.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reading.try_io(Interest::READABLE, |_| self.source.read(buffer))
    }

    /// The same into several buffers.
    ///
    /// # Errors
    /// As there.
    pub fn try_read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.reading.try_io(Interest::READABLE, |_| self.source.read_vectored(buffers))
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock` without any; as those of writing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    /// The same of several slices.
    ///
    /// # Errors
    /// As there.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.writing {
            Some(writing) => writing.try_io(Interest::READABLE, |_| self.source.write(slices)),
            None => self.reading.try_io(Interest::WRITABLE, |_| self.source.write(slices)),
        }
    }

    /// Copies what a read would begin with, once there is something.
    ///
    /// # Errors
    /// As those of reading.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.reading.readable().await?;
            if let Ok(peeked) = guard.try_io(|_| self.source.peek(buffer)) {
                return peeked;
            }
        }
    }

    fn poll_reading(&self, context: &mut Context<'_>) -> Poll<io::Result<AsyncFdReadyGuard<'_, Watched>>> {
        self.reading.poll_read_ready(context)
    }

    fn poll_writing(&self, context: &mut Context<'_>) -> Poll<io::Result<AsyncFdReadyGuard<'_, Watched>>> {
        match &self.writing {
            Some(writing) => writing.poll_read_ready(context),
            None => self.reading.poll_write_ready(context),
        }
    }

    pub(super) fn poll_receive(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let room = buffer.initialize_unfilled_to(buffer.remaining().min(READ_BYTES));
        loop {
            let mut guard = ready!(self.poll_reading(context))?;
            if let Ok(read) = guard.try_io(|_| self.source.read(room)) {
                buffer.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }

    pub(super) fn poll_send(&self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.poll_writing(context))?;
            if let Ok(written) = guard.try_io(|_| self.source.write(slices)) {
                return Poll::Ready(written);
            }
        }
    }

    pub(super) fn end(&self) -> io::Result<()> {
        self.source.stream().shutdown(Shutdown::Write)
    }
}

impl AsyncRead for VmStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_receive(context, buffer)
    }
}

impl AsyncWrite for VmStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is kept here.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Says the end, for which there is always room.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }
}
