//! Offers: built step by step, visible only when complete; whatever goes wrong, the number is given back.

use vmbus::message::{GuestMessage, OfferChannel, OfferFlags};

use super::channel::{Channel, State};
use super::logging::{complain, note};
use super::table::Table;
use super::{Action, Core};
use crate::mutation::{self, Mutation, OfferStep};
use crate::{Announcement, ChannelId, Offer};

/// Why an offer does not become a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turned {
    BadRelid,
    Unwanted,
    Orphan,
    Duplicate,
    Full,
    Failed(OfferStep),
}

impl Core {
    /// The host offers a channel.
    pub(super) fn on_offer(&mut self, offer: &OfferChannel, out: &mut Vec<Action>) {
        let relid = offer.relid;
        if !self.connection.takes_offers() {
            self.counters.unexpected += 1;
            complain!(self, "relid {relid}: offered while the connection is {}", self.connection.name());
            return;
        }
        if let Some(id) = self.table.at_relid(relid) {
            self.counters.duplicate_offers += 1;
            complain!(self, "relid {relid} channel {id}: offered again before it was released; ignored");
            return;
        }
        match self.build(offer, out) {
            Ok(id) => {
                self.counters.offers += 1;
                let class = offer.class;
                note!(self, "relid {relid} channel {id}: offered, {} {}", class.title(), offer.instance);
                self.publish(id, out);
            }
            Err(why) => self.turn_down(relid, why, out),
        }
    }

    /// Builds all of a channel, or nothing.
    fn build(&mut self, offer: &OfferChannel, out: &mut Vec<Action>) -> Result<ChannelId, Turned> {
        fail_at(OfferStep::Begin)?;
        let primary = self.judge(offer)?;
        let relid = offer.relid;
        let id = self.table.insert(|id| Channel::new(describe(offer, id, primary))).ok_or(Turned::Full)?;
        if mutation::is(Mutation::VisibleBeforeBuilt) {
            self.publish(id, out);
        }
        let rest = self.build_rest(relid, id);
        if rest.is_err() && !mutation::is(Mutation::KeepHalfBuilt) {
            self.unlink(id);
            self.table.free(id);
        }
        rest.map(|()| id)
    }

    fn build_rest(&mut self, relid: u32, id: ChannelId) -> Result<(), Turned> {
        fail_at(OfferStep::Slot)?;
        self.table.bind_relid(relid, id);
        fail_at(OfferStep::Relid)?;
        let device = self.table.get(id).map(Channel::device);
        if let Some(device) = device {
            self.table.bind_device(device, id);
        }
        fail_at(OfferStep::Device)?;
        fail_at(OfferStep::Built)
    }

    /// Whether the offer can become a channel, and of which primary channel it is a part.
    fn judge(&self, offer: &OfferChannel) -> Result<Option<ChannelId>, Turned> {
        if !Table::is_relid(offer.relid) {
            return Err(Turned::BadRelid);
        }
        let is_socket = offer.flags.contains(OfferFlags::TLNPI_PROVIDER);
        if let Some(allowed) = &self.limits.allowed
            && !is_socket
            && !allowed.contains(&offer.class)
        {
            return Err(Turned::Unwanted);
        }
        if self.table.device(&(offer.class, offer.instance, offer.subchannel_index)).is_some() {
            return Err(Turned::Duplicate);
        }
        if offer.subchannel_index == 0 {
            return Ok(None);
        }
        // A primary channel that was rescinded is no longer found: its subchannels are on their way out, too.
        self.table.device(&(offer.class, offer.instance, 0)).map(Some).ok_or(Turned::Orphan)
    }

    /// An offer that does not become a channel: its number is the host's again.
    fn turn_down(&mut self, relid: u32, why: Turned, out: &mut Vec<Action>) {
        self.counters.refused_offers += 1;
        let counter = match why {
            Turned::BadRelid => &mut self.counters.bad_relids,
            Turned::Unwanted => &mut self.counters.unwanted_offers,
            Turned::Orphan => &mut self.counters.orphan_subchannels,
            Turned::Duplicate => &mut self.counters.duplicate_devices,
            Turned::Full => &mut self.counters.table_full,
            Turned::Failed(_) => &mut self.counters.failed_offers,
        };
        *counter += 1;
        complain!(self, "relid {relid}: offer turned down: {why:?}");
        if !mutation::is(Mutation::ForgetFailedOffer) {
            self.post(GuestMessage::RelidReleased { relid }, out);
        }
    }

    /// Tells everybody of a channel that is complete.
    fn publish(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id) else { return };
        channel.announced = true;
        let offer = channel.offer.clone();
        out.push(Action::Announce(Announcement::Arrived(offer.clone())));
        self.connected(&offer, out);
    }

    /// The shell could not make a channel visible: nobody has heard of it, and it is given back.
    pub(super) fn on_announce_failed(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id).filter(|channel| channel.announced) else {
            self.counters.stale_references += 1;
            return;
        };
        channel.announced = false;
        channel.condemned = true;
        let (relid, device, state) = (channel.relid(), channel.device(), channel.state.clone());
        self.counters.failed_announcements += 1;
        complain!(self, "relid {relid} channel {id}: could not be made visible");
        self.table.unbind_device(&device, id);
        if mutation::is(Mutation::ForgetFailedAnnouncement) {
            self.unlink(id);
            self.table.free(id);
            return;
        }
        match state {
            State::Offered => self.leave_if_condemned(id, out),
            State::Open => self.drain(id, out),
            _ => {}
        }
    }

    /// Gives back a channel that could not be made visible, now that it is not open.
    pub(super) fn leave_if_condemned(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id).filter(|channel| channel.condemned) else { return };
        channel.state = State::Departed;
        self.finish(id, out);
    }

    /// Takes a channel out of both indexes, where it is in them.
    pub(super) fn unlink(&mut self, id: ChannelId) {
        let Some(channel) = self.table.get(id) else { return };
        let (relid, device) = (channel.relid(), channel.device());
        self.table.unbind_relid(relid, id);
        self.table.unbind_device(&device, id);
    }
}

fn fail_at(step: OfferStep) -> Result<(), Turned> {
    if mutation::fails(step) { Err(Turned::Failed(step)) } else { Ok(()) }
}

fn describe(offer: &OfferChannel, id: ChannelId, primary: Option<ChannelId>) -> Offer {
    Offer {
        id,
        relid: offer.relid,
        class: offer.class,
        instance: offer.instance,
        subchannel_index: offer.subchannel_index,
        primary,
        monitor_id: offer.monitor_id,
        connection_id: offer.connection_id,
        flags: offer.flags,
        user_defined: offer.user_defined,
    }
}
