//! A world in one thread: the core, a model host with faults, model dispatchers and applications, under one seed.

use std::time::Duration;

use vmbus::message::{HostMessage, Version};
use vmbus_channels::Announcement;
use vmbus_channels::control::{Action, Command, Core, Input, Limits, Ticket};

use super::applications::{Applications, PROCESSORS};
use super::ghost::{Ask, Ghost};
use super::random::Random;

/// Relids that the host uses.
pub(super) const RELIDS: u32 = 6;

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
    applications: Applications,
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
            processors: PROCESSORS,
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
            applications: Applications::default(),
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
                    Action::Retire { channel, .. } => self.applications.retiring.push(*channel),
                    Action::Announce(Announcement::Arrived(offer)) => {
                        self.applications.names.push(offer.id);
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
            51..68 => self.application_commands(Applications::open_or_close),
            68..78 => self.application_commands(Applications::use_one),
            78..87 => self.application_drops(),
            87..96 => self.dispatcher_answers(),
            96..99 => self.time_passes(),
            _ => self.connection_changes(),
        }
    }

    fn application_commands(&mut self, draw: fn(&Applications, &Ghost, &mut Random) -> Option<Command>) -> Verdict {
        let command = draw(&self.applications, &self.ghost, &mut self.random);
        command.map_or(Ok(()), |command| self.command(command))
    }

    fn application_drops(&mut self) -> Verdict {
        let drop = Applications::drop_one(&self.ghost, &mut self.random);
        drop.map_or(Ok(()), |input| self.feed(input))
    }

    fn dispatcher_answers(&mut self) -> Verdict {
        let Some(id) = self.applications.retire(&mut self.random) else { return Ok(()) };
        self.feed(Input::Retired(id))?;
        let again = Applications::again(id, self.faults.stale, &self.ghost, &mut self.random);
        again.map_or(Ok(()), |input| self.feed(input))
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
        while let Some(id) = self.applications.retiring.pop() {
            self.feed(Input::Retired(id))?;
        }
        for id in self.ghost.channels.keys().copied().collect::<Vec<_>>() {
            if self.ghost.channels.get(&id).is_some_and(|seen| seen.referenced) {
                self.feed(Input::Unreferenced(id))?;
            }
        }
        while let Some(id) = self.applications.retiring.pop() {
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
