//! One channel of a controller: packets out under a lock, packets in on its dispatcher.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmbus_channels::dispatch::Ending;
use vmbus_channels::{Dispatched, Handler, IncomingPacket, Offer, OpenOptions, OutgoingPacket, Vmbus};
use vmbus_ringbuf::{MultiPageBuffer, PacketType};

use super::requests::{Begun, LOOKED_AT, PRIMARY, Requests};
use super::{Failure, Settings};
use crate::Error;

/// Bytes of an outgoing ring that are no data: its control page, and what is never filled.
const NO_ROOM_BYTES: u32 = 4096 + 64;
/// How long a full ring is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// One channel. It may have ended: then sending fails.
#[derive(Debug)]
pub(super) struct Link {
    sender: Mutex<Sender>,
}

#[derive(Debug)]
enum Sender {
    Opening,
    Open(Dispatched),
    /// It could not be opened, was closed, or is a subchannel that the host took back.
    Closed,
}

impl Sender {
    fn take(&mut self) -> Option<Dispatched> {
        match std::mem::replace(self, Self::Closed) {
            Self::Open(channel) => Some(channel),
            Self::Opening | Self::Closed => None,
        }
    }
}

/// What a packet is made of.
pub(super) struct Parcel<'a> {
    pub(super) bytes: &'a [u8],
    /// Pages of its data, by their numbers, and bytes of data.
    pub(super) pages: Option<(&'a [u64], u32)>,
}

impl Parcel<'_> {
    fn packet(&self, id: u64) -> OutgoingPacket<'_> {
        let packet = match self.pages {
            Some((page_frames, byte_count)) => {
                let buffer = MultiPageBuffer { page_frames, byte_offset: 0, byte_count };
                OutgoingPacket::gpa_direct_multi_page(id, buffer)
            }
            None => OutgoingPacket::in_band(id),
        };
        packet.with_completion_requested()
    }

    /// Bytes of ring that it takes.
    pub(super) fn ring_bytes(&self) -> u32 {
        let bytes = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        u32::try_from(self.packet(1).ring_bytes(bytes)).unwrap_or(u32::MAX)
    }
}

impl Link {
    /// Opens an offered channel as the next one of the controller's.
    pub(super) fn open(
        vmbus: &Vmbus,
        offer: &Offer,
        (requests, number): (&Arc<Requests>, usize),
        settings: &Settings,
        processor: u32,
    ) -> Result<Arc<Self>, Error> {
        let options = OpenOptions {
            outgoing_bytes: settings.outgoing_bytes,
            incoming_bytes: settings.incoming_bytes,
            processor,
            ..OpenOptions::default()
        };
        let link = Arc::new(Self { sender: Mutex::new(Sender::Opening) });
        let ear = Ear { requests: Arc::clone(requests), number, link: Arc::clone(&link) };
        let channel = vmbus.open_dispatched(offer.id, options, ear)?;
        let mut sender = link.lock();
        // It may be over already.
        if matches!(*sender, Sender::Opening) {
            *sender = Sender::Open(channel);
        }
        drop(sender);
        Ok(link)
    }

    /// One that could not be opened.
    pub(super) fn closed() -> Arc<Self> {
        Arc::new(Self { sender: Mutex::new(Sender::Closed) })
    }

    /// Bytes of packets that its ring has room for.
    pub(super) fn room(settings: &Settings) -> u32 {
        settings.outgoing_bytes.saturating_sub(NO_ROOM_BYTES)
    }

    /// Sends the packet of a request that has its place. If it can't, the request is no more.
    pub(super) fn send(
        &self,
        requests: &Requests,
        (begun, what): (&Begun, &'static str),
        parcel: &Parcel<'_>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let sent = match &mut *self.lock() {
                Sender::Open(channel) => channel.try_send(parcel.packet(begun.id), &[parcel.bytes]),
                Sender::Opening | Sender::Closed => return requests.lost(begun, what),
            };
            match sent {
                Ok(()) => return Ok(()),
                // Rings that a kernel made may be smaller than what was asked for.
                Err(vmbus_channels::Error::Full { .. }) if Instant::now() < deadline => requests.wait_room(FULL_PAUSE),
                Err(vmbus_channels::Error::Full { .. }) => {
                    requests.unsent(begun.id, false);
                    return Err(requests.failed(Failure::Busy { what, waited: start.elapsed() }));
                }
                Err(error @ vmbus_channels::Error::Packet { .. }) => {
                    requests.unsent(begun.id, false);
                    return Err(error.into());
                }
                // Of a subchannel: it is sent again through another.
                Err(error) if error.is_rescinded() && begun.link != PRIMARY => return requests.lost(begun, what),
                Err(error) => {
                    requests.unsent(begun.id, true);
                    return Err(error.into());
                }
            }
        }
    }

    /// Closes the channel, and waits until the host has let go of it. Does nothing if it is closed already.
    pub(super) fn close(&self) -> Result<(), Error> {
        let channel = self.lock().take();
        Ok(channel.map_or(Ok(()), Dispatched::close)?)
    }

    fn lock(&self) -> MutexGuard<'_, Sender> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears what comes through one channel.
struct Ear {
    requests: Arc<Requests>,
    number: usize,
    link: Arc<Link>,
}

impl Handler for Ear {
    fn packet(&mut self, packet: &IncomingPacket<'_>) {
        let mut bytes = [0; LOOKED_AT];
        let payload = packet.payload();
        let Some(copy) = bytes.get_mut(..payload.len().min(LOOKED_AT)) else { return };
        if payload.copy_part(0, copy).is_err() {
            return self.requests.malformed();
        }
        match (packet.kind(), packet.transaction_id()) {
            (PacketType::COMPLETION, id) => self.requests.completed(self.number, id, copy),
            (PacketType::IN_BAND, 0) => self.requests.said(copy),
            _ => self.requests.malformed(),
        }
    }

    fn ended(&mut self, why: Ending) {
        self.requests.ended(self.number, why);
        // The host gets a subchannel back at once: nobody may need it for long. The controller is its owner's to close.
        if why == Ending::Rescinded && self.number != PRIMARY {
            let channel = self.link.lock().take();
            drop(channel);
        }
    }
}
