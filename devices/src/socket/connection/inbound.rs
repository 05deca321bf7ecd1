//! The reading side of a connection: packets of a channel, as a stream of bytes with an end.

use std::io;
use std::time::{Duration, Instant};

use vmbus_channels::{Error, IncomingPacket, Receiver, Wake};
use vmbus_ringbuf::PacketType;

use super::side::Lends;
use crate::socket::error;
use crate::socket::frame::{self, HEADER_BYTES, NoFrame};

/// Packets looked at in one go: then the space of what was read goes back to the peer.
const PACKETS: usize = 64;

/// The reading side, one reader at a time.
#[derive(Debug)]
pub(super) struct Inbound {
    /// Unless somebody sleeps with it, or it was handed on, at the end.
    receiver: Option<Receiver>,
    /// What is left of a packet of which not all was read.
    left: Vec<u8>,
    /// Where in it the next byte is.
    at: usize,
    /// The peer has said that nothing more comes.
    ended: bool,
    /// What the peer did wrong. Nothing more is read.
    broken: Option<NoFrame>,
}

/// Why the look at packets ended.
enum Stop {
    /// The buffer is full, or this was the end.
    Enough,
    Nonsense(NoFrame),
    Channel(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Channel(error)
    }
}

/// What one look into the ring brought, not yet believed.
#[derive(Default)]
struct Look {
    bytes: usize,
    ended: bool,
}

impl Inbound {
    pub(super) fn new(receiver: Receiver) -> Self {
        Self { receiver: Some(receiver), left: Vec::new(), at: 0, ended: false, broken: None }
    }

    /// Whether the peer's end was read, and everything before it.
    pub(super) fn is_at_end(&self) -> bool {
        self.ended && self.at == self.left.len()
    }

    /// Whether bytes wait here, behind the ring.
    pub(super) fn has_left(&self) -> bool {
        self.at < self.left.len()
    }

    pub(super) fn receiver(&self) -> Option<&Receiver> {
        self.receiver.as_ref()
    }

    pub(super) fn take_receiver(&mut self) -> Option<Receiver> {
        self.receiver.take()
    }

    /// Who slept with it is back.
    pub(super) fn give_back(&mut self, receiver: Receiver) {
        self.receiver = Some(receiver);
    }

    /// Takes what is there now, up to the length of `buffer`. Nothing: there is nothing, or it is the end.
    ///
    /// # Errors
    /// The peer is gone; what it sent makes no sense.
    pub(super) fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from_left = self.peek_left(buffer);
        self.at += from_left;
        if from_left == buffer.len() || self.ended {
            return Ok(from_left);
        }
        let rest = buffer.get_mut(from_left..).unwrap_or_default();
        match self.look(rest) {
            Ok(bytes) => Ok(from_left + bytes),
            // What was read before is not lost; the next call says it again.
            Err(_) if from_left != 0 => Ok(from_left),
            Err(error) => Err(error),
        }
    }

    /// Copies what [`take`](Self::take) would begin with: bytes of one packet.
    ///
    /// # Errors
    /// As there.
    pub(super) fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.has_left() && !self.ended {
            self.look(&mut [])?;
        }
        Ok(self.peek_left(buffer))
    }

    fn peek_left(&self, buffer: &mut [u8]) -> usize {
        let left = self.left.get(self.at..).unwrap_or_default();
        let bytes = left.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..bytes), left.get(..bytes)) {
            to.copy_from_slice(from);
        }
        bytes
    }

    /// Reads packets: into `buffer`, and what does not fit of the last one into `left`, which is empty before.
    fn look(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(broken) = self.broken {
            return Err(error::of_frame(broken));
        }
        let Some(receiver) = self.receiver.as_mut() else { return Ok(0) };
        let left = &mut self.left;
        left.clear();
        self.at = 0;
        let mut look = Look::default();
        let outcome = receiver.receive(PACKETS, |packet| one(packet, buffer, left, &mut look));
        match outcome {
            Ok(_) | Err(Stop::Enough) => {
                self.ended |= look.ended;
                Ok(look.bytes)
            }
            Err(Stop::Nonsense(broken)) => {
                self.broken = Some(broken);
                left.clear();
                // What came before it was sound.
                if look.bytes != 0 { Ok(look.bytes) } else { Err(error::of_frame(broken)) }
            }
            Err(Stop::Channel(why)) => {
                // What was read as the device went may be anything.
                left.clear();
                Err(error::of_channel(why))
            }
        }
    }

    /// Gets ready for the sleep of somebody who watches the descriptor; `true`: there is something already.
    ///
    /// # Errors
    /// The peer is gone.
    pub(super) fn arm(&mut self) -> io::Result<bool> {
        if self.ended || self.has_left() {
            return Ok(true);
        }
        self.receiver.as_mut().map_or(Ok(true), |receiver| receiver.arm().map_err(error::of_channel))
    }
}

impl Lends for Inbound {
    fn is_away(&self) -> bool {
        self.receiver.is_none()
    }
}

/// Sleeps until there is something, or somebody wakes it; `false`: the time is over.
///
/// # Errors
/// The peer is gone.
pub(super) fn sleep(receiver: &mut Receiver, deadline: Option<Instant>) -> io::Result<bool> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left == Some(Duration::ZERO) {
        return Ok(false);
    }
    let woken = receiver.wait(left).map_err(error::of_channel)?;
    Ok(woken != Wake::TimedOut)
}

/// One packet of a pipe.
fn one(packet: &IncomingPacket<'_>, buffer: &mut [u8], left: &mut Vec<u8>, look: &mut Look) -> Result<(), Stop> {
    let payload = packet.payload();
    let short = |_| Stop::Nonsense(NoFrame::Short(payload.len()));
    if packet.kind() != PacketType::IN_BAND {
        return Err(Stop::Nonsense(NoFrame::Packet));
    }
    let mut header = [0; HEADER_BYTES];
    payload.copy_part(0, &mut header).map_err(short)?;
    let bytes = frame::data_bytes(header, payload.len()).map_err(Stop::Nonsense)?;
    if bytes == 0 {
        look.ended = true;
        return Err(Stop::Enough);
    }
    let room = buffer.get_mut(look.bytes..).unwrap_or_default();
    let direct = bytes.min(room.len());
    payload.copy_part(HEADER_BYTES, room.get_mut(..direct).unwrap_or_default()).map_err(short)?;
    look.bytes += direct;
    if direct < bytes {
        left.resize(bytes - direct, 0);
        payload.copy_part(HEADER_BYTES + direct, left).map_err(short)?;
    }
    if look.bytes == buffer.len() { Err(Stop::Enough) } else { Ok(()) }
}
