//! A byte pipe whose bytes go on: what the guest says goes into a `Line`, and what comes out of it goes to the guest.
//!
//! The packets are those of the pipe beside it (`struct vmpipe_proto_header` in Linux' net/vmw_vsock/hyperv_transport.c).

use std::time::Duration;

use vmbus_ringbuf::{OutgoingPacket, PacketType, WriteError};

use super::{Device, Port};
use crate::Error;

/// Bytes of data in one packet at most.
const PACKET_BYTES: usize = 16 * 1024;
/// A guest that has said its end and takes nothing for so long will not take the rest, either.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the header.
const HEADER_BYTES: usize = 8;
/// The type of data.
const DATA: u32 = 1;

/// What came out of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Bytes, at least one.
    Bytes,
    /// Nothing for now.
    Nothing,
    /// Nothing more will come.
    End,
}

/// Where a conduit's bytes go and come from. It holds so much and no more, and never waits.
pub trait Line: Send {
    /// From here on news is what happens after this.
    fn note(&mut self);

    /// Whether something happened that is worth a turn: there is something to take, or room again. Whoever makes that
    /// happen also ends the host's sleep.
    fn has_news(&self) -> bool;

    /// Whether it broke: what would come next is not known, and nobody hears the guest any more.
    fn is_broken(&self) -> bool;

    /// Takes bytes of the guest: how many, from the first on.
    fn give(&mut self, bytes: &[u8]) -> usize;

    /// The guest has said its end, and everything before it was given.
    fn give_end(&mut self);

    /// Appends at most so many bytes for the guest.
    fn take(&mut self, bytes: &mut Vec<u8>, most: usize) -> Taken;

    /// The channel is closed or gone. What was given is there all the same; if there was no end, none will come.
    fn close(&mut self);
}

/// A byte pipe into a line. When the line breaks the connection is taken back, which resets the guest's socket.
pub struct Conduit {
    line: Box<dyn Line>,
    packet_bytes: usize,
    /// The guest's last packet, and from where on the line had no room for it.
    left: Vec<u8>,
    left_at: usize,
    /// Bytes for the guest, and from where on its ring had no room for them.
    waiting: Vec<u8>,
    waiting_at: usize,
    end_received: bool,
    end_given: bool,
    end_taken: bool,
    end_sent: bool,
    broken: bool,
    /// When it is given up, while the guest has said its end and there is no room for the rest of ours.
    gives_up: Option<Duration>,
    received: u64,
    sent: u64,
}

impl Conduit {
    /// A conduit into this line, for one open.
    #[must_use]
    pub fn new(line: Box<dyn Line>) -> Self {
        Self {
            line,
            packet_bytes: PACKET_BYTES,
            left: Vec::new(),
            left_at: 0,
            waiting: Vec::new(),
            waiting_at: 0,
            end_received: false,
            end_given: false,
            end_taken: false,
            end_sent: false,
            broken: false,
            gives_up: None,
            received: 0,
            sent: 0,
        }
    }

    /// Gives the line what it has room for; whether that was everything.
    fn pass_on(&mut self) -> bool {
        while let Some(rest) = self.left.get(self.left_at..).filter(|rest| !rest.is_empty()) {
            match self.line.give(rest) {
                0 => return false,
                given => self.left_at += given,
            }
        }
        if self.end_received && !std::mem::replace(&mut self.end_given, true) {
            self.line.give_end();
        }
        true
    }

    /// Reads what the line has room for, and one packet more.
    fn receive(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        while self.pass_on() {
            let mut payload = std::mem::take(&mut self.left);
            let received = port.receive(&mut payload);
            (self.left, self.left_at) = (payload, usize::MAX);
            let Some(descriptor) = received? else { return Ok(()) };
            if descriptor.kind() == PacketType::IN_BAND {
                self.check(port);
            } else {
                port.violation(format!("{:?} in a pipe", descriptor.kind()));
            }
        }
        Ok(())
    }

    /// Looks at the packet that was just read.
    fn check(&mut self, port: &mut dyn Port) {
        let there = self.left.len();
        let Some((header, data)) = self.left.split_first_chunk::<HEADER_BYTES>() else {
            return port.violation(format!("a pipe packet of {there} bytes"));
        };
        let [a, b, c, d, e, f, g, h] = *header;
        let (kind, bytes) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let length = usize::try_from(bytes).ok().filter(|length| *length <= data.len());
        let (DATA, Some(length)) = (kind, length) else {
            return port.violation(format!("a pipe packet of type {kind} with {bytes} bytes, {there} there"));
        };
        if self.end_received {
            return port.violation("data behind the end".into());
        }
        self.left.truncate(HEADER_BYTES + length);
        self.left_at = HEADER_BYTES;
        self.end_received = length == 0;
        self.received += u64::from(bytes);
    }

    /// Sends what the line has, as far as there is room; then its end.
    fn send(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let mut packet = Vec::new();
        while !self.end_sent && !self.broken {
            if self.waiting_at >= self.waiting.len() && !self.end_taken {
                self.waiting.clear();
                self.waiting_at = 0;
                match self.line.take(&mut self.waiting, PACKET_BYTES) {
                    Taken::Bytes => {}
                    Taken::Nothing => return Ok(()),
                    Taken::End => self.end_taken = true,
                }
                continue;
            }
            let rest = self.waiting.get(self.waiting_at..).unwrap_or_default();
            let data = rest.get(..self.packet_bytes).unwrap_or(rest);
            packet.clear();
            packet.extend_from_slice(&DATA.to_le_bytes());
            packet.extend_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_le_bytes());
            packet.extend_from_slice(data);
            let bytes = data.len();
            match port.send(&OutgoingPacket::in_band(0), &packet) {
                Ok(()) => {
                    self.gives_up = None;
                    self.end_sent = bytes == 0;
                    self.waiting_at += bytes;
                    self.sent += u64::try_from(bytes).unwrap_or(0);
                }
                Err(Error::Write(WriteError::Full { .. })) => {
                    self.wait_for_room(port.now());
                    return Ok(());
                }
                // A small ring: smaller packets.
                Err(Error::Write(WriteError::TooLarge { .. })) if self.packet_bytes > 64 => self.packet_bytes /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The ring is full. A guest that still speaks may take its time; one that is done with us may be gone.
    fn wait_for_room(&mut self, now: Duration) {
        if self.end_received {
            let until = *self.gives_up.get_or_insert(now.saturating_add(PATIENCE));
            self.broken |= now >= until;
        }
    }
}

impl Device for Conduit {
    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        self.line.note();
        // Also when all was said from there: the guest may go on, and nobody hears it.
        self.broken |= self.line.is_broken();
        if self.broken {
            return Ok(());
        }
        self.send(port)?;
        self.receive(port)
    }

    fn closed(&mut self) {
        self.gives_up = None;
        self.line.close();
    }

    fn is_over(&self) -> bool {
        self.broken || self.end_given && self.end_sent
    }

    fn deadline(&self) -> Option<Duration> {
        if self.line.has_news() { Some(Duration::ZERO) } else { self.gives_up.filter(|_| !self.broken) }
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("received", self.received),
            ("sent", self.sent),
            ("end_received", u64::from(self.end_received)),
            ("end_sent", u64::from(self.end_sent)),
        ]
    }
}

impl Drop for Conduit {
    fn drop(&mut self) {
        self.line.close();
    }
}
