//! A minimal honest guest over the wire link, which does what a test says.
#![expect(unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "part of tests, which may panic")]

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmbus::link::{Interrupts, Link, LinkEvent, Port, Share};
use vmbus::memory::Ring;
use vmbus::message::{
    ContactTarget, Features, GpadlId, GuestMessage, HostMessage, InitiateContact, OfferChannel, OpenChannel, OpenFlags,
    Status, USER_DEFINED_BYTES, Version,
};
use vmbus::wire::{Settings, WireLink};
use vmbus_ringbuf::{OutgoingPacket, PacketType, Reader, Writer};

/// What guests are made of.
const WIRE: Settings = Settings { processors: 2, memory_bytes: 16 << 20 };
const WITHIN: Duration = Duration::from_secs(20);
const RING_BYTES: u32 = 4 * 4096;

pub struct WireGuest {
    link: WireLink,
    pub events: Receiver<LinkEvent>,
    interrupts: Interrupts,
    next_gpadl: u32,
    offers: Vec<OfferChannel>,
}

/// An open channel.
pub struct Open {
    relid: u32,
    ring: GpadlId,
    writer: Writer<Ring>,
    reader: Reader<Ring>,
    line: vmbus::link::Line,
}

impl WireGuest {
    pub fn over(socket: OwnedFd) -> Self {
        Self::on(WireLink::over(socket, WIRE).unwrap())
    }

    pub fn connect_to(path: &Path) -> Self {
        Self::on(WireLink::connect(path, WIRE).unwrap())
    }

    fn on(mut link: WireLink) -> Self {
        let (sender, events) = unbounded();
        link.start(Arc::new(move |event| sender.send(event).is_ok())).unwrap();
        let interrupts = link.interrupts(0).unwrap();
        Self { link, events, interrupts, next_gpadl: 0, offers: Vec::new() }
    }

    pub fn post(&mut self, message: &GuestMessage) {
        self.link.post(message).unwrap();
    }

    /// The next message that is no offer.
    pub fn message(&mut self) -> HostMessage {
        loop {
            match self.events.recv_timeout(WITHIN).unwrap() {
                LinkEvent::Message(HostMessage::Offer(offer)) => self.offers.push(*offer),
                LinkEvent::Message(message) => return message,
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next offer.
    pub fn next_offer(&mut self) -> OfferChannel {
        if self.offers.is_empty() {
            match self.events.recv_timeout(WITHIN).unwrap() {
                LinkEvent::Message(HostMessage::Offer(offer)) => return *offer,
                other => panic!("{other:?}"),
            }
        }
        self.offers.remove(0)
    }

    #[track_caller]
    pub fn wait_for(&mut self, is_it: impl Fn(&HostMessage) -> bool) {
        let message = self.message();
        assert!(is_it(&message), "{message:?}");
    }

    /// Agrees on a version and has the offers come.
    pub fn connect(&mut self, version: Version) -> Vec<OfferChannel> {
        let target = if version >= Version::V5_0 {
            ContactTarget::Source { sint: 2, vtl: 0, features: Features::empty() }
        } else {
            ContactTarget::InterruptPage(0)
        };
        // The link fills in the addresses.
        self.post(&GuestMessage::InitiateContact(InitiateContact {
            version,
            target_vp: 0,
            target,
            parent_to_child_monitor: 0,
            child_to_parent_monitor: 0,
            client: None,
        }));
        self.wait_for(|message| matches!(message, HostMessage::VersionResponse(response) if response.supported));
        self.post(&GuestMessage::RequestOffers);
        self.wait_for(|message| *message == HostMessage::AllOffersDelivered);
        std::mem::take(&mut self.offers)
    }

    pub fn open(&mut self, relid: u32) -> Open {
        self.next_gpadl += 1;
        let ring = GpadlId(self.next_gpadl);
        let share = Share::Ring { outgoing_bytes: RING_BYTES, incoming_bytes: RING_BYTES };
        self.link.share(relid, ring, share).unwrap();
        self.wait_for(|message| *message == HostMessage::GpadlCreated { relid, gpadl: ring, status: Status::SUCCESS });
        self.post(&GuestMessage::Open(Box::new(OpenChannel {
            relid,
            open_id: 1,
            ring,
            target_vp: 0,
            downstream_offset_pages: RING_BYTES / 4096,
            user_defined: [0; USER_DEFINED_BYTES],
            signal: None,
            flags: OpenFlags::empty(),
        })));
        self.wait_for(|message| *message == HostMessage::OpenResult { relid, open_id: 1, status: Status::SUCCESS });
        let Port { outgoing, incoming, line } = self.link.port(relid, ring).unwrap();
        Open { relid, ring, writer: Writer::new(outgoing).unwrap(), reader: Reader::new(incoming).unwrap(), line }
    }

    pub fn close(&mut self, open: Open) {
        self.post(&GuestMessage::Close { relid: open.relid });
        let relid = open.relid;
        self.tear_down(relid, open.into_ring());
    }

    /// Takes the ring down; its pages may be used again.
    pub fn tear_down(&mut self, relid: u32, ring: GpadlId) {
        self.post(&GuestMessage::GpadlTeardown { relid, gpadl: ring });
        self.wait_for(|message| *message == HostMessage::GpadlTorndown { gpadl: ring });
        self.link.unshare(ring);
    }

    /// Sleeps until the host interrupts, and takes all flags.
    fn sleep(&self) {
        let timeout = Timespec::try_from(WITHIN).unwrap();
        let interrupted = poll(&mut [PollFd::new(&self.interrupts.event, PollFlags::IN)], Some(&timeout)).unwrap();
        assert_eq!(interrupted, 1, "no interrupt came");
        rustix::io::read(&self.interrupts.event, &mut [0; 8]).unwrap();
        for offset in (0..256).step_by(8) {
            self.interrupts.flags.take_word(self.interrupts.flags_offset + offset).unwrap();
        }
    }
}

impl Open {
    /// Sends a packet that wants a completion, and sleeps until it is there.
    pub fn round_trip(&mut self, guest: &WireGuest, id: u64) {
        let packet = OutgoingPacket::in_band(id).with_completion_requested();
        let payload = id.to_le_bytes();
        if self.writer.try_write(&packet, &[&payload]).unwrap().is_needed() {
            self.line.signal().unwrap();
        }
        loop {
            let mut batch = self.reader.batch();
            let answer = batch.next().unwrap().map(|packet| (packet.kind(), packet.transaction_id()));
            let signal = batch.finish();
            if signal.is_needed() {
                self.line.signal().unwrap();
            }
            if let Some(answer) = answer {
                assert_eq!(answer, (PacketType::COMPLETION, id));
                return;
            }
            if !self.reader.unmask() {
                guest.sleep();
            }
        }
    }

    /// Lets go of the rings.
    pub fn into_ring(self) -> GpadlId {
        self.ring
    }
}
