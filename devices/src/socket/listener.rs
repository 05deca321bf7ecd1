//! A listener: takes connections that peers make.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::addr::{self, CID_ANY};
use super::connect::What;
use super::kernel::KernelListener;
use super::sockets::{Host, LocalName, OfOneBus};
use super::{ToPlace, VmCloser, VmSocketAddr, VmStream};

/// Connections that may wait to be accepted, unless said otherwise: what std has.
const BACKLOG: usize = 128;

/// Takes connections to an address. Clones ([`try_clone`](Self::try_clone)) share one queue; with the last, the address is
/// free, and who waited to be accepted is reset.
///
/// On a bus the host offers each connection, which is taken at once and then waits here. What comes while as many wait
/// as may is closed at once, which its peer takes for a reset.
#[derive(Debug)]
pub struct VmListener {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    way: Way,
    nonblocking: AtomicBool,
}

#[derive(Debug)]
enum Way {
    Kernel(KernelListener),
    /// And what brings connections, as long as somebody listens.
    Bus(LocalName, #[expect(dead_code, reason = "kept, and not used")] Arc<OfOneBus>),
}

impl VmListener {
    /// Listens on an address.
    ///
    /// # Errors
    /// `AddrInUse`; no address; the bus has ended.
    pub fn bind(to: impl ToPlace) -> io::Result<Self> {
        Self::bind_with_backlog(to, BACKLOG)
    }

    /// The same, with room for so many connections that wait to be accepted.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_with_backlog(to: impl ToPlace, backlog: usize) -> io::Result<Self> {
        let place = to.to_place()?;
        let way = match &place.sockets.host {
            Host::Kernel => Way::Kernel(KernelListener::bind(place.addr, backlog)?),
            Host::Bus(bus) => {
                let beyond = place.addr.port().is_some_and(|port| port > addr::PORT_MOST && port != addr::PORT_ANY);
                if beyond {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "ports from 2^31 on are the host's own ends",
                    ));
                }
                Way::Bus(bus.bind(place.addr, backlog)?, Arc::clone(bus))
            }
        };
        Ok(Self { shared: Arc::new(Shared { way, nonblocking: AtomicBool::new(false) }) })
    }

    /// The next connection and where it comes from, waiting for one unless it is nonblocking.
    ///
    /// # Errors
    /// `WouldBlock`; `ConnectionAborted` once it was closed.
    pub fn accept(&self) -> io::Result<(VmStream, VmSocketAddr)> {
        self.accept_by(!self.shared.nonblocking.load(Ordering::Relaxed))
    }

    /// One that waits now.
    #[cfg(all(feature = "tokio", not(loom)))]
    pub(super) fn accept_now(&self) -> io::Result<(VmStream, VmSocketAddr)> {
        self.accept_by(false)
    }

    /// What shows the close, where the listener's own descriptor does not.
    #[cfg(all(feature = "tokio", not(loom)))]
    pub(super) fn closed(&self) -> Option<BorrowedFd<'_>> {
        match &self.shared.way {
            Way::Kernel(listener) => Some(listener.bell.0.as_fd()),
            Way::Bus(..) => None,
        }
    }

    fn accept_by(&self, waits: bool) -> io::Result<(VmStream, VmSocketAddr)> {
        match &self.shared.way {
            Way::Kernel(listener) => {
                let (socket, peer) = listener.accept(waits)?;
                Ok((VmStream::of_kernel(socket), peer))
            }
            Way::Bus(endpoint, _) => {
                let connection = endpoint.accept(if waits { None } else { Some(Instant::now()) })?.accepted();
                let peer = connection.peer();
                Ok((VmStream::of_bus(connection), peer))
            }
        }
    }

    /// Connections, one after the other, without end (but errors after a close).
    #[must_use]
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// The address, with the port that was chosen if none was said.
    ///
    /// # Errors
    /// A system call failed.
    pub fn local_addr(&self) -> io::Result<VmSocketAddr> {
        match &self.shared.way {
            Way::Kernel(listener) => listener.local(),
            Way::Bus(endpoint, _) => Ok(VmSocketAddr::of_service(CID_ANY, endpoint.name())),
        }
    }

    /// Another handle to the same.
    ///
    /// # Errors
    /// None so far.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { shared: Arc::clone(&self.shared) })
    }

    /// Whether [`accept`](Self::accept) does not wait; for all clones.
    ///
    /// # Errors
    /// None so far.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// An error of the socket's that nobody heard of.
    ///
    /// # Errors
    /// A system call failed.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match &self.shared.way {
            Way::Kernel(listener) => listener.take_error(),
            Way::Bus(..) => Ok(None),
        }
    }

    /// Stops to listen, for all clones, from any thread: who waits hears `ConnectionAborted`. Waits for nobody.
    pub fn close(&self) {
        self.closer().close();
    }

    /// What does that and holds no connection open: for other threads, and for callbacks.
    #[must_use]
    pub fn closer(&self) -> VmCloser {
        let what = match &self.shared.way {
            Way::Kernel(listener) => What::Bell(Arc::clone(&listener.bell)),
            Way::Bus(endpoint, _) => What::Endpoint(endpoint.share()),
        };
        VmCloser { what }
    }

    /// Calls this whenever a connection has come, on a thread of the sockets': accept it there, nonblocking, or tell
    /// somebody. It may close the listener. Of the kernel's sockets nobody calls; watch the descriptor.
    ///
    /// # Errors
    /// `Unsupported` for the kernel's.
    pub fn call_back(&self, mut callback: impl FnMut(&VmCloser) + Send + 'static) -> io::Result<()> {
        match &self.shared.way {
            Way::Kernel(_) => Err(io::ErrorKind::Unsupported.into()),
            Way::Bus(endpoint, _) => {
                let closer = self.closer();
                endpoint.call_back(move |_| callback(&closer));
                Ok(())
            }
        }
    }
}

impl AsFd for VmListener {
    /// Readable while a connection waits, or once it was closed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.shared.way {
            Way::Kernel(listener) => listener.as_fd(),
            Way::Bus(endpoint, _) => endpoint.bell().0.as_fd(),
        }
    }
}

/// What [`VmListener::incoming`] gives.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a VmListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<VmStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl<'a> IntoIterator for &'a VmListener {
    type Item = io::Result<VmStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}
