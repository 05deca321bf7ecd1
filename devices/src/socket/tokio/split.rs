//! The two sides of a stream: borrowed for one task, or owned by two.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::VmStream;

/// The reading side of a borrowed stream.
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a VmStream);

/// The writing side of a borrowed stream.
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a VmStream);

/// The reading side of a stream that two own.
#[derive(Debug)]
pub struct OwnedReadHalf {
    stream: Arc<VmStream>,
}

/// The writing side of a stream that two own. Its drop says the end.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: Arc<VmStream>,
    says_end: bool,
}

/// Two halves that are not of one stream.
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl fmt::Display for ReuniteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the two halves are not of one stream; reunite those that one `into_split` gave")
    }
}

impl Error for ReuniteError {}

pub(super) fn borrowed(stream: &mut VmStream) -> (ReadHalf<'_>, WriteHalf<'_>) {
    let stream = &*stream;
    (ReadHalf(stream), WriteHalf(stream))
}

pub(super) fn owned(stream: VmStream) -> (OwnedReadHalf, OwnedWriteHalf) {
    let stream = Arc::new(stream);
    (OwnedReadHalf { stream: Arc::clone(&stream) }, OwnedWriteHalf { stream, says_end: true })
}

impl OwnedReadHalf {
    /// Puts a stream together again.
    ///
    /// # Errors
    /// The other half is another's.
    pub fn reunite(self, other: OwnedWriteHalf) -> Result<VmStream, ReuniteError> {
        if !Arc::ptr_eq(&self.stream, &other.stream) {
            return Err(ReuniteError(self, other));
        }
        other.forget();
        // Both were here, and there is no third.
        match Arc::try_unwrap(self.stream) {
            Ok(stream) => Ok(stream),
            Err(stream) => {
                Err(ReuniteError(Self { stream: Arc::clone(&stream) }, OwnedWriteHalf { stream, says_end: true }))
            }
        }
    }
}

impl OwnedWriteHalf {
    /// Puts a stream together again.
    ///
    /// # Errors
    /// The other half is another's.
    pub fn reunite(self, other: OwnedReadHalf) -> Result<VmStream, ReuniteError> {
        other.reunite(self)
    }

    /// Drops it without saying the end, which is said when the other half is gone, too.
    pub fn forget(mut self) {
        self.says_end = false;
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.says_end
            && let Err(error) = self.stream.end()
        {
            log::debug!(target: "vmbus::socket", "the end of a stream was not said: {error}");
        }
    }
}

impl AsRef<VmStream> for ReadHalf<'_> {
    fn as_ref(&self) -> &VmStream {
        self.0
    }
}

impl AsRef<VmStream> for WriteHalf<'_> {
    fn as_ref(&self) -> &VmStream {
        self.0
    }
}

impl AsRef<VmStream> for OwnedReadHalf {
    fn as_ref(&self) -> &VmStream {
        &self.stream
    }
}

impl AsRef<VmStream> for OwnedWriteHalf {
    fn as_ref(&self) -> &VmStream {
        &self.stream
    }
}

/// A half reads, or writes, as its stream does.
macro_rules! reads {
    ($half:ty) => {
        impl AsyncRead for $half {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let stream: &VmStream = (*self).as_ref();
                stream.poll_receive(context, buffer)
            }
        }
    };
}

macro_rules! writes {
    ($half:ty) => {
        impl AsyncWrite for $half {
            fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                let stream: &VmStream = (*self).as_ref();
                stream.poll_send(context, &[IoSlice::new(bytes)])
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let stream: &VmStream = (*self).as_ref();
                stream.poll_send(context, slices)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                let stream: &VmStream = (*self).as_ref();
                Poll::Ready(stream.end())
            }
        }
    };
}

reads!(ReadHalf<'_>);
reads!(OwnedReadHalf);
writes!(WriteHalf<'_>);
writes!(OwnedWriteHalf);
