//! hvsock connections: TL_CONNECT, and offers of byte pipes that come of it.

use std::time::Duration;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{HostMessage, OfferFlags, Status, Version};

use super::channel::{Completion, State};
use super::{Host, OfferId};
use crate::device::{Pipe, PipeSettings};
use crate::{DeviceSpec, Error, Memory, ViolationKind};

/// After this long a host takes back a connection that nobody opened.
const UNACCEPTED: Duration = Duration::from_secs(30);

/// The hvsock service that a vsock port is, by the template of Linux' net/vmw_vsock/hyperv_transport.c.
#[must_use]
pub const fn hvsock_service(port: u32) -> Uuid {
    Uuid::from_u128(0xfacb_11e6_bd58_6400_6a79_86d3 | (port as u128) << 96)
}

impl<M: Memory> Host<M> {
    /// Connects to a service of the guest: offers a channel that the guest is to accept.
    ///
    /// # Errors
    /// [`Error::Full`]; [`Error::Nonsense`] when no guest is connected that knows such channels (4.0).
    pub fn connect(&mut self, service: Uuid, settings: PipeSettings) -> Result<OfferId, Error> {
        if !self.connection.protocol.at_least(Version::V4_0) {
            return Err(Error::Nonsense("no guest is connected, or one before version 4.0, which knows no hvsock"));
        }
        let instance = self.random.guid();
        self.connection_offer(service, instance, true, settings)
    }

    pub(super) fn tl_connect(&mut self, endpoint: Uuid, service: Uuid, silo: Option<Uuid>) {
        let protocol = self.connection.protocol;
        if !protocol.at_least(Version::V4_0) || silo.is_some() && !protocol.at_least(Version::V5_2) {
            return self.violation(ViolationKind::Unsupported, None, "TL_CONNECT".into());
        }
        let known = self.config.services.contains(&service);
        let connections = self.channels.values().filter(|channel| channel.is_connection()).count();
        if connections >= self.config.limits.connections {
            self.violation(ViolationKind::TooManyConnections, None, format!("{connections} and one more"));
        } else if known {
            let settings = PipeSettings { echoes: true, ..PipeSettings::default() };
            if self.connection_offer(service, endpoint, false, settings).is_ok() {
                return;
            }
        }
        self.counters.refused += 1;
        if protocol.at_least(Version::V4_1) {
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
        settings: PipeSettings,
    ) -> Result<OfferId, Error> {
        let mut spec = DeviceSpec::new(Class(service), instance, move || Box::new(Pipe::new(settings)));
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
