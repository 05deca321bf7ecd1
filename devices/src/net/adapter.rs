//! An adapter: its first queue, and everything that is asked of the host and told by it.

use super::begin::{Facts, Link, begin, end};
use super::control::Answer;
use super::negotiation::{Agreement, Failure};
use super::pages::{LongFrames, bytes_of};
use super::queue::Queue;
use super::settings::Settings;
use super::shared::Shared;
use super::wire::nvsp::GuestMessage;
use super::wire::offload::Offloads;
use super::wire::oid::{Oid, PacketFilter};
use super::wire::rndis::{self, Status};
use crate::Error;
use std::collections::VecDeque;
use std::sync::Arc;
use vmbus::direct::DirectMemory;
use vmbus_channels::{Channel, Offer, OutgoingPacket, Vmbus};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

/// Something that the host told without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The link came, went or has another speed.
    Link(Link),
    /// Another network is at the other end: addresses are to be asked for again.
    NetworkChange,
    /// A virtual function of this adapter came or went. This driver stays on the synthetic path.
    VirtualFunction {
        /// It is there.
        allocated: bool,
        /// Which.
        serial: u32,
    },
    /// Something else: an NDIS status.
    Status(u32),
}

/// An adapter. It is its first queue, too: [`queue`](Self::queue).
///
/// Dropping it closes the channel without waiting, and without telling the host to forget the buffers first; long frames
/// that the host has not taken by then may be read by it as whatever is in their place.
///
/// ```no_run
/// use vmbus::class::Class;
/// use vmbus_devices::Error;
/// use vmbus_devices::net::{Adapter, Settings, TransmitInfo};
///
/// # fn run(vmbus: &vmbus_channels::Vmbus) -> Result<(), Error> {
/// let offers = vmbus.of_class(Class::NIC)?;
/// let mut adapter = Adapter::open(vmbus, offers.first().expect("an adapter"), Settings::default())?;
/// println!("{:x?}, MTU {}", adapter.facts().address, adapter.facts().mtu);
/// adapter.start()?;
/// loop {
///     adapter.queue().receive(64, |packet| {
///         println!("{} bytes", packet.frame.len());
///         Ok::<_, Error>(())
///     })?;
///     while let Some(notice) = adapter.notice()? {
///         println!("{notice:?}");
///     }
///     let hello = [&[0xff; 6], adapter.facts().address.as_slice(), &[0x88, 0xb5], &[0; 46]].concat();
///     adapter.queue().send(&[&hello], &TransmitInfo::default(), None)?;
///     adapter.queue().wait(None)?;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Adapter {
    pub(super) queue: Queue,
    pub(super) settings: Settings,
    pub(super) agreement: Agreement,
    pub(super) facts: Facts,
    pub(super) link: Link,
    /// Of the next request.
    pub(super) request: u32,
    pub(super) notices: VecDeque<Notice>,
    /// Requests of the host for a sign of life that wait for room.
    pub(super) alive: VecDeque<u32>,
}

impl Adapter {
    /// Opens an offered adapter, agrees with the host, and asks what there is to know. Frames come when it is
    /// [started](Self::start).
    ///
    /// # Errors
    /// [`Error::Network`] when host and guest don't come to an agreement; [`Error::System`] if the device is of another
    /// class; [`Error::Channel`] as [`Vmbus::open`].
    pub fn open(vmbus: &Vmbus, offer: &Offer, settings: Settings) -> Result<Self, Error> {
        if offer.class != vmbus::class::Class::NIC {
            let what = format!("it is of class {}, not a network adapter", offer.class.title());
            let (device, hint) = (offer.instance.to_string(), "choose a network adapter".to_owned());
            return Err(vmbus::Error::Unsupported { device, what, hint }.into());
        }
        // Before the channel, so that it is there as long as the host may look.
        let pages = match settings.long_frames {
            0 => None,
            places => vmbus.direct_memory(bytes_of(places)).map(Some).unwrap_or_else(|error| {
                log::warn!(target: "vmbus::net", "device {}: no long frames: {error}", offer.instance);
                None
            }),
        };
        Self::over(vmbus.open(offer.id, settings.open.clone())?, pages, settings)
    }

    /// Over an open channel of an adapter, with memory for [long frames](Settings::long_frames), if there is to be some.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn over(channel: Channel, pages: Option<DirectMemory>, settings: Settings) -> Result<Self, Error> {
        let (queue, agreement) = begin(channel, pages.map(LongFrames::new), &settings)?;
        let facts = Facts {
            version: agreement.version,
            address: [0; 6],
            mtu: settings.mtu,
            offloads: Offloads::empty(),
            longest_segmented: 0,
            most_queues: 1,
            receive_parts: (agreement.parts, agreement.part_bytes),
            send_sections: (agreement.sections, agreement.section_bytes),
        };
        let (notices, alive) = (VecDeque::new(), VecDeque::new());
        let mut adapter = Self { queue, settings, agreement, facts, link: Link::default(), request: 0, notices, alive };
        match adapter.learn() {
            Ok(()) => Ok(adapter),
            Err(error) => {
                // In order, so that it can be opened again at once.
                let closed = adapter.end();
                log::debug!(target: "vmbus::net", "closed after a failure: {closed:?}");
                Err(error)
            }
        }
    }

    /// What is known of the adapter.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The link, as the host told last.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }

    /// The first queue.
    #[must_use]
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Lets frames come, those that the settings want.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn start(&mut self) -> Result<(), Error> {
        self.set(Oid::CURRENT_PACKET_FILTER, &self.settings.filter.0.to_le_bytes())
    }

    /// Lets no more frames come.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn stop(&mut self) -> Result<(), Error> {
        self.set(Oid::CURRENT_PACKET_FILTER, &PacketFilter::NONE.0.to_le_bytes())
    }

    /// Asks for something. `value` goes with the question; few need one.
    ///
    /// # Errors
    /// [`Failure::Object`] when the host refuses, [`Failure::Silent`]; the device is gone.
    pub fn query(&mut self, oid: Oid, value: &[u8]) -> Result<Vec<u8>, Error> {
        match self.ask(rndis::GuestMessage::Query(oid, value), "question")? {
            (Status::SUCCESS, Answer::Value(value)) => Ok(value),
            (Status::SUCCESS, Answer::Done) => Err(self.queue.failed(Failure::Unexpected("question"))),
            (status, _) => Err(self.queue.failed(Failure::Object { oid, status: status.0 })),
        }
    }

    /// Asks for a number.
    ///
    /// # Errors
    /// As [`query`](Self::query); [`Failure::Nonsense`] when the answer is no number.
    pub fn query_number(&mut self, oid: Oid) -> Result<u32, Error> {
        let value = self.query(oid, &[])?;
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        let number = U32::read_from_bytes(&value).map(U32::get);
        number.map_err(|_| self.queue.failed(Failure::Nonsense { what: "number", value: length }))
    }

    /// Sets something.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn set(&mut self, oid: Oid, value: &[u8]) -> Result<(), Error> {
        match self.ask(rndis::GuestMessage::Set(oid, value), "setting")? {
            (Status::SUCCESS, _) => Ok(()),
            (status, _) => Err(self.queue.failed(Failure::Object { oid, status: status.0 })),
        }
    }

    /// Asks whether the host is there, and waits for its answer.
    ///
    /// # Errors
    /// [`Failure::Silent`]; the device is gone.
    pub fn probe(&mut self) -> Result<(), Error> {
        self.ask(rndis::GuestMessage::KeepAlive, "sign of life").map(drop)
    }

    /// Looks at what the host has told: the next notice, if there is one. To be called now and then, after
    /// [`Queue::receive`]: it also answers the host when that asks for a sign of life.
    ///
    /// # Errors
    /// The device is gone; the ring is corrupt.
    pub fn notice(&mut self) -> Result<Option<Notice>, Error> {
        self.queue.fill(64)?;
        self.hear(None)?;
        Ok(self.notices.pop_front())
    }

    /// Which queue the host wants a frame with this hash to be sent on, of `queues`.
    #[must_use]
    pub fn queue_of(&self, hash: u32, queues: u32) -> u32 {
        self.queue.shared.queue_of(hash, queues)
    }

    /// Ends it: no more frames, the buffers are forgotten and given back, the channel is closed. Other queues are to be
    /// closed before.
    ///
    /// # Errors
    /// [`vmbus_channels::Error::InUse`] if other queues are left; as [`Channel::close`]. It is closed all the same.
    pub fn close(mut self) -> Result<(), Error> {
        // A host that does not want to hear it hears of the close.
        let asked = self.stop().and_then(|()| {
            self.send_control(&rndis::GuestMessage::Halt.to_bytes(0))?;
            self.revoke()
        });
        if let Err(error) = asked {
            log::debug!(target: "vmbus::net", "device {}: ended without a word: {error}", self.queue.device());
        }
        self.end()
    }

    /// Gives the buffers back, if no other queue uses them, and closes the channel.
    fn end(self) -> Result<(), Error> {
        let Queue { channel, shared, .. } = self.queue;
        let (buffers, pages) = match Arc::try_unwrap(shared) {
            Ok(Shared { receive, send, long, .. }) => ([Some(receive), Some(send)], long),
            Err(_) => ([None, None], None),
        };
        let ended = end(channel, buffers);
        // The host may have looked until now.
        drop(pages);
        ended
    }

    /// Tells the host to forget the buffers.
    fn revoke(&mut self) -> Result<(), Error> {
        for message in [GuestMessage::RevokeReceiveBuffer, GuestMessage::RevokeSendBuffer] {
            let timeout = Some(self.settings.host_timeout);
            self.queue.channel.send(OutgoingPacket::in_band(0), &[&message.to_bytes()], timeout)?;
        }
        Ok(())
    }
}
