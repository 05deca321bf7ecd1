//! As much of an executor as the link's tests need: it posts, and hears what the host says, in order.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use vmbus::Error;
use vmbus::link::{Link, LinkEvent, Port, Share};
use vmbus::message::{
    ContactTarget, GpadlId, GuestMessage, HostMessage, InitiateContact, OfferChannel, OpenChannel, OpenFlags, Version,
};
use vmbus::uevent::{Announcements, Event};
use vmbus::uio::{BusLink, Options};

use crate::fake::Fake;

/// Longer than anything takes; a test that comes here has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel's voice: what is sent here, the link hears.
pub(crate) struct Kernel(OwnedFd);

#[derive(Debug)]
struct Ear(OwnedFd);

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Announcements for Ear {
    fn next_now(&mut self) -> Result<Option<Event>, Error> {
        let mut message = [0; 1024];
        let Ok((_, bytes)) = recv(&self.0, &mut message[..], RecvFlags::DONTWAIT) else { return Ok(None) };
        Ok(Some(vmbus::uevent::parse(&message[..bytes]).map_or(Event::Lost, Event::Uevent)))
    }
}

impl Kernel {
    /// Announces something about a VMBus device. Which one does not matter: it is a hint to look.
    pub(crate) fn announces(&self, action: &str) {
        let text = format!("{action}@/devices/x\0SUBSYSTEM=vmbus\0");
        send(&self.0, text.as_bytes(), SendFlags::empty()).unwrap();
    }

    /// Something was announced and got lost.
    pub(crate) fn loses(&self) {
        send(&self.0, b"nonsense", SendFlags::empty()).unwrap();
    }
}

pub(crate) struct Executor {
    pub(crate) link: BusLink,
    heard: Receiver<LinkEvent>,
    open_ids: u32,
}

/// A link whose kernel speaks only when it is told to, and which knows that it is heard.
pub(crate) fn connected(fake: &Fake, options: Options) -> (Executor, Kernel, Vec<OfferChannel>) {
    let (ear, kernel) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let kernel = Kernel(kernel);
    kernel.announces("add");
    let mut executor = Executor::over(fake, options, Some(Box::new(Ear(ear))));
    let offers = executor.connect(Version::V5_3);
    (executor, kernel, offers)
}

impl Executor {
    pub(crate) fn over(fake: &Fake, options: Options, announcements: Option<Box<dyn Announcements>>) -> Self {
        let mut link = BusLink::over(fake.bus(), options, announcements).unwrap();
        let (sender, heard) = channel();
        let sender = Mutex::new(sender);
        link.start(Arc::new(move |event| sender.lock().unwrap().send(event).is_ok())).unwrap();
        Self { link, heard, open_ids: 0 }
    }

    pub(crate) fn connect(&mut self, version: Version) -> Vec<OfferChannel> {
        self.post(GuestMessage::InitiateContact(InitiateContact {
            version,
            target_vp: 0,
            target: ContactTarget::InterruptPage(0),
            parent_to_child_monitor: 0,
            child_to_parent_monitor: 0,
            client: None,
        }));
        let answer = self.hear();
        assert!(matches!(&answer, HostMessage::VersionResponse(answer) if answer.supported), "{answer:?}");
        self.post(GuestMessage::RequestOffers);
        let mut offers = Vec::new();
        loop {
            match self.hear() {
                HostMessage::Offer(offer) => offers.push(*offer),
                HostMessage::AllOffersDelivered => return offers,
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn post(&mut self, message: GuestMessage) {
        self.link.post(&message).unwrap();
    }

    pub(crate) fn hear(&self) -> HostMessage {
        match self.heard.recv_timeout(PATIENCE) {
            Ok(LinkEvent::Message(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing is to be heard for a moment. (That moment is no synchronisation: a message that comes later is found by
    /// whoever hears next.)
    pub(crate) fn hears_nothing(&self) {
        match self.heard.recv_timeout(Duration::from_millis(30)) {
            Err(RecvTimeoutError::Timeout) => {}
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn share(&mut self, relid: u32, ring: u32) {
        let what = Share::Ring { outgoing_bytes: 16 << 10, incoming_bytes: 16 << 10 };
        self.link.share(relid, GpadlId(ring), what).unwrap();
        let answer = self.hear();
        assert!(
            matches!(answer, HostMessage::GpadlCreated { gpadl: GpadlId(id), status, .. } if id == ring && status.is_success()),
            "{answer:?}"
        );
    }

    pub(crate) fn ask_to_open(&mut self, relid: u32, ring: u32) -> u32 {
        self.share(relid, ring);
        self.open_ids += 1;
        self.post(GuestMessage::Open(Box::new(OpenChannel {
            relid,
            open_id: self.open_ids,
            ring: GpadlId(ring),
            target_vp: 0,
            downstream_offset_pages: 4,
            user_defined: [0; 120],
            signal: None,
            flags: OpenFlags::empty(),
        })));
        self.open_ids
    }

    pub(crate) fn opened(&mut self, relid: u32, ring: u32, open_id: u32) -> Result<Port, Error> {
        let answer = self.hear();
        assert!(
            matches!(answer, HostMessage::OpenResult { relid: of, open_id: id, status } if of == relid && id == open_id && status.is_success()),
            "{answer:?}"
        );
        self.link.port(relid, GpadlId(ring))
    }

    pub(crate) fn open(&mut self, relid: u32, ring: u32) -> Result<Port, Error> {
        let open_id = self.ask_to_open(relid, ring);
        self.opened(relid, ring, open_id)
    }

    pub(crate) fn tear_down(&mut self, relid: u32, ring: u32) {
        self.post(GuestMessage::GpadlTeardown { relid, gpadl: GpadlId(ring) });
    }

    pub(crate) fn close(&mut self, relid: u32, ring: u32) {
        self.post(GuestMessage::Close { relid });
        self.tear_down(relid, ring);
        assert_eq!(self.hear(), HostMessage::GpadlTorndown { gpadl: GpadlId(ring) });
        self.link.unshare(GpadlId(ring));
    }

    pub(crate) fn hears_rescind(&self, relid: u32) {
        assert_eq!(self.hear(), HostMessage::Rescind { relid });
    }

    pub(crate) fn hears_offer(&self, relid: u32) -> OfferChannel {
        match self.hear() {
            HostMessage::Offer(offer) if offer.relid == relid => *offer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn release(&mut self, relid: u32) {
        self.post(GuestMessage::RelidReleased { relid });
    }
}
