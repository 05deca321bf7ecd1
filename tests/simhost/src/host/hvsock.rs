//! hvsock connections: TL_CONNECT, and offers of byte pipes that come of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{HostMessage, OfferFlags, Status, Version};

use super::channel::{Completion, State};
use super::{Host, OfferId};
use crate::device::{Device, Mute, Pipe, PipeSettings};
use crate::{DeviceSpec, Error, Memory, ViolationKind};

/// After this long a host takes back a connection that nobody opened.
const UNACCEPTED: Duration = Duration::from_secs(30);

/// The hvsock service that a vsock port is, by the template of Linux' net/vmw_vsock/hyperv_transport.c.
#[must_use]
pub const fn hvsock_service(port: u32) -> Uuid {
    Uuid::from_u128(0xfacb_11e6_bd58_6400_6a79_86d3 | (port as u128) << 96)
}

/// A connection that the guest wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// What the guest calls its end: the instance of the offer to come.
    pub endpoint: Uuid,
    /// What it wants to be connected to.
    pub service: Uuid,
}

/// Makes the device at the host's end of a connection.
trait Maker: Fn() -> Box<dyn Device> + Send + Sync + 'static {}

impl<F: Fn() -> Box<dyn Device> + Send + Sync + 'static> Maker for F {}

/// Gives a device away. Connections are not offered twice, so that nobody asks for another.
fn once(device: Box<dyn Device>) -> impl Maker {
    let device = Mutex::new(Some(device));
    move || device.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(|| Box::new(Mute))
}

impl<M: Memory> Host<M> {
    /// Connects to a service of the guest: offers a channel that the guest is to accept.
    ///
    /// # Errors
    /// [`Error::Full`]; [`Error::Nonsense`] when no guest is connected that knows such channels (4.0).
    pub fn connect(&mut self, service: Uuid, settings: PipeSettings) -> Result<OfferId, Error> {
        self.connect_to(service, move || Box::new(Pipe::new(settings)))
    }

    /// The same, with a device at the host's end.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_with(&mut self, service: Uuid, device: Box<dyn Device>) -> Result<OfferId, Error> {
        self.connect_to(service, once(device))
    }

    fn connect_to(&mut self, service: Uuid, maker: impl Maker) -> Result<OfferId, Error> {
        if !self.connection.protocol.at_least(Version::V4_0) {
            return Err(Error::Nonsense("no guest is connected, or one before version 4.0, which knows no hvsock"));
        }
        let instance = self.random.guid();
        self.connection_offer(service, instance, true, maker)
    }

    /// The next connection that the guest wants to one of [`Config::decided_elsewhere`](crate::Config), for each once.
    /// The guest waits until it is [accepted](Self::accept) or [refused](Self::refuse).
    pub fn next_asked(&mut self) -> Option<Asked> {
        self.connection.asked_anew.pop_front()
    }

    /// Takes a connection that was [asked for](Self::next_asked), with this device at the host's end.
    ///
    /// # Errors
    /// [`Error::NoOffer`] when the guest that asked has gone; [`Error::Full`] and [`Error::Duplicate`], and the guest was
    /// refused.
    pub fn accept(&mut self, asked: Asked, device: Box<dyn Device>) -> Result<OfferId, Error> {
        if !self.connection.asked.remove(&asked) {
            return Err(Error::NoOffer);
        }
        let offered = self.connection_offer(asked.service, asked.endpoint, false, once(device));
        if offered.is_err() {
            self.refused(asked);
        }
        offered
    }

    /// Refuses a connection that was [asked for](Self::next_asked).
    ///
    /// # Errors
    /// [`Error::NoOffer`] when the guest that asked has gone.
    pub fn refuse(&mut self, asked: Asked) -> Result<(), Error> {
        if !self.connection.asked.remove(&asked) {
            return Err(Error::NoOffer);
        }
        self.refused(asked);
        Ok(())
    }

    pub(super) fn tl_connect(&mut self, endpoint: Uuid, service: Uuid, silo: Option<Uuid>) {
        let protocol = self.connection.protocol;
        if !protocol.at_least(Version::V4_0) || silo.is_some() && !protocol.at_least(Version::V5_2) {
            return self.violation(ViolationKind::Unsupported, None, "TL_CONNECT".into());
        }
        let known = self.config.services.contains(&service);
        let asked = Asked { endpoint, service };
        let connections = self.channels.values().filter(|channel| channel.is_connection()).count();
        let connections = connections + self.connection.asked.len();
        if connections >= self.config.limits.connections {
            self.violation(ViolationKind::TooManyConnections, None, format!("{connections} and one more"));
        } else if known {
            let settings = PipeSettings { echoes: true, ..PipeSettings::default() };
            if self.connection_offer(service, endpoint, false, move || Box::new(Pipe::new(settings))).is_ok() {
                return;
            }
        } else if self.config.sinks.contains(&service) {
            if self.connection_offer(service, endpoint, false, || Box::new(Pipe::sink())).is_ok() {
                return;
            }
        } else if self.config.decided_elsewhere.contains(&service) && self.connection.asked.insert(asked) {
            return self.connection.asked_anew.push_back(asked);
        }
        self.refused(asked);
    }

    fn refused(&mut self, Asked { endpoint, service }: Asked) {
        self.counters.refused += 1;
        if self.connection.protocol.at_least(Version::V4_1) {
            let status = Status::CONNECTION_REFUSED;
            self.send(HostMessage::TlConnectResult { endpoint, service, status });
        }
    }

    /// Offers a connection: the class is the service, the instance the other end.
    fn connection_offer(
        &mut self,
        service: Uuid,
        instance: Uuid,
        for_guest_to_accept: bool,
        maker: impl Maker,
    ) -> Result<OfferId, Error> {
        let mut spec = DeviceSpec::new(Class(service), instance, maker);
        spec = spec.with_flags(OfferFlags::TLNPI_PROVIDER | OfferFlags::NAMED_PIPE_MODE);
        // The first four bytes are the kind of pipe: zero, bytes. Then: whether the guest is the one who accepts.
        if let Some(accept) = spec.user_defined.get_mut(4) {
            *accept = u8::from(for_guest_to_accept);
        }
        let id = self.offer(spec)?;
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.passing = true;
        }
        self.wait_for_acceptance(id);
        Ok(id)
    }

    fn wait_for_acceptance(&mut self, id: OfferId) {
        let number = self.number();
        self.pending.insert((self.now + UNACCEPTED, number), Completion::Unaccepted(id));
    }

    /// It was opened: nobody needs to look after it when its time is over, which would keep a timer running until then.
    pub(super) fn accepted(&mut self, id: OfferId) {
        if self.channels.get(&id).is_some_and(|channel| channel.is_connection()) {
            self.pending.retain(|_, waits| !matches!(waits, Completion::Unaccepted(other) if *other == id));
        }
    }

    /// Takes a connection back whose pipe is over. Guests wait for that: Linux keeps a closed socket, and its channel
    /// open, until the host has rescinded it.
    pub(super) fn end_if_over(&mut self, id: OfferId) {
        let Some(channel) = self.channels.get(&id).filter(|channel| channel.is_connection()) else { return };
        let open = matches!(channel.state, State::Open(_));
        let over = open && channel.device.as_ref().is_some_and(|device| device.is_over());
        if over && let Err(error) = self.rescind(id) {
            log::debug!(target: "vmbus::simhost", "a connection that is over stays: {error}");
        }
    }

    pub(super) fn unaccepted(&mut self, id: OfferId) {
        if self.channels.get(&id).is_some_and(|channel| channel.waits) {
            return self.wait_for_acceptance(id);
        }
        let waits = self.channels.get(&id).is_some_and(|channel| matches!(channel.state, State::Offered));
        if waits && let Err(error) = self.rescind(id) {
            log::debug!(target: "vmbus::simhost", "an unaccepted connection stays: {error}");
        }
    }
}
