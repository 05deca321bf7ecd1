//! The end of a world: everything is taken back, given back, waited for; then nothing may be left anywhere.

use std::time::Duration;

use vmbus::message::Version;
use vmbus_channels::control::{Command, Input};
use vmbus_simhost::ViolationKind;

use super::plan::Faults;
use super::world::{Verdict, World};

/// Deadlines that are waited for at the end.
const WAITS: usize = 300;

impl World {
    pub(super) fn end(&mut self) -> Verdict {
        let way = if self.ghost.lost { 3 } else { self.random.below(4) };
        match way {
            0 | 1 => self.host_takes_back()?,
            2 => self.goodbye()?,
            _ => self.lose()?,
        }
        self.settle()?;
        self.tickets_are_answered()?;
        // Hosts of before 3.0 are left without a word, and don't know it.
        let knows = self.ghost.connected || self.spoken >= Some(Version::V3_0);
        if self.faults == Faults::None && way < 2 && knows {
            self.nothing_is_left()?;
            self.goodbye()?;
            self.settle()?;
        }
        // What is not said goodbye to is not known to have let go; and with faults nobody may have heard it.
        let silent = self.spoken.is_some_and(|version| version < Version::V3_0) && !self.ghost.memory.is_empty();
        if (silent || self.faults != Faults::None) && !self.ghost.lost {
            self.lose()?;
            self.settle()?;
        }
        self.ask_host()?;
        if !self.pages.all_free() {
            return Err(format!("pages are not given back: {:?}", self.pages));
        }
        self.ghost.at_the_end(&self.core)
    }

    /// The host takes everything back, also what it offers again meanwhile.
    fn host_takes_back(&mut self) -> Verdict {
        self.command(Command::ResumeMessages)?;
        for _ in 0..4 {
            for offered in self.host.host().offered() {
                // Those that are rescinded already stay so.
                let _ = self.host.host().rescind(offered.id);
            }
            self.settle()?;
        }
        Ok(())
    }

    fn goodbye(&mut self) -> Verdict {
        self.command(Command::Unload)
    }

    /// Lets everything that is on its way arrive, everything that is held be given back, every deadline pass.
    fn settle(&mut self) -> Verdict {
        for _ in 0..WAITS {
            self.all_arrives()?;
            self.give_back()?;
            self.all_arrives()?;
            let Some(deadline) = self.deadline() else { return Ok(()) };
            self.pass(deadline.saturating_sub(self.now).max(Duration::from_millis(1)))?;
        }
        Err(format!("deadlines without end: the next one at {:?} of {:?}", self.deadline(), self.now))
    }

    fn give_back(&mut self) -> Verdict {
        loop {
            if let Some(id) = self.applications.retiring.pop() {
                self.feed(Input::Retired(id))?;
                continue;
            }
            let held = self.ghost.channels.values().find(|seen| seen.referenced).map(|seen| seen.offer.id);
            let Some(id) = held else { return Ok(()) };
            self.feed(Input::Unreferenced(id))?;
        }
    }

    fn tickets_are_answered(&self) -> Verdict {
        if self.ghost.tickets.is_empty() && self.core.pending_tickets() == 0 {
            return Ok(());
        }
        Err(format!("not answered: {:?}; {} in the core", self.ghost.tickets, self.core.pending_tickets()))
    }

    /// An honest host has taken all back: it has it, and nobody else has anything.
    fn nothing_is_left(&mut self) -> Verdict {
        let (core, ghost) = (&self.core, &self.ghost);
        let mut left = Vec::new();
        let mut expect = |holds: bool, what: String| left.extend((!holds).then_some(what));
        expect(core.live_channels() == 0, format!("{} channels", core.live_channels()));
        expect(core.live_gpadls() == 0, format!("{} GPADLs", core.live_gpadls()));
        expect(ghost.relids.is_empty(), format!("relids {:?}", ghost.relids));
        let quiet = self.host.is_quiet();
        let (host, refused) = (self.host.host(), self.ghost.refused + self.unannounced);
        expect(host.live_gpadls().is_empty(), format!("the host's GPADLs {:?}", host.live_gpadls()));
        expect(quiet, format!("the host is at work: {:?}", host.offered()));
        let unasked = host.violation_count(ViolationKind::ReleasedUnasked);
        expect(unasked <= refused, format!("{unasked} releases that nobody asked for, {refused} with a reason"));
        if left.is_empty() { Ok(()) } else { Err(format!("left: {}", left.join("; "))) }
    }
}
