//! What an adapter is asked for at the begin, and what of the answers is believed.

use super::adapter::Adapter;
use super::begin::Link;
use super::control::bits;
use super::negotiation::{FRAME_HEADER_BYTES, Failure};
use super::wire::nvsp::Version;
use super::wire::offload::{self, Offloads};
use super::wire::oid::Oid;
use super::wire::rndis::{self, Status};
use super::wire::scale;
use crate::Error;

impl Adapter {
    /// Asks for everything that there is to know. What the host does not say is left out, but for its begin and the
    /// address.
    pub(super) fn learn(&mut self) -> Result<(), Error> {
        let (status, _) = self.ask(rndis::GuestMessage::Initialize, "begin of RNDIS")?;
        if status != Status::SUCCESS {
            return Err(self.queue.failed(Failure::Refused { what: "begin of RNDIS", status: status.0 }));
        }
        self.offload()?;
        let address = self.query(Oid::PERMANENT_ADDRESS, &[])?;
        let nonsense = |value| Failure::Nonsense { what: "address", value };
        self.facts.address = address
            .as_slice()
            .try_into()
            .map_err(|_| self.queue.failed(nonsense(u64::try_from(address.len()).unwrap_or(u64::MAX))))?;
        let most = self.optional(|adapter| adapter.query_number(Oid::MAXIMUM_FRAME_SIZE))?.unwrap_or(u32::MAX);
        let fits = u32::try_from(self.queue.longest_frame()).unwrap_or(u32::MAX).saturating_sub(FRAME_HEADER_BYTES);
        // A host that names fewer than any IP needs is not believed, as by the kernel's driver.
        let most = if most < 68 { u32::MAX } else { most };
        self.facts.mtu = self.settings.mtu.min(most).min(fits);
        let status = self.optional(|adapter| adapter.query_number(Oid::MEDIA_CONNECT_STATUS))?;
        let speed = self.optional(|adapter| adapter.query_number(Oid::LINK_SPEED))?;
        self.link = Link { up: status.is_none_or(|status| status == 0), bits_per_second: speed.map(bits) };
        if self.agreement.version >= Version::V5 {
            let queues = self.optional(|adapter| {
                let value = adapter.query(Oid::RECEIVE_SCALE_CAPABILITIES, &scale::query())?;
                scale::parse_queues(&value).map_err(|error| adapter.queue.failed(error.into()))
            })?;
            self.facts.most_queues = queues.unwrap_or(1).max(1);
        }
        Ok(())
    }

    /// Agrees on what the host's side does.
    fn offload(&mut self) -> Result<(), Error> {
        let ndis = self.agreement.version.ndis();
        let can = self.optional(|adapter| {
            let value = adapter.query(Oid::OFFLOAD_CAPABILITIES, &offload::query(ndis))?;
            Offloads::parse(&value).map_err(|error| adapter.queue.failed(error.into()))
        })?;
        let Some((can, longest)) = can else { return Ok(()) };
        let (wanted, short) = (can & self.settings.offloads, self.agreement.version <= Version::V4);
        let wanted = if short { wanted - (Offloads::TRANSMIT_UDP_V4 | Offloads::TRANSMIT_UDP_V6) } else { wanted };
        let set = self.optional(|adapter| adapter.set(Oid::OFFLOAD_PARAMETERS, &wanted.to_parameters(short)))?;
        if set.is_some() {
            (self.facts.offloads, self.facts.longest_segmented) = (wanted, longest);
        }
        Ok(())
    }

    /// What may fail because the host does not know it, or answers nonsense; not because it is gone or silent.
    fn optional<T>(&mut self, what: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<Option<T>, Error> {
        match what(self) {
            Ok(value) => Ok(Some(value)),
            Err(Error::Network { failure: failure @ Failure::Silent(_), device }) => {
                Err(Error::Network { device, failure })
            }
            Err(error @ Error::Network { .. }) => {
                log::debug!(target: "vmbus::net", "{error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
