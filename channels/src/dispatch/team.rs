//! All dispatchers of a link, as the executor drives them.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use vmbus::link::Link;

use super::dispatcher::{Reports, Role};
use super::flags::{NoFlags, PageFlags};
use super::mailbox::Mailbox;
use super::mutation::Mutant;
use super::orders::Order;
use super::tally::Tally;
use super::thread::Loop;
use super::{Counters, Entry, RELIDS, Report, Settings};
use crate::{ChannelId, Error};

/// All dispatchers of a link. One thread, the executor, gives the orders; no method waits, but for
/// [`stop`](Self::stop).
#[derive(Debug)]
pub struct Dispatchers {
    mail: Arc<[Mailbox]>,
    tallies: Vec<Arc<Tally>>,
    threads: Vec<JoinHandle<()>>,
    channels: BTreeMap<ChannelId, Whereabouts>,
    /// Orders that named no channel.
    stale: u64,
}

/// Where a channel is, by the orders that were given.
#[derive(Debug)]
struct Whereabouts {
    relid: usize,
    processor: usize,
    /// Where it was, and is still sent after.
    left: Vec<usize>,
    /// All channels of a device stay with one dispatcher, which reads its descriptor.
    descriptor: Option<RawFd>,
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
        let processors = link.processors().max(1);
        let mail = (0..processors).map(|_| Mailbox::new(Mutant::default())).collect::<Result<_, _>>()?;
        let mut team = Self { mail, tallies: Vec::new(), threads: Vec::new(), channels: BTreeMap::new(), stale: 0 };
        let reports: Reports = Arc::new(reports);
        for number in 0..processors {
            let tally = Arc::new(Tally::default());
            team.tallies.push(Arc::clone(&tally));
            let role = Role {
                number,
                relids: RELIDS,
                budget: settings.budget.max(1),
                mail: Arc::clone(&team.mail),
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

    /// Puts a channel into a processor's map, and has it looked after once. Processors that the link does not have are
    /// taken modulo those it has.
    ///
    /// A relid that no map has room for, or that another channel still has, is counted as stale, and the entry dropped.
    pub fn insert(&mut self, processor: u32, relid: u32, channel: ChannelId, entry: Entry) {
        let (Some(relid), false) = (self.relid(relid), self.channels.contains_key(&channel)) else {
            self.stale += 1;
            return;
        };
        let descriptor = entry.descriptor();
        let neighbour = self.channels.values().find(|other| descriptor.is_some() && other.descriptor == descriptor);
        let processor = neighbour.map_or_else(|| self.processor(processor), |neighbour| neighbour.processor);
        self.channels.insert(channel, Whereabouts { relid, processor, left: Vec::new(), descriptor });
        self.post(processor, Order::Insert(relid, channel, entry));
    }

    /// Takes a channel out of all maps; answered by [`Report::Retired`], behind which nothing of it runs, is held, or
    /// is flagged. A channel that is in no map is counted as stale, and not answered.
    pub fn retire(&mut self, _processor: u32, _relid: u32, channel: ChannelId) {
        let Some(Whereabouts { relid, processor, left, .. }) = self.channels.remove(&channel) else {
            self.stale += 1;
            return;
        };
        let mut via = left;
        via.push(processor);
        let first = via.remove(0);
        self.post(first, Order::Retire(relid, channel, via));
    }

    /// Moves a channel to another processor. What still arrives at the old one is sent after it, until
    /// [`settle`](Self::settle) or its retirement. A channel whose device has a descriptor stays where it is.
    pub fn move_entry(&mut self, _relid: u32, channel: ChannelId, _from: u32, to: u32) {
        let to = self.processor(to);
        let Some(channel_at) = self.channels.get_mut(&channel) else {
            self.stale += 1;
            return;
        };
        let from = channel_at.processor;
        if from == to || channel_at.descriptor.is_some() {
            return;
        }
        let relid = channel_at.relid;
        channel_at.processor = to;
        channel_at.left.retain(|other| *other != to && *other != from);
        channel_at.left.push(from);
        self.post(to, Order::Expect(relid, channel));
        self.post(from, Order::Leave(relid, channel, to));
    }

    /// The host has confirmed that it interrupts the new processor only: nothing is sent after the channel any more.
    pub fn settle(&mut self, _relid: u32, channel: ChannelId) {
        let Some(channel_at) = self.channels.get_mut(&channel) else { return };
        let relid = channel_at.relid;
        for processor in std::mem::take(&mut channel_at.left) {
            self.post(processor, Order::Settle(relid, channel));
        }
    }

    /// Has a channel looked after, as if the host had flagged it. Of a channel that is in no map: counted as stale.
    pub fn poke(&mut self, _relid: u32, channel: ChannelId) {
        let Some(channel_at) = self.channels.get(&channel) else {
            self.stale += 1;
            return;
        };
        self.post(channel_at.processor, Order::Poke(channel_at.relid, channel));
    }

    /// What all of them have counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters { stale: self.stale, ..Counters::default() };
        self.tallies.iter().for_each(|tally| tally.add_to(&mut sum));
        sum
    }

    /// Ends all dispatchers and drops what is in their maps: nothing of any channel runs after it. Waits for callbacks
    /// that run, so it must not be called by one. Orders that were given and not carried out are dropped.
    pub fn stop(&mut self) {
        for mail in &*self.mail {
            mail.post(Order::Stop);
        }
        for thread in self.threads.drain(..) {
            // What panicked has said so already.
            let _ = thread.join();
        }
        self.channels.clear();
    }

    fn post(&self, processor: usize, order: Order) {
        if let Some(mail) = self.mail.get(processor) {
            mail.post(order);
        }
    }

    fn processor(&self, number: u32) -> usize {
        usize::try_from(number).unwrap_or_default() % self.mail.len().max(1)
    }

    fn relid(&self, relid: u32) -> Option<usize> {
        let relid = usize::try_from(relid).ok()?;
        let taken = || self.channels.values().any(|other| other.relid == relid);
        (relid != 0 && relid < RELIDS && !taken()).then_some(relid)
    }
}

impl Drop for Dispatchers {
    fn drop(&mut self) {
        self.stop();
    }
}
