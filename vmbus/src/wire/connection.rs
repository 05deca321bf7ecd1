//! The guest's end of the socket, shared by whoever posts and the thread that receives.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::host_interrupts::interrupt;
use super::layout::{EVENT_FLAGS, Layout, VMBUS_SINT};
use super::transport::{Frame, Outbox};
use crate::Error;
use crate::message::{
    ContactTarget, Features, GuestMessage, HostMessage, InitiateContact, Protocol, Version, VersionResponse,
};

/// Messages that wait for a host that does not read: a dozen GPADLs of 64 MiB.
pub(super) const OUTBOX_FRAMES: usize = 8192;

/// Where messages are posted to before 5.0.
const MESSAGE_CONNECTION: u32 = 1;
/// Where the hello is posted to from 5.0 on; the host's answer says where the others go.
const MESSAGE_CONNECTION_5: u32 = 4;
/// No monitor id. (Those that there are fit a byte.)
const NO_MONITOR: u16 = u16::MAX;

/// The guest's end of the socket.
pub(super) struct Connection {
    socket: OwnedFd,
    /// Wakes the receiving thread.
    wake: OwnedFd,
    stopping: AtomicBool,
    layout: Layout,
    /// By relid: the monitor id that its last offer named.
    monitors: Box<[AtomicU16]>,
    speech: Mutex<Speech>,
}

/// What is known of the talk with the host.
struct Speech {
    outbox: Outbox,
    /// The host has answered the hello of the transport; until then nothing is sent.
    welcome: bool,
    /// Why nothing is sent any more.
    ended: Option<String>,
    protocol: Protocol,
    /// What the last `InitiateContact` asked for.
    asked: Option<(Version, Features)>,
    /// A goodbye was posted and not answered: only then is an answer one.
    leaving: bool,
    connection_id: u32,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, layout: Layout) -> Result<Self, Error> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.map_err(|error| Error::io("create", "an eventfd", error))?;
        Ok(Self {
            socket,
            wake,
            stopping: AtomicBool::new(false),
            layout,
            monitors: (0..EVENT_FLAGS).map(|_| AtomicU16::new(NO_MONITOR)).collect(),
            speech: Mutex::new(Speech {
                outbox: Outbox::new(OUTBOX_FRAMES),
                welcome: false,
                ended: None,
                protocol: Protocol::NONE,
                asked: None,
                leaving: false,
                connection_id: MESSAGE_CONNECTION,
            }),
        })
    }

    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Ends the receiving thread, without a word to its sink.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn wake(&self) {
        if let Err(error) = interrupt(&self.wake) {
            log::error!(target: "vmbus::wire", "the receiving thread can't be woken: {error}");
        }
    }

    /// Posts a message, or queues it.
    pub(super) fn post(&self, message: &GuestMessage) -> Result<(), Error> {
        let mut speech = self.speech();
        match message {
            GuestMessage::InitiateContact(contact) => self.contact(&mut speech, contact.clone()),
            GuestMessage::ModifyConnection { .. } => {
                let [parent_to_child_monitor, child_to_parent_monitor] = self.monitor_addresses();
                let filled = GuestMessage::ModifyConnection { parent_to_child_monitor, child_to_parent_monitor };
                self.post_as_is(&mut speech, &filled)
            }
            GuestMessage::Unload => {
                speech.leaving = true;
                self.post_as_is(&mut speech, message)
            }
            message => self.post_as_is(&mut speech, message),
        }
    }

    /// Fills in the addresses, and remembers what was asked for: the answer does not repeat it.
    fn contact(&self, speech: &mut Speech, mut contact: InitiateContact) -> Result<(), Error> {
        let features = match contact.target {
            ContactTarget::Source { features, .. } if contact.version >= Version::V6_0 => features,
            _ => Features::empty(),
        };
        [contact.parent_to_child_monitor, contact.child_to_parent_monitor] = self.monitor_addresses();
        let sint = u8::try_from(VMBUS_SINT).unwrap_or_default();
        if contact.version >= Version::V5_0 {
            contact.target = ContactTarget::Source { sint, vtl: 0, features };
            speech.connection_id = MESSAGE_CONNECTION_5;
        } else {
            contact.target = ContactTarget::InterruptPage(Layout::address(self.layout.interrupt_page()));
            speech.connection_id = MESSAGE_CONNECTION;
        }
        speech.asked = Some((contact.version, features));
        speech.leaving = false;
        self.post_as_is(speech, &GuestMessage::InitiateContact(contact))
    }

    fn monitor_addresses(&self) -> [u64; 2] {
        [self.layout.parent_to_child_page(), self.layout.child_to_parent_page()].map(Layout::address)
    }

    fn post_as_is(&self, speech: &mut Speech, message: &GuestMessage) -> Result<(), Error> {
        if let Some(why) = &speech.ended {
            return Err(Error::Disconnected { why: why.clone() });
        }
        let invalid = |why: String| Error::io("post", "a message", std::io::Error::other(why));
        let encoded = message.encode(speech.protocol).map_err(|error| invalid(error.to_string()))?;
        let frame =
            Frame::post(speech.connection_id, encoded.as_ref()).ok_or_else(|| invalid("too long".to_owned()))?;
        if !speech.outbox.push(frame) {
            let why = format!("the host has left {OUTBOX_FRAMES} messages unread");
            speech.ended = Some(why.clone());
            self.wake();
            return Err(Error::Disconnected { why });
        }
        self.flush_some(speech)?;
        if !speech.outbox.is_empty() {
            self.wake();
        }
        Ok(())
    }

    /// Sends what the socket takes. Whether more is left.
    pub(super) fn flush(&self) -> Result<bool, Error> {
        let mut speech = self.speech();
        self.flush_some(&mut speech)?;
        Ok(speech.welcome && !speech.outbox.is_empty())
    }

    fn flush_some(&self, speech: &mut Speech) -> Result<(), Error> {
        if !speech.welcome {
            return Ok(());
        }
        // The receiving thread says so to the sink, behind what the host has said before.
        speech.outbox.flush(self.socket.as_fd()).map_err(|error| {
            let why = format!("the socket says: {error}");
            speech.ended.get_or_insert_with(|| why.clone());
            self.wake();
            Error::Disconnected { why }
        })
    }

    /// The host has answered the transport's hello.
    pub(super) fn welcome(&self) {
        self.speech().welcome = true;
    }

    pub(super) fn is_welcome(&self) -> bool {
        self.speech().welcome
    }

    /// Why nothing is sent any more, if the sender has found out.
    pub(super) fn ended(&self) -> Option<String> {
        self.speech().ended.clone()
    }

    /// From here on nothing is sent, and the host hears that.
    pub(super) fn end(&self, why: &str) {
        let mut speech = self.speech();
        speech.ended.get_or_insert_with(|| why.to_owned());
        // It may be closed already, which is as good.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.speech().protocol
    }

    /// Learns from a message before anybody else hears of it.
    pub(super) fn learn(&self, message: &HostMessage) {
        match message {
            HostMessage::Offer(offer) => {
                let place = usize::try_from(offer.relid).ok().and_then(|relid| self.monitors.get(relid));
                if let Some(place) = place {
                    place.store(offer.monitor_id.map_or(NO_MONITOR, u16::from), Ordering::Release);
                }
            }
            HostMessage::VersionResponse(response) => self.speech().learn(response),
            HostMessage::UnloadResponse => {
                let mut speech = self.speech();
                if std::mem::take(&mut speech.leaving) {
                    speech.protocol = Protocol::NONE;
                }
            }
            _ => {}
        }
    }

    /// The monitor id of a channel, as its last offer had it.
    pub(super) fn monitor(&self, relid: u32) -> Option<u8> {
        let place = usize::try_from(relid).ok().and_then(|relid| self.monitors.get(relid))?;
        u8::try_from(place.load(Ordering::Acquire)).ok()
    }

    fn speech(&self) -> MutexGuard<'_, Speech> {
        self.speech.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Speech {
    fn learn(&mut self, response: &VersionResponse) {
        let Some((version, features)) = self.asked.filter(|_| response.supported) else { return };
        self.asked = None;
        self.protocol = Protocol::new(version, response.features.unwrap_or_default() & features);
        if version >= Version::V5_0 {
            self.connection_id = response.selected;
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("socket", &self.socket).finish_non_exhaustive()
    }
}
