//! What is always true of the core's tables. For tests; nothing depends on it being asked.

use super::Core;
use super::channel::{Channel, Mapped, State};
use super::gpadl::Phase;

impl Core {
    /// Whether the tables agree with each other. Looks at everything.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check_invariants(&self) -> Result<(), String> {
        let (relids, devices) = self.table.bound();
        for (relid, id) in relids {
            let channel = self.table.get(id).ok_or_else(|| format!("relid {relid} names {id}, which is not there"))?;
            ensure(channel.relid() as usize == relid, || {
                format!("relid {relid} names {id} of relid {}", channel.relid())
            })?;
        }
        for (device, id) in devices {
            let channel = self.table.get(id).ok_or_else(|| format!("{device:?} names {id}, which is not there"))?;
            ensure(channel.device() == *device && !channel.is_departed(), || format!("{device:?} names {id}"))?;
        }
        for channel in self.table.iter() {
            self.check_channel(channel).map_err(|what| format!("channel {}: {what}", channel.id()))?;
        }
        for (id, gpadl) in self.gpadls.iter() {
            let owner = self.table.get(gpadl.channel).is_some_and(|channel| channel.gpadls().any(|own| own == id));
            ensure(owner, || format!("GPADL {} has no channel", id.0))?;
        }
        self.check_timers()
    }

    fn check_channel(&self, channel: &Channel) -> Result<(), String> {
        let bound = self.table.at_relid(channel.relid()) == Some(channel.id());
        ensure(bound != channel.severed, || format!("severed {}, and found by relid: {bound}", channel.severed))?;
        let found = self.table.device(&channel.device()) == Some(channel.id());
        ensure(found == channel.announced, || {
            format!("announced {}, and found by device: {found}", channel.announced)
        })?;
        let used = channel.referenced || channel.mapped != Mapped::No;
        let (ring, closers) = (channel.ring, channel.closers.len());
        let fits = match &channel.state {
            State::Offered => !used && !channel.has_gpadls() && closers == 0 && channel.moving.is_none(),
            State::Sharing(_) | State::Requested(..) => !used && ring.is_some() && channel.buffers.is_empty(),
            State::Open => channel.mapped == Mapped::Yes && channel.referenced && ring.is_some(),
            State::Draining => used && ring.is_some() && channel.mapped != Mapped::Yes,
            State::ClosingReserved => !used && ring.is_some(),
            State::TearingDown => !used && channel.has_gpadls(),
            State::Departed => (used || channel.host_reaches) && !channel.announced,
        };
        ensure(fits, || format!("{:?} does not fit the rest of {channel:?}", channel.state))?;
        ensure(channel.announced || channel.condemned || channel.is_departed(), || "hidden".to_owned())?;
        ensure(channel.buffers.len() < self.limits.gpadls_per_channel, || "too many buffers".to_owned())?;
        for gpadl in channel.gpadls() {
            let known = self.gpadls.get(gpadl).ok_or_else(|| format!("GPADL {} is not there", gpadl.0))?;
            let waits = known.ticket.is_some() && known.phase != Phase::Live;
            ensure(known.ticket.is_some() == known.timer.is_some() && waits == known.ticket.is_some(), || {
                format!("GPADL {}: {known:?}", gpadl.0)
            })?;
        }
        Ok(())
    }

    /// Every timer belongs to a wait, and the other way around.
    fn check_timers(&self) -> Result<(), String> {
        let opening = |channel: &Channel| match &channel.state {
            State::Sharing(opening) | State::Requested(opening, _) => opening.timer.is_some(),
            _ => false,
        };
        let of_channel = |channel: &Channel| {
            let moving = channel.moving.as_ref().is_some_and(|moving| moving.timer.is_some());
            usize::from(opening(channel)) + usize::from(moving) + usize::from(channel.close_timer.is_some())
        };
        let channels: usize = self.table.iter().map(of_channel).sum();
        let gpadls = self.gpadls.iter().filter(|(_, gpadl)| gpadl.timer.is_some()).count();
        let connection = self.connection.waits().filter(|asked| asked.timer.is_some()).count();
        let sockets = self.sockets.iter().filter(|(_, request)| request.timer.is_some()).count();
        let waits = channels + gpadls + connection + sockets;
        ensure(waits == self.timers.len(), || format!("{} timers run for {waits} waits", self.timers.len()))
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
