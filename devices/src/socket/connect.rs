//! A connect in progress: it can be waited for, watched, and closed from any thread.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::{Bell, Held, Refused};
use super::kernel::KernelConnect;
use super::sockets::{Connected, EventBell, Host, OfBus};
use super::{ToPlace, VmStream};

/// A connect in progress. Dropping it closes it.
#[derive(Debug)]
pub struct VmConnect {
    way: Way,
}

#[derive(Debug)]
enum Way {
    Kernel(KernelConnect),
    Bus(Held<OfBus>),
    Done,
}

/// Closes a connect or a listener from another thread, at any time: who waits hears `ConnectionAborted` at once.
#[derive(Clone)]
pub struct VmCloser {
    pub(super) what: What,
}

#[derive(Clone)]
pub(super) enum What {
    Bell(Arc<EventBell>),
    Endpoint(Held<OfBus>),
}

impl fmt::Debug for VmCloser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VmCloser").finish_non_exhaustive()
    }
}

impl VmCloser {
    /// Ends it. Waits for nobody, not for the peer, either; does nothing the second time.
    pub fn close(&self) {
        match &self.what {
            What::Bell(bell) => bell.ring(true),
            What::Endpoint(endpoint) => drop(endpoint.close()),
        }
    }
}

impl VmConnect {
    /// Begins to connect. The host is waited for elsewhere.
    ///
    /// # Errors
    /// No address, no free port, no thread.
    pub fn start(to: impl ToPlace) -> io::Result<Self> {
        let place = to.to_place()?;
        let bus = match &place.sockets.host {
            Host::Kernel => return Ok(Self { way: Way::Kernel(KernelConnect::start(place.addr)?) }),
            Host::Bus(bus) => Arc::clone(bus),
        };
        let name = bus.ephemeral()?;
        name.begin_connect()?;
        let (endpoint, addr) = (name.share(), place.addr);
        let (me, done) = (Arc::clone(&bus), name.share());
        bus.workers.run(move || {
            let mut name = Some(name);
            let result = if done.is_closed() { Err(Refused::Closed.into()) } else { me.connect(addr, done.name()) };
            if let Ok(connection) = &result
                && let Some(name) = name.take()
            {
                connection.keep(name);
            }
            // Closed meanwhile: then nobody wants it, and its drop closes the connection.
            drop(done.complete(Connected { result, _name: name }));
        })?;
        Ok(Self { way: Way::Bus(endpoint) })
    }

    /// Waits for the end of it, up to `timeout`, or without limit if it is `None`. After `TimedOut` it goes on, and
    /// may be waited for again.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there; `TimedOut`; `ConnectionAborted` when it was closed.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<VmStream> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.wait_until(deadline)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::TimedOut, "the peer did not take the connection in time; it may be busy")
        })
    }

    /// The stream, if it has come about by now.
    #[cfg(all(feature = "tokio", not(loom)))]
    pub(super) fn try_wait(&mut self) -> io::Result<Option<VmStream>> {
        self.wait_until(Some(Instant::now()))
    }

    /// What shows the close, where [`descriptor`](Self::descriptor) does not.
    #[cfg(all(feature = "tokio", not(loom)))]
    pub(super) fn closed(&self) -> Option<BorrowedFd<'_>> {
        match &self.way {
            Way::Kernel(connect) => Some(connect.bell.0.as_fd()),
            Way::Bus(_) | Way::Done => None,
        }
    }

    /// `None`: not by then.
    fn wait_until(&mut self, deadline: Option<Instant>) -> io::Result<Option<VmStream>> {
        let stream = match &mut self.way {
            Way::Done => return Err(Refused::Bound.into()),
            Way::Kernel(connect) => connect.wait(deadline)?.map(VmStream::of_kernel),
            Way::Bus(endpoint) => match endpoint.outcome(deadline) {
                Ok(outcome) => {
                    self.way = Way::Done;
                    return outcome.result.map(|connection| Some(VmStream::of_bus(connection)));
                }
                Err(Refused::TimedOut) => None,
                Err(error) => return Err(error.into()),
            },
        };
        if stream.is_some() {
            self.way = Way::Done;
        }
        Ok(stream)
    }

    /// What closes it from another thread.
    #[must_use]
    pub fn closer(&self) -> Option<VmCloser> {
        let what = match &self.way {
            Way::Kernel(connect) => What::Bell(Arc::clone(&connect.bell)),
            Way::Bus(endpoint) => What::Endpoint(endpoint.clone()),
            Way::Done => return None,
        };
        Some(VmCloser { what })
    }

    /// What shows the end of it: readable, or of the kernel's writable. `None` once the stream was taken.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.way {
            Way::Kernel(connect) => Some(connect.as_fd()),
            Way::Bus(endpoint) => Some(endpoint.bell().0.as_fd()),
            Way::Done => None,
        }
    }
}

impl Drop for VmConnect {
    fn drop(&mut self) {
        if let Way::Bus(endpoint) = &self.way {
            drop(endpoint.close());
        }
    }
}
