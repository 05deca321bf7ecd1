//! One channel of an adapter and its frames: sections out, ranges in, completions both ways.

use super::bytes;
use super::intake::{Held, Intake};
use super::negotiation::{Failure, longest_frame};
use super::pages::LONGEST_FRAME;
use super::shared::Shared;
use super::statistics::Statistics;
use super::wire::nvsp::{GuestMessage, LONGEST_BYTES, Status, parse};
use super::wire::rndis::{self, HostMessage, Packet};
use crate::Error;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmbus_channels::{Channel, IncomingPacket, OutgoingPacket, Wake, Waker};
use vmbus_ringbuf::{PacketType, WriteError};

/// Packets taken out of the ring in one go.
pub(super) const BUDGET: usize = 256;
/// How long a wait for room lasts before what has come meanwhile is looked at.
pub(super) const SLICE: Duration = Duration::from_millis(10);

/// One channel of an adapter. Each can be on a thread of its own; they share the buffers.
///
/// Whoever has it must [`receive`](Self::receive) now and then also when it only sends: the host's completions come that
/// way, and with them sections to send from.
#[derive(Debug)]
pub struct Queue {
    pub(super) channel: Channel,
    pub(super) intake: Intake,
    pub(super) shared: Arc<Shared>,
    index: u16,
    scratch: Vec<u8>,
    /// A long frame, in one piece.
    pub(super) gathered: Vec<u8>,
}

impl Queue {
    pub(super) fn new(channel: Channel, shared: Arc<Shared>, index: u16) -> Self {
        Self { intake: Intake::new(&shared), channel, shared, index, scratch: Vec::new(), gathered: Vec::new() }
    }

    /// Which queue: 0 is the adapter's own.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// What was counted.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.intake.statistics
    }

    /// Something that ends a wait from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.channel.waker()
    }

    /// The device, as errors call it.
    #[must_use]
    pub fn device(&self) -> &str {
        self.channel.device()
    }

    /// As [`Channel::set_busy_poll`].
    pub fn set_busy_poll(&mut self, busy_poll: Duration) {
        self.channel.set_busy_poll(busy_poll);
    }

    /// Bytes of the longest frame that can be sent.
    #[must_use]
    pub fn longest_frame(&self) -> usize {
        let long = if self.shared.long.is_some() { LONGEST_FRAME } else { 0 };
        longest_frame(self.shared.section_bytes).max(long)
    }

    /// Frames and requests that the host has not completed.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.intake.sent.len()
    }

    /// Takes what has come, gives up to about `budget` frames to `each`, in order, and completes their packets. Returns how
    /// many frames there were.
    ///
    /// # Errors
    /// The device is gone; the ring is corrupt. What `each` returns, which ends it; the packet counts as received.
    pub fn receive<E: From<Error>>(
        &mut self,
        budget: usize,
        mut each: impl FnMut(&Packet<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.fill(BUDGET)?;
        let mut frames = 0;
        let mut outcome = Ok(());
        while outcome.is_ok() && frames < budget {
            let Some(held) = self.intake.next() else { break };
            let read;
            (read, outcome) = self.read(&held, &mut each);
            frames += read;
            self.complete(held);
        }
        self.flush()?;
        outcome.map(|()| frames)
    }

    /// The next packet of the host, to be read and completed later; `None` if there is none now.
    ///
    /// # Errors
    /// The device is gone; the ring is corrupt.
    pub fn take(&mut self) -> Result<Option<Held>, Error> {
        if !self.intake.has_frames() {
            self.fill(BUDGET)?;
        }
        Ok(self.intake.next())
    }

    /// Gives the frames of a packet to `each`, and returns how many there were.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn frames<E>(&mut self, held: &Held, mut each: impl FnMut(&Packet<'_>) -> Result<(), E>) -> Result<usize, E> {
        let (frames, outcome) = self.read(held, &mut each);
        outcome.map(|()| frames)
    }

    /// Gives a packet back to the host. It is told with the next [`receive`](Self::receive), [`wait`](Self::wait) or
    /// [`flush`](Self::flush).
    pub fn complete(&mut self, held: Held) {
        self.intake.complete(held.transaction, Status::SUCCESS);
    }

    /// Sends completions as far as there is room. Whether all went.
    ///
    /// # Errors
    /// The device is gone; the ring is corrupt.
    pub fn flush(&mut self) -> Result<bool, Error> {
        let mut sent = 0;
        let intake = &self.intake;
        let all = self.channel.send_batch(|batch| {
            for (transaction, status) in intake.completions() {
                let message = GuestMessage::RndisComplete(status).completion();
                match batch.push(&OutgoingPacket::completion(transaction), &[&message]) {
                    Ok(()) => sent += 1,
                    Err(WriteError::Full { .. }) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            Ok(true)
        })?;
        self.intake.completed(sent);
        if !all {
            self.intake.statistics.completions_delayed += 1;
        }
        Ok(all)
    }

    /// Sleeps until there is something to receive, a [`Waker`] is used, or the time is over; `None` is no limit.
    ///
    /// # Errors
    /// The device is gone; a system call failed.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, Error> {
        let start = Instant::now();
        loop {
            if self.intake.has_frames() {
                return Ok(Wake::Packets);
            }
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            if self.flush()? {
                return Ok(self.channel.wait(left)?);
            }
            // Room for completions is what is waited for, too: the host can't go on without them.
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            match self.channel.wait(Some(slice))? {
                Wake::TimedOut if left.is_none_or(|left| !left.is_zero()) => {}
                wake => return Ok(wake),
            }
        }
    }

    /// Gets ready for a sleep in somebody else's event loop: `true`: do not sleep, [`receive`](Self::receive) first. See
    /// [`Channel::arm`]. Completions that find no room are sent the next time: do not sleep for long then.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn arm(&mut self) -> Result<bool, Error> {
        self.flush()?;
        Ok(self.intake.has_frames() || self.channel.arm()?)
    }

    /// Closes the channel.
    ///
    /// # Errors
    /// As [`Channel::close`].
    pub fn close(self) -> Result<(), Error> {
        let Self { channel, .. } = self;
        Ok(channel.close()?)
    }

    /// Takes up to `budget` packets out of the ring.
    pub(super) fn fill(&mut self, budget: usize) -> Result<usize, Error> {
        let Self { channel, intake, shared, .. } = self;
        channel.receive(budget, |packet| {
            take(intake, shared, packet);
            Ok::<_, Error>(())
        })
    }

    /// Reads the messages of a packet: how many frames there were, and what became of them.
    fn read<E>(&mut self, held: &Held, each: &mut impl FnMut(&Packet<'_>) -> Result<(), E>) -> (usize, Result<(), E>) {
        let Self { shared, scratch, intake, .. } = self;
        let statistics = &mut intake.statistics;
        let mut frames = 0;
        for range in &held.ranges {
            match message(shared, *range, scratch).map(rndis::parse) {
                Some(Ok(HostMessage::Packet(packet))) => {
                    frames += 1;
                    statistics.received_frames += 1;
                    statistics.received_bytes += u64::try_from(packet.frame.len()).unwrap_or(0);
                    statistics.received_bad_checksums += u64::from(packet.info.checksum.is_some_and(|sums| sums.bad()));
                    if let Err(error) = each(&packet) {
                        return (frames, Err(error));
                    }
                }
                Some(Ok(_)) => statistics.unexpected += 1,
                Some(Err(_)) | None => statistics.malformed += 1,
            }
        }
        (frames, Ok(()))
    }

    /// A copy of a control message of the host, if it is short enough to be one.
    pub(super) fn control_message(&mut self, range: vmbus_ringbuf::TransferPageRange) -> Option<&[u8]> {
        message(&self.shared, range, &mut self.scratch)
    }

    pub(super) fn failed(&self, failure: Failure) -> Error {
        Error::Network { device: self.device().to_owned(), failure }
    }
}

impl AsFd for Queue {
    /// As that of a channel.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Copies what a range of the receive buffer has.
fn message<'a>(shared: &Shared, range: vmbus_ringbuf::TransferPageRange, scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let (offset, count) = (usize::try_from(range.byte_offset).ok()?, usize::try_from(range.byte_count).ok()?);
    bytes::read(shared.receive.memory(), offset, count, scratch)
}

/// Sorts a packet of the host.
fn take(intake: &mut Intake, shared: &Shared, packet: &IncomingPacket<'_>) {
    let payload = packet.payload();
    let mut copy = [0; LONGEST_BYTES];
    // What is longer than any message is looked at as far as a message goes.
    let length = payload.len().min(copy.len());
    let copy = copy.get_mut(..length).unwrap_or_default();
    if payload.copy_part(0, copy).is_err() {
        intake.statistics.malformed += 1;
        return;
    }
    match packet.kind() {
        PacketType::TRANSFER_PAGES => match packet.transfer_pages() {
            Ok(pages) => {
                let (id, message, set) = (packet.transaction_id(), parse(copy, shared.version), pages.pageset());
                intake.transfer(shared, id, message, set, pages);
            }
            Err(_) => intake.statistics.malformed += 1,
        },
        PacketType::COMPLETION => intake.completion(shared, packet.transaction_id(), copy),
        PacketType::IN_BAND => intake.in_band(shared, copy),
        _ => intake.statistics.unexpected += 1,
    }
}
