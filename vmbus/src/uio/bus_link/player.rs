//! The link's thread: hears the executor, the kernel's announcements and the workers, and does what the host decides.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::super::Options;
use super::held::Held;
use super::host::{Effect, Heard, Host};
use super::inbox::{Inbox, Request};
use super::look::Looker;
use super::workers::Workers;
use super::{Ports, lock};
use crate::Error;
use crate::link::{LinkEvent, Port, Sink};
use crate::sysfs::Bus;
use crate::uevent::{Announcements, Event};

/// Devices that are opened at a time, and closed. A host that is silent must not make threads without end.
const WORKERS: usize = 8;
/// After this the end no longer waits for the kernel.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first look after something was half there; then twice as long each time, up to [`UNHEARD`].
const SOON: Duration = Duration::from_millis(5);
/// Between looks while no announcement has ever been heard. In a container silence proves nothing.
const UNHEARD: Duration = Duration::from_millis(500);
/// Between looks when announcements come: subchannels can go without one.
const HEARD: Duration = Duration::from_secs(5);

/// What was dropped while the executor was busy is bounded by this, and looked up in sysfs.
const ANNOUNCEMENTS: usize = 1024;

pub(super) struct Player {
    bus: Bus,
    options: Options,
    announcements: Option<Box<dyn Announcements>>,
    ports: Ports,
    inbox: Inbox,
    sink: Sink,
    host: Host<Held, Result<Port, Error>>,
    looker: Looker,
    openers: Workers,
    closers: Workers,
    look_due: bool,
    heard: bool,
    /// Until the next look without a reason.
    pause: Duration,
    /// Something was half there the last time.
    unfinished: bool,
}

/// The executor has ended, or wants the link to.
struct Over;

impl Player {
    pub(super) fn new(
        bus: Bus,
        options: Options,
        announcements: Option<Box<dyn Announcements>>,
        ports: Ports,
        inbox: Inbox,
        sink: Sink,
    ) -> Self {
        Self {
            looker: Looker::new(bus.clone()),
            bus,
            options,
            announcements,
            ports,
            inbox,
            sink,
            host: Host::new(),
            openers: Workers::new("vmbus-open", WORKERS),
            closers: Workers::new("vmbus-close", WORKERS),
            look_due: false,
            heard: false,
            pause: UNHEARD,
            unfinished: false,
        }
    }

    pub(super) fn run(mut self) {
        while self.turn().is_ok() {}
        self.end();
    }

    fn turn(&mut self) -> Result<(), Over> {
        self.inbox.clear();
        while let Some(request) = self.inbox.take() {
            self.hear(match request {
                Request::Said(message) => Heard::Said(message),
                Request::Shared { relid, gpadl, what } => Heard::Shared { relid, gpadl, what },
                Request::Opened { key, device, port } => Heard::Opened { key, device, port },
                Request::Gone(key) => Heard::Gone(key),
                Request::Closed(key) => Heard::Closed(key),
                Request::Stop => return Err(Over),
            })?;
        }
        self.listen();
        if std::mem::take(&mut self.look_due) {
            self.look()?;
        }
        self.sleep()
    }

    fn hear(&mut self, heard: Heard<Held, Result<Port, Error>>) -> Result<(), Over> {
        for effect in self.host.step(heard) {
            self.perform(effect)?;
        }
        Ok(())
    }

    fn perform(&mut self, effect: Effect<Held, Result<Port, Error>>) -> Result<(), Over> {
        match effect {
            Effect::Say(message) => {
                log::debug!(target: "vmbus::uio", "host: {message:?}");
                if !(self.sink)(LinkEvent::Message(message)) {
                    return Err(Over);
                }
            }
            Effect::Look => self.look_due = true,
            Effect::Open { key, device, incarnation } => {
                let (bus, options, inbox) = (self.bus.clone(), self.options, self.inbox.clone());
                self.openers.run(move || Held::open(&bus, &device, incarnation, options, key, &inbox));
            }
            Effect::OpenSubchannel { key, device, relid } => {
                let inbox = self.inbox.clone();
                self.openers.run(move || device.open_subchannel(relid, key, &inbox));
            }
            Effect::Keep { ring, port } => drop(lock(&self.ports).insert(ring, port)),
            Effect::Forget(ring) => {
                let port = lock(&self.ports).remove(&ring);
                drop(port);
            }
            Effect::Revoke(device) => device.revoke(),
            Effect::Close { key, device } => {
                let inbox = self.inbox.clone();
                self.closers.run(move || device.close(key, &inbox));
            }
        }
        Ok(())
    }

    /// Takes what the kernel has announced as a hint to look.
    fn listen(&mut self) {
        let Some(announcements) = &mut self.announcements else { return };
        for _ in 0..ANNOUNCEMENTS {
            match announcements.next_now() {
                Ok(None) => return,
                Ok(Some(Event::Lost)) => (self.look_due, self.heard) = (true, true),
                Ok(Some(Event::Uevent(uevent))) => {
                    self.heard = true;
                    self.look_due |= uevent.concerns_vmbus();
                }
                Err(error) => {
                    log::warn!(target: "vmbus::uio", "devices are looked for twice a second from now on: {error}");
                    (self.announcements, self.heard, self.look_due) = (None, false, true);
                    return;
                }
            }
        }
        self.look_due = true;
    }

    fn look(&mut self) -> Result<(), Over> {
        if !self.host.wants_looks() {
            return Ok(());
        }
        for device in self.host.open() {
            device.check();
        }
        let idle = if self.heard { HEARD } else { UNHEARD };
        match self.looker.look() {
            Ok(look) => {
                self.pause = match (look.unfinished, self.unfinished) {
                    (true, false) => SOON,
                    (true, true) => (self.pause * 2).min(UNHEARD),
                    (false, _) => idle,
                };
                self.unfinished = look.unfinished;
                self.hear(Heard::Present { present: look.present, unread: look.unread })
            }
            Err(error) => {
                log::warn!(target: "vmbus::uio", "the bus can't be looked at: {error}");
                self.pause = UNHEARD;
                Ok(())
            }
        }
    }

    /// Until there is something to hear, or it is time for a look.
    fn sleep(&mut self) -> Result<(), Over> {
        if self.look_due {
            return Ok(());
        }
        let timeout = self.host.wants_looks().then(|| Timespec::try_from(self.pause).ok()).flatten();
        let inbox = PollFd::new(&self.inbox, PollFlags::IN);
        let announcements = self.announcements.as_ref().map_or(self.inbox.as_fd(), AsFd::as_fd);
        let mut waited = [inbox, PollFd::from_borrowed_fd(announcements, PollFlags::IN)];
        match poll(&mut waited, timeout.as_ref()) {
            Ok(0) => self.look_due = true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                (self.sink)(LinkEvent::Lost(Error::io("wait for", "the kernel's announcements", error)));
                return Err(Over);
            }
        }
        Ok(())
    }

    /// Closes everything and waits for that, within reason.
    fn end(&mut self) {
        let ports = std::mem::take(&mut *lock(&self.ports));
        drop(ports);
        for device in self.host.close_all() {
            self.closers.run(move || drop(device));
        }
        // What workers still open is dropped, and with that closed, as it is put here.
        self.inbox.close();
        if !(self.closers.finish(PATIENCE) && self.openers.finish(PATIENCE)) {
            log::warn!(target: "vmbus::uio", "the kernel still opens or closes a device");
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.inbox.close();
    }
}
