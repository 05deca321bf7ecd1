//! The echo device: gives back what it gets, as a completion or as a packet, and can ask for completions itself.

use std::collections::{BTreeSet, VecDeque};

use uuid::uuid;
use vmbus::class::Class;
use vmbus_ringbuf::{OutgoingPacket, PacketType, WriteError};

use super::{Device, Port};
use crate::Error;

/// How an echo device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EchoSettings {
    /// Packets that the guest wants no completion for are echoed as packets that want one.
    pub asks: bool,
    /// The guest is interrupted after each turn, data or not.
    pub interrupts_idly: bool,
    /// Packets sent as soon as the channel is open.
    pub greets: u32,
}

/// Answers a packet that wants a completion by one with the same payload, and any other by a packet with the same id
/// and payload. Commands: `send N` (unasked packets), `hold`, `release`, `interrupt`; and what no honest device says:
/// `complete ID` (a completion that nobody waits for), `packet KIND ID` (a packet of any type, with 8 bytes).
#[derive(Debug)]
pub struct Echo {
    settings: EchoSettings,
    waiting: VecDeque<(OutgoingPacket<'static>, Vec<u8>)>,
    asked: BTreeSet<u64>,
    next_id: u64,
    holds: bool,
    interrupt: bool,
    packets: u64,
    bytes: u64,
    completions: u64,
    sent: u64,
}

/// Replies that wait for room before the device stops to read.
const WAITING_AT_MOST: usize = 64;
/// Completions that the device waits for before it stops to ask.
const ASKED_AT_MOST: usize = 4096;

impl Echo {
    /// The class of echo devices: private to this host.
    pub const CLASS: Class = Class(uuid!("5f6563d0-686f-4e2b-9a41-3f2c0bd1e7a6"));

    /// An echo device.
    #[must_use]
    pub fn new(settings: EchoSettings) -> Self {
        Self {
            settings,
            waiting: VecDeque::new(),
            asked: BTreeSet::new(),
            next_id: 1 << 32,
            holds: false,
            interrupt: false,
            packets: 0,
            bytes: 0,
            completions: 0,
            sent: 0,
        }
    }

    /// Sends what waits, as far as there is room. Whether all of it went.
    fn flush(&mut self, port: &mut dyn Port) -> Result<bool, Error> {
        while let Some((packet, payload)) = self.waiting.front() {
            if self.holds {
                return Ok(false);
            }
            match port.send(packet, payload) {
                Ok(()) => self.sent += 1,
                Err(Error::Write(WriteError::Full { .. })) => return Ok(false),
                Err(Error::Write(WriteError::Corrupt(corrupt))) => return Err(corrupt.into()),
                Err(error) => log::debug!(target: "vmbus::simhost", "an echo is dropped: {error}"),
            }
            self.waiting.pop_front();
        }
        Ok(true)
    }

    fn ask(&mut self) -> OutgoingPacket<'static> {
        self.next_id = self.next_id.wrapping_add(1);
        if self.asked.len() >= ASKED_AT_MOST {
            return OutgoingPacket::in_band(self.next_id);
        }
        self.asked.insert(self.next_id);
        OutgoingPacket::in_band(self.next_id).with_completion_requested()
    }

    fn completed(&mut self, id: u64, port: &mut dyn Port) {
        if self.asked.remove(&id) {
            self.completions += 1;
        } else {
            port.violation(format!("completion {id:#x} that nobody asked for"));
        }
    }
}

impl Device for Echo {
    fn opened(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        for number in 0..self.settings.greets {
            let packet = self.ask();
            self.waiting.push_back((packet, number.to_le_bytes().to_vec()));
        }
        self.turn(port)
    }

    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let mut payload = Vec::new();
        while self.flush(port)? || self.waiting.len() < WAITING_AT_MOST {
            let Some(descriptor) = port.receive(&mut payload)? else { break };
            self.packets += 1;
            self.bytes += u64::try_from(payload.len()).unwrap_or(0);
            let id = descriptor.transaction_id();
            if descriptor.kind() == PacketType::COMPLETION {
                self.completed(id, port);
                continue;
            }
            let wants = descriptor.flags() & vmbus_ringbuf::FLAG_COMPLETION_REQUESTED != 0;
            let reply = match (wants, self.settings.asks) {
                (true, _) => OutgoingPacket::completion(id),
                (false, true) => self.ask(),
                (false, false) => OutgoingPacket::in_band(id),
            };
            self.waiting.push_back((reply, std::mem::take(&mut payload)));
        }
        if self.settings.interrupts_idly || std::mem::take(&mut self.interrupt) {
            port.interrupt();
        }
        Ok(())
    }

    fn closed(&mut self) {
        self.waiting.clear();
        self.asked.clear();
        self.holds = false;
    }

    fn command(&mut self, words: &str) -> Result<(), Error> {
        const NONSENSE: Error =
            Error::Nonsense("an echo takes: hold, release, interrupt, send N, complete ID, packet KIND ID");
        let mut words = words.split_ascii_whitespace();
        let (verb, first, second) = (words.next(), words.next(), words.next().map(str::parse::<u64>));
        match (verb, first, second) {
            (Some("complete"), Some(id), None) => {
                let packet = OutgoingPacket::completion(id.parse().map_err(|_| NONSENSE)?);
                self.waiting.push_back((packet, Vec::new()));
                return Ok(());
            }
            (Some("packet"), Some(kind), Some(Ok(id))) => {
                let kind = PacketType(kind.parse().map_err(|_| NONSENSE)?);
                self.waiting.push_back((OutgoingPacket::of_type(kind, id), vec![0; 8]));
                return Ok(());
            }
            (_, _, Some(_)) => return Err(NONSENSE),
            _ => {}
        }
        match (verb, first.map(str::parse::<u32>)) {
            (Some("hold"), None) => self.holds = true,
            (Some("release"), None) => self.holds = false,
            (Some("interrupt"), None) => self.interrupt = true,
            (Some("send"), Some(Ok(count))) if count <= 65_536 => {
                for number in 0..count {
                    let packet = self.ask();
                    self.waiting.push_back((packet, number.to_le_bytes().to_vec()));
                }
            }
            _ => return Err(NONSENSE),
        }
        Ok(())
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("packets", self.packets),
            ("bytes", self.bytes),
            ("completions", self.completions),
            ("sent", self.sent),
            ("asked", u64::try_from(self.asked.len()).unwrap_or(u64::MAX)),
        ]
    }
}
