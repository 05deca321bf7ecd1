//! What the ghost asks after a step, and at the end.

use vmbus_channels::control::Core;

use super::ghost::{Ghost, Seen, Verdict, Waits, ensure};

impl Ghost {
    /// What is left when all is over: nothing.
    pub(crate) fn at_the_end(&self, core: &Core) -> Verdict {
        ensure(self.channels.is_empty(), || format!("channels left: {:?}", self.channels))?;
        ensure(self.memory.is_empty(), || format!("memory left: {:?}", self.memory))?;
        ensure(self.tickets.is_empty(), || format!("tickets left: {:?}", self.tickets))?;
        ensure(self.lost || !self.connected || self.relids.is_empty(), || format!("relids left: {:?}", self.relids))?;
        ensure(core.is_empty(), || format!("the core is not empty: {core:?}"))
    }

    /// What has to have happened by the end of a step.
    pub(super) fn settle(&mut self) -> Verdict {
        for seen in self.channels.values() {
            let id = seen.offer.id;
            let departed = seen.rescinded || seen.severed;
            ensure(!(departed && seen.announced), || format!("{id}: gone, and still announced"))?;
            ensure(!(departed && seen.referenced && !seen.revoked), || {
                format!("{id}: gone, and its users don't know")
            })?;
            ensure(!(departed && seen.mapped && !seen.retiring), || format!("{id}: gone, and still in its map"))?;
            let waits = self.tickets.values().any(|waits| *waits == Waits::Host(id));
            ensure(!(departed && waits), || format!("{id}: gone, and a ticket waits for the host"))?;
            let closes = self.tickets.values().any(|waits| *waits == Waits::Close(id));
            ensure(!(departed && closes && !seen.in_use()), || format!("{id}: gone and unused, and a close waits"))?;
            let memory = self.memory.values().any(|memory| memory.channel == id);
            let due = seen.rescinded && !seen.severed || seen.condemned && !seen.severed && !memory;
            ensure(!due || seen.in_use(), || format!("{id}: gone and unused, and not released"))?;
            ensure(seen.mapped || seen.forwarding.is_empty(), || format!("{id}: forwarded to nowhere"))?;
        }
        for (gpadl, memory) in &self.memory {
            let in_use = self.channels.get(&memory.channel).is_some_and(Seen::in_use);
            ensure(memory.host || memory.user || in_use, || {
                format!("{gpadl:?}: nobody reaches it, and it is not freed")
            })?;
        }
        for (ticket, waits) in &self.tickets {
            let (Waits::Host(id) | Waits::Close(id)) = waits else { continue };
            ensure(self.channels.contains_key(id), || format!("{ticket:?} waits for {id}, which is released"))?;
        }
        // A severed channel ends without a message: when nobody uses it and its memory is freed.
        let memory = &self.memory;
        self.channels.retain(|id, seen| !seen.severed || seen.in_use() || memory.values().any(|of| of.channel == *id));
        Ok(())
    }
}
