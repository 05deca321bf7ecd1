//! The model host: it answers, offers and takes back, and now and then it raves.

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{
    ConnectionState, Features, GpadlId, HostMessage, MessageError, OfferFlags, Status, Version, VersionResponse,
};
use vmbus_channels::control::Input;

use super::ghost::Ask;
use super::world::{RELIDS, Verdict, World};
use super::{offer, offered, subchannel};

impl World {
    pub(super) fn host_answers(&mut self) -> Verdict {
        let Some(ask) = self.random.pick(&self.ghost.asks).copied() else { return Ok(()) };
        if self.random.once_in(self.faults.silent) {
            return Ok(());
        }
        let answer = self.answer(ask);
        if self.random.once_in(self.faults.twice) {
            self.say(answer.clone())?;
        }
        self.say(answer)
    }

    /// What a host says to that.
    fn answer(&mut self, ask: Ask) -> HostMessage {
        let refuse = self.random.once_in(self.faults.refuse);
        let status = if refuse { Status::UNSUCCESSFUL } else { Status::SUCCESS };
        let state = if refuse { ConnectionState::FAILED_UNKNOWN } else { ConnectionState::SUCCESSFUL };
        match ask {
            Ask::Contact(version) => HostMessage::VersionResponse(VersionResponse {
                supported: version <= self.speaks,
                state,
                selected: 4,
                features: (version >= Version::V6_0).then_some(Features::all()),
            }),
            Ask::Offers => HostMessage::AllOffersDelivered,
            Ask::Gpadl(relid, gpadl) => HostMessage::GpadlCreated { relid, gpadl, status },
            Ask::Open(relid, open_id) => HostMessage::OpenResult { relid, open_id, status },
            Ask::Teardown(gpadl) => HostMessage::GpadlTorndown { gpadl },
            Ask::Move(relid) => HostMessage::ModifyChannelResponse { relid, status },
            Ask::CloseReserved(relid) => HostMessage::CloseReservedResponse { relid },
            Ask::Unload => HostMessage::UnloadResponse,
            Ask::Socket(endpoint, service) if refuse => {
                HostMessage::TlConnectResult { endpoint, service, status: Status::CONNECTION_REFUSED }
            }
            Ask::Socket(endpoint, service) => {
                let mut offer = offer(self.relid());
                (offer.class, offer.instance, offer.flags) = (Class(service), endpoint, OfferFlags::TLNPI_PROVIDER);
                offered(offer)
            }
            Ask::Modify => HostMessage::ModifyConnectionResponse { state },
            Ask::Pause => HostMessage::PauseResponse,
        }
    }

    fn relid(&mut self) -> u32 {
        1 + u32::try_from(self.random.below(RELIDS as usize)).unwrap_or(0)
    }

    pub(super) fn host_offers(&mut self) -> Verdict {
        let mut relid = self.relid();
        if self.ghost.relids.contains_key(&relid) && !self.random.once_in(8) {
            // An honest host offers a number that is free.
            let free = |relid: &u32| !self.ghost.relids.contains_key(relid);
            relid = (1..=RELIDS).find(free).unwrap_or(relid);
        }
        let message = match self.random.below(12) {
            0 => offer(*self.random.pick(&[0, 2048, u32::MAX]).unwrap_or(&0)),
            1..4 => {
                let device = u128::from(self.relid());
                let index = u16::try_from(1 + self.random.below(2)).unwrap_or(1);
                subchannel(relid, device, index)
            }
            // The same device under another number.
            4 => subchannel(relid, u128::from(self.relid()), 0),
            _ => offer(relid),
        };
        self.say(offered(message))
    }

    pub(super) fn host_rescinds(&mut self) -> Verdict {
        let relid = self.relid();
        self.say(HostMessage::Rescind { relid })
    }

    /// What no honest host says: old answers again, and answers to nothing.
    pub(super) fn host_raves(&mut self) -> Verdict {
        if !self.random.once_in(self.faults.stale.div_ceil(4)) {
            return Ok(());
        }
        if !self.random.once_in(4) {
            let again = self.random.pick(&self.said).cloned();
            return again.map_or(Ok(()), |message| self.feed(Input::Message(message)));
        }
        let relid = self.relid();
        let number = u32::try_from(self.random.below(40)).unwrap_or(0);
        let status = Status::SUCCESS;
        let message = match self.random.below(8) {
            7 => return self.feed(Input::Malformed(MessageError::Unknown { kind: number })),
            0 => HostMessage::GpadlTorndown { gpadl: GpadlId(number) },
            1 => HostMessage::GpadlCreated { relid, gpadl: GpadlId(number), status },
            2 => HostMessage::OpenResult { relid, open_id: number, status },
            3 => HostMessage::ModifyChannelResponse { relid, status },
            4 => HostMessage::CloseReservedResponse { relid },
            5 => HostMessage::AllOffersDelivered,
            _ => HostMessage::TlConnectResult { endpoint: Uuid::nil(), service: Uuid::nil(), status },
        };
        self.feed(Input::Message(message))
    }
}
