//! The guest's end of a wire: [`Link`] over a socket, guest memory and eventfds.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::connection::Connection;
use super::guest_memory::{GuestMemory, GuestPages};
use super::layout::Layout;
use super::line::Line;
use super::receiver;
use super::settings::Settings;
use super::shares::Shares;
use super::transport::{Frame, Hello, TRANSPORT_VERSION, connect, send_with};
use crate::Error;
use crate::direct::DirectSource;
use crate::link::{Interrupts, Line as AnyLine, Link, Port, Share, Sink};
use crate::memory::Mapping;
use crate::message::gpadl::{Range, split};
use crate::message::{GpadlId, GuestMessage};
use crate::signal_bits::{SignalBits, SignalPages};

/// The guest's end of a wire.
#[derive(Debug)]
pub struct WireLink {
    memory: Arc<GuestMemory>,
    shares: Shares,
    /// Interrupts, one for each processor.
    events: Vec<OwnedFd>,
    signals: Arc<OwnedFd>,
    signal_pages: Arc<SignalPages>,
    /// `None` once stopped.
    connection: Option<Arc<Connection>>,
    thread: Option<JoinHandle<()>>,
}

impl WireLink {
    /// Connects to the path that a host listens on, and says hello. The host's answer is not waited for: a refusal is
    /// heard as [`LinkEvent::Lost`](crate::link::LinkEvent::Lost).
    ///
    /// # Errors
    /// [`Error::Io`] when nobody listens there; as [`over`](Self::over).
    pub fn connect(path: impl AsRef<Path>, settings: Settings) -> Result<Self, Error> {
        Self::over(connect(path.as_ref())?, settings)
    }

    /// As [`connect`](Self::connect), over a socket that is connected: one of a [`pair`](super::transport::pair), or
    /// inherited.
    ///
    /// # Errors
    /// [`Error::Handshake`] for settings that make no guest; [`Error::Io`] when the kernel has no memory or descriptors
    /// left; [`Error::Disconnected`] when the host has gone.
    pub fn over(socket: OwnedFd, settings: Settings) -> Result<Self, Error> {
        let layout = Layout::new(settings.processors, settings.memory_bytes)?;
        let memory = GuestMemory::new(layout)?;
        let event = || {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            event.map_err(|error| Error::io("create", "an eventfd", error))
        };
        let events = (0..layout.processors()).map(|_| event()).collect::<Result<Vec<_>, _>>()?;
        let signals = event()?;
        let hello = Hello {
            version: TRANSPORT_VERSION,
            processors: u32::try_from(layout.processors()).unwrap_or_default(),
            memory_bytes: layout.bytes(),
        };
        let mut descriptors = vec![memory.as_fd()];
        descriptors.extend(events.iter().chain([&signals]).map(AsFd::as_fd));
        let gone = |error: Errno| Error::Disconnected { why: format!("the hello can't be sent: {error}") };
        let frame = Frame::hello(hello).ok_or_else(|| gone(Errno::MSGSIZE))?;
        send_with(socket.as_fd(), frame.as_ref(), &descriptors).map_err(gone)?;
        let signal_pages = Arc::new(SignalPages {
            interrupt: memory.map_page(layout.interrupt_page())?,
            interrupt_offset: 0,
            monitor: memory.map_page(layout.child_to_parent_page())?,
            monitor_offset: 0,
        });
        let connection = Some(Arc::new(Connection::new(socket, layout)?));
        let (signals, shares) = (Arc::new(signals), Shares::default());
        Ok(Self { memory, shares, events, signals, signal_pages, connection, thread: None })
    }

    /// The guest's memory: how much of it is free, and where what lies.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    fn connection(&self) -> Result<&Arc<Connection>, Error> {
        self.connection.as_ref().ok_or_else(|| Error::Disconnected { why: "the link was stopped".to_owned() })
    }
}

impl Link for WireLink {
    fn start(&mut self, sink: Sink) -> Result<(), Error> {
        let failed = |error| Error::io("start", "the thread that hears the host", error);
        if self.thread.is_some() {
            return Err(failed(Errno::EXIST.into()));
        }
        let connection = Arc::clone(self.connection()?);
        let thread = Builder::new().name("vmbus-wire".to_owned());
        self.thread = Some(thread.spawn(move || receiver::run(&connection, &sink)).map_err(failed)?);
        Ok(())
    }

    fn post(&mut self, message: &GuestMessage) -> Result<(), Error> {
        if matches!(message, GuestMessage::GpadlHeader(_) | GuestMessage::GpadlBody(_)) {
            return Err(Error::io("post", "a GPADL (share it)", Errno::INVAL));
        }
        self.connection()?.post(message)
    }

    fn share(&mut self, relid: u32, gpadl: GpadlId, what: Share) -> Result<(), Error> {
        let connection = Arc::clone(self.connection()?);
        let pages = self.shares.add(&self.memory, gpadl, what)?;
        let invalid = |error| Error::io("share", format!("GPADL {}", gpadl.0), std::io::Error::other(error));
        let ranges = [Range::of_pages(pages).map_err(invalid)?];
        for message in split(relid, gpadl, &ranges).map_err(invalid)? {
            match connection.post(&message) {
                Ok(()) => {}
                // Half of them may be with the host by now, so the pages stay taken; and nothing else will be sent.
                Err(error @ Error::Disconnected { .. }) => return Err(error),
                // There is no agreement on anything yet.
                Err(error) => {
                    self.shares.remove(gpadl);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn unshare(&mut self, gpadl: GpadlId) {
        self.shares.remove(gpadl);
    }

    fn port(&mut self, relid: u32, ring: GpadlId) -> Result<Port, Error> {
        let monitor = self.connection()?.monitor(relid);
        let bits = SignalBits::new(Arc::clone(&self.signal_pages), relid, monitor);
        let bits = bits.ok_or_else(|| Error::io("signal by", format!("relid {relid}"), Errno::INVAL))?;
        let rings = self.shares.rings(ring)?;
        let line = Line::new(relid, bits, Arc::clone(&self.signals));
        Ok(Port { outgoing: rings.outgoing, incoming: rings.incoming, line: AnyLine::Wire(line) })
    }

    fn buffer(&mut self, gpadl: GpadlId) -> Result<Arc<Mapping>, Error> {
        self.shares.buffer(gpadl)
    }

    fn direct_memory(&self) -> Option<Arc<dyn DirectSource>> {
        Some(Arc::new(GuestPages(Arc::clone(&self.memory))))
    }

    fn processors(&self) -> usize {
        self.memory.layout().processors()
    }

    fn interrupts(&mut self, processor: usize) -> Option<Interrupts> {
        let (page, event) = (self.memory.layout().event_flags_page(processor)?, self.events.get(processor)?);
        let found = self.memory.map_page(page).and_then(|flags| {
            let event = event.try_clone().map_err(|error| Error::io("duplicate", "an eventfd", error))?;
            Ok(Interrupts { flags, flags_offset: Layout::event_flags_offset(), event })
        });
        found.inspect_err(|error| log::error!(target: "vmbus::wire", "processor {processor}: {error}")).ok()
    }

    fn stop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        connection.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!(target: "vmbus::wire", "the thread that hears the host panicked");
        }
        connection.end("the link was stopped");
        self.shares.clear();
    }
}

impl Drop for WireLink {
    fn drop(&mut self) {
        self.stop();
    }
}
