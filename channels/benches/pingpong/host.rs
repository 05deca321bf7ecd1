//! The other process: a host that offers one channel and sends back what comes, and a Unix socket that does the same.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use uuid::Uuid;
use vmbus::class::Class;
use vmbus::memory::Ring;
use vmbus::message::gpadl::{Assembler, Limits, Progress};
use vmbus::message::{
    ConnectionState, Features, GpadlId, GuestMessage, HostMessage, OfferChannel, OfferFlags, Protocol, Status,
    USER_DEFINED_BYTES, Version, VersionResponse,
};
use vmbus::wire::{Guest, HostListener};
use vmbus_ringbuf::{OutgoingPacket, Reader, Writer};

pub(crate) const RELID: u32 = 1;

struct Host {
    guest: Guest,
    protocol: Protocol,
    assembling: BTreeMap<GpadlId, Assembler>,
    gpadls: BTreeMap<GpadlId, Vec<u64>>,
    open: Option<Open>,
    over: bool,
}

struct Open {
    processor: usize,
    reader: Reader<Ring>,
    writer: Writer<Ring>,
}

impl Host {
    fn say(&mut self, message: &HostMessage) {
        let _ = self.guest.connection.send(0, &message.encode(self.protocol).unwrap());
    }

    fn control(&mut self) {
        loop {
            match self.guest.connection.receive() {
                Ok(Some(post)) => self.hear(GuestMessage::parse(post.message.as_ref(), self.protocol).unwrap()),
                Ok(None) => return,
                Err(_) => return self.over = true,
            }
        }
    }

    fn hear(&mut self, message: GuestMessage) {
        match message {
            GuestMessage::InitiateContact(contact) => {
                let supported = contact.version == Version::V5_3;
                self.protocol =
                    if supported { Protocol::new(contact.version, Features::empty()) } else { Protocol::NONE };
                let state = ConnectionState::SUCCESSFUL;
                self.say(&HostMessage::VersionResponse(VersionResponse {
                    supported,
                    state,
                    selected: 4,
                    features: None,
                }));
            }
            GuestMessage::RequestOffers => {
                self.say(&HostMessage::Offer(Box::new(OfferChannel {
                    class: Class::HEARTBEAT,
                    instance: Uuid::from_u128(1),
                    flags: OfferFlags::empty(),
                    mmio_megabytes: 0,
                    mmio_megabytes_optional: 0,
                    user_defined: [0; USER_DEFINED_BYTES],
                    subchannel_index: 0,
                    relid: RELID,
                    monitor_id: None,
                    is_dedicated: true,
                    connection_id: RELID,
                })));
                self.say(&HostMessage::AllOffersDelivered);
            }
            GuestMessage::GpadlHeader(header) => {
                let step = Assembler::start(&header, Limits::default()).unwrap();
                self.assemble(header.gpadl, step);
            }
            GuestMessage::GpadlBody(body) => {
                let step = self.assembling.remove(&body.gpadl).unwrap().push(&body).unwrap();
                self.assemble(body.gpadl, step);
            }
            GuestMessage::GpadlTeardown { gpadl, .. } => self.say(&HostMessage::GpadlTorndown { gpadl }),
            GuestMessage::Open(open) => {
                let pages = &self.gpadls[&open.ring];
                let (outgoing, incoming) = pages.split_at(usize::try_from(open.downstream_offset_pages).unwrap());
                self.open = Some(Open {
                    processor: usize::try_from(open.target_vp).unwrap(),
                    reader: Reader::new(self.guest.memory.ring(outgoing).unwrap().0).unwrap(),
                    writer: Writer::new(self.guest.memory.ring(incoming).unwrap().0).unwrap(),
                });
                self.say(&HostMessage::OpenResult {
                    relid: open.relid,
                    open_id: open.open_id,
                    status: Status::SUCCESS,
                });
            }
            GuestMessage::Close { .. } => self.open = None,
            GuestMessage::Unload => self.say(&HostMessage::UnloadResponse),
            _ => {}
        }
    }

    fn assemble(&mut self, gpadl: GpadlId, step: Progress) {
        match step {
            Progress::More(assembler) => drop(self.assembling.insert(gpadl, assembler)),
            Progress::Done(done) => {
                self.gpadls.insert(gpadl, done.ranges.iter().flat_map(|range| range.pages.clone()).collect());
                self.say(&HostMessage::GpadlCreated { relid: done.relid, gpadl, status: Status::SUCCESS });
            }
        }
    }

    /// Sends back all there is. Whether there was any.
    fn echo(&mut self) -> bool {
        let Some(open) = &mut self.open else { return false };
        let (mut any, mut payload) = (false, [0; 4096]);
        loop {
            let received = open.reader.read_into(&mut payload).unwrap();
            if received.signal.is_needed() {
                self.guest.interrupts.raise(open.processor, RELID).unwrap();
            }
            let Some(packet) = received.packet else { return any };
            any = true;
            let back = OutgoingPacket::in_band(packet.transaction_id());
            if open.writer.try_write(&back, &[&payload[..received.payload_bytes]]).unwrap().is_needed() {
                self.guest.interrupts.raise(open.processor, RELID).unwrap();
            }
        }
    }
}

/// Serves one guest at this path. Polling: it never sleeps once the channel is open.
pub(crate) fn wire(path: &Path, polling: bool) {
    let listener = HostListener::bind(path).unwrap();
    poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).unwrap();
    let guest = listener.accept().unwrap().unwrap().wait(Duration::from_secs(20)).unwrap();
    let mut host = Host {
        guest,
        protocol: Protocol::NONE,
        assembling: BTreeMap::new(),
        gpadls: BTreeMap::new(),
        open: None,
        over: false,
    };
    let set = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let add = |on, data, flags| epoll::add(&set, on, EventData::new_u64(data), flags).unwrap();
    add(host.guest.connection.as_fd(), 0, EventFlags::IN);
    add(host.guest.interrupts.signals(), 1, EventFlags::IN | EventFlags::ET);
    let mut events = [MaybeUninit::uninit(); 4];
    while !host.over {
        let mut talks = false;
        if polling && let Some(open) = &mut host.open {
            open.reader.mask();
            for round in 0_u32.. {
                if !host.echo() {
                    std::hint::spin_loop();
                }
                // Control messages now and then.
                if round % 4096 == 0 {
                    host.control();
                    if host.open.is_none() || host.over {
                        break;
                    }
                }
            }
            continue;
        }
        let (events, _) = epoll::wait(&set, &mut events, None).unwrap();
        for event in events.iter() {
            match event.data.u64() {
                0 => host.control(),
                _ => talks = true,
            }
        }
        while talks {
            host.guest.interrupts.take_signals(|_| {});
            host.echo();
            talks = host.open.as_mut().is_some_and(|open| open.reader.unmask());
        }
    }
}

/// Sends back what comes over a Unix socket, in pieces of this many bytes.
pub(crate) fn unix(path: &Path, bytes: usize) {
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = vec![0; bytes];
    while stream.read_exact(&mut buffer).is_ok() {
        stream.write_all(&buffer).unwrap();
    }
}

/// Connects to a path that somebody is about to listen on.
pub(crate) fn connect(path: &Path) -> UnixStream {
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            return stream;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
