//! A minimal honest guest: it does what a test says, in plain memory shared with the host, in one thread.
#![expect(unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "part of tests, which may panic")]

use std::time::Duration;

use vmbus::message::gpadl::{Range, split};
use vmbus::message::{
    ContactTarget, Features, GpadlId, GuestMessage, HostMessage, InitiateContact, OfferChannel, OpenChannel, OpenFlags,
    Status, USER_DEFINED_BYTES, Version,
};
use vmbus_ringbuf::{OutgoingPacket, PacketType, Reader, Writer};
use vmbus_simhost::{
    Config, Delivery, Host, Memory, PAGE_BYTES, PageRing, PlainMemory, Simulation, Violation, ViolationKind,
};

/// Pages of guest memory; the first 16 are for the connection.
const PAGES: usize = 4096;
/// Pages of a ring: control and data.
pub const RING_PAGES: u64 = 4;
/// Where the monitor pages are.
pub const MONITORS: [u64; 2] = [PAGE_BYTES, 2 * PAGE_BYTES];

/// The guest, and the host that it faces.
pub struct Guest {
    pub sim: Simulation<PlainMemory>,
    pub memory: PlainMemory,
    /// What the host said and nobody has looked at.
    pub inbox: Vec<HostMessage>,
    /// (processor, flag) of interrupts nobody has looked at.
    pub interrupts: Vec<(u32, u32)>,
    pub offers: Vec<OfferChannel>,
    pub now: Duration,
    next_page: u64,
    next_gpadl: u32,
}

/// An open channel.
pub struct Open {
    pub relid: u32,
    pub ring: GpadlId,
    pub writer: Writer<PageRing>,
    pub reader: Reader<PageRing>,
}

impl Guest {
    pub fn new(config: Config) -> Self {
        let memory = PlainMemory::new(PAGES);
        let sim = Simulation::new(config, memory.clone());
        let (inbox, interrupts, offers) = (Vec::new(), Vec::new(), Vec::new());
        Self { sim, memory, inbox, interrupts, offers, now: Duration::ZERO, next_page: 16, next_gpadl: 100 }
    }

    /// A guest that has agreed on a version and has its offers.
    pub fn connected(config: Config, version: Version) -> Self {
        let mut guest = Self::new(config);
        assert!(guest.contact(version, Features::all()), "{version}");
        guest.request_offers();
        guest
    }

    pub fn host(&mut self) -> &mut Host<PlainMemory> {
        self.sim.host()
    }

    /// Posts, and takes what the host has to say.
    pub fn post(&mut self, message: &GuestMessage) {
        self.sim.message(message);
        self.drain();
    }

    /// Takes what the host has to say, and says that it has heard it.
    pub fn drain(&mut self) {
        while let Some(delivery) = self.sim.poll() {
            match delivery {
                Delivery::Message { sequence, protocol, message } => {
                    self.sim.heard(sequence);
                    match HostMessage::parse(message.as_ref(), protocol) {
                        Ok(HostMessage::Offer(offer)) => self.offers.push(*offer),
                        Ok(message) => self.inbox.push(message),
                        Err(_) => {}
                    }
                }
                Delivery::Interrupt { processor, flag } => self.interrupts.push((processor, flag)),
            }
        }
    }

    /// Lets time pass, to the next thing that happens by itself, until there is none.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            self.drain();
            let Some(due) = self.sim.deadline() else { return };
            self.now = self.now.max(due);
            self.sim.elapsed(self.now);
        }
        panic!("it does not come to rest");
    }

    pub fn elapse(&mut self, by: Duration) {
        self.now += by;
        self.sim.elapsed(self.now);
        self.drain();
    }

    pub fn contact(&mut self, version: Version, features: Features) -> bool {
        let [parent_to_child_monitor, child_to_parent_monitor] = MONITORS;
        let features = if version >= Version::V6_0 { features } else { Features::empty() };
        let target = if version >= Version::V5_0 {
            ContactTarget::Source { sint: 2, vtl: 0, features }
        } else {
            ContactTarget::InterruptPage(3 * PAGE_BYTES)
        };
        let client = features.contains(Features::CLIENT_ID).then(uuid::Uuid::nil);
        self.post(&GuestMessage::InitiateContact(InitiateContact {
            version,
            target_vp: 0,
            target,
            parent_to_child_monitor,
            child_to_parent_monitor,
            client,
        }));
        match self.inbox.pop() {
            Some(HostMessage::VersionResponse(response)) => response.supported,
            other => panic!("{other:?}"),
        }
    }

    pub fn request_offers(&mut self) {
        self.post(&GuestMessage::RequestOffers);
        self.expect(&HostMessage::AllOffersDelivered);
    }

    /// The host said this and nothing else.
    pub fn expect(&mut self, message: &HostMessage) {
        assert_eq!(std::mem::take(&mut self.inbox), std::slice::from_ref(message));
    }

    pub fn pages(&mut self, count: u64) -> Vec<u64> {
        let pages = (self.next_page..self.next_page + count).collect();
        self.next_page += count;
        assert!(self.next_page <= self.memory.pages());
        pages
    }

    /// Posts the messages of a GPADL, without looking at the answer.
    pub fn post_gpadl(&mut self, relid: u32, pages: Vec<u64>) -> GpadlId {
        self.next_gpadl += 1;
        let gpadl = GpadlId(self.next_gpadl);
        let ranges = [Range::of_pages(pages).unwrap()];
        for message in split(relid, gpadl, &ranges).unwrap() {
            self.post(&message);
        }
        gpadl
    }

    pub fn share(&mut self, relid: u32, pages: u64) -> GpadlId {
        let pages = self.pages(pages);
        let gpadl = self.post_gpadl(relid, pages);
        self.expect(&HostMessage::GpadlCreated { relid, gpadl, status: Status::SUCCESS });
        gpadl
    }

    pub fn open_message(relid: u32, ring: GpadlId) -> GuestMessage {
        GuestMessage::Open(Box::new(Self::open_request(relid, ring)))
    }

    pub fn open_request(relid: u32, ring: GpadlId) -> OpenChannel {
        OpenChannel {
            relid,
            open_id: relid + 1000,
            ring,
            target_vp: 0,
            downstream_offset_pages: u32::try_from(RING_PAGES).unwrap(),
            user_defined: [0; USER_DEFINED_BYTES],
            signal: None,
            flags: OpenFlags::empty(),
        }
    }

    pub fn open(&mut self, relid: u32) -> Open {
        let pages = self.pages(2 * RING_PAGES);
        let ring = self.post_gpadl(relid, pages.clone());
        self.expect(&HostMessage::GpadlCreated { relid, gpadl: ring, status: Status::SUCCESS });
        self.post(&Self::open_message(relid, ring));
        self.expect(&HostMessage::OpenResult { relid, open_id: relid + 1000, status: Status::SUCCESS });
        self.ends(relid, ring, &pages)
    }

    pub fn ends(&self, relid: u32, ring: GpadlId, pages: &[u64]) -> Open {
        let (outgoing, incoming) = pages.split_at(usize::try_from(RING_PAGES).unwrap());
        let writer = Writer::new(self.memory.ring(outgoing).unwrap()).unwrap();
        let reader = Reader::new(self.memory.ring(incoming).unwrap()).unwrap();
        Open { relid, ring, writer, reader }
    }

    /// Closes, and takes the ring down.
    pub fn close(&mut self, open: Open) {
        let Open { relid, ring, .. } = open;
        self.post(&GuestMessage::Close { relid });
        self.post(&GuestMessage::GpadlTeardown { relid, gpadl: ring });
        self.expect(&HostMessage::GpadlTorndown { gpadl: ring });
    }

    /// Writes a packet and signals if that is due.
    pub fn send(&mut self, open: &mut Open, packet: &OutgoingPacket<'_>, payload: &[u8]) {
        if open.writer.try_write(packet, &[payload]).unwrap().is_needed() {
            self.sim.signal(open.relid);
            self.drain();
        }
    }

    /// Takes all packets: type, id, payload.
    pub fn receive(&mut self, open: &mut Open) -> Vec<(PacketType, u64, Vec<u8>)> {
        let mut packets = Vec::new();
        let mut batch = open.reader.batch();
        while let Some(packet) = batch.next().unwrap() {
            let mut payload = vec![0; packet.payload().len()];
            packet.payload().copy_to(&mut payload).unwrap();
            packets.push((packet.kind(), packet.transaction_id(), payload));
        }
        if batch.finish().is_needed() {
            self.sim.signal(open.relid);
            self.drain();
        }
        packets
    }

    pub fn violations(&mut self) -> Vec<ViolationKind> {
        self.host().violations().iter().map(|violation| violation.kind).collect()
    }

    /// Nothing was done wrong; otherwise the trace says what was.
    pub fn assert_honest(&mut self) {
        let violations: Vec<Violation> = self.host().violations().to_vec();
        assert!(violations.is_empty(), "{violations:?}\n{}", self.sim.trace());
    }
}
