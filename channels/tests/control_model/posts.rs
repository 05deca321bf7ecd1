//! What the ghost thinks of the messages that go to the host.

use vmbus::message::GuestMessage;

use super::ghost::{Ask, Ghost, Memory, Verdict, ensure};

impl Ghost {
    pub(super) fn see_post(&mut self, message: &GuestMessage) -> Verdict {
        ensure(!self.lost, || "posted although the connection is lost".into())?;
        let contact = matches!(message, GuestMessage::InitiateContact(_));
        ensure(!self.unloading, || "posted after goodbye".into())?;
        ensure(self.connected || contact || *message == GuestMessage::Unload, || "posted without a connection".into())?;
        match message {
            GuestMessage::InitiateContact(contact) => self.asks.push(Ask::Contact(contact.version)),
            GuestMessage::RequestOffers => self.asks.push(Ask::Offers),
            GuestMessage::Open(open) => self.asks.push(Ask::Open(open.relid, open.open_id)),
            GuestMessage::OpenReserved { relid, .. } => self.asks.push(Ask::Open(*relid, 0)),
            GuestMessage::Close { relid } | GuestMessage::CloseReserved { relid, .. } => {
                let seen = self.channels.values_mut().find(|seen| seen.offer.relid == *relid && !seen.severed);
                let seen = seen.ok_or("an unknown channel closed")?;
                ensure(seen.host_open && !seen.in_use(), || "closed while in use, or while not open".into())?;
                seen.host_open = false;
                if matches!(message, GuestMessage::CloseReserved { .. }) {
                    self.asks.push(Ask::CloseReserved(*relid));
                }
            }
            GuestMessage::GpadlTeardown { gpadl, relid } => {
                let memory = self.memory.get_mut(gpadl).ok_or("unknown memory torn down")?;
                let seen = self.channels.get(&memory.channel);
                let fits = seen.is_some_and(|seen| {
                    let may = !seen.in_use() || !memory.is_ring && !seen.rescinded;
                    seen.offer.relid == *relid && may && !seen.severed
                });
                ensure(fits && !memory.torn && !memory.user, || "torn down wrongly".into())?;
                memory.torn = true;
                let (channel, is_ring) = (memory.channel, memory.is_ring);
                let waiting = |other: &Memory| other.channel == channel && !other.is_ring && !other.torn;
                ensure(!is_ring || !self.memory.values().any(waiting), || "the ring goes before a buffer".into())?;
                self.asks.push(Ask::Teardown(*gpadl));
            }
            GuestMessage::RelidReleased { relid } => self.see_release(*relid)?,
            GuestMessage::Unload => {
                self.goodbye();
                self.asks.push(Ask::Unload);
            }
            GuestMessage::TlConnect { endpoint, service, .. } => self.asks.push(Ask::Socket(*endpoint, *service)),
            GuestMessage::ModifyChannel { relid, .. } => self.asks.push(Ask::Move(*relid)),
            GuestMessage::ModifyConnection { .. } => self.asks.push(Ask::Modify),
            GuestMessage::Pause => self.asks.push(Ask::Pause),
            _ => {}
        }
        Ok(())
    }

    fn see_release(&mut self, relid: u32) -> Verdict {
        ensure(self.relids.remove(&relid).is_some(), || format!("relid {relid}: released, and not the guest's"))?;
        let known = self.live(relid).map(|seen| (seen.offer.id, seen.in_use(), seen.announced));
        if let Some((id, in_use, announced)) = known {
            ensure(!in_use, || format!("relid {relid}: released while in use"))?;
            ensure(!announced, || format!("relid {relid}: released while announced"))?;
            let memory = self.memory.values().any(|memory| memory.channel == id);
            ensure(!memory, || format!("relid {relid}: released before its memory"))?;
            self.channels.remove(&id);
            self.released += 1;
        } else {
            self.refused += 1;
        }
        let stays = |ask: &Ask| !matches!(ask, Ask::Open(asked, _) | Ask::Gpadl(asked, _) | Ask::Move(asked) if *asked == relid);
        self.asks.retain(stays);
        Ok(())
    }
}
