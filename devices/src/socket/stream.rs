//! A stream: bytes both ways to a peer, used like those of std.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::kernel::KernelSocket;
use super::{Family, ToPlace, VmConnect, VmSocketAddr};

/// A connection to a peer: the host, another machine, or this one.
///
/// Reading and writing do not keep each other waiting, and a [`shutdown`](Self::shutdown) ends both from any thread. After
/// the peer's end, what it wrote before is read, then `Ok(0)`. A peer that is gone without an end is `ConnectionReset`.
/// With the last clone's drop the end is said, and the peer has some seconds to read what was written.
#[derive(Debug)]
pub struct VmStream {
    way: Way,
}

/// No call goes through a table: which family it is, is a branch.
#[derive(Debug)]
pub(super) enum Way {
    Kernel(KernelSocket),
    Bus(Arc<Connection>),
}

impl VmStream {
    pub(super) fn of_kernel(socket: KernelSocket) -> Self {
        Self { way: Way::Kernel(socket) }
    }

    pub(super) fn of_bus(connection: Connection) -> Self {
        Self { way: Way::Bus(Arc::new(connection)) }
    }

    #[cfg(all(feature = "tokio", not(loom)))]
    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// Connects, waiting for the peer as long as its family does.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there; `TimedOut`; no address; the bus has ended.
    pub fn connect(to: impl ToPlace) -> io::Result<Self> {
        VmConnect::start(to)?.wait(None)
    }

    /// The same, waiting so long at most.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `InvalidInput` for no time at all.
    pub fn connect_timeout(to: impl ToPlace, timeout: Duration) -> io::Result<Self> {
        // Before the connect is begun: the other side might accept it.
        let timeout = some(timeout)?;
        VmConnect::start(to)?.wait(Some(timeout))
    }

    /// Two streams in this process, each the other's peer.
    ///
    /// # Errors
    /// A system call failed.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = KernelSocket::pair()?;
        Ok((Self::of_kernel(one), Self::of_kernel(other)))
    }

    /// Another handle to the same stream.
    ///
    /// # Errors
    /// A system call failed.
    pub fn try_clone(&self) -> io::Result<Self> {
        let way = match &self.way {
            Way::Kernel(socket) => Way::Kernel(socket.try_clone()?),
            Way::Bus(connection) => Way::Bus(Arc::clone(connection)),
        };
        Ok(Self { way })
    }

    /// What carries it.
    #[must_use]
    pub fn family(&self) -> Family {
        match &self.way {
            Way::Kernel(socket) => socket.family(),
            Way::Bus(connection) => connection.family(),
        }
    }

    /// Shuts sides down: for all clones, at once, also while others wait in them. What was written before a shutdown of
    /// writing arrives, then the end.
    ///
    /// # Errors
    /// `NotConnected`; a system call failed.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.way {
            Way::Kernel(socket) => socket.shutdown(how),
            Way::Bus(connection) => {
                connection.shutdown(how);
                Ok(())
            }
        }
    }

    /// Ends the stream without an end, for all clones, at once, also while others wait in them: with the last clone's drop
    /// the peer is reset, and what was written and not read is lost. Reads say the end from now on, writes `BrokenPipe`.
    ///
    /// The kernel's sockets know no such thing: their peers see an end.
    ///
    /// # Errors
    /// `NotConnected`; a system call failed.
    pub fn reset(&self) -> io::Result<()> {
        match &self.way {
            Way::Kernel(socket) => socket.shutdown(Shutdown::Both),
            Way::Bus(connection) => {
                connection.reset();
                Ok(())
            }
        }
    }

    /// Copies what a read would begin with, waiting for it as that does.
    ///
    /// # Errors
    /// As those of reading.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.way {
            Way::Kernel(socket) => socket.peek(buffer),
            Way::Bus(connection) => connection.peek(buffer),
        }
    }

    /// The address of this end.
    ///
    /// # Errors
    /// A system call failed.
    pub fn local_addr(&self) -> io::Result<VmSocketAddr> {
        match &self.way {
            Way::Kernel(socket) => socket.local(),
            Way::Bus(connection) => Ok(connection.local()),
        }
    }

    /// The address of the peer's end.
    ///
    /// # Errors
    /// A system call failed.
    pub fn peer_addr(&self) -> io::Result<VmSocketAddr> {
        match &self.way {
            Way::Kernel(socket) => socket.peer(),
            Way::Bus(connection) => Ok(connection.peer()),
        }
    }

    /// An error of the stream that no call told: once.
    ///
    /// # Errors
    /// A system call failed.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match &self.way {
            Way::Kernel(socket) => socket.take_error(),
            Way::Bus(connection) => Ok(connection.take_error()),
        }
    }

    /// Whether reads and writes do not wait but say `WouldBlock`; for all clones.
    ///
    /// # Errors
    /// A system call failed.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match &self.way {
            Way::Kernel(socket) => socket.set_nonblocking(nonblocking),
            Way::Bus(connection) => {
                connection.set_nonblocking(nonblocking);
                Ok(())
            }
        }
    }

    /// How long a read waits; `WouldBlock` after that.
    ///
    /// # Errors
    /// A system call failed.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        match &self.way {
            Way::Kernel(socket) => socket.read_timeout(),
            Way::Bus(connection) => Ok(connection.read_timeout.get()),
        }
    }

    /// How long a write waits for room.
    ///
    /// # Errors
    /// A system call failed.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        match &self.way {
            Way::Kernel(socket) => socket.write_timeout(),
            Way::Bus(connection) => Ok(connection.write_timeout.get()),
        }
    }

    /// How long a read waits: `None` is without limit.
    ///
    /// # Errors
    /// `InvalidInput` for no time at all.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(some).transpose()?;
        match &self.way {
            Way::Kernel(socket) => socket.set_read_timeout(timeout),
            Way::Bus(connection) => {
                connection.read_timeout.set(timeout);
                Ok(())
            }
        }
    }

    /// How long a write waits for room: `None` is without limit.
    ///
    /// # Errors
    /// `InvalidInput` for no time at all.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(some).transpose()?;
        match &self.way {
            Way::Kernel(socket) => socket.set_write_timeout(timeout),
            Way::Bus(connection) => {
                connection.write_timeout.set(timeout);
                Ok(())
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.way {
            Way::Kernel(socket) => socket.read(buffer),
            Way::Bus(connection) => connection.read(buffer),
        }
    }

    fn receive_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match &self.way {
            Way::Kernel(socket) => socket.read_vectored(buffers),
            Way::Bus(connection) => connection.read_vectored(buffers),
        }
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.way {
            Way::Kernel(socket) => socket.write(slices),
            Way::Bus(connection) => connection.write(slices),
        }
    }
}

/// A time that is some.
fn some(timeout: Duration) -> io::Result<Duration> {
    if timeout.is_zero() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a timeout of zero would be none; use set_nonblocking",
        ));
    }
    Ok(timeout)
}

impl AsFd for VmStream {
    /// For event loops: readable while a read would not wait. A write that said `WouldBlock` makes it readable, too, once
    /// there may be room: a bus's stream has a descriptor that stands for several (an epoll's), and such a one is never
    /// writable, so wait for input only, and write again when it comes. Of the kernel's sockets it is writable then.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Kernel(socket) => socket.as_fd(),
            Way::Bus(connection) => connection.as_fd(),
        }
    }
}

impl Read for &VmStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.receive_vectored(buffers)
    }
}

impl Write for &VmStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for VmStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.receive_vectored(buffers)
    }
}

impl Write for VmStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
