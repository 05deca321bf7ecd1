//! What a runtime watches of a stream: the kernel's socket, or each side of a connection.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use crate::socket::connection::Watch;
use crate::socket::stream::Way;
use crate::socket::{Family, VmStream};

/// A stream that a runtime watches.
#[derive(Debug)]
pub(super) struct Source {
    stream: VmStream,
    /// Of a bus's connection.
    watch: Option<Watch>,
}

/// A descriptor of such a stream, which stays as long as this does.
#[derive(Debug)]
pub(super) struct Watched {
    descriptor: RawFd,
    _source: Arc<Source>,
}

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor
    }
}

/// How it is watched: for reading, and for writing where that is another descriptor, which is readable then.
pub(super) type Registered = (AsyncFd<Watched>, Option<AsyncFd<Watched>>);

/// Has the runtime watch a descriptor.
#[expect(deprecated, reason = "its successor is unsafe; what is given here keeps its one descriptor open")]
pub(super) fn registered<T: AsRawFd>(descriptor: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(descriptor, interest)
}

impl Source {
    pub(super) fn new(stream: VmStream) -> io::Result<Arc<Self>> {
        stream.set_nonblocking(true)?;
        let watch = match stream.way() {
            Way::Kernel(_) => None,
            Way::Bus(connection) => Some(Watch::new(connection)?),
        };
        Ok(Arc::new(Self { stream, watch }))
    }

    /// Has the runtime that this is called in watch it.
    pub(super) fn register(self: &Arc<Self>) -> io::Result<Registered> {
        let of = |descriptor| Watched { descriptor, _source: Arc::clone(self) };
        let Some(watch) = &self.watch else {
            let both = of(self.stream.as_fd().as_raw_fd());
            let both = registered(both, Interest::READABLE | Interest::WRITABLE)?;
            return Ok((both, None));
        };
        let (Some(reading), Some(writing)) = (watch.reading(), watch.writing()) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let reading = registered(of(reading.as_raw_fd()), Interest::READABLE)?;
        let writing = registered(of(writing.as_raw_fd()), Interest::READABLE)?;
        Ok((reading, Some(writing)))
    }

    pub(super) fn stream(&self) -> &VmStream {
        &self.stream
    }

    pub(super) fn into_stream(self) -> VmStream {
        self.stream
    }

    pub(super) fn family(&self) -> Family {
        self.stream.family()
    }

    /// What is there now.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.way() {
            Way::Kernel(socket) => socket.read(buffer),
            Way::Bus(connection) => connection.read_now(buffer),
        }
    }

    pub(super) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self.stream.way() {
            Way::Kernel(socket) => socket.read_vectored(buffers),
            Way::Bus(connection) => connection.read_vectored_now(buffers),
        }
    }

    pub(super) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.way() {
            Way::Kernel(socket) => socket.peek(buffer),
            Way::Bus(connection) => connection.peek_now(buffer),
        }
    }

    /// What there is room for now.
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.stream.way() {
            Way::Kernel(socket) => socket.write(slices),
            Way::Bus(connection) => connection.write_now(slices),
        }
    }
}
