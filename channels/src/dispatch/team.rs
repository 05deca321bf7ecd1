//! All dispatchers of a link, as the executor drives them.

use std::sync::Arc;
use std::thread::JoinHandle;

use vmbus::link::Link;

use super::dispatcher::{Reports, Role};
use super::flags::{NoFlags, PageFlags};
use super::mailbox::Mailbox;
use super::mutation::Mutant;
use super::roster::Roster;
use super::tally::Tally;
use super::thread::Loop;
use super::{Counters, Entry, RELIDS, Report, Settings};
use crate::{ChannelId, Error};

/// All dispatchers of a link. One thread, the executor, gives the orders; no method waits, but for
/// [`stop`](Self::stop).
#[derive(Debug)]
pub struct Dispatchers {
    roster: Roster,
    tallies: Vec<Arc<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

impl Dispatchers {
    /// Starts a dispatcher per processor of the link. What they have to say goes to `reports`, from their threads;
    /// it must not wait.
    ///
    /// # Errors
    /// A thread or a descriptor can't be had.
    pub fn start(
        link: &mut dyn Link,
        settings: &Settings,
        reports: impl Fn(Report) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let processors = Self::dispatched(link, settings);
        let mail: Arc<[_]> = (0..processors).map(|_| Mailbox::new(Mutant::default())).collect::<Result<_, _>>()?;
        let mut team = Self { roster: Roster::new(Arc::clone(&mail)), tallies: Vec::new(), threads: Vec::new() };
        let reports: Reports = Arc::new(reports);
        for number in 0..processors {
            let tally = Arc::new(Tally::default());
            team.tallies.push(Arc::clone(&tally));
            let role = Role {
                number,
                relids: RELIDS,
                budget: settings.budget.max(1),
                mail: Arc::clone(&mail),
                reports: Arc::clone(&reports),
                mutant: Mutant::default(),
            };
            // Those that have started end when the team is dropped.
            let thread = match link.interrupts(number) {
                Some(interrupts) => {
                    let flags = PageFlags::new(interrupts.flags, interrupts.flags_offset);
                    Loop::new(role, flags, Some(interrupts.event), tally, settings)?.start(settings)?
                }
                None => Loop::new(role, NoFlags, None, tally, settings)?.start(settings)?,
            };
            team.threads.push(thread);
        }
        Ok(team)
    }

    /// How many of a link's processors get a dispatcher, the first ones: all but those that are to be direct.
    pub(crate) fn dispatched(link: &mut dyn Link, settings: &Settings) -> usize {
        let processors = link.processors().max(1);
        let shared = processors.saturating_sub(settings.direct).max(1);
        // Where interrupts come by descriptors of the channels, there is nothing to sleep on.
        let has_interrupts = shared < processors && link.interrupts(shared).is_some();
        if has_interrupts { shared } else { processors }
    }

    /// Puts a channel into a processor's map, and has it looked after once. Processors that the link does not have are
    /// taken modulo those it has.
    ///
    /// A relid that no map has room for, or that another channel still has, is counted as stale, and the entry dropped.
    pub fn insert(&mut self, processor: u32, relid: u32, channel: ChannelId, entry: Entry) {
        self.roster.insert(processor, relid, channel, entry);
    }

    /// Takes a channel out of all maps; answered by [`Report::Retired`], behind which nothing of it runs, is held, or
    /// is flagged. A channel that is in no map is counted as stale, and not answered.
    pub fn retire(&mut self, _processor: u32, _relid: u32, channel: ChannelId) {
        self.roster.retire(channel);
    }

    /// Moves a channel to another processor. What still arrives at the old one is sent after it, until
    /// [`settle`](Self::settle) or its retirement. A channel whose device has a descriptor stays where it is.
    pub fn move_entry(&mut self, _relid: u32, channel: ChannelId, _from: u32, to: u32) {
        self.roster.move_entry(channel, to);
    }

    /// The host has confirmed that it interrupts the new processor only: nothing is sent after the channel any more.
    pub fn settle(&mut self, _relid: u32, channel: ChannelId) {
        self.roster.settle(channel);
    }

    /// Has a channel looked after, as if the host had flagged it. Of a channel that is in no map: counted as stale.
    pub fn poke(&mut self, _relid: u32, channel: ChannelId) {
        self.roster.poke(channel);
    }

    /// What all of them have counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters { stale: self.roster.stale(), ..Counters::default() };
        self.tallies.iter().for_each(|tally| tally.add_to(&mut sum));
        sum
    }

    /// Ends all dispatchers and drops what is in their maps: nothing of any channel runs after it. Waits for callbacks
    /// that run, so it must not be called by one. Orders that were given and not carried out are dropped.
    pub fn stop(&mut self) {
        self.roster.stop();
        for thread in self.threads.drain(..) {
            // What panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Drop for Dispatchers {
    fn drop(&mut self) {
        self.stop();
    }
}
