//! The loop between the host, the state machine and the pages: one thread, no work of its own.
//!
//! At the end the channel closes first and the pages go second: until the host has heard of the end, which makes
//! it give everything back, they are its own. A killed process ends in the same order: the kernel closes files with
//! high numbers first, and the link gives a device's node one.

use super::event::{Event, Ignored, Summary};
use super::pages::{Book, PagePool};
use super::report::Memory;
use super::state::{Action, Input, Machine, Notice, Settings};
use super::transport::{Received, Transport};
use super::wire::GuestMessage;
use crate::Error;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vmbus::memory::Pinner;
use vmbus::sysfs::Bus;
use vmbus_channels::{Channel, Offer, OpenOptions, Vmbus, Wake, Waker};

/// The Dynamic Memory driver of one device.
///
/// Dropping it without [`run`](Self::run) closes the channel.
#[derive(Debug)]
pub struct Balloon<P: PagePool = Pinner> {
    driver: Driver<Channel, P>,
    waker: Waker,
}

impl Balloon {
    /// Opens an offered device, after seeing that memory can be pinned. `machine` is where this machine's memory figures
    /// are read.
    ///
    /// # Errors
    /// [`Error::System`] if memory can't be pinned or its frames not be seen (see [`Pinner::open`]), or if the device
    /// is of another class; [`Error::Channel`] as [`Vmbus::open`].
    pub fn open(vmbus: &Vmbus, offer: &Offer, machine: &Bus, settings: Settings) -> Result<Self, Error> {
        if offer.class != vmbus::class::Class::DYNAMIC_MEMORY {
            let what = format!("it is of class {}, not Dynamic Memory", offer.class.title());
            let (device, hint) = (offer.instance.to_string(), "choose the device `balloon`".to_owned());
            return Err(vmbus::Error::Unsupported { device, what, hint }.into());
        }
        // Before the channel: without it there is no use in opening one.
        let pinner = Pinner::open()?;
        let channel = vmbus.open(offer.id, OpenOptions::default())?;
        Ok(Self::over(channel, pinner, machine.path("proc/meminfo"), settings))
    }
}

impl<P: PagePool> Balloon<P> {
    /// Over an open channel of a Dynamic Memory device, and pages of any kind: a simulated host needs no real ones. A
    /// pinner is to be opened before the channel, so that when the process dies the host hears of the end before the
    /// pages are in use again. `meminfo` is the file with the memory figures, `/proc/meminfo`.
    #[must_use]
    pub fn over(channel: Channel, pool: P, meminfo: PathBuf, settings: Settings) -> Self {
        let waker = channel.waker();
        Self { driver: Driver::new(channel, pool, meminfo, settings), waker }
    }

    /// What stops [`run`](Self::run), from any thread; also before it runs.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Serves the host until the waker is used, and tells `observer` of all that happens. On every way out the channel
    /// closes and the balloon's pages go back into use.
    ///
    /// Stop it before the device is unbound: when an open device is unbound the kernel doesn't tell the host, which
    /// goes on believing that it has the pages, while they are in use again here.
    ///
    /// # Errors
    /// [`Error::Negotiation`]; [`Error::Channel`] when the device is gone ([`Error::is_rescinded`]), the host broke the
    /// rings, or makes no room in them; [`Error::System`] when the memory figures can't be read.
    pub fn run(self, observer: impl FnMut(&Event)) -> Result<Summary, Error> {
        self.driver.run(observer)
    }
}

/// The driver over any transport and any pages.
#[derive(Debug)]
pub(super) struct Driver<T, P: PagePool> {
    /// Before the book: dropped, and with that closed, first.
    transport: T,
    book: Book<P>,
    meminfo: PathBuf,
    settings: Settings,
    machine: Machine,
    start: Instant,
    todo: VecDeque<Action>,
    inbox: Vec<Received>,
    summary: Summary,
}

impl<T: Transport, P: PagePool> Driver<T, P> {
    pub(super) fn new(transport: T, pool: P, meminfo: PathBuf, mut settings: Settings) -> Self {
        let book = Book::new(pool);
        settings.granule_pages = book.granule_pages();
        Self {
            transport,
            book,
            meminfo,
            settings,
            machine: Machine::new(settings),
            start: Instant::now(),
            todo: VecDeque::new(),
            inbox: Vec::new(),
            summary: Summary::default(),
        }
    }

    pub(super) fn run(mut self, mut observer: impl FnMut(&Event)) -> Result<Summary, Error> {
        let served = match self.serve(&mut observer) {
            // A stop that came while a message waited for room.
            Err(Error::Channel(vmbus_channels::Error::Woken { .. })) => Ok(()),
            served => served,
        };
        let Self { transport, mut book, mut summary, .. } = self;
        let closed = transport.close();
        summary.gave_back_pages = book.release_all();
        observer(&Event::GaveBack { pages: summary.gave_back_pages });
        served?;
        closed?;
        Ok(summary)
    }

    /// Until the waker is used.
    fn serve(&mut self, observer: &mut impl FnMut(&Event)) -> Result<(), Error> {
        self.step(Input::Opened);
        loop {
            while let Some(action) = self.todo.pop_front() {
                // Taking pages is what takes time: look at the channel before each chunk.
                if matches!(action, Action::Take(_)) && self.listen(Some(Duration::ZERO), observer)? == Wake::Woken {
                    return Ok(());
                }
                self.perform(action, observer)?;
            }
            let timeout = self.machine.deadline().map(|deadline| deadline.saturating_sub(self.start.elapsed()));
            if self.listen(timeout, observer)? == Wake::Woken {
                return Ok(());
            }
            self.step(Input::Elapsed);
        }
    }

    /// Waits for the host, and lets the state machine hear what it said.
    fn listen(&mut self, timeout: Option<Duration>, observer: &mut impl FnMut(&Event)) -> Result<Wake, Error> {
        let wake = self.transport.wait(timeout)?;
        if wake == Wake::Packets {
            let mut inbox = std::mem::take(&mut self.inbox);
            let received = self.transport.receive(&mut inbox);
            for message in inbox.drain(..) {
                match message {
                    Ok(incoming) => self.step(Input::Message(incoming.message)),
                    Err(ignored) => self.ignore(ignored, observer),
                }
            }
            self.inbox = inbox;
            received?;
        }
        Ok(wake)
    }

    fn step(&mut self, input: Input) {
        let machine = std::mem::replace(&mut self.machine, Machine::new(self.settings));
        let (machine, actions) = machine.step(self.start.elapsed(), input);
        self.machine = machine;
        self.todo.extend(actions);
    }

    fn perform(&mut self, action: Action, observer: &mut impl FnMut(&Event)) -> Result<(), Error> {
        match action {
            Action::Send(transaction, message) => self.send(transaction, &message)?,
            Action::Measure => {
                let memory = Memory::read(&self.meminfo, self.book.pages())?;
                self.step(Input::Measured(memory));
            }
            Action::Take(pages) => {
                let taken = self.book.take(pages).unwrap_or_else(|error| {
                    log::warn!(target: "vmbus::balloon", "cannot take {pages} pages: {error}");
                    None
                });
                self.step(taken.map_or(Input::NotTaken, Input::Taken));
            }
            Action::Undo(ranges) => self.book.undo(&ranges),
            Action::Release { ranges, last } => {
                let released = self.book.release(&ranges);
                if released.foreign > 0 {
                    self.ignore(Ignored::ForeignPages(released.foreign), observer);
                }
                self.step(Input::Released { pages: released.pages, last });
            }
            Action::Notify(notice) => self.notify(notice, observer),
            Action::Fail(failure) => {
                return Err(Error::Negotiation { device: self.transport.device().to_owned(), failure });
            }
        }
        Ok(())
    }

    /// Sends a message. A status report that finds no room is left out, as by the kernel driver: the next one is due
    /// in a second. Everything else waits, as long as a host may be silent.
    fn send(&mut self, transaction: u32, message: &GuestMessage) -> Result<(), Error> {
        let bytes = message.to_bytes(transaction);
        if matches!(message, GuestMessage::Status(_)) {
            return match self.transport.send(&bytes, None) {
                Err(vmbus_channels::Error::Full { .. }) => Ok(()),
                sent => Ok(sent?),
            };
        }
        if let GuestMessage::BalloonResponse { ranges, .. } = message {
            // Before the bytes are out: if that fails the host may have seen them nevertheless.
            self.book.report(ranges);
        }
        Ok(self.transport.send(&bytes, Some(self.settings.host_timeout))?)
    }

    fn notify(&mut self, notice: Notice, observer: &mut impl FnMut(&Event)) {
        let ballooned_pages = self.book.pages();
        let event = match notice {
            Notice::Negotiated { version, status_reports } => {
                self.summary.version = Some(version);
                Event::Negotiated { version, status_reports }
            }
            Notice::Status(report) => Event::Status {
                available_pages: report.available_pages,
                committed_pages: report.committed_pages,
                ballooned_pages,
            },
            Notice::Ballooned { requested, pages, limit } => {
                Event::Ballooned { requested, pages, limit, ballooned_pages }
            }
            Notice::Deflated { pages } => Event::Deflated { pages, ballooned_pages },
            Notice::HotAddRefused { pages } => Event::HotAddRefused { pages },
            Notice::Info(info) => Event::Info(info),
            Notice::Unexpected(what) => return self.ignore(Ignored::Unexpected(what), observer),
        };
        observer(&event);
    }

    fn ignore(&mut self, ignored: Ignored, observer: &mut impl FnMut(&Event)) {
        if self.summary.counters.count(ignored) {
            let device = self.transport.device();
            log::warn!(target: "vmbus::balloon", "device {device}: ignored: {ignored} (shown at powers of two)");
        }
        observer(&Event::Ignored(ignored));
    }
}

#[cfg(test)]
mod tests;
