//! The byte pipe of hvsock: packets whose payload is a header {type, bytes} and that many bytes.
//!
//! Format: `struct vmpipe_proto_header` in Linux' net/vmw_vsock/hyperv_transport.c: type 1 is data; no bytes of data
//! is the end of what that side sends.

use std::collections::VecDeque;
use std::time::Duration;

use uuid::uuid;
use vmbus::class::Class;
use vmbus_ringbuf::{OutgoingPacket, PacketType, WriteError};

use super::{Device, Port};
use crate::Error;

/// How a byte pipe behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeSettings {
    /// What the guest sends is sent back; its end is answered by ours.
    pub echoes: bool,
    /// Bytes in one packet at most.
    pub packet_bytes: usize,
}

impl Default for PipeSettings {
    fn default() -> Self {
        Self { echoes: false, packet_bytes: 16 * 1024 }
    }
}

/// Bytes that wait to be sent before the device stops to read.
const WAITING_AT_MOST: usize = 256 * 1024;
/// A guest that has said its end and takes nothing for so long will not take the rest, either.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the header.
const HEADER_BYTES: usize = 8;
/// The type of data.
const DATA: u32 = 1;

/// A pipe of bytes, both ways. Commands: `send N` (bytes of a pattern: each is its place modulo 251), `end`, and `stop` and
/// `go`, between which nothing is read.
#[derive(Debug)]
pub struct Pipe {
    settings: PipeSettings,
    /// The guest's end is answered by ours, also where nothing is sent back.
    answers_end: bool,
    /// Whether there is a checksum.
    sums: bool,
    /// The packet that is looked at; kept, so that not each needs memory of its own.
    packet: Vec<u8>,
    waiting: VecDeque<u8>,
    end_wanted: bool,
    end_sent: bool,
    end_received: bool,
    /// When it is given up, while the guest has said its end and there is no room for the rest of ours.
    gives_up: Option<Duration>,
    given_up: bool,
    /// Nothing is read for now.
    stopped: bool,
    received: u64,
    sent: u64,
    /// Bytes asked for by `send`, not made yet.
    pattern_left: u64,
    pattern_at: u64,
    /// A sum over all bytes received, each times its place: order matters.
    checksum: u64,
}

impl Pipe {
    /// The class of byte pipes that are offered like any device: private to this host.
    pub const CLASS: Class = Class(uuid!("9d1f7c52-41e3-4c0e-8e57-b1a6f0c2d983"));

    /// A pipe that waits.
    #[must_use]
    pub fn new(settings: PipeSettings) -> Self {
        Self {
            settings,
            answers_end: settings.echoes,
            sums: true,
            packet: Vec::new(),
            waiting: VecDeque::new(),
            end_wanted: false,
            end_sent: false,
            end_received: false,
            gives_up: None,
            given_up: false,
            stopped: false,
            received: 0,
            sent: 0,
            pattern_left: 0,
            pattern_at: 0,
            checksum: 0,
        }
    }

    /// A pipe that takes whatever it is sent, and answers the end of it by its own. It has no checksum: that would take
    /// more time than all else.
    #[must_use]
    pub fn sink() -> Self {
        Self { answers_end: true, sums: false, ..Self::new(PipeSettings::default()) }
    }

    /// Makes pattern bytes for the next packets.
    fn make(&mut self) {
        while self.pattern_left != 0 && self.waiting.len() < self.settings.packet_bytes {
            self.waiting.push_back(u8::try_from(self.pattern_at % 251).unwrap_or(0));
            self.pattern_at += 1;
            self.pattern_left -= 1;
        }
    }

    /// Sends what there is room for; then the end, if it was asked for.
    fn flush(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        loop {
            self.make();
            let end = self.waiting.is_empty();
            if end && (!self.end_wanted || self.end_sent) {
                return Ok(());
            }
            let bytes = self.waiting.len().min(self.settings.packet_bytes.max(1));
            let [kind, length] = [DATA, u32::try_from(bytes).unwrap_or(0)].map(u32::to_le_bytes);
            let (first, second) = self.waiting.as_slices();
            let from_first = first.len().min(bytes);
            let first = first.get(..from_first).unwrap_or_default();
            let second = second.get(..bytes - from_first).unwrap_or_default();
            match port.send_pieces(&OutgoingPacket::in_band(0), &[&kind, &length, first, second]) {
                Ok(()) => self.gives_up = None,
                Err(Error::Write(WriteError::Full { .. })) => {
                    self.wait_for_room(port.now());
                    return Ok(());
                }
                Err(Error::Write(WriteError::TooLarge { .. })) if self.settings.packet_bytes > 64 => {
                    // A small ring: smaller packets.
                    self.settings.packet_bytes /= 2;
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.waiting.drain(..bytes);
            self.sent += u64::try_from(bytes).unwrap_or(0);
            self.end_sent |= end;
        }
    }

    /// The ring is full. A guest that still speaks may take its time; one that is done with us may be gone.
    fn wait_for_room(&mut self, now: Duration) {
        if self.end_received {
            let until = *self.gives_up.get_or_insert(now.saturating_add(PATIENCE));
            self.given_up |= now >= until;
        }
    }

    fn take(&mut self, payload: &[u8], port: &mut dyn Port) -> Result<(), Error> {
        let Some((header, data)) = payload.split_first_chunk::<HEADER_BYTES>() else {
            port.violation(format!("a pipe packet of {} bytes", payload.len()));
            return Ok(());
        };
        let [a, b, c, d, e, f, g, h] = *header;
        let (kind, bytes) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let data = usize::try_from(bytes).ok().and_then(|bytes| data.get(..bytes));
        let (DATA, Some(data)) = (kind, data) else {
            port.violation(format!("a pipe packet of type {kind} with {bytes} bytes, {} there", payload.len()));
            return Ok(());
        };
        if self.end_received {
            port.violation("data behind the end".into());
            return Ok(());
        }
        self.end_received = data.is_empty();
        if self.sums {
            self.add_up(data);
        }
        self.received += u64::try_from(data.len()).unwrap_or(0);
        self.end_wanted |= self.answers_end && self.end_received;
        if self.settings.echoes && !data.is_empty() && !self.echoed_at_once(data, port)? {
            self.waiting.extend(data);
        }
        Ok(())
    }

    /// Adds to the checksum what comes behind what was received.
    fn add_up(&mut self, data: &[u8]) {
        let mut at = self.received;
        // In pieces whose sums fit 32 bits, which is what a processor adds many of at a time.
        for piece in data.chunks(256) {
            let sum: u32 = piece.iter().map(|byte| u32::from(*byte)).sum();
            let weighted: u32 = (0_u32..).zip(piece).map(|(place, byte)| place * u32::from(*byte)).sum();
            self.checksum = self.checksum.wrapping_add(at.wrapping_mul(u64::from(sum)));
            self.checksum = self.checksum.wrapping_add(u64::from(weighted));
            at += u64::try_from(piece.len()).unwrap_or(0);
        }
    }

    /// Sends data back from where it is, if nothing waits before it, it is no more than a packet may have, and there is
    /// room; whether it went.
    fn echoed_at_once(&mut self, data: &[u8], port: &mut dyn Port) -> Result<bool, Error> {
        if !self.waiting.is_empty() || self.pattern_left != 0 || data.len() > self.settings.packet_bytes {
            return Ok(false);
        }
        let [kind, length] = [DATA, u32::try_from(data.len()).unwrap_or(0)].map(u32::to_le_bytes);
        match port.send_pieces(&OutgoingPacket::in_band(0), &[&kind, &length, data]) {
            Ok(()) => {
                self.sent += u64::try_from(data.len()).unwrap_or(0);
                Ok(true)
            }
            // What waits sees to it.
            Err(Error::Write(WriteError::Full { .. } | WriteError::TooLarge { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Pipe {
    /// A whole turn, with room for a packet.
    fn all(&mut self, packet: &mut Vec<u8>, port: &mut dyn Port) -> Result<(), Error> {
        self.flush(port)?;
        while !self.stopped && self.waiting.len() < WAITING_AT_MOST {
            let Some(descriptor) = port.receive(packet)? else { break };
            if descriptor.kind() == PacketType::IN_BAND {
                self.take(packet, port)?;
            } else {
                port.violation(format!("{:?} in a pipe", descriptor.kind()));
            }
            self.flush(port)?;
        }
        Ok(())
    }
}

impl Device for Pipe {
    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let mut packet = std::mem::take(&mut self.packet);
        let outcome = self.all(&mut packet, port);
        self.packet = packet;
        outcome
    }

    fn opened(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let Self { pattern_left, end_wanted, answers_end, sums, .. } = *self;
        // What was said before is for this open; what was counted is not.
        *self = Self { pattern_left, end_wanted, answers_end, sums, ..Self::new(self.settings) };
        self.turn(port)
    }

    fn closed(&mut self) {
        // The numbers stay, for whoever wants to know what came of it.
        self.waiting.clear();
        (self.pattern_left, self.end_wanted, self.gives_up) = (0, false, None);
    }

    fn is_over(&self) -> bool {
        self.given_up || self.end_received && self.end_sent
    }

    fn deadline(&self) -> Option<Duration> {
        self.gives_up.filter(|_| !self.given_up)
    }

    fn command(&mut self, words: &str) -> Result<(), Error> {
        let mut words = words.split_ascii_whitespace();
        match (words.next(), words.next().map(str::parse::<u64>)) {
            (Some("end"), None) => self.end_wanted = true,
            (Some("stop"), None) => self.stopped = true,
            (Some("go"), None) => self.stopped = false,
            (Some("send"), Some(Ok(bytes))) => self.pattern_left = self.pattern_left.saturating_add(bytes),
            _ => return Err(Error::Nonsense("a pipe takes: send N, end, stop, go")),
        }
        Ok(())
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("received", self.received),
            ("sent", self.sent),
            ("checksum", self.checksum),
            ("end_received", u64::from(self.end_received)),
            ("end_sent", u64::from(self.end_sent)),
        ]
    }
}
