//! An executor of a few lines over any link, for a program that wants a channel's bare rings.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use vmbus::link::{Line, Link, LinkEvent, Port, Share};
use vmbus::message::{
    ContactTarget, GpadlId, GuestMessage, HostMessage, InitiateContact, OpenChannel, OpenFlags, Status, Version,
};
use vmbus::sysfs::Bus;
use vmbus::uio::{BusLink, Options};

/// Longer than a host takes for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// The only ring of this program.
const RING: GpadlId = GpadlId(1);

/// The link, connected.
pub(crate) struct Raw {
    link: Box<dyn Link>,
    heard: Receiver<LinkEvent>,
}

impl Raw {
    /// Connects to the kernel's bus, and goes on when all devices are offered.
    pub(crate) fn connect(bus: Bus, options: Options) -> anyhow::Result<Self> {
        Self::over(Box::new(BusLink::with_options(bus, options)?))
    }

    /// The same over any link.
    pub(crate) fn over(mut link: Box<dyn Link>) -> anyhow::Result<Self> {
        let (sender, heard) = channel();
        let sender = Mutex::new(sender);
        link.start(Arc::new(move |event| sender.lock().unwrap_or_else(PoisonError::into_inner).send(event).is_ok()))?;
        let mut raw = Self { link, heard };
        raw.post(GuestMessage::InitiateContact(InitiateContact {
            version: Version::V5_3,
            target_vp: 0,
            target: ContactTarget::InterruptPage(0),
            parent_to_child_monitor: 0,
            child_to_parent_monitor: 0,
            client: None,
        }))?;
        raw.await_message(|message| matches!(message, HostMessage::VersionResponse(_)))?;
        raw.post(GuestMessage::RequestOffers)?;
        raw.await_message(|message| *message == HostMessage::AllOffersDelivered)?;
        Ok(raw)
    }

    /// Opens a channel.
    pub(crate) fn open(&mut self, relid: u32) -> anyhow::Result<Port> {
        self.link.share(relid, RING, Share::Ring { outgoing_bytes: 65536, incoming_bytes: 65536 })?;
        let shared =
            |message: &HostMessage| matches!(message, HostMessage::GpadlCreated { status: Status::SUCCESS, .. });
        self.await_message(shared)?;
        self.post(GuestMessage::Open(Box::new(OpenChannel {
            relid,
            open_id: 1,
            ring: RING,
            target_vp: 0,
            downstream_offset_pages: 16,
            user_defined: [0; 120],
            signal: None,
            flags: OpenFlags::empty(),
        })))?;
        self.await_message(|message| matches!(message, HostMessage::OpenResult { .. }))?;
        Ok(self.link.port(relid, RING)?)
    }

    /// Waits until the channel is rescinded, and marks its line then, as the executor does; `false` if that does not happen
    /// in time.
    pub(crate) fn is_rescinded(&self, relid: u32, line: &Line, limit: Duration) -> anyhow::Result<bool> {
        match self.heard.recv_timeout(limit) {
            Ok(LinkEvent::Message(HostMessage::Rescind { relid: of })) if of == relid => {
                line.rescind();
                Ok(true)
            }
            Err(RecvTimeoutError::Timeout) => Ok(false),
            other => bail!("a rescind was expected, not {other:?}"),
        }
    }

    /// Gives a channel back, of which nothing may be left here, and goes on when it is closed.
    pub(crate) fn give_back(&mut self, relid: u32) -> anyhow::Result<()> {
        self.post(GuestMessage::GpadlTeardown { relid, gpadl: RING })?;
        self.await_message(|message| *message == HostMessage::GpadlTorndown { gpadl: RING })?;
        self.link.unshare(RING);
        self.post(GuestMessage::RelidReleased { relid })
    }

    fn post(&mut self, message: GuestMessage) -> anyhow::Result<()> {
        Ok(self.link.post(&message)?)
    }

    fn await_message(&self, wanted: impl Fn(&HostMessage) -> bool) -> anyhow::Result<()> {
        loop {
            match self.heard.recv_timeout(PATIENCE).context("the link says nothing")? {
                LinkEvent::Message(message) if wanted(&message) => return Ok(()),
                LinkEvent::Message(_) => {}
                other => bail!("the link said {other:?}"),
            }
        }
    }
}
