//! One dispatcher without its thread: a turn takes orders, looks at the flags, and serves who is ready.
//!
//! Orders change the map only here, between two events. So nobody else ever looks at it, and an order that is answered
//! is done: what it took away can't be under way.

use std::sync::Arc;
use std::time::Instant;

use super::alarms::Alarms;
use super::lines::Lines;
use super::mailbox::Mailbox;
use super::mutation::{Mutant, Mutation};
use super::orders::Order;
use super::places::{Place, Places, Stray};
use super::ready::ReadyList;
use super::receive::{Targets, deliver};
use super::sync::contained;
use super::tally::Tally;
use super::{Attention, Ending, Flags, Progress, Report};

/// Where reports go.
pub type Reports = Arc<dyn Fn(Report) + Send + Sync>;

/// Which dispatcher it is, and how it is to be.
pub struct Role {
    /// Its number: which mailbox is its own.
    pub number: usize,
    /// Relids are below this. A multiple of 64.
    pub relids: usize,
    /// Packets between two looks at orders and flags, and of one channel before it is the next one's turn.
    pub budget: usize,
    /// All dispatchers' mailboxes.
    pub mail: Arc<[Mailbox]>,
    /// Where reports go.
    pub reports: Reports,
    /// For models.
    pub mutant: Mutant,
}

/// One dispatcher.
pub struct Dispatcher<F> {
    pub(super) role: Role,
    pub(super) targets: Targets,
    pub(super) places: Places,
    pub(super) ready: ReadyList,
    pub(super) flags: F,
    pub(super) lines: Lines,
    pub(super) alarms: Alarms,
    /// Channels of the device that is being looked after; kept for its allocation.
    interrupted: Vec<usize>,
    pub(super) tally: Arc<Tally>,
    pub(super) stopping: bool,
}

impl<F: Flags> Dispatcher<F> {
    /// A dispatcher with an empty map.
    pub fn new(role: Role, flags: F, lines: Lines, tally: Arc<Tally>) -> Self {
        let relids = role.relids;
        Self {
            targets: Targets::new(relids),
            places: Places::new(relids),
            ready: ReadyList::new(relids),
            role,
            flags,
            lines,
            alarms: Alarms::new(Instant::now()),
            interrupted: Vec::new(),
            tally,
            stopping: false,
        }
    }

    /// Orders, flags, timers, work. Returns whether there is more work.
    pub fn turn(&mut self) -> bool {
        self.turn_by(Instant::now)
    }

    /// As [`turn`](Self::turn), by another clock.
    pub fn turn_by(&mut self, clock: impl FnOnce() -> Instant) -> bool {
        self.take_orders();
        if self.stopping {
            return false;
        }
        self.scan();
        self.ring(clock);
        self.serve();
        !self.ready.is_empty()
    }

    /// Whether it was told to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Its own mailbox.
    #[must_use]
    pub fn mail(&self) -> Option<&Mailbox> {
        self.role.mail.get(self.role.number)
    }

    /// Does what it was told. One load when there is nothing.
    pub fn take_orders(&mut self) {
        let Some(mail) = self.role.mail.get(self.role.number) else { return };
        if !mail.has_mail() {
            return;
        }
        mail.open();
        while !self.stopping {
            let Some(order) = self.mail().and_then(Mailbox::take) else { return };
            self.apply(order);
        }
    }

    /// Takes what is flagged and calls whoever it is for.
    #[inline]
    pub fn scan(&mut self) {
        let mut from = 0;
        while let Some((word, flags)) = self.flags.take_next(from) {
            self.deliver_all(word * 64, flags);
            from = word + 1;
        }
    }

    /// Calls the channels of a word of flags, all of them, also when one panics.
    #[inline]
    fn deliver_all(&mut self, first: usize, mut flags: u64) {
        self.tally.events.add(u64::from(flags.count_ones()));
        while flags != 0 {
            let (targets, ready) = (&mut self.targets, &mut self.ready);
            match contained(|| deliver(targets, ready, first, &mut flags)) {
                Some(0) => {}
                Some(strays) => self.stray(first, strays),
                None => self.end(self.targets.called(), Ending::Panicked),
            }
        }
    }

    /// An event from elsewhere than the flags: a descriptor, an order, an arrival.
    pub(super) fn event(&mut self, relid: usize) {
        let Some(target) = self.targets.get_mut(relid) else { return };
        match contained(|| target.event()) {
            Some(Attention::Told) => {}
            Some(Attention::Ready) => self.ready.push(relid),
            None => self.end(relid, Ending::Panicked),
        }
    }

    /// All channels of a device whose descriptor is readable.
    pub(super) fn interrupted(&mut self, descriptor: u64) {
        let mut interrupted = std::mem::take(&mut self.interrupted);
        self.lines.acknowledge(descriptor, &mut interrupted);
        for relid in interrupted.drain(..) {
            self.tally.events.add(1);
            self.event(relid);
        }
        self.interrupted = interrupted;
    }

    /// Serves those who are ready, in turn, until the budget is used up.
    pub fn serve(&mut self) {
        let mut left = self.role.budget;
        while left != 0 {
            let Some(relid) = self.ready.pop() else { return };
            // Also a turn without packets costs something.
            left = left.saturating_sub(self.serve_one(relid).max(1));
        }
    }

    /// One turn of a channel.
    pub(super) fn serve_one(&mut self, relid: usize) -> usize {
        let budget = self.role.budget;
        let Some(target) = self.targets.get_mut(relid) else { return 0 };
        let (packets, ending) = match contained(|| target.serve(budget)) {
            Some(Progress::Drained(packets)) => (packets, None),
            Some(Progress::More(packets)) => {
                self.ready.push(relid);
                (packets, None)
            }
            Some(Progress::Ended(ending)) => (0, Some(ending)),
            None => (0, Some(Ending::Panicked)),
        };
        self.tally.packets.add(packets as u64);
        match ending {
            None => self.ask(relid),
            Some(ending) => self.end(relid, ending),
        }
        packets
    }

    /// Ends an entry by itself; what it holds is kept until it is retired.
    #[cold]
    pub(super) fn end(&mut self, relid: usize, ending: Ending) {
        match ending {
            Ending::Panicked => self.tally.panics.add(1),
            Ending::Corrupt(_) => self.tally.corrupt.add(1),
            Ending::Dead(_) => self.tally.dead.add(1),
            Ending::Closed | Ending::Rescinded => {}
        }
        self.drop_target(relid, Some(ending));
        if let Some(id) = self.places.resident(relid) {
            log::warn!(target: "vmbus::dispatch", "channel {id}, relid {relid}, is served no more: {ending:?}");
            (self.role.reports)(Report::Ended(id, ending));
        }
    }

    /// Nothing of it is called any more, or is waited for. Whatever it does while it goes is contained.
    ///
    /// In this order: no turn, so that nothing asks for its deadline; no alarm; its last call; and only then is it
    /// dropped, and by the caller what it holds.
    pub(super) fn drop_target(&mut self, relid: usize, ending: Option<Ending>) {
        self.ready.remove(relid);
        self.silence(relid);
        drop(self.lines.unwatch(relid));
        let Some(mut target) = self.targets.take(relid) else { return };
        if ending != Some(Ending::Panicked) && contained(|| target.ended(ending)).is_none() {
            self.tally.panics.add(1);
        }
        if contained(|| drop(target)).is_none() {
            self.tally.panics.add(1);
        }
    }

    /// Flags for which there was nobody to call.
    #[cold]
    fn stray(&mut self, first: usize, mut strays: u64) {
        while strays != 0 {
            let flag = strays & strays.wrapping_neg();
            strays ^= flag;
            self.stray_one(first + flag.trailing_zeros() as usize);
        }
    }

    pub(super) fn stray_one(&mut self, relid: usize) {
        match self.places.stray(relid) {
            Stray::Nobody => self.tally.stray_events.add(1),
            Stray::Drop => {}
            Stray::Forward(id, to) => {
                self.tally.forwarded_events.add(1);
                self.post(to, Order::Poke(relid, id));
            }
        }
    }

    pub(super) fn post(&self, to: usize, order: Order) {
        if let Some(mail) = self.role.mail.get(to) {
            mail.post(order);
        }
    }

    pub(super) fn lacks(&self, protection: Mutation) -> bool {
        self.role.mutant.lacks(protection)
    }
}

impl<F> Drop for Dispatcher<F> {
    fn drop(&mut self) {
        for relid in 0..self.role.relids {
            if let Some(mut target) = self.targets.take(relid) {
                let _ = contained(|| target.ended(None));
                let _ = contained(|| drop(target));
            }
            let place = self.places.replace(relid, Place::Empty);
            let _ = contained(|| drop(place));
        }
    }
}
