//! A world in one thread: the core, a model host with faults, model dispatchers and applications, under one seed.

use std::time::Duration;

use uuid::Uuid;
use vmbus::message::{GpadlId, HostMessage, Version};
use vmbus_channels::control::{Action, Command, Core, Input, Limits, Ticket};
use vmbus_channels::{Announcement, ChannelId};

use super::ghost::{Ask, Ghost, Seen};
use super::random::Random;
use super::settings;

/// Relids that the host uses.
pub(super) const RELIDS: u32 = 6;
/// Processors there are.
const PROCESSORS: usize = 4;

/// How unkind the world is: each is "once in".
#[derive(Debug, Clone)]
pub(super) struct Faults {
    pub(super) silent: usize,
    pub(super) twice: usize,
    pub(super) refuse: usize,
    pub(super) stale: usize,
    pub(super) shell: usize,
}

/// The world. See `run`.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) ghost: Ghost,
    pub(super) random: Random,
    now: Duration,
    pub(super) faults: Faults,
    pub(super) speaks: Version,
    out: Vec<Action>,
    /// Dispatchers that are still to answer.
    retiring: Vec<ChannelId>,
    /// Every name that ever was, for stale commands.
    names: Vec<ChannelId>,
    /// What the host said of late, to be said again.
    pub(super) said: Vec<HostMessage>,
    tickets: u64,
    /// Every input and action, if wanted.
    pub(crate) trace: Option<Vec<String>>,
}

pub(super) type Verdict = Result<(), String>;

impl World {
    /// A fresh world.
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let kind = random.once_in(3);
        let faults = if kind {
            Faults { silent: 1000, twice: 1000, refuse: 1000, stale: 1000, shell: 1000 }
        } else {
            let mut some = || 2 + random.below(20);
            Faults { silent: some(), twice: some(), refuse: some(), stale: some(), shell: 2 * some() }
        };
        let speaks = Version::ALL.get(random.below(Version::ALL.len())).copied().unwrap_or(Version::V6_0);
        let limits = Limits {
            channels: 4 + random.below(6),
            gpadls_per_channel: 4,
            closers_per_channel: 3,
            connects: 2,
            processors: 4,
            ..Limits::default()
        };
        Self {
            core: Core::new(limits),
            ghost: Ghost::default(),
            random,
            now: Duration::ZERO,
            faults,
            speaks,
            out: Vec::new(),
            retiring: Vec::new(),
            names: Vec::new(),
            said: Vec::new(),
            tickets: 0,
            trace: traced.then(Vec::new),
        }
    }

    /// Lives for some steps, then lets everything come to its end.
    pub(crate) fn run(&mut self, steps: usize) -> Verdict {
        self.command(Command::Connect)?;
        for _ in 0..steps {
            self.something_happens()?;
        }
        self.wind_down()
    }

    /// Feeds one input, watches the step, and does what the shell would.
    pub(super) fn feed(&mut self, input: Input) -> Verdict {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            if let Some(trace) = &mut self.trace {
                trace.push(line(&format!("{:?} <- {input:?}", self.now)));
            }
            let mut actions = std::mem::take(&mut self.out);
            actions.clear();
            self.core.step(self.now, input.clone(), &mut actions);
            if let Some(trace) = &mut self.trace {
                trace.extend(actions.iter().map(|action| line(&format!("    -> {action:?}"))));
            }
            self.ghost.watch(&input, &actions, &self.core)?;
            for action in &actions {
                match action {
                    Action::Retire { channel, .. } => self.retiring.push(*channel),
                    Action::Announce(Announcement::Arrived(offer)) => {
                        self.names.push(offer.id);
                        if self.random.once_in(4 * self.faults.shell) {
                            next = Some(Input::AnnounceFailed(offer.id));
                        }
                    }
                    Action::Share { gpadl, .. } if self.random.once_in(self.faults.shell) => {
                        next = Some(Input::ShareFailed(*gpadl));
                    }
                    Action::Opened { channel, .. } if self.random.once_in(self.faults.shell) => {
                        next = Some(Input::Unreferenced(*channel));
                    }
                    _ => {}
                }
            }
            self.out = actions;
        }
        Ok(())
    }

    fn command(&mut self, command: Command) -> Verdict {
        self.tickets += 1;
        self.feed(Input::Command(Ticket(self.tickets), command))
    }

    pub(super) fn say(&mut self, message: HostMessage) -> Verdict {
        if self.said.len() > 24 {
            self.said.swap_remove(0);
        }
        self.said.push(message.clone());
        self.feed(Input::Message(message))
    }

    fn something_happens(&mut self) -> Verdict {
        if !self.ghost.connected && !self.ghost.lost && self.random.once_in(2) {
            // A world without a connection is dull.
            return if self.ghost.asks.is_empty() { self.connection_changes() } else { self.host_answers() };
        }
        match self.random.below(100) {
            0..32 => self.host_answers(),
            32..42 => self.host_offers(),
            42..48 => self.host_rescinds(),
            48..51 => self.host_raves(),
            51..68 => self.application_opens_or_closes(),
            68..78 => self.application_uses(),
            78..87 => self.application_drops(),
            87..96 => self.dispatcher_answers(),
            96..99 => self.time_passes(),
            _ => self.connection_changes(),
        }
    }

    /// A channel that there is, or was.
    fn name(&mut self) -> Option<ChannelId> {
        if !self.random.once_in(4) {
            let here: Vec<_> = self.ghost.channels.keys().copied().collect();
            return self.random.pick(&here).copied();
        }
        let recent = self.names.len().saturating_sub(8);
        let recent = self.names.get(recent..).unwrap_or_default();
        self.random.pick(recent).copied()
    }

    fn processor(&mut self) -> u32 {
        u32::try_from(self.random.below(PROCESSORS)).unwrap_or(0)
    }

    fn application_opens_or_closes(&mut self) -> Verdict {
        let Some(id) = self.name() else { return Ok(()) };
        let settings = settings(self.processor());
        let command = match self.random.below(12) {
            0 => Command::OpenReserved(id, settings, 5),
            1..8 => Command::Open(id, settings),
            _ => Command::Close(id),
        };
        self.command(command)
    }

    fn application_uses(&mut self) -> Verdict {
        let Some(mut id) = self.name() else { return Ok(()) };
        if !self.random.once_in(4) {
            let open: Vec<_> =
                self.ghost.channels.values().filter(|seen| seen.mapped).map(|seen| seen.offer.id).collect();
            id = self.random.pick(&open).copied().unwrap_or(id);
        }
        let held = |memory: &super::ghost::Memory| memory.user && !memory.is_ring;
        let mine =
            self.ghost.memory.iter().filter(|(_, memory)| held(memory)).map(|(gpadl, memory)| (*gpadl, memory.channel));
        let mine: Vec<_> = mine.collect();
        let command = match self.random.below(10) {
            0..4 => Command::CreateGpadl(id, 4096),
            4..6 => match self.random.pick(&mine).copied() {
                Some((gpadl, channel)) => Command::TearDownGpadl(channel, gpadl),
                None => Command::TearDownGpadl(id, GpadlId(1)),
            },
            6..8 => Command::Move(id, self.processor()),
            _ => {
                let endpoint = Uuid::from_u128(100 + self.random.below(3) as u128);
                Command::TlConnect { endpoint, service: Uuid::from_u128(7), silo: None }
            }
        };
        self.command(command)
    }

    /// Somebody gives back the last reference; most often because of a close, or of a rescind.
    fn application_drops(&mut self) -> Verdict {
        let eager = self.random.once_in(4);
        let ready = |seen: &&Seen| seen.referenced && (eager || seen.revoked || seen.retiring || !seen.mapped);
        let ready: Vec<_> = self.ghost.channels.values().filter(ready).map(|seen| seen.offer.id).collect();
        self.random.pick(&ready).copied().map_or(Ok(()), |id| self.feed(Input::Unreferenced(id)))
    }

    fn dispatcher_answers(&mut self) -> Verdict {
        let place = self.random.below(self.retiring.len());
        if place >= self.retiring.len() {
            return Ok(());
        }
        let id = self.retiring.swap_remove(place);
        self.feed(Input::Retired(id))?;
        if self.random.once_in(self.faults.stale) && !self.ghost.channels.contains_key(&id) {
            // A second answer, about a channel that is released.
            let retired = self.random.once_in(2);
            return self.feed(if retired { Input::Retired(id) } else { Input::Unreferenced(id) });
        }
        Ok(())
    }

    fn time_passes(&mut self) -> Verdict {
        self.now += match self.random.below(8) {
            0 => Duration::from_secs(11),
            1 => Duration::from_secs(101),
            _ => Duration::from_millis(self.random.below(4000) as u64),
        };
        self.feed(Input::Elapsed)
    }

    fn connection_changes(&mut self) -> Verdict {
        match self.random.below(16) {
            0 if self.random.once_in(6) => self.feed(Input::Lost),
            0..4 => self.command(Command::Suspend),
            4..9 => self.command(Command::Resume),
            9 => self.command(Command::Unload),
            10..13 => self.command(Command::Connect),
            13 => self.command(Command::ModifyConnection { parent_to_child_monitor: 1, child_to_parent_monitor: 2 }),
            14 => self.command(Command::PauseMessages),
            _ => self.command(Command::ResumeMessages),
        }
    }

    /// Everything is given back, and nothing may be left.
    fn wind_down(&mut self) -> Verdict {
        let way = self.random.below(4);
        if way == 0 && self.ghost.connected {
            // The host takes everything back; what waits for the connection itself times out, unless it is paused.
            self.command(Command::ResumeMessages)?;
            for relid in self.ghost.relids.keys().copied().collect::<Vec<_>>() {
                self.say(HostMessage::Rescind { relid })?;
            }
        } else if way <= 2 {
            self.command(Command::Unload)?;
            while way == 1 && self.ghost.asks.contains(&Ask::Unload) {
                self.say(HostMessage::UnloadResponse)?;
            }
        }
        if way == 3 {
            self.feed(Input::Lost)?;
        }
        self.give_everything_back()?;
        for _ in 0..3 {
            self.now += Duration::from_secs(200);
            self.feed(Input::Elapsed)?;
        }
        if way == 0 && self.ghost.connected {
            // Waits that the host never answered hold nothing but themselves.
            let nothing = self.core.live_channels() + self.core.live_gpadls() + self.core.running_timers();
            if nothing != 0 || !self.ghost.relids.is_empty() {
                return Err(format!("left after the host took everything back: {:?}", self.core));
            }
        }
        self.feed(Input::Lost)?;
        self.ghost.at_the_end(&self.core)
    }

    fn give_everything_back(&mut self) -> Verdict {
        while let Some(id) = self.retiring.pop() {
            self.feed(Input::Retired(id))?;
        }
        for id in self.ghost.channels.keys().copied().collect::<Vec<_>>() {
            if self.ghost.channels.get(&id).is_some_and(|seen| seen.referenced) {
                self.feed(Input::Unreferenced(id))?;
            }
        }
        while let Some(id) = self.retiring.pop() {
            self.feed(Input::Retired(id))?;
        }
        Ok(())
    }
}

/// A line of the trace, without what is always the same.
fn line(text: &str) -> String {
    let mut text = text.replace(&format!(", user_defined: {:?}", [0_u8; 120]), "");
    for (long, short) in [
        ("class: Class(00000000-0000-0000-0000-000000000001 Unknown), ", ""),
        ("instance: 00000000-0000-0000-0000-0000000000", "device "),
        (", mmio_megabytes: 0, mmio_megabytes_optional: 0", ""),
    ] {
        text = text.replace(long, short);
    }
    text
}
