//! A guest that is played by a test: hypercalls into the bus, SynIC pages and interrupts out of it.

use std::sync::Arc;

use vmbus::memory::Ring;
use vmbus::message::gpadl::{Range, split};
use vmbus::message::{
    ContactTarget, Features, GpadlId, GuestMessage, HostMessage, InitiateContact, OpenChannel, OpenFlags, Protocol,
    Status, USER_DEFINED_BYTES, Version,
};
use vmbus_ringbuf::{OutgoingPacket, Reader, Writer};
use vmbus_simhost::{Config, Memory, PAGE_BYTES};

use crate::bus::Bus;
use crate::bus_memory::BusMemory;
use crate::bus_memory::tests::pages;
use crate::control::server_settings;
use crate::exits::{Hypercall, Hyperv, Synic};
use crate::wires::tests::{FakeWires, PROCESSORS};

/// Which pages are what: hypercall input, monitors, and then two for each processor's SynIC.
const INPUT: u64 = PAGE_BYTES;
const MONITORS: [u64; 2] = [2 * PAGE_BYTES, 3 * PAGE_BYTES];
const SYNIC: u64 = 4 * PAGE_BYTES;
const RINGS: u64 = 16;
/// Pages of a ring.
const RING_PAGES: u64 = 4;
const FAST: u64 = 1 << 16;

/// The guest, and the bus that it is on.
pub(crate) struct Guest {
    pub(crate) bus: Bus,
    pub(crate) wires: FakeWires,
    hyperv: Arc<dyn Hyperv>,
    memory: BusMemory,
    protocol: Protocol,
    connection: u32,
    next_page: u64,
    /// The flags of channels that were open, of relids below 32.
    opened: u32,
}

/// An open channel.
pub(crate) struct Open {
    relid: u32,
    monitor: Option<u8>,
    ring: GpadlId,
    writer: Writer<Ring>,
    reader: Reader<Ring>,
}

impl Guest {
    /// A guest whose processors have switched their SynICs on.
    pub(crate) fn new(config: Config, wires: FakeWires) -> Self {
        let memory = pages(256);
        let settings = server_settings(&crate::control::wire::HostSettings::default());
        let bus = Bus::start(config, settings, &memory, PROCESSORS, wires.clone()).unwrap();
        Self::on(bus, memory, wires)
    }

    /// Another guest in its place, on the same bus.
    pub(crate) fn restarted(self) -> Self {
        let wires = FakeWires::new();
        self.bus.restart(wires.clone()).unwrap();
        Self::on(self.bus, self.memory, wires)
    }

    fn on(bus: Bus, memory: BusMemory, wires: FakeWires) -> Self {
        let hyperv = bus.hyperv();
        for vp in 0..PROCESSORS {
            let page = SYNIC + u64::from(vp) * 2 * PAGE_BYTES;
            hyperv.synic(
                vp,
                Synic { register: 0, control: 1, event_page: (page + PAGE_BYTES) | 1, message_page: page | 1 },
            );
        }
        Self { bus, wires, hyperv, memory, protocol: Protocol::NONE, connection: 0, next_page: RINGS, opened: 0 }
    }

    /// A guest that has agreed on a version, and has been told the relids and monitor ids of all offers.
    pub(crate) fn connected(config: Config, version: Version) -> (Self, Vec<(u32, Option<u8>)>) {
        let mut guest = Self::new(config, FakeWires::new());
        guest.connect(version);
        let offers = guest.offers();
        (guest, offers)
    }

    pub(crate) fn connect(&mut self, version: Version) {
        self.connection = if version >= Version::V5_0 { 4 } else { 1 };
        let target = if version >= Version::V5_0 {
            ContactTarget::Source { sint: 2, vtl: 0, features: Features::empty() }
        } else {
            ContactTarget::InterruptPage(0)
        };
        let [parent_to_child_monitor, child_to_parent_monitor] = MONITORS;
        let contact = InitiateContact {
            version,
            target_vp: 1,
            target,
            parent_to_child_monitor,
            child_to_parent_monitor,
            client: None,
        };
        self.post(&GuestMessage::InitiateContact(contact));
        self.protocol = Protocol::new(version, Features::empty());
        assert!(matches!(self.hear(), HostMessage::VersionResponse(response) if response.supported));
    }

    pub(crate) fn offers(&mut self) -> Vec<(u32, Option<u8>)> {
        self.post(&GuestMessage::RequestOffers);
        let mut offers = Vec::new();
        loop {
            match self.hear() {
                HostMessage::Offer(offer) => offers.push((offer.relid, offer.monitor_id)),
                HostMessage::AllOffersDelivered => return offers,
                other => panic!("{other:?}"),
            }
        }
    }

    /// HvPostMessage; its status.
    pub(crate) fn try_post(&self, connection: u32, bytes: &[u8]) -> u64 {
        let fields = [connection, 0, 1, u32::try_from(bytes.len()).unwrap()];
        let mut input: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        input.extend(bytes);
        assert!(self.memory.write(INPUT, &input));
        self.hyperv.hypercall(0, Hypercall { input: 0x5c, first: INPUT, second: 0 })
    }

    pub(crate) fn post(&self, message: &GuestMessage) {
        let message = message.encode(self.protocol).unwrap();
        assert_eq!(self.try_post(self.connection, message.as_ref()), 0);
    }

    /// The next message, from processor 1's slot: waits for the interrupt, empties the slot, and writes EOM if that is
    /// wanted.
    pub(crate) fn hear(&self) -> HostMessage {
        let slot = SYNIC + 2 * PAGE_BYTES + 512;
        let mut header = [0; 16];
        loop {
            assert!(self.memory.read(slot, &mut header));
            if header[0] != 0 {
                break;
            }
            assert!(self.wires.wait(1, 2), "the host is silent");
        }
        let mut bytes = vec![0; usize::from(header[4])];
        assert!(self.memory.read(slot + 16, &mut bytes) && self.memory.write(slot, &[0; 4]));
        assert!(self.memory.read(slot, &mut header));
        if header[5] & 1 != 0 {
            self.wires.end(1, 2);
        }
        HostMessage::parse(&bytes, self.protocol).unwrap()
    }

    fn pages(&mut self, count: u64) -> Vec<u64> {
        self.next_page += count;
        (self.next_page - count..self.next_page).collect()
    }

    /// Shares rings and asks for the channel to be opened; does not hear what is said to that.
    pub(crate) fn start_to_open(&mut self, relid: u32) -> (GpadlId, Vec<u64>) {
        let pages = self.pages(2 * RING_PAGES);
        let ring = GpadlId(relid + 100);
        for message in split(relid, ring, &[Range::of_pages(pages.clone()).unwrap()]).unwrap() {
            self.post(&message);
        }
        assert_eq!(self.hear(), HostMessage::GpadlCreated { relid, gpadl: ring, status: Status::SUCCESS });
        self.post(&GuestMessage::Open(Box::new(OpenChannel {
            relid,
            open_id: 7,
            ring,
            target_vp: 0,
            downstream_offset_pages: u32::try_from(RING_PAGES).unwrap(),
            user_defined: [0; USER_DEFINED_BYTES],
            signal: None,
            flags: OpenFlags::empty(),
        })));
        (ring, pages)
    }

    pub(crate) fn open(&mut self, (relid, monitor): (u32, Option<u8>)) -> Open {
        let (ring, pages) = self.start_to_open(relid);
        assert_eq!(self.hear(), HostMessage::OpenResult { relid, open_id: 7, status: Status::SUCCESS });
        self.opened |= 1 << (relid % 32);
        let (outgoing, incoming) = pages.split_at(usize::try_from(RING_PAGES).unwrap());
        let writer = Writer::new(self.memory.ring(outgoing).unwrap()).unwrap();
        let reader = Reader::new(self.memory.ring(incoming).unwrap()).unwrap();
        Open { relid, monitor, ring, writer, reader }
    }

    pub(crate) fn close(&self, open: &Open) {
        self.post(&GuestMessage::Close { relid: open.relid });
        self.post(&GuestMessage::GpadlTeardown { relid: open.relid, gpadl: open.ring });
        assert_eq!(self.hear(), HostMessage::GpadlTorndown { gpadl: open.ring });
    }

    /// HvSignalEvent: by KVM if it has an eventfd, else by us; the status.
    pub(crate) fn signal(&self, connection: u32) -> u64 {
        if self.wires.signal(connection) {
            return 0;
        }
        self.hyperv.hypercall(0, Hypercall { input: 0x5d | FAST, first: connection.into(), second: 0 })
    }

    /// Sends a packet, waits for the interrupt and takes the reply.
    pub(crate) fn echo(&self, open: &mut Open, payload: &[u8]) -> Vec<u8> {
        let packet = OutgoingPacket::in_band(1);
        if open.writer.try_write(&packet, &[payload]).unwrap().is_needed() {
            match open.monitor {
                Some(monitor) => {
                    let at = MONITORS[1] + 8 + u64::from(monitor / 32) * 8;
                    assert!(self.memory.write(at, &(1_u32 << (monitor % 32)).to_le_bytes()));
                }
                None => assert_eq!(self.signal(open.relid), 0),
            }
        }
        loop {
            let mut batch = open.reader.batch();
            if let Some(packet) = batch.next().unwrap() {
                let mut reply = vec![0; packet.payload().len()];
                packet.payload().copy_to(&mut reply).unwrap();
                if batch.finish().is_needed() {
                    assert_eq!(self.signal(open.relid), 0);
                }
                return reply;
            }
            assert!(self.wires.wait(0, 2), "no interrupt");
            let flags = SYNIC + PAGE_BYTES + 512 + u64::from(open.relid / 32) * 4;
            let taken = self.memory.take_bits(flags, u32::MAX).unwrap();
            // What came with the last packet of another channel may have been read before its interrupt came.
            assert_eq!(taken & !self.opened, 0, "a flag of a channel that was never opened");
        }
    }
}
