//! The other side of multiplexed streams: all channels of a device share them, and each gives back what it gets.
//!
//! Private to this host; `format` has the frames. What the guest must not do (lose bytes, send them twice on one link, send
//! more than it may, acknowledge what it did not get) is a violation.

mod flow;
mod format;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::uuid;
use vmbus::class::Class;
use vmbus_ringbuf::{OutgoingPacket, PacketType, WriteError};

use self::flow::Flow;
use self::format::{ABORTED, ALIVE, Header, MOVE, OPEN, PROBE, REFUSED, RESET, UNKNOWN};
use super::{Device, Port};
use crate::Error;

/// Answers that wait for room before the device stops to read.
const WAITING_AT_MOST: usize = 64;
/// Streams that are over and remembered.
const FINISHED_AT_MOST: usize = 65_536;

/// How the host treats streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiplexSettings {
    /// Bytes of a stream that it keeps.
    pub buffer_bytes: u64,
    /// Streams at a time. More are refused.
    pub streams: usize,
}

impl Default for MultiplexSettings {
    fn default() -> Self {
        Self { buffer_bytes: 64 * 1024, streams: 4096 }
    }
}

/// What the channels of one device share.
#[derive(Debug)]
struct Hub {
    settings: MultiplexSettings,
    flows: BTreeMap<u64, Flow>,
    /// Streams that both sides have forgotten: their numbers are not used again.
    finished: BTreeSet<u64>,
    last_link: u64,
    /// The channel that was opened first. With it everything goes.
    primary: Option<u64>,
    /// Nothing is given back for now.
    holds: bool,
    opened: u64,
    moved: u64,
    done: u64,
    received: u64,
    again: u64,
    probes: u64,
}

/// One channel of a device over which streams are multiplexed. Commands: `deaf` (it neither reads nor writes any more, as if
/// it were gone and nobody had said so), `hold` and `go` (between which the device gives nothing back), `reset` (all streams
/// that are on this channel are given up), `probe`.
#[derive(Debug)]
pub struct Multiplex {
    hub: Arc<Mutex<Hub>>,
    link: u64,
    deaf: bool,
    /// There was no room.
    full: bool,
    /// Answers that belong to no stream.
    answers: VecDeque<Header>,
    alive: u64,
}

/// Makes the channels of one device.
#[derive(Debug, Clone)]
pub struct MultiplexDevice(Arc<Mutex<Hub>>);

impl MultiplexDevice {
    /// A device without channels.
    #[must_use]
    pub fn new(settings: MultiplexSettings) -> Self {
        Self(Arc::new(Mutex::new(Hub {
            settings,
            flows: BTreeMap::new(),
            finished: BTreeSet::new(),
            last_link: 0,
            primary: None,
            holds: false,
            opened: 0,
            moved: 0,
            done: 0,
            received: 0,
            again: 0,
            probes: 0,
        })))
    }

    /// One more channel.
    #[must_use]
    pub fn channel(&self) -> Multiplex {
        let mut hub = lock(&self.0);
        hub.last_link += 1;
        let link = hub.last_link;
        let answers = VecDeque::new();
        Multiplex { hub: Arc::clone(&self.0), link, deaf: false, full: false, answers, alive: 0 }
    }
}

fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// A frame of a stream. The answer, where there is one that is not the stream's.
    fn take(&mut self, link: u64, header: &Header, data: &[u8]) -> Result<Option<Header>, &'static str> {
        let id = header.stream;
        let reset = |sequence| Header { kind: RESET, moves: header.moves, stream: id, sequence, ..Header::default() };
        let full = self.flows.len() >= self.settings.streams;
        match (header.kind, self.flows.get_mut(&id)) {
            (RESET, known) => {
                self.done += u64::from(known.is_some());
                self.flows.remove(&id);
                self.finished.insert(id);
                if self.finished.len() > FINISHED_AT_MOST {
                    self.finished.pop_first();
                }
                Ok(Some(reset(header.sequence)))
            }
            (OPEN, None) if self.finished.contains(&id) => Err("the number of a stream is used again"),
            (OPEN, None) if full => Ok(Some(reset(REFUSED))),
            (OPEN, None) => {
                self.opened += 1;
                self.flows.insert(id, Flow::new(header, link, self.settings.buffer_bytes));
                Ok(None)
            }
            (OPEN | MOVE, Some(flow)) => {
                self.moved += 1;
                flow.moved(header, link).map(|()| None)
            }
            (_, None) => Ok(Some(reset(UNKNOWN))),
            (_, Some(flow)) => {
                let brought = flow.take(header, data, link)?;
                self.received += brought.new;
                self.again += brought.again;
                Ok(None)
            }
        }
    }
}

impl Multiplex {
    /// The class of these devices: private to this project.
    pub const CLASS: Class = Class(uuid!("c1b3d0e2-5a77-4f0e-9a3c-2b6f48d95e10"));

    /// Sends a frame; `false`: there is no room.
    fn send(&mut self, header: &Header, data: &[u8], port: &mut dyn Port) -> Result<bool, Error> {
        match port.send(&OutgoingPacket::in_band(0), &header.write(data)) {
            Ok(()) => Ok(true),
            Err(Error::Write(WriteError::Full { .. })) => {
                self.full = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends what there is to send. Whether all of it went.
    fn flush(&mut self, port: &mut dyn Port) -> Result<bool, Error> {
        self.full = false;
        while let Some(header) = self.answers.front().copied() {
            if !self.send(&header, &[], port)? {
                return Ok(false);
            }
            self.answers.pop_front();
        }
        let (hub, link) = (Arc::clone(&self.hub), self.link);
        let mut hub = lock(&hub);
        let holds = hub.holds;
        // One frame of each in turn.
        loop {
            let mut any = false;
            for flow in hub.flows.values_mut().filter(|flow| flow.link == link) {
                let Some((header, data)) = flow.next(holds) else { continue };
                if !self.send(&header, &data, port)? {
                    return Ok(false);
                }
                flow.sent(&header);
                any = true;
            }
            if !any {
                return Ok(true);
            }
        }
    }

    fn take(&mut self, payload: &[u8], port: &mut dyn Port) {
        let Some((header, data)) = Header::read(payload) else {
            return port.violation(format!("a frame of {} bytes", payload.len()));
        };
        match header.kind {
            PROBE => {
                lock(&self.hub).probes += 1;
                self.answers.push_back(Header { kind: ALIVE, sequence: header.sequence, ..Header::default() });
            }
            ALIVE => self.alive += 1,
            _ => {
                let taken = lock(&self.hub).take(self.link, &header, data);
                match taken {
                    Ok(answer) => self.answers.extend(answer),
                    Err(text) => port.violation(format!("stream {}: {text}: {header:?}", header.stream)),
                }
            }
        }
    }
}

impl Device for Multiplex {
    fn opened(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let link = self.link;
        lock(&self.hub).primary.get_or_insert(link);
        self.turn(port)
    }

    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let mut payload = Vec::new();
        loop {
            if self.deaf {
                return Ok(());
            }
            let all = self.flush(port)?;
            if !all && self.answers.len() >= WAITING_AT_MOST {
                return Ok(());
            }
            // A part of what there is, so that the answers do not pile up.
            for _ in 0..WAITING_AT_MOST {
                let Some(descriptor) = port.receive(&mut payload)? else {
                    self.flush(port)?;
                    return Ok(());
                };
                if descriptor.kind() == PacketType::IN_BAND {
                    self.take(&payload, port);
                } else {
                    port.violation(format!("{:?} among multiplexed streams", descriptor.kind()));
                }
            }
        }
    }

    fn closed(&mut self) {
        let mut hub = lock(&self.hub);
        if hub.primary == Some(self.link) {
            hub.primary = None;
            hub.flows.clear();
            // Who opens it next counts anew.
            hub.finished.clear();
        }
        // A stream that can move may still come; one that can't is over.
        let link = self.link;
        hub.flows.retain(|_, flow| flow.is_numbered() || flow.link != link);
        self.answers.clear();
    }

    fn deadline(&self) -> Option<Duration> {
        let hub = lock(&self.hub);
        let owes = |flow: &Flow| flow.link == self.link && flow.owes(hub.holds);
        (!self.deaf && !self.full && hub.flows.values().any(owes)).then_some(Duration::ZERO)
    }

    fn command(&mut self, words: &str) -> Result<(), Error> {
        match words {
            "deaf" => self.deaf = true,
            "hold" => lock(&self.hub).holds = true,
            "go" => lock(&self.hub).holds = false,
            "probe" => self.answers.push_back(Header { kind: PROBE, sequence: 7, ..Header::default() }),
            "reset" => {
                let mut hub = lock(&self.hub);
                let here: Vec<u64> =
                    hub.flows.iter().filter(|(_, flow)| flow.link == self.link).map(|(id, _)| *id).collect();
                for id in here {
                    hub.flows.remove(&id);
                    hub.finished.insert(id);
                    let header = Header { kind: RESET, stream: id, sequence: ABORTED, ..Header::default() };
                    self.answers.push_back(header);
                }
            }
            _ => return Err(Error::Nonsense("multiplexed streams take: deaf, hold, go, reset, probe")),
        }
        Ok(())
    }

    /// Numbers of the device, but for `here` (streams on this channel) and `alive` (answers to its questions).
    fn report(&self) -> Vec<(&'static str, u64)> {
        let hub = lock(&self.hub);
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        vec![
            ("streams", count(hub.flows.len())),
            ("here", count(hub.flows.values().filter(|flow| flow.link == self.link).count())),
            ("opened", hub.opened),
            ("moved", hub.moved),
            ("done", hub.done),
            ("received", hub.received),
            ("again", hub.again),
            ("probes", hub.probes),
            ("alive", self.alive),
        ]
    }
}
