//! A host on a thread of its own that answers all it is asked, unless a test tells it not to; and that remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use uuid::Uuid;
use vmbus::class::Class;
use vmbus::link::Link;
use vmbus::memory::Ring;
use vmbus::message::gpadl::{Assembler, Limits, Progress};
use vmbus::message::{
    ConnectionState, Features, GpadlId, GuestMessage, HostMessage, OfferChannel, OfferFlags, Protocol, Status,
    USER_DEFINED_BYTES, Version, VersionResponse,
};
use vmbus::wire::{Arrival, Guest, GuestMemory, Settings, WireLink, transport};
use vmbus_ringbuf::{ControlField, Memory, OutgoingPacket, Reader, Writer};

/// Longer than anything takes that works.
pub const LONG: Duration = Duration::from_secs(20);

/// Longer than any test takes: a hang is a failure, not a wait for somebody to notice.
const WATCHDOG: Duration = Duration::from_secs(120);

/// What the host does not do, for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silent {
    Contact,
    Offers,
    Gpadl,
    Open,
    Teardown,
    Unload,
}

/// The host's end of an open channel.
pub struct Channel {
    pub processor: usize,
    pub reader: Reader<Ring>,
    pub writer: Writer<Ring>,
}

pub struct State {
    guest: Guest,
    protocol: Protocol,
    /// What it offers when it is asked.
    pub offers: Vec<u32>,
    pub silent: BTreeSet<Silent>,
    /// Everything the guest has said.
    pub heard: Vec<GuestMessage>,
    assembling: BTreeMap<GpadlId, Assembler>,
    pub gpadls: BTreeMap<GpadlId, Vec<u64>>,
    /// Opens that were not answered: relid and number.
    pub unanswered: Vec<(u32, u32)>,
    pub open: BTreeMap<u32, Channel>,
    /// RELID_RELEASED, by relid.
    pub released: BTreeMap<u32, usize>,
    /// Whether the guest has gone, or nobody needs the host any more.
    pub gone: bool,
}

/// A host, and what it takes to talk to it.
#[derive(Clone)]
pub struct Host {
    /// The guest's memory, from its side.
    pub memory: Arc<GuestMemory>,
    state: Arc<(Mutex<State>, Condvar)>,
    _thread: Arc<Ended>,
}

/// Ends the host's thread.
struct Ended {
    state: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
    /// Dropped in time, or the process ends.
    _watchdog: Sender<()>,
}

fn watchdog() -> Sender<()> {
    let (alive, over) = mpsc::channel();
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::thread::spawn(move || {
        if over.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
            // Whoever hangs does not unwind. Behind the capture of the tests' output.
            let _ = writeln!(std::io::stderr(), "{test} hangs");
            std::process::abort();
        }
    });
    alive
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.state.0.lock().unwrap().gone = true;
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The instance of the device that a host offers with this number.
pub fn instance(relid: u32) -> Uuid {
    Uuid::from_u128(0xfeed_0000 + u128::from(relid))
}

fn offer(relid: u32) -> HostMessage {
    HostMessage::Offer(Box::new(OfferChannel {
        class: Class::HEARTBEAT,
        instance: instance(relid),
        flags: OfferFlags::empty(),
        mmio_megabytes: 0,
        mmio_megabytes_optional: 0,
        user_defined: [0; USER_DEFINED_BYTES],
        subchannel_index: 0,
        relid,
        monitor_id: None,
        is_dedicated: true,
        connection_id: relid,
    }))
}

impl Host {
    /// A link, and the host behind it, which will offer these.
    pub fn new(processors: usize, offers: impl IntoIterator<Item = u32>) -> (Box<dyn Link>, Self) {
        let (here, there) = transport::pair().unwrap();
        let arrival = Arrival::over(there);
        let link = WireLink::over(here, Settings { processors, memory_bytes: 64 << 20 }).unwrap();
        let guest = arrival.wait(LONG).unwrap();
        let socket = guest.connection.as_fd().try_clone_to_owned().unwrap();
        let state = State {
            guest,
            protocol: Protocol::NONE,
            offers: offers.into_iter().collect(),
            silent: BTreeSet::new(),
            heard: Vec::new(),
            assembling: BTreeMap::new(),
            gpadls: BTreeMap::new(),
            unanswered: Vec::new(),
            open: BTreeMap::new(),
            released: BTreeMap::new(),
            gone: false,
        };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let mine = Arc::clone(&state);
        let thread = Some(std::thread::spawn(move || serve(&mine, &socket)));
        let memory = Arc::clone(link.memory());
        (
            Box::new(link),
            Self {
                memory,
                _thread: Arc::new(Ended { state: Arc::clone(&state), thread, _watchdog: watchdog() }),
                state,
            },
        )
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    /// Waits until the host knows something. Panics with what was said when it takes too long.
    pub fn until<T>(&self, what: &str, mut known: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + LONG;
        let mut state = self.lock();
        loop {
            if let Some(known) = known(&mut state) {
                return known;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: {:?}", state.heard);
            state = self.state.1.wait_timeout(state, left).unwrap().0;
        }
    }

    pub fn be_silent(&self, about: Silent) {
        self.lock().silent.insert(about);
    }

    pub fn speak(&self, about: Silent) {
        self.lock().silent.remove(&about);
    }

    pub fn say(&self, message: &HostMessage) {
        self.lock().say(message);
    }

    pub fn offer(&self, relid: u32) {
        self.say(&offer(relid));
    }

    pub fn rescind(&self, relid: u32) {
        self.say(&HostMessage::Rescind { relid });
    }

    /// Sends a packet on a channel, and interrupts if that is due; whether it was.
    pub fn send(&self, relid: u32, id: u64) -> bool {
        let mut state = self.lock();
        let channel = state.open.get_mut(&relid).unwrap();
        let processor = channel.processor;
        let signal = channel.writer.try_write(&OutgoingPacket::in_band(id), &[&id.to_le_bytes()]).unwrap();
        if signal.is_needed() {
            state.guest.interrupts.raise(processor, relid).unwrap();
        }
        signal.is_needed()
    }

    /// Reads all there is on a channel, and interrupts if the guest waits for room.
    pub fn receive(&self, relid: u32) -> Vec<u64> {
        let mut state = self.lock();
        let channel = state.open.get_mut(&relid).unwrap();
        let (mut ids, processor) = (Vec::new(), channel.processor);
        let mut batch = channel.reader.batch();
        while let Some(packet) = batch.next().unwrap() {
            ids.push(packet.transaction_id());
        }
        if batch.finish().is_needed() {
            state.guest.interrupts.raise(processor, relid).unwrap();
        }
        ids
    }

    /// Writes nonsense where the guest finds its packets, and interrupts.
    pub fn spoil(&self, relid: u32) {
        let mut state = self.lock();
        let channel = state.open.get_mut(&relid).unwrap();
        let processor = channel.processor;
        channel.writer.memory().store(ControlField::WriteIndex, 5);
        state.guest.interrupts.raise(processor, relid).unwrap();
    }

    /// Hangs up, as a host that was killed.
    pub fn die(&self) {
        let state = self.lock();
        rustix::net::shutdown(&state.guest.connection, rustix::net::Shutdown::Both).unwrap();
    }
}

impl State {
    pub fn say(&mut self, message: &HostMessage) {
        let message = message.encode(self.protocol).unwrap();
        // A guest that has gone is a test's end.
        let _ = self.guest.connection.send(0, &message);
    }

    /// Flags a channel on a processor, whoever is there.
    pub fn raise(&self, processor: usize, relid: u32) {
        self.guest.interrupts.raise(processor, relid).unwrap();
    }

    /// Interrupts a processor without a flag.
    pub fn interrupt(&self, processor: usize) {
        self.guest.interrupts.interrupt(processor).unwrap();
    }

    /// How often the guest has posted something like that.
    pub fn count(&self, like: impl Fn(&GuestMessage) -> bool) -> usize {
        self.heard.iter().filter(|message| like(message)).count()
    }

    fn hear(&mut self, message: GuestMessage) {
        self.heard.push(message.clone());
        let speaks = |about: Silent| !self.silent.contains(&about);
        match message {
            GuestMessage::InitiateContact(contact) if speaks(Silent::Contact) => {
                let features = Features::empty();
                let supported = contact.version == Version::V5_3;
                self.protocol = if supported { Protocol::new(contact.version, features) } else { Protocol::NONE };
                let state = ConnectionState::SUCCESSFUL;
                let response = VersionResponse { supported, state, selected: 4, features: None };
                self.say(&HostMessage::VersionResponse(response));
            }
            GuestMessage::RequestOffers if speaks(Silent::Offers) => {
                self.offers.clone().into_iter().for_each(|relid| self.say(&offer(relid)));
                self.say(&HostMessage::AllOffersDelivered);
            }
            GuestMessage::GpadlHeader(header) => {
                self.assemble(header.gpadl, |_| Assembler::start(&header, Limits::default()).unwrap())
            }
            GuestMessage::GpadlBody(body) => self.assemble(body.gpadl, |former| former.unwrap().push(&body).unwrap()),
            GuestMessage::GpadlTeardown { gpadl, .. } if speaks(Silent::Teardown) => {
                self.gpadls.remove(&gpadl);
                self.say(&HostMessage::GpadlTorndown { gpadl });
            }
            GuestMessage::Open(open) => {
                let pages = self.gpadls.get(&open.ring).unwrap().clone();
                let (outgoing, incoming) = pages.split_at(usize::try_from(open.downstream_offset_pages).unwrap());
                let reader = Reader::new(self.guest.memory.ring(outgoing).unwrap().0).unwrap();
                let writer = Writer::new(self.guest.memory.ring(incoming).unwrap().0).unwrap();
                let processor = usize::try_from(open.target_vp).unwrap();
                self.open.insert(open.relid, Channel { processor, reader, writer });
                if speaks(Silent::Open) {
                    self.opened(open.relid, open.open_id);
                } else {
                    self.unanswered.push((open.relid, open.open_id));
                }
            }
            GuestMessage::Close { relid } => drop(self.open.remove(&relid)),
            GuestMessage::ModifyChannel { relid, target_vp } => {
                self.open.get_mut(&relid).unwrap().processor = usize::try_from(target_vp).unwrap();
                self.say(&HostMessage::ModifyChannelResponse { relid, status: Status::SUCCESS });
            }
            GuestMessage::RelidReleased { relid } => {
                *self.released.entry(relid).or_default() += 1;
                self.open.remove(&relid);
            }
            GuestMessage::Unload if speaks(Silent::Unload) => {
                self.say(&HostMessage::UnloadResponse);
                self.open.clear();
                self.protocol = Protocol::NONE;
            }
            _ => {}
        }
    }

    pub fn opened(&mut self, relid: u32, open_id: u32) {
        self.say(&HostMessage::OpenResult { relid, open_id, status: Status::SUCCESS });
    }

    fn assemble(&mut self, gpadl: GpadlId, step: impl FnOnce(Option<Assembler>) -> Progress) {
        match step(self.assembling.remove(&gpadl)) {
            Progress::More(assembler) => drop(self.assembling.insert(gpadl, assembler)),
            Progress::Done(done) => {
                let pages = done.ranges.iter().flat_map(|range| range.pages.clone()).collect();
                self.gpadls.insert(gpadl, pages);
                if !self.silent.contains(&Silent::Gpadl) {
                    self.say(&HostMessage::GpadlCreated { relid: done.relid, gpadl, status: Status::SUCCESS });
                }
            }
        }
    }
}

fn serve((state, state_changed): &(Mutex<State>, Condvar), socket: &OwnedFd) {
    loop {
        {
            let mut state = state.lock().unwrap();
            if state.gone {
                return state_changed.notify_all();
            }
            loop {
                let post = match state.guest.connection.receive() {
                    Ok(Some(post)) => post,
                    Ok(None) => break,
                    Err(_) => {
                        state.gone = true;
                        break;
                    }
                };
                let message = GuestMessage::parse(post.message.as_ref(), state.protocol).unwrap();
                state.hear(message);
            }
            let _ = state.guest.connection.flush();
        }
        state_changed.notify_all();
        let timeout = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout));
    }
}
