//! The loop between one component and its host: one thread, a packet at a time.
//!
//! The host has one request under way, and an answer in the ring before it asks again; whoever sends more waits in the
//! ring. At the end the component ends first (what is frozen thaws) and the channel closes second.

use std::time::{Duration, Instant};

use vmbus_channels::{Channel, Error as ChannelError, Offer, OpenOptions, OutgoingPacket, Vmbus, Wake, Waker};
use vmbus_ringbuf::PacketType;

use super::component::{Component, Ending, Profile};
use super::event::{Event, Ignored, Summary};
use super::session::{Outcome, Session};
use super::wire::MAX_MESSAGE_BYTES;
use crate::Error;

/// How a service goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long the host may leave the ring full before an answer is dropped.
    pub host_timeout: Duration,
}

impl Default for Settings {
    /// 30 seconds, as long as Linux gives an answer.
    fn default() -> Self {
        Self { host_timeout: Duration::from_secs(30) }
    }
}

/// One component over the channel of its device.
///
/// Dropping it without [`run`](Self::run) closes the channel.
#[derive(Debug)]
pub struct Service {
    channel: Channel,
    session: Session,
    settings: Settings,
    start: Instant,
}

/// The number of a packet, its type, and how long it is.
type Received = (u64, PacketType, usize);

impl Service {
    /// Opens an offered device.
    ///
    /// # Errors
    /// [`Error::System`] if the device is of another class than the component's; [`Error::Channel`] as [`Vmbus::open`].
    pub fn open(
        vmbus: &Vmbus,
        offer: &Offer,
        component: Box<dyn Component>,
        settings: Settings,
    ) -> Result<Self, Error> {
        let Profile { name, class, .. } = component.profile();
        if offer.class != class {
            let what = format!("it is of class {}, not {}", offer.class.title(), class.title());
            let (device, hint) = (offer.instance.to_string(), format!("choose the device `{name}`"));
            return Err(vmbus::Error::Unsupported { device, what, hint }.into());
        }
        Ok(Self::over(vmbus.open(offer.id, OpenOptions::default())?, component, settings))
    }

    /// Over a channel that is open.
    #[must_use]
    pub fn over(channel: Channel, component: Box<dyn Component>, settings: Settings) -> Self {
        Self { channel, session: Session::new(component), settings, start: Instant::now() }
    }

    /// What stops [`run`](Self::run), from any thread; also before it runs.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.channel.waker()
    }

    /// Serves the host until the waker is used, and tells `observer` of all that happens.
    ///
    /// # Errors
    /// [`Error::Channel`] when the device is gone ([`Error::is_rescinded`]) or the host broke the rings.
    pub fn run(mut self, mut observer: impl FnMut(&Event)) -> Result<Summary, Error> {
        self.start = Instant::now();
        let tell: &mut dyn FnMut(Event) = &mut |event| observer(&event);
        let served = match self.serve(tell) {
            // A stop that came while an answer waited for room.
            Err(ChannelError::Woken { .. }) => Ok(()),
            served => served,
        };
        let ending = if served.is_ok() { Ending::Stopped } else { Ending::Lost };
        self.session.component().ended(ending, tell);
        let Self { channel, session, .. } = self;
        let closed = channel.close();
        served?;
        closed?;
        Ok(session.summary())
    }

    fn serve(&mut self, tell: &mut dyn FnMut(Event)) -> Result<(), ChannelError> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        loop {
            let left = self.time_left();
            match self.channel.wait(left)? {
                Wake::Woken => return Ok(()),
                Wake::Packets => {
                    if let Some(received) = receive(&mut self.channel, &mut buffer)? {
                        self.packet(received, &mut buffer, tell)?;
                    }
                }
                Wake::TimedOut => {}
            }
            self.elapse(tell);
        }
    }

    /// Until the component wants to be called.
    fn time_left(&mut self) -> Option<Duration> {
        let deadline = self.session.component().deadline();
        deadline.map(|deadline| deadline.saturating_sub(self.start.elapsed()))
    }

    fn elapse(&mut self, tell: &mut dyn FnMut(Event)) {
        let now = self.start.elapsed();
        if self.session.component().deadline().is_some_and(|deadline| deadline <= now) {
            self.session.component().elapsed(now, tell);
        }
    }

    fn packet(
        &mut self,
        (number, kind, bytes): Received,
        buffer: &mut [u8],
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), ChannelError> {
        if kind != PacketType::IN_BAND {
            self.session.ignore(Ignored::PacketType(kind.0), tell);
            return Ok(());
        }
        let Some(message) = buffer.get_mut(..bytes) else {
            self.session.ignore(Ignored::Long { bytes }, tell);
            return Ok(());
        };
        if self.session.packet(self.start.elapsed(), message, tell) == Outcome::Answer {
            self.answer(number, message, tell)?;
        }
        let now = self.start.elapsed();
        self.session.component().answered(now, tell);
        Ok(())
    }

    /// Sends an answer. While there is no room, the component's time goes on: what is frozen thaws.
    fn answer(&mut self, number: u64, message: &[u8], tell: &mut dyn FnMut(Event)) -> Result<(), ChannelError> {
        let since = Instant::now();
        loop {
            let left = self.settings.host_timeout.saturating_sub(since.elapsed());
            let timeout = self.time_left().map_or(left, |due| due.min(left));
            match self.channel.send(OutgoingPacket::in_band(number), &[message], Some(timeout)) {
                Err(ChannelError::Stalled { .. }) if !left.is_zero() => self.elapse(tell),
                Err(ChannelError::Stalled { .. } | ChannelError::Packet { .. }) => {
                    self.session.ignore(Ignored::NoRoom, tell);
                    return Ok(());
                }
                sent => return sent,
            }
        }
    }
}

/// The next packet. The bytes are copied once, and all checks are on the copy: the host may change the ring meanwhile.
fn receive(channel: &mut Channel, buffer: &mut [u8]) -> Result<Option<Received>, ChannelError> {
    let mut received = None;
    channel.receive(1, |packet| {
        let payload = packet.payload();
        // Longer than the buffer: nothing is copied, and the length tells.
        let _ = payload.copy_to(buffer);
        received = Some((packet.transaction_id(), packet.kind(), payload.len()));
        Ok::<_, ChannelError>(())
    })?;
    Ok(received)
}
