//! Frames and control messages on their way to the host: a section of the send buffer, or pages of their own.

use super::intake::Sent;
use super::negotiation::{Failure, longest_frame};
use super::queue::{BUDGET, Queue, SLICE};
use super::wire::info::TransmitInfo;
use super::wire::nvsp::{ChannelType, GuestMessage};
use super::wire::rndis::packet_header;
use crate::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmbus_channels::{OutgoingPacket, Wake};

impl Queue {
    /// Sends a frame if there is room for it now: a section of the send buffer, and a few bytes of ring. `false`: there
    /// is not; [`receive`](Self::receive) or [`wait`](Self::wait) first. The frame is the concatenation of the slices, from
    /// the destination's address on.
    ///
    /// # Errors
    /// [`Failure::TooLong`]; the device is gone; the ring is corrupt.
    pub fn try_send(&mut self, frame: &[&[u8]], info: &TransmitInfo) -> Result<bool, Error> {
        let bytes: usize = frame.iter().map(|part| part.len()).sum();
        let most = self.longest_frame();
        let Some(length) = u32::try_from(bytes).ok().filter(|_| bytes <= most) else {
            return Err(self.failed(Failure::TooLong { bytes, most }));
        };
        let (header, header_bytes) = packet_header(bytes, info);
        let header = header.get(..header_bytes).unwrap_or_default();
        if bytes > longest_frame(self.shared.section_bytes) {
            let sent = |place| Sent::LongFrame { place, bytes: length };
            let sent = self.send_pages(ChannelType::DATA, header, frame, sent)?;
            self.intake.statistics.transmit_busy += u64::from(!sent);
            return Ok(sent);
        }
        let mut parts = [header; 8];
        let in_parts = parts.get_mut(1..=frame.len());
        let sent = |section| Sent::Frame { section, bytes: length };
        let sent = match in_parts {
            Some(places) => {
                places.copy_from_slice(frame);
                let parts = parts.get(..=frame.len()).unwrap_or_default();
                self.send_section(ChannelType::DATA, parts, sent)
            }
            None => self.send_section(ChannelType::DATA, &[header, &frame.concat()], sent),
        }?;
        if !sent {
            self.intake.statistics.transmit_busy += 1;
        }
        Ok(sent)
    }

    /// Sends a frame, waiting for room up to `timeout`, or without limit if it is `None`. Frames that come meanwhile wait
    /// to be received.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send); [`vmbus_channels::Error::Stalled`] after `timeout`, and
    /// [`vmbus_channels::Error::Woken`].
    pub fn send(&mut self, frame: &[&[u8]], info: &TransmitInfo, timeout: Option<Duration>) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            if self.try_send(frame, info)? {
                return Ok(());
            }
            self.fill(BUDGET)?;
            if self.try_send(frame, info)? {
                return Ok(());
            }
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            if left == Some(Duration::ZERO) {
                let device = self.device().to_owned();
                let needed = u32::try_from(self.shared.section_bytes).unwrap_or(u32::MAX);
                return Err(vmbus_channels::Error::Stalled { device, needed, waited: start.elapsed() }.into());
            }
            // The ring may be what is full, and then nothing need come.
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            if self.channel.wait(Some(slice))? == Wake::Woken {
                return Err(vmbus_channels::Error::Woken { device: self.device().to_owned() }.into());
            }
        }
    }

    /// Puts a message into a section of the send buffer and tells the host. `false`: there is no room now.
    pub(super) fn send_section(
        &mut self,
        channel: ChannelType,
        parts: &[&[u8]],
        sent: impl FnOnce(u32) -> Sent,
    ) -> Result<bool, Error> {
        let Some(section) = self.shared.sections.take() else { return Ok(false) };
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        let fits = self.shared.fill_section(section, parts);
        let Some((id, length)) =
            fits.then(|| Some((self.intake.expect(sent(section))?, u32::try_from(bytes).ok()?))).flatten()
        else {
            self.shared.sections.give(section);
            return if fits { Ok(false) } else { Err(self.too_long(bytes)) };
        };
        let message = GuestMessage::Rndis { channel, section: Some((section, length)) }.to_bytes();
        let outcome = self.channel.try_send(OutgoingPacket::in_band(id).with_completion_requested(), &[&message]);
        if outcome.is_err() {
            self.intake.sent.cancel(id);
            self.shared.sections.give(section);
        }
        match outcome {
            Ok(()) => Ok(true),
            Err(vmbus_channels::Error::Full { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a message into pages of its own and tells the host which. `false`: there is no room now.
    pub(super) fn send_pages(
        &mut self,
        channel: ChannelType,
        header: &[u8],
        rest: &[&[u8]],
        sent: impl FnOnce(u32) -> Sent,
    ) -> Result<bool, Error> {
        let shared = Arc::clone(&self.shared);
        let Some(long) = &shared.long else { return Ok(false) };
        let Some(place) = long.places.take() else { return Ok(false) };
        self.gathered.clear();
        self.gathered.extend_from_slice(header);
        rest.iter().for_each(|part| self.gathered.extend_from_slice(part));
        let filled = long.fill(place, &self.gathered);
        let Some(((pages, count), id)) = filled.and_then(|pages| Some((pages, self.intake.expect(sent(place))?)))
        else {
            long.places.give(place);
            return Ok(false);
        };
        let message = GuestMessage::Rndis { channel, section: None }.to_bytes();
        let pages = pages.get(..count).unwrap_or_default();
        let packet = OutgoingPacket::gpa_direct_pages(id, pages).with_completion_requested();
        let outcome = self.channel.try_send(packet, &[&message]);
        if outcome.is_err() {
            self.intake.sent.cancel(id);
            long.places.give(place);
        }
        match outcome {
            Ok(()) => Ok(true),
            Err(vmbus_channels::Error::Full { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn too_long(&self, bytes: usize) -> Error {
        self.failed(Failure::TooLong { bytes, most: self.shared.section_bytes })
    }
}
