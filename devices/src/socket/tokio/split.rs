//! Halves of a stream, one for each direction: borrowed, or owned by two tasks.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::VmStream;

/// The half that reads, borrowed: see [`VmStream::split`].
#[derive(Debug)]
pub struct ReadHalf<'a> {
    pub(super) stream: &'a VmStream,
}

/// The half that writes, borrowed: see [`VmStream::split`].
#[derive(Debug)]
pub struct WriteHalf<'a> {
    pub(super) stream: &'a VmStream,
}

/// The half that reads: see [`VmStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    stream: Arc<VmStream>,
}

/// The half that writes: see [`VmStream::into_split`]. Its drop says the end, unless [`forget`](Self::forget) is used.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: Arc<VmStream>,
    ends: bool,
}

/// Two halves that are not of the same stream, given back.
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl fmt::Display for ReuniteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("these halves are not of the same stream; reunite those that one split gave")
    }
}

impl std::error::Error for ReuniteError {}

impl OwnedReadHalf {
    pub(super) fn new(stream: Arc<VmStream>) -> Self {
        Self { stream }
    }

    /// The stream, of which this is a half.
    #[must_use]
    pub fn stream(&self) -> &VmStream {
        &self.stream
    }

    /// One stream again.
    ///
    /// # Errors
    /// Both halves, if they are those of two streams.
    pub fn reunite(self, mut other: OwnedWriteHalf) -> Result<VmStream, ReuniteError> {
        if !Arc::ptr_eq(&self.stream, &other.stream) {
            return Err(ReuniteError(self, other));
        }
        other.ends = false;
        drop(other);
        // No half is left but this one.
        Arc::try_unwrap(self.stream).map_err(|stream| {
            let other = OwnedWriteHalf { stream: Arc::clone(&stream), ends: true };
            ReuniteError(Self { stream }, other)
        })
    }
}

impl OwnedWriteHalf {
    pub(super) fn new(stream: Arc<VmStream>) -> Self {
        Self { stream, ends: true }
    }

    /// The stream, of which this is a half.
    #[must_use]
    pub fn stream(&self) -> &VmStream {
        &self.stream
    }

    /// One stream again.
    ///
    /// # Errors
    /// As [`OwnedReadHalf::reunite`].
    pub fn reunite(self, other: OwnedReadHalf) -> Result<VmStream, ReuniteError> {
        other.reunite(self)
    }

    /// Drops it without saying the end.
    pub fn forget(mut self) {
        self.ends = false;
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.ends {
            // A stream that is gone needs no end.
            let _ = self.stream.end();
        }
    }
}

macro_rules! reads {
    ($half:ty) => {
        impl AsyncRead for $half {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.stream.poll_read_half(context, buffer)
            }
        }
    };
}

macro_rules! writes {
    ($half:ty) => {
        impl AsyncWrite for $half {
            fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                self.stream.poll_write_half(context, &[IoSlice::new(bytes)])
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.stream.poll_write_half(context, slices)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self.stream.end())
            }
        }
    };
}

reads!(ReadHalf<'_>);
reads!(OwnedReadHalf);
writes!(WriteHalf<'_>);
writes!(OwnedWriteHalf);
