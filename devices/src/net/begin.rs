//! From an open channel to an adapter that can be asked: the negotiation over the channel, and the facts.

use super::negotiation::{Action, Agreement, Failure, Input, Negotiation, Wishes};
use super::pages::LongFrames;
use super::queue::Queue;
use super::settings::Settings;
use super::shared::{Region, Shared};
use super::wire::nvsp::{GuestMessage, HostMessage, LONGEST_BYTES, Version, parse};
use super::wire::{WireError, offload::Offloads};
use crate::Error;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use vmbus_channels::{Channel, OutgoingPacket, Wake};
use vmbus_ringbuf::PacketType;

/// What is known of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Facts {
    /// Of the protocol.
    #[serde(serialize_with = "as_text")]
    pub version: Version,
    /// The adapter's Ethernet address.
    pub address: [u8; 6],
    /// Bytes of the longest payload of a frame: what was asked for, if the host and its buffers can.
    pub mtu: u32,
    /// What the host's side does for this guest.
    #[serde(skip)]
    pub offloads: Offloads,
    /// Bytes of the longest packet that the host's side cuts into segments.
    pub longest_segmented: u32,
    /// Queues that the host's side can have.
    pub most_queues: u32,
    /// Parts of the receive buffer, and bytes of each.
    pub receive_parts: (u32, u32),
    /// Sections of the send buffer, and bytes of each.
    pub send_sections: (u32, u32),
}

/// The state of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Link {
    /// Whether there is one.
    pub up: bool,
    /// Its speed in bits a second, if that is known.
    pub bits_per_second: Option<u64>,
}

fn as_text<S: serde::Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(version)
}

/// The conversation about versions and buffers, over a channel.
struct Beginning {
    channel: Channel,
    receive: Option<Region>,
    send: Option<Region>,
    /// Transaction id of the request that waits, and of the next.
    request: u64,
}

/// Agrees with the host on the open channel of an adapter.
///
/// # Errors
/// [`Error::Network`]; [`Error::Channel`].
pub(super) fn begin(
    channel: Channel,
    long: Option<LongFrames>,
    settings: &Settings,
) -> Result<(Queue, Agreement), Error> {
    let mut beginning = Beginning { channel, receive: None, send: None, request: 0 };
    let agreed = beginning.negotiate(settings);
    let Beginning { channel, receive, send, .. } = beginning;
    let agreement = match agreed {
        Ok(agreement) => agreement,
        Err(error) => {
            // In order, so that it can be opened again at once.
            let closed = end(channel, [receive, send]);
            log::debug!(target: "vmbus::net", "closed after a failure: {closed:?}");
            return Err(error);
        }
    };
    let missing = || Error::Network { device: channel.device().to_owned(), failure: Failure::Unexpected("buffers") };
    let (receive, send) = (receive.ok_or_else(missing)?, send.ok_or_else(missing)?);
    let bytes = |bytes| usize::try_from(bytes).unwrap_or(0);
    let shared = Shared::new(
        agreement.version,
        (receive, bytes(agreement.receive_bytes), agreement.parts),
        (send, bytes(agreement.section_bytes), agreement.sections),
        long,
    );
    Ok((Queue::new(channel, Arc::new(shared), 0), agreement))
}

/// Gives the buffers back and closes the channel.
pub(super) fn end(channel: Channel, buffers: [Option<Region>; 2]) -> Result<(), Error> {
    for buffer in buffers.into_iter().flatten() {
        buffer.close()?;
    }
    Ok(channel.close()?)
}

impl Beginning {
    fn negotiate(&mut self, settings: &Settings) -> Result<Agreement, Error> {
        let start = Instant::now();
        let Settings { mtu, receive_bytes, send_bytes, host_timeout, .. } = *settings;
        let mut machine = Negotiation::new(Wishes { mtu, receive_bytes, send_bytes, host_timeout });
        let mut inputs = VecDeque::from([Input::Opened]);
        loop {
            let Some(input) = inputs.pop_front() else {
                let left = machine.deadline().map(|deadline| deadline.saturating_sub(start.elapsed()));
                match self.channel.wait(left)? {
                    Wake::Woken => {
                        let device = self.channel.device().to_owned();
                        return Err(vmbus_channels::Error::Woken { device }.into());
                    }
                    Wake::Packets => inputs.extend(self.answer(machine.version())?.map(Input::Answer)),
                    Wake::TimedOut => {}
                }
                // A host that talks of other things does not stop the clock.
                inputs.push_back(Input::Elapsed);
                continue;
            };
            let (next, actions) = machine.step(start.elapsed(), input);
            machine = next;
            for action in actions {
                match action {
                    Action::Ask(message) => self.send(message, true, settings)?,
                    Action::Tell(message) => self.send(message, false, settings)?,
                    Action::MakeReceive(bytes) => inputs.push_back(made(self.make("recv", bytes)?, &mut self.receive)),
                    Action::MakeSend(bytes) => inputs.push_back(made(self.make("send", bytes)?, &mut self.send)),
                    Action::Agree(agreement) => return Ok(agreement),
                    Action::Fail(failure) => {
                        return Err(Error::Network { device: self.channel.device().to_owned(), failure });
                    }
                }
            }
        }
    }

    fn send(&mut self, message: GuestMessage, answered: bool, settings: &Settings) -> Result<(), Error> {
        let packet = if answered {
            self.request += 1;
            OutgoingPacket::in_band(self.request).with_completion_requested()
        } else {
            OutgoingPacket::in_band(0)
        };
        Ok(self.channel.send(packet, &[&message.to_bytes()], Some(settings.host_timeout))?)
    }

    /// The answer to the request that waits, if it has come.
    fn answer(&mut self, version: Version) -> Result<Option<Result<HostMessage, WireError>>, Error> {
        let (request, mut answer) = (self.request, None);
        self.channel.receive(64, |packet| {
            if packet.kind() == PacketType::COMPLETION && packet.transaction_id() == request && request != 0 {
                let mut copy = [0; LONGEST_BYTES];
                let length = packet.payload().len().min(copy.len());
                let copy = copy.get_mut(..length).unwrap_or_default();
                let copied = packet.payload().copy_part(0, copy);
                answer = Some(parse(if copied.is_ok() { copy } else { &[] }, version));
            }
            Ok::<_, Error>(())
        })?;
        if answer.is_some() {
            // Another answer to it is to nothing.
            self.request += 1;
        }
        Ok(answer)
    }

    /// A buffer to share: the kernel's, if it has made one, or a new one.
    fn make(&self, name: &str, bytes: u32) -> Result<(Region, u32), Error> {
        const PAGE: u32 = 4096;
        let kernel = self.channel.kernel_buffers()?.into_iter().find(|buffer| buffer.name == name);
        if let Some(buffer) = kernel {
            // All of it: the host divides what it knows of.
            let there = u32::try_from(buffer.memory.bytes()).unwrap_or(u32::MAX);
            return Ok((Region::Kernel(buffer), there));
        }
        let bytes = bytes.max(PAGE).next_multiple_of(PAGE);
        Ok((Region::Made(self.channel.create_buffer(bytes)?), bytes))
    }
}

fn made((region, bytes): (Region, u32), place: &mut Option<Region>) -> Input {
    let gpadl = region.gpadl();
    *place = Some(region);
    Input::Made { gpadl, bytes }
}
