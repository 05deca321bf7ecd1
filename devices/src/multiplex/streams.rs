//! The protocol of a group's links: which frame is for which stream.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use vmbus_channels::group::{Carried, Connection, Over, Protocol, Refused};
use vmbus_channels::{IncomingPacket, Offer, Probed};
use vmbus_ringbuf::PacketType;

use super::flow::{Heard, Stage};
use super::pump::{self, Body, Lane, LinkState, Share, enqueue, lock, pump, say};
use super::wire::{HEADER_BYTES, Header, Kind, Reason};

/// All streams of one device.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Until both sides have forgotten them.
    all: Mutex<HashMap<u64, Connection<Carried<Self>>>>,
    last_id: AtomicU64,
}

impl Streams {
    /// A name that no stream has had.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// From now on frames find it.
    pub(super) fn insert(&self, id: u64, connection: Connection<Carried<Self>>) {
        lock(&self.all).insert(id, connection);
    }

    /// No frame finds it any more, and its link is given back.
    pub(super) fn remove(&self, id: u64) {
        let gone = lock(&self.all).remove(&id);
        drop(gone);
    }

    /// Streams that are not forgotten.
    pub(super) fn count(&self) -> usize {
        lock(&self.all).len()
    }

    fn find(&self, id: u64) -> Option<Share> {
        lock(&self.all).get(&id).map(Connection::share)
    }

    /// A frame of a stream.
    fn frame(&self, link: &Lane, header: &Header, data: &[u8]) {
        // One that is forgotten, of which something was under way.
        let Some(share) = self.find(header.stream.get()) else { return };
        let mut flow = share.flow();
        let heard = flow.heard(header, data).unwrap_or_else(|nonsense| {
            log::warn!(target: "vmbus::multiplex", "stream {} is ended: {nonsense}", flow.id());
            Heard { wake: true, send: flow.abort(Reason::NONSENSE), over: false }
        });
        let id = flow.id();
        drop(flow);
        if heard.over {
            self.remove(id);
        }
        if heard.wake {
            share.wake();
        }
        // On this link it is sent with the batch.
        if heard.send
            && let Some(on) = enqueue(&share)
            && !on.is(link)
        {
            pump(&on);
        }
    }
}

impl Protocol for Streams {
    type Link = LinkState;
    type Connection = Body;

    fn link(&self, _offer: &Offer) -> LinkState {
        LinkState::default()
    }

    fn packet(&self, link: &Lane, packet: &IncomingPacket<'_>) {
        let payload = packet.payload();
        let mut first = [0; HEADER_BYTES];
        let header = payload.copy_part(0, &mut first).ok().and_then(|()| Header::parse(&first, payload.len()).ok());
        let Some(header) = header.filter(|_| packet.kind() == PacketType::IN_BAND) else {
            // It is nobody's. A stream that misses it is ended by the next one.
            return log::debug!(target: "vmbus::multiplex", "a packet of {} bytes is no frame", payload.len());
        };
        match header.kind {
            Kind::PROBE => link.state().ask(header.sequence.get()),
            Kind::ALIVE => {}
            _ => {
                let mut scratch = lock(&link.state().scratch);
                scratch.resize(usize::from(header.bytes.get()), 0);
                if payload.copy_part(HEADER_BYTES, &mut scratch).is_ok() {
                    self.frame(link, &header, &scratch);
                }
            }
        }
    }

    fn batch(&self, link: &Lane) {
        pump(link);
    }

    fn room(&self, link: &Lane) {
        pump(link);
    }

    fn probe(&self, link: &Lane) -> Probed {
        pump::probe(link)
    }

    fn moved(&self, share: &Share) {
        say(share);
    }

    fn ended(&self, share: &Share) {
        let why = match share.place() {
            Err(Refused::WasConnected(Over::LinkLost)) => Reason::LOST,
            _ => Reason::ENDED,
        };
        let mut flow = share.flow();
        flow.give_up(why);
        let id = flow.id();
        drop(flow);
        self.remove(id);
        share.wake();
    }

    fn cleared(&self, link: &Lane) {
        link.state().forget();
    }
}

/// Gives a stream up from this side, and tells the other.
pub(super) fn abort(share: &Share, reason: Reason) {
    let mut flow = share.flow();
    let send = flow.abort(reason);
    drop(flow);
    if send {
        share.wake();
        say(share);
    }
}

/// Whether a stream was given up or is over, and why.
pub(super) fn reason(stage: Stage) -> Option<Reason> {
    match stage {
        Stage::Closing(reason) | Stage::Over(reason) => Some(reason),
        Stage::Opening | Stage::Open => None,
    }
}
