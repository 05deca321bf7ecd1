//! The writing side of a connection: a stream of bytes and its end, as packets of a channel.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmbus_channels::{OutgoingPacket, Sender};
use vmbus_ringbuf::WriteError;

use super::side::Lends;
use crate::socket::error;
use crate::socket::frame::{self, END_RING_BYTES, HEADER_BYTES, MESSAGE_BYTES};

/// Pieces of a packet: its header, and slices of who writes.
const PIECES: usize = 16;
/// A writer waits until so many bytes fit, or all that it has: smaller packets than that are not worth their header.
const WORTHWHILE_BYTES: usize = 4096;
/// How often a blocked writer looks by itself, as not every host signals that there is room.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The writing side, one writer at a time.
#[derive(Debug)]
pub(super) struct Outbound {
    /// Unless somebody sleeps with it, or it was handed on, at the end.
    sender: Option<Sender>,
    /// Bytes of data in a packet at most: less in a small ring.
    packet_bytes: usize,
    /// The peer was told that nothing more comes.
    end_sent: bool,
    /// Somebody may watch the descriptor for room.
    armed: bool,
}

/// Bytes that are to be written, and how many of them were.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    slices: &'a [IoSlice<'a>],
    /// In the first slice.
    at: usize,
    left: usize,
    written: usize,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(slices: &'a [IoSlice<'a>]) -> Self {
        let left = slices.iter().fold(0_usize, |sum, slice| sum.saturating_add(slice.len()));
        Self { slices, at: 0, left, written: 0 }
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn written(&self) -> usize {
        self.written
    }

    /// The next bytes, at most so many, as pieces behind a header's; how many pieces, and how many bytes.
    fn gather(&self, most: usize, pieces: &mut [&'a [u8]; PIECES]) -> (usize, usize) {
        let (mut count, mut bytes, mut at) = (1, 0, self.at);
        let slices = self.slices;
        for slice in slices {
            let slice: &'a [u8] = slice;
            let rest = slice.get(at..).unwrap_or_default();
            at = 0;
            let piece = rest.get(..most - bytes).unwrap_or(rest);
            if piece.is_empty() {
                continue;
            }
            let Some(place) = pieces.get_mut(count) else { break };
            *place = piece;
            count += 1;
            bytes += piece.len();
            if bytes == most {
                break;
            }
        }
        (count, bytes)
    }

    /// So many bytes are on their way.
    fn advance(&mut self, bytes: usize) {
        self.written += bytes;
        self.left = self.left.saturating_sub(bytes);
        let mut bytes = bytes + self.at;
        while let Some((first, rest)) = self.slices.split_first() {
            if bytes < first.len() {
                break;
            }
            bytes -= first.len();
            self.slices = rest;
        }
        self.at = bytes;
    }
}

impl Outbound {
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender: Some(sender), packet_bytes: MESSAGE_BYTES, end_sent: false, armed: false }
    }

    pub(super) fn sender(&self) -> Option<&Sender> {
        self.sender.as_ref()
    }

    pub(super) fn take_sender(&mut self) -> Option<Sender> {
        self.sender.take()
    }

    /// Who slept with it is back.
    pub(super) fn give_back(&mut self, sender: Sender) {
        self.sender = Some(sender);
    }

    pub(super) fn is_end_sent(&self) -> bool {
        self.end_sent
    }

    /// Writes what there is room for now, and always leaves room for the end.
    ///
    /// # Errors
    /// The peer is gone; the ring is corrupt.
    pub(super) fn put(&mut self, bytes: &mut Bytes<'_>) -> io::Result<()> {
        let Some(sender) = self.sender.as_mut() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let packet_bytes = &mut self.packet_bytes;
        // What an error leaves in the ring is written to nobody.
        let before = *bytes;
        sender
            .send_batch(|batch| {
                while bytes.left() != 0 {
                    let mut pieces: [&[u8]; PIECES] = [&[]; PIECES];
                    let (mut count, mut packet) = bytes.gather(bytes.left().min(*packet_bytes), &mut pieces);
                    let end = usize::try_from(END_RING_BYTES).unwrap_or(0);
                    // A look only: with the end behind it, it would fit.
                    match batch.reserve(OutgoingPacket::in_band(0), HEADER_BYTES + packet + end).map(drop) {
                        Ok(()) => {}
                        Err(WriteError::Full { free, .. }) => {
                            let fits = usize::try_from(frame::data_bytes_in(free)).unwrap_or(0);
                            if fits < packet.min(WORTHWHILE_BYTES) {
                                break;
                            }
                            (count, packet) = bytes.gather(fits.min(packet), &mut pieces);
                        }
                        Err(WriteError::TooLarge { .. }) if *packet_bytes > 8 => {
                            *packet_bytes /= 2;
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                    let header = frame::header(u32::try_from(packet).unwrap_or(0));
                    if let Some(first) = pieces.first_mut() {
                        *first = &header;
                    }
                    batch.push(&OutgoingPacket::in_band(0), pieces.get(..count).unwrap_or_default())?;
                    bytes.advance(packet);
                }
                Ok(())
            })
            .map_err(|error| {
                *bytes = before;
                error::of_channel(error)
            })?;
        if self.armed && bytes.written() != 0 {
            self.disarm();
        }
        Ok(())
    }

    /// Bytes of ring that whoever has so much to write waits for.
    fn needed(&self, left: usize) -> u32 {
        let worthwhile = left.min(WORTHWHILE_BYTES).min(self.packet_bytes);
        frame::ring_bytes(u32::try_from(worthwhile).unwrap_or(0)) + END_RING_BYTES
    }

    /// Asks for a signal when there is room for so much, or what is worthwhile; `true`: there is room already.
    ///
    /// # Errors
    /// The peer is gone.
    pub(super) fn arm(&mut self, left: usize) -> io::Result<bool> {
        let needed = self.needed(left);
        let Some(sender) = self.sender.as_mut() else { return Ok(true) };
        let room = sender.arm(needed).map_err(error::of_channel)?;
        self.armed = !room;
        Ok(room)
    }

    /// Nobody waits for room any more.
    fn disarm(&mut self) {
        self.armed = false;
        if let Some(sender) = self.sender.as_mut() {
            // Takes note of a signal that came, so that the descriptor shows none. An error is said by the next call.
            let _ = sender.arm(0);
            sender.disarm();
        }
    }

    /// Says that nothing more comes, once. There is always room for it.
    pub(super) fn end(&mut self) {
        if std::mem::replace(&mut self.end_sent, true) {
            return;
        }
        if let Some(sender) = self.sender.as_mut() {
            match sender.try_send(OutgoingPacket::in_band(0), &[&frame::header(0)]) {
                Ok(()) => {}
                Err(error) if error.is_rescinded() || error.is_ended() => {}
                Err(error) => log::debug!(target: "vmbus::socket", "the end of a stream was not said: {error}"),
            }
        }
    }
}

impl Lends for Outbound {
    fn is_away(&self) -> bool {
        self.sender.is_none()
    }
}

/// Sleeps until there may be room that was asked for, or somebody wakes it; `false`: the time is over.
///
/// # Errors
/// A system call failed.
pub(super) fn sleep(sender: &Sender, deadline: Option<Instant>) -> io::Result<bool> {
    let now = Instant::now();
    let time = deadline.map_or(LOOK_INTERVAL, |deadline| deadline.saturating_duration_since(now));
    if time.is_zero() {
        return Ok(false);
    }
    let waker = sender.waker();
    let time = Timespec::try_from(time.min(LOOK_INTERVAL)).ok();
    let mut on = [PollFd::new(sender, PollFlags::IN), PollFd::new(&waker, PollFlags::IN)];
    match poll(&mut on, time.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
