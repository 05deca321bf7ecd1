//! Control messages of an adapter: requests and their answers, and what the host tells without being asked.

use super::adapter::{Adapter, Notice};
use super::intake::{Sent, Told};
use super::negotiation::Failure;
use super::wire::nvsp::{ChannelType, GuestMessage, HostMessage as NvspMessage, Status as NvspStatus};
use super::wire::rndis::{self, CONTROL_MOST_BYTES, HostMessage, Status};
use crate::Error;
use std::time::{Duration, Instant};
use vmbus_channels::{OutgoingPacket, Wake};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

/// What waits to be heard, at most; the oldest go.
const NOTICES: usize = 64;
/// How often a wait for an answer looks whether what is to be sent can be.
const SLICE: Duration = Duration::from_millis(10);

/// The answer to a request.
pub(super) enum Answer {
    Value(Vec<u8>),
    Done,
}

impl Adapter {
    /// Sends a control message and waits for its answer. Frames that come meanwhile wait to be received.
    pub(super) fn ask(
        &mut self,
        message: rndis::GuestMessage<'_>,
        what: &'static str,
    ) -> Result<(Status, Answer), Error> {
        self.request = self.request.checked_add(1).unwrap_or(1);
        let (request, bytes) = (self.request, message.to_bytes(self.request));
        let start = Instant::now();
        let mut sent = false;
        loop {
            sent = sent || self.send_control(&bytes)?;
            self.queue.fill(64)?;
            if let Some(answer) = self.hear(Some(request))? {
                return Ok(answer);
            }
            self.pause(start, what, sent)?;
        }
    }

    /// Asks for more channels, by a message that is not RNDIS, and waits for the answer: how many there will be.
    pub(super) fn ask_subchannels(&mut self, count: u32) -> Result<u32, Error> {
        const WHAT: &str = "subchannels";
        let message = GuestMessage::Subchannels(count).to_bytes();
        let start = Instant::now();
        let mut waits = None;
        self.queue.intake.answers.clear();
        loop {
            if waits.is_none() {
                waits = self.send_request(&message)?;
            }
            self.queue.fill(64)?;
            self.hear(None)?;
            match self.queue.intake.answers.pop_back() {
                Some(Ok(NvspMessage::SubchannelComplete { status: NvspStatus::SUCCESS, count: granted })) => {
                    // More than were asked for make no sense, and would never end.
                    let nonsense = Failure::Nonsense { what: WHAT, value: granted.into() };
                    return if granted <= count { Ok(granted) } else { Err(self.queue.failed(nonsense)) };
                }
                Some(Ok(NvspMessage::SubchannelComplete { status, .. })) => {
                    return Err(self.queue.failed(Failure::Refused { what: WHAT, status: status.0 }));
                }
                Some(Ok(_)) => return Err(self.queue.failed(Failure::Unexpected(WHAT))),
                Some(Err(error)) => return Err(self.queue.failed(error.into())),
                None => {}
            }
            if let Err(error) = self.pause(start, WHAT, waits.is_some()) {
                // Its answer is to nothing then.
                waits.and_then(|id| self.queue.intake.sent.cancel(id));
                return Err(error);
            }
        }
    }

    /// Sends a request that is answered in its completion; its transaction id, if there was room.
    fn send_request(&mut self, message: &[u8]) -> Result<Option<u64>, Error> {
        let Some(id) = self.queue.intake.expect(Sent::Request) else { return Ok(None) };
        let packet = OutgoingPacket::in_band(id).with_completion_requested();
        let outcome = self.queue.channel.try_send(packet, &[message]);
        if outcome.is_err() {
            self.queue.intake.sent.cancel(id);
        }
        match outcome {
            Ok(()) => Ok(Some(id)),
            Err(vmbus_channels::Error::Full { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for something to come, or for room if something could not be sent.
    fn pause(&mut self, start: Instant, what: &'static str, sent: bool) -> Result<(), Error> {
        let flushed = self.queue.flush()?;
        let left = self.settings.host_timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(self.queue.failed(Failure::Silent(what)));
        }
        let wait = if sent && flushed { left } else { left.min(SLICE) };
        match self.queue.channel.wait(Some(wait))? {
            Wake::Woken => Err(vmbus_channels::Error::Woken { device: self.queue.device().to_owned() }.into()),
            Wake::Packets | Wake::TimedOut => Ok(()),
        }
    }

    /// Sends a control message, if there is room: in pages, as every other guest does, or in a section of the send buffer
    /// where there are no pages.
    pub(super) fn send_control(&mut self, bytes: &[u8]) -> Result<bool, Error> {
        if self.queue.shared.long.is_some() {
            return self.queue.send_pages(ChannelType::CONTROL, bytes, &[], |place| Sent::LongControl { place });
        }
        self.queue.send_section(ChannelType::CONTROL, &[bytes], |section| Sent::Control { section })
    }

    /// Looks at control messages that have come; the answer to `request`, if it is among them.
    pub(super) fn hear(&mut self, request: Option<u32>) -> Result<Option<(Status, Answer)>, Error> {
        while let Some(Told::VirtualFunction { allocated, serial }) = self.queue.intake.told.pop_front() {
            self.note(Notice::VirtualFunction { allocated, serial });
        }
        let mut answer = None;
        while let Some(held) = self.queue.intake.control.pop_front() {
            for range in &held.ranges {
                let short = usize::try_from(range.byte_count).is_ok_and(|count| count <= CONTROL_MOST_BYTES);
                let message = if short { self.queue.control_message(*range) } else { None };
                match message.map(rndis::parse) {
                    Some(Ok(message)) => {
                        let heard = Heard::from(&message, request);
                        self.act(heard, &mut answer);
                    }
                    _ => self.queue.intake.statistics.malformed += 1,
                }
            }
            self.queue.complete(held);
        }
        self.queue.flush()?;
        while let Some(host_request) = self.alive.front() {
            let bytes = rndis::GuestMessage::KeepAliveComplete.to_bytes(*host_request);
            if !self.send_control(&bytes)? {
                break;
            }
            self.alive.pop_front();
        }
        Ok(answer)
    }

    fn act(&mut self, heard: Heard, answer: &mut Option<(Status, Answer)>) {
        match heard {
            Heard::Answer(status, value) => *answer = Some((status, value)),
            Heard::Link(up, speed) => {
                self.link.up = up.unwrap_or(self.link.up);
                self.link.bits_per_second = speed.map(bits).or(self.link.bits_per_second);
                self.note(Notice::Link(self.link));
            }
            Heard::Notice(notice) => self.note(notice),
            Heard::KeepAlive(request) => {
                if self.alive.len() >= NOTICES {
                    self.alive.pop_front();
                }
                self.alive.push_back(request);
            }
            Heard::Unexpected => self.queue.intake.statistics.unexpected += 1,
        }
    }

    fn note(&mut self, notice: Notice) {
        if self.notices.len() >= NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }
}

/// A control message, taken out of the buffer.
enum Heard {
    Answer(Status, Answer),
    /// Up or down, and a new speed, each if it was told.
    Link(Option<bool>, Option<u32>),
    Notice(Notice),
    KeepAlive(u32),
    Unexpected,
}

impl Heard {
    fn from(message: &HostMessage<'_>, waits: Option<u32>) -> Self {
        match *message {
            HostMessage::InitializeComplete(answer) if waits == Some(answer.request) => {
                Self::Answer(answer.status, Answer::Done)
            }
            HostMessage::QueryComplete { request, status, value } if waits == Some(request) => {
                Self::Answer(status, Answer::Value(value.to_vec()))
            }
            HostMessage::SetComplete { request, status } | HostMessage::KeepAliveComplete { request, status }
                if waits == Some(request) =>
            {
                Self::Answer(status, Answer::Done)
            }
            HostMessage::KeepAlive { request } => Self::KeepAlive(request),
            HostMessage::Indicate { status, value } => match status {
                Status::MEDIA_CONNECT => Self::Link(Some(true), None),
                Status::MEDIA_DISCONNECT => Self::Link(Some(false), None),
                Status::LINK_SPEED_CHANGE => match U32::read_from_prefix(value) {
                    Ok((speed, _)) => Self::Link(None, Some(speed.get())),
                    Err(_) => Self::Unexpected,
                },
                Status::NETWORK_CHANGE => Self::Notice(Notice::NetworkChange),
                Status(other) => Self::Notice(Notice::Status(other)),
            },
            _ => Self::Unexpected,
        }
    }
}

/// Bits a second, of a speed in units of 100.
pub(super) fn bits(speed: u32) -> u64 {
    u64::from(speed) * 100
}
