//! A device that reads and writes the guest's shared buffers when it is told to, so that both ends can compare.
//!
//! A request is 32 bytes, little-endian: operation (4 bytes), GPADL (4), offset (8), bytes (8), seed (8); the answer is a
//! completion of 16: status (8), sum (8). Private to this host.

use uuid::uuid;
use vmbus::class::Class;
use vmbus_ringbuf::{OutgoingPacket, PacketType, WriteError};

use super::{Device, Port};
use crate::Error;

/// Bytes that are read or written at one request, at most.
const MOST: u64 = 1 << 20;
/// Bytes that are copied in one go.
const PIECE: usize = 64 * 1024;

/// The answer is in the second word.
const DONE: u64 = 0;
/// The buffer has no such bytes, or there is none.
const NOT_THERE: u64 = 1;
/// The request makes no sense.
const NONSENSE: u64 = 2;

/// Reads and writes buffers. Operation 1 fills bytes with words that follow from the seed; 2 sums up the words that are
/// there. `word` and `sum` say how.
#[derive(Debug, Default)]
pub struct Buffers {
    /// An answer for which there was no room.
    waiting: Option<(u64, [u8; 16])>,
    filled: u64,
    summed: u64,
    refused: u64,
}

impl Buffers {
    /// The class that kernels make buffers for: a network adapter's, which this is not.
    pub const CLASS: Class = Class(uuid!("f8615163-df3e-46c5-913f-f2d2f965ed0e"));

    /// Word `place` of what `seed` stands for.
    #[must_use]
    pub fn word(seed: u64, place: u64) -> u64 {
        seed.wrapping_add(place).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    }

    /// The sum of all words so far and of one more.
    #[must_use]
    pub fn sum(before: u64, word: u64) -> u64 {
        before.rotate_left(5).wrapping_add(word)
    }

    fn answer(&mut self, request: &[u8], port: &dyn Port) -> (u64, u64) {
        let done = Request::parse(request).map(|request| (request.carry_out(port), request));
        match done {
            Some((Some(sum), request)) => {
                let counter = if request.fills { &mut self.filled } else { &mut self.summed };
                *counter += request.bytes;
                (DONE, sum)
            }
            Some((None, _)) => {
                self.refused += 1;
                (NOT_THERE, 0)
            }
            None => {
                self.refused += 1;
                (NONSENSE, 0)
            }
        }
    }

    /// Sends the answer that waits. Whether there is none any more.
    fn flush(&mut self, port: &mut dyn Port) -> Result<bool, Error> {
        let Some((id, answer)) = &self.waiting else { return Ok(true) };
        match port.send(&OutgoingPacket::completion(*id), answer) {
            Ok(()) => self.waiting = None,
            Err(Error::Write(WriteError::Full { .. })) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
struct Request {
    fills: bool,
    gpadl: u32,
    offset: u64,
    bytes: u64,
    seed: u64,
}

impl Request {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |place: usize| {
            let bytes = bytes.get(place * 8..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let (operation, gpadl) = (word(0)? & 0xffff_ffff, word(0)? >> 32);
        let request = Self {
            fills: operation == 1,
            gpadl: u32::try_from(gpadl).ok()?,
            offset: word(1)?,
            bytes: word(2)?,
            seed: word(3)?,
        };
        let whole = request.bytes.is_multiple_of(8) && request.bytes <= MOST;
        (whole && (operation == 1 || operation == 2)).then_some(request)
    }

    /// The sum of all words that were written or read; `None` when they are not there.
    fn carry_out(self, port: &dyn Port) -> Option<u64> {
        let (mut sum, mut place, mut piece) = (0, 0, Vec::with_capacity(PIECE));
        while place * 8 < self.bytes {
            let bytes = usize::try_from(self.bytes - place * 8).ok()?.min(PIECE);
            let offset = self.offset.checked_add(place * 8)?;
            piece.clear();
            piece.resize(bytes, 0);
            if self.fills {
                let (words, _) = piece.as_chunks_mut::<8>();
                (place..).zip(words).for_each(|(place, word)| *word = Buffers::word(self.seed, place).to_le_bytes());
            }
            let there = match self.fills {
                true => port.write_gpadl(self.gpadl, offset, &piece),
                false => port.read_gpadl(self.gpadl, offset, &mut piece),
            };
            if !there {
                return None;
            }
            let (words, _) = piece.as_chunks::<8>();
            sum = words.iter().fold(sum, |sum, word| Buffers::sum(sum, u64::from_le_bytes(*word)));
            place += u64::try_from(words.len()).ok()?;
        }
        Some(sum)
    }
}

impl Device for Buffers {
    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let mut payload = Vec::new();
        while self.flush(port)? {
            let Some(descriptor) = port.receive(&mut payload)? else { break };
            if descriptor.kind() != PacketType::IN_BAND {
                port.violation(format!("{:?} to the buffers", descriptor.kind()));
                continue;
            }
            let (status, sum) = self.answer(&payload, port);
            let mut answer = [0; 16];
            let (first, second) = answer.split_at_mut(8);
            first.copy_from_slice(&status.to_le_bytes());
            second.copy_from_slice(&sum.to_le_bytes());
            self.waiting = Some((descriptor.transaction_id(), answer));
        }
        Ok(())
    }

    fn closed(&mut self) {
        self.waiting = None;
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![("filled", self.filled), ("summed", self.summed), ("refused", self.refused)]
    }
}
