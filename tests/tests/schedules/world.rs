//! The world of one seed: the core and all that an executor does for it, the ghost that judges it, the host.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use vmbus::link::Share;
use vmbus::message::gpadl::{Range, split};
use vmbus::message::{GpadlId, Version};
use vmbus_channels::control::{Action, Command, Core, Input, Limits, Ticket};
use vmbus_channels::{Announcement, ChannelId};
use vmbus_simhost::{Delivery, PlainMemory, Simulation};

use super::applications::Applications;
use super::ghost::Ghost;
use super::pages::{PAGES, Pages};
use super::plan::{Faults, Plan};
use super::random::Random;
use super::transit::{Transit, Upward};

/// Whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judge {
    /// The ghost's and the host's.
    Both,
    /// The host's alone.
    Host,
}

/// The world. See `turns` for what happens in it, and `end` for how it ends.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) ghost: Ghost,
    pub(super) host: Simulation<PlainMemory>,
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) limits: Limits,
    shell: usize,
    pub(super) transit: Transit,
    pub(super) now: Duration,
    /// How long something may have been on its way.
    pub(super) under_way: Duration,
    pub(super) pages: Pages,
    following: VecDeque<Input>,
    /// Channels that are in a dispatcher's map.
    mapped: BTreeSet<ChannelId>,
    pub(super) applications: Applications,
    pub(super) spoken: Option<Version>,
    pub(super) devices: u64,
    /// Channels that were given back without a rescind, because they could not be announced.
    pub(super) unannounced: u64,
    tickets: u64,
    judge: Judge,
    out: Vec<Action>,
    trace: Option<Vec<String>>,
    traced: u64,
}

pub(super) type Verdict = Result<(), String>;

impl World {
    pub(crate) fn new(seed: u64, judge: Judge, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(seed, &mut random);
        let trace = traced.then(|| vec![format!("{plan:?}")]);
        let memory = PlainMemory::new(PAGES);
        let mut host = Simulation::new(plan.config, memory.clone());
        host.set_faults(&plan.rules);
        let mut ghost = Ghost::default();
        ghost.blind = judge == Judge::Host;
        Self {
            core: Core::new(plan.limits.clone()),
            ghost,
            host,
            random,
            faults: plan.faults,
            limits: plan.limits,
            shell: plan.shell,
            transit: Transit::default(),
            now: Duration::ZERO,
            under_way: Duration::ZERO,
            pages: Pages::new(memory),
            following: VecDeque::new(),
            mapped: BTreeSet::new(),
            applications: Applications::default(),
            spoken: None,
            devices: 100,
            unannounced: 0,
            tickets: 0,
            judge,
            out: Vec::new(),
            trace,
            traced: 0,
        }
    }

    /// All that happened, if it was traced.
    pub(crate) fn story(&mut self) -> String {
        self.note_host();
        self.trace.take().unwrap_or_default().join("\n")
    }

    /// A number that two runs share only if the same messages crossed.
    pub(crate) fn digest(&self) -> u64 {
        self.host.trace().digest()
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text().replace(&format!(", user_defined: {:?}", [0_u8; 120]), ""));
        }
    }

    /// Takes over what the host's trace has got since the last time.
    fn note_host(&mut self) {
        let Some(trace) = &mut self.trace else { return };
        let fresh = self.host.trace().entries().filter(|entry| entry.number > self.traced);
        trace.extend(fresh.map(|entry| format!("{entry}")));
        self.traced = self.host.trace().count();
    }

    pub(super) fn command(&mut self, command: Command) -> Verdict {
        self.tickets += 1;
        self.feed(Input::Command(Ticket(self.tickets), command))
    }

    /// Feeds one input and what follows from it, watches each step, and does what the executor would.
    pub(super) fn feed(&mut self, input: Input) -> Verdict {
        self.following.push_back(input);
        while let Some(input) = self.following.pop_front() {
            let now = self.now;
            self.note(|| format!("{now:?} <- {input:?}"));
            let mut actions = std::mem::take(&mut self.out);
            actions.clear();
            self.core.step(now, input.clone(), &mut actions);
            for action in &actions {
                self.note(|| format!("    -> {action:?}"));
            }
            let watched = self.ghost.watch(&input, &actions, &self.core);
            if self.judge == Judge::Both {
                watched?;
            }
            if self.core.live_channels() > self.limits.channels {
                return Err(format!("{} channels", self.core.live_channels()));
            }
            if matches!(input, Input::AnnounceFailed(_)) {
                self.unannounced += 1;
            }
            for action in actions.drain(..) {
                self.carry_out(action)?;
            }
            self.out = actions;
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action) -> Verdict {
        match action {
            Action::Post(message) => {
                if let Err(error) = self.transit.post(&message) {
                    self.not_honest(&|| format!("{message:?} can't be said: {error}"))?;
                }
            }
            Action::Share { relid, gpadl, what } => self.share(relid, gpadl, what)?,
            Action::Unshare(gpadl) => self.unshare(gpadl)?,
            Action::Opened { channel, .. } => {
                if self.random.once_in(self.shell) {
                    self.following.push_back(Input::Unreferenced(channel));
                } else if !self.random.once_in(4) {
                    // The others are polled by their owner.
                    self.mapped.insert(channel);
                }
            }
            Action::Retire { channel, .. } => {
                if self.mapped.remove(&channel) {
                    self.applications.retiring.push(channel);
                } else {
                    self.following.push_back(Input::Retired(channel));
                }
            }
            Action::Announce(Announcement::Arrived(offer)) => {
                self.applications.names.push(offer.id);
                if self.random.once_in(4 * self.shell) {
                    self.following.push_back(Input::AnnounceFailed(offer.id));
                }
            }
            Action::Connected(agreed) => self.spoken = Some(agreed.version),
            _ => {}
        }
        Ok(())
    }

    fn share(&mut self, relid: u32, gpadl: GpadlId, what: Share) -> Verdict {
        let pages = if self.random.once_in(self.shell) { None } else { self.pages.share(relid, gpadl, what) };
        let Some(pages) = pages else {
            self.following.push_back(Input::ShareFailed(gpadl));
            return Ok(());
        };
        let ranges = [Range::of_pages(pages).map_err(|error| error.to_string())?];
        for message in split(relid, gpadl, &ranges).map_err(|error| error.to_string())? {
            if let Err(error) = self.transit.post(&message) {
                self.not_honest(&|| format!("{message:?} can't be said: {error}"))?;
            }
        }
        Ok(())
    }

    /// The pages of a GPADL become another's. A host that has it, and has not taken the channel back, may yet write there.
    fn unshare(&mut self, gpadl: GpadlId) -> Verdict {
        let relid = self.pages.unshare(gpadl).ok_or_else(|| format!("{gpadl:?}: freed, and not there"))?;
        let host = self.host.host();
        if self.faults == Faults::Any || !host.live_gpadls().contains(&gpadl) {
            return Ok(());
        }
        match host.offer_on_relid(relid).and_then(|id| host.state(id)) {
            Some("rescinded") => Ok(()),
            state => Err(format!("{gpadl:?} of relid {relid}: freed while the host has it; the channel is {state:?}")),
        }
    }

    /// What happens in a world with faults only.
    fn not_honest(&self, what: &dyn Fn() -> String) -> Verdict {
        if self.faults == Faults::None { Err(what()) } else { Ok(()) }
    }

    /// What the host says against the guest.
    pub(super) fn ask_host(&mut self) -> Verdict {
        self.note_host();
        match self.host.host().violations().first() {
            Some(violation) => {
                let what = violation.to_string();
                self.not_honest(&|| format!("the host: {what}"))
            }
            None => Ok(()),
        }
    }

    /// The next message of the guest reaches the host. Whether there was one.
    pub(super) fn upward(&mut self) -> Result<bool, String> {
        while let Some(next) = self.transit.upward.pop_front() {
            match next {
                Upward::Heard(number) => self.host.heard(number),
                Upward::Post(message) => {
                    self.host.post(&message);
                    self.ask_host()?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The next message of the host, or an interrupt, reaches the guest. Whether there was one.
    pub(super) fn downward(&mut self) -> Result<bool, String> {
        if self.ghost.lost {
            return Ok(false);
        }
        let Some(delivery) = self.host.poll() else { return Ok(false) };
        self.note_host();
        if let Delivery::Message { sequence, message, .. } = delivery {
            if self.faults == Faults::None {
                self.transit.upward.push_back(Upward::Heard(sequence));
            }
            match self.transit.hear(&message) {
                Ok(message) => self.feed(Input::Message(message))?,
                Err(error) => {
                    self.not_honest(&|| format!("what the host said is not understood: {error}"))?;
                    self.feed(Input::Malformed(error))?;
                }
            }
        }
        Ok(true)
    }

    /// Time passes, for both.
    pub(super) fn pass(&mut self, time: Duration) -> Verdict {
        self.now += time;
        if self.random.once_in(2) {
            self.feed(Input::Elapsed)?;
            self.host.elapsed(self.now);
        } else {
            self.host.elapsed(self.now);
            self.feed(Input::Elapsed)?;
        }
        self.ask_host()
    }

    /// When either has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let host = if self.ghost.lost { None } else { self.host.deadline() };
        [self.core.deadline(), host].into_iter().flatten().min()
    }

    /// The guest's process dies, as far as the host sees; the guest hears that the host is gone.
    pub(super) fn lose(&mut self) -> Verdict {
        self.host.host().guest_gone();
        self.transit.upward.clear();
        self.feed(Input::Lost)
    }
}
