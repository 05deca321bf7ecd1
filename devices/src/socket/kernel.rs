//! The kernel's sockets: AF_VSOCK by the `vsock` crate, and the pair of Unix sockets that two local ends are.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use vsock::{VsockAddr, VsockListener, VsockStream};

use super::addr::{CID_LOCAL, PORT_ANY};
use super::sockets::EventBell;
use super::{Family, VmSocketAddr};

/// A connected socket of the kernel's.
#[derive(Debug)]
pub(super) enum KernelSocket {
    Vsock(VsockStream),
    Local(UnixStream),
}

/// An address as the kernel has it: service ids that are no ports are the bus's alone.
fn kernel_addr(addr: VmSocketAddr) -> io::Result<VsockAddr> {
    let (cid, port) = match addr {
        VmSocketAddr::Port { cid, port } => (cid, port),
        VmSocketAddr::Service(_) => {
            let no_port = "AF_VSOCK has ports alone; a service id must be made of one";
            let port = addr.port().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, no_port))?;
            (super::addr::CID_HOST, port)
        }
    };
    Ok(VsockAddr::new(cid, port))
}

fn our_addr(addr: VsockAddr) -> VmSocketAddr {
    VmSocketAddr::new(addr.cid(), addr.port())
}

impl AsFd for KernelSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Vsock(socket) => socket.as_fd(),
            Self::Local(socket) => socket.as_fd(),
        }
    }
}

impl KernelSocket {
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self::Local(one), Self::Local(other)))
    }

    pub(super) fn family(&self) -> Family {
        match self {
            Self::Vsock(_) => Family::Vsock,
            Self::Local(_) => Family::Local,
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Vsock(socket) => Self::Vsock(socket.try_clone()?),
            Self::Local(socket) => Self::Local(socket.try_clone()?),
        })
    }

    pub(super) fn local(&self) -> io::Result<VmSocketAddr> {
        match self {
            Self::Vsock(socket) => Ok(our_addr(socket.local_addr()?)),
            Self::Local(_) => Ok(VmSocketAddr::new(CID_LOCAL, PORT_ANY)),
        }
    }

    pub(super) fn peer(&self) -> io::Result<VmSocketAddr> {
        match self {
            Self::Vsock(socket) => Ok(our_addr(socket.peer_addr()?)),
            Self::Local(_) => Ok(VmSocketAddr::new(CID_LOCAL, PORT_ANY)),
        }
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self, buffer)?)
    }

    pub(super) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(rustix::io::readv(self, buffers)?)
    }

    pub(super) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self, buffer, RecvFlags::PEEK).map(|(bytes, _)| bytes)?)
    }

    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // Without the signal that a process might die of.
        Ok(rustix::net::sendmsg(self, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(self, how)?)
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(self, nonblocking)?)
    }

    pub(super) fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(sockopt::socket_timeout(self, Timeout::Recv)?)
    }

    pub(super) fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(sockopt::socket_timeout(self, Timeout::Send)?)
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(self, Timeout::Recv, timeout)?)
    }

    pub(super) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(self, Timeout::Send, timeout)?)
    }

    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(sockopt::socket_error(self)?.err().map(io::Error::from))
    }
}

/// Waits until a socket is ready, or `bell` rings: then it was closed. `false`: the time is over.
fn wait(socket: impl AsFd, for_what: PollFlags, bell: &EventBell, deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let time = left.and_then(|left| Timespec::try_from(left).ok());
        let mut on = [PollFd::new(&socket, for_what), PollFd::new(&bell.0, PollFlags::IN)];
        match poll(&mut on, time.as_ref()) {
            Ok(0) => return Ok(false),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let [_, closed] = &on;
        return if closed.revents().is_empty() { Ok(true) } else { Err(super::endpoint::Refused::Closed.into()) };
    }
}

/// A connect in progress.
#[derive(Debug)]
pub(super) struct KernelConnect {
    socket: Option<VsockStream>,
    pub(super) bell: Arc<EventBell>,
}

impl KernelConnect {
    pub(super) fn start(addr: VmSocketAddr) -> io::Result<Self> {
        let addr = kernel_addr(addr)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = nix::sys::socket::socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
        match nix::sys::socket::connect(socket.as_raw_fd(), &addr) {
            Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self { socket: Some(VsockStream::from(socket)), bell: Arc::new(EventBell::new()?) })
    }

    /// `None`: the time is over.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Option<KernelSocket>> {
        let Some(socket) = &self.socket else { return Err(super::endpoint::Refused::Bound.into()) };
        if !wait(socket, PollFlags::OUT, &self.bell, deadline)? {
            return Ok(None);
        }
        let socket = self.socket.take();
        let Some(socket) = socket else { return Ok(None) };
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        socket.set_nonblocking(false)?;
        Ok(Some(KernelSocket::Vsock(socket)))
    }
}

impl AsFd for KernelConnect {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_ref().map_or_else(|| self.bell.0.as_fd(), AsFd::as_fd)
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct KernelListener {
    listener: VsockListener,
    pub(super) bell: Arc<EventBell>,
}

impl KernelListener {
    pub(super) fn bind(addr: VmSocketAddr, backlog: usize) -> io::Result<Self> {
        let listener = VsockListener::bind(&kernel_addr(addr)?)?;
        rustix::net::listen(&listener, i32::try_from(backlog).unwrap_or(i32::MAX))?;
        // Who waits, waits for the bell as well.
        listener.set_nonblocking(true)?;
        Ok(Self { listener, bell: Arc::new(EventBell::new()?) })
    }

    pub(super) fn local(&self) -> io::Result<VmSocketAddr> {
        Ok(our_addr(self.listener.local_addr()?))
    }

    pub(super) fn accept(&self, waits: bool) -> io::Result<(KernelSocket, VmSocketAddr)> {
        loop {
            let now = Some(Instant::now());
            if !wait(&self.listener, PollFlags::IN, &self.bell, if waits { None } else { now })? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            match self.listener.accept() {
                Ok((socket, peer)) => return Ok((KernelSocket::Vsock(socket), our_addr(peer))),
                // Another took it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && waits => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.listener.take_error()
    }
}

impl AsFd for KernelListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
