//! A simulation at work: waits for its guest, commands and time, and carries messages and interrupts between the door
//! and the simulation.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use rustix::event::{PollFd, PollFlags};

use super::control::{Command, Condition};
use super::door::Door;
use super::wake::Wake;
use super::{ServerSettings, Stopping};
use crate::{Config, Error, Simulation};

/// Looks into the rings between two at the door and the clock.
const LOOKS: u32 = 256;

/// A simulation at work.
pub(super) struct Service<D: Door> {
    door: D,
    simulation: Simulation<D::Memory>,
    settings: ServerSettings,
    commands: Receiver<Command<D::Memory>>,
    started: Instant,
    /// When the rings are looked into no more, in the host's time, while they are.
    looks_until: Option<Duration>,
    /// Those who wait for something to become true.
    waiting: Vec<Condition<D::Memory>>,
}

impl<D: Door> Service<D> {
    pub(super) fn new(
        door: D,
        mut config: Config,
        settings: ServerSettings,
        commands: Receiver<Command<D::Memory>>,
    ) -> Self {
        config.processors = door.processors();
        let mut simulation = Simulation::new(config, door.memory());
        simulation.set_faults(&settings.faults);
        Self { door, simulation, settings, commands, started: Instant::now(), looks_until: None, waiting: Vec::new() }
    }

    /// Serves the guest until it has gone or the server ends; then, if it `lingers`, whoever asks about it.
    pub(super) fn run(mut self, wake: &Wake, stopping: &Stopping, lingers: bool) {
        if let Err(error) = self.serve(wake, stopping) {
            log::debug!(target: "vmbus::simhost", "a guest has gone: {error}");
        }
        self.simulation.host().guest_gone();
        while lingers && !stopping.is_set() && self.carry_out() {
            wake.sleep(&mut [PollFd::new(wake, PollFlags::IN)], None);
        }
    }

    fn serve(&mut self, wake: &Wake, stopping: &Stopping) -> Result<(), Error> {
        while !stopping.is_set() {
            let poll = self.look()?.then_some(Duration::ZERO);
            let now = self.started.elapsed();
            let due = self.simulation.deadline().map(|due| due.saturating_sub(now));
            let monitor = self.simulation.host().has_monitored().then_some(self.settings.monitor_latency);
            self.door.sleep(wake, [due, monitor, poll].into_iter().flatten().min());
            self.simulation.elapsed(self.started.elapsed());
            self.look_from_now_on();
            let taken = self.door.take(&mut self.simulation);
            self.carry_out();
            self.deliver()?;
            taken?;
        }
        Ok(())
    }

    /// Looks into the rings for a while, as long as something has come not long ago; whether to go on with that.
    fn look(&mut self) -> Result<bool, Error> {
        let Some(until) = self.looks_until else { return Ok(false) };
        let mut any = false;
        for _ in 0..LOOKS {
            if self.simulation.host().look() {
                any = true;
                self.deliver()?;
            }
            std::hint::spin_loop();
        }
        let now = self.started.elapsed();
        if any {
            self.looks_until = Some(now + self.settings.busy_poll);
        } else if now >= until {
            self.looks_until = None;
            self.simulation.host().rest();
        }
        Ok(self.looks_until.is_some())
    }

    /// Something may have come by a signal or a message: from now on it is looked for, if that is wanted.
    fn look_from_now_on(&mut self) {
        if !self.settings.busy_poll.is_zero() {
            self.simulation.host().poll_rings();
            self.looks_until.get_or_insert(self.started.elapsed() + self.settings.busy_poll);
        }
    }

    /// Commands, and whoever waits for something. `false` when nobody is left who could command.
    fn carry_out(&mut self) -> bool {
        let left = loop {
            match self.commands.try_recv() {
                Ok(Command::Do(work)) => work(&mut self.simulation),
                Ok(Command::Until(until)) => self.waiting.push(until),
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        self.waiting.retain_mut(|until| !until(&mut self.simulation));
        left
    }

    fn deliver(&mut self) -> Result<(), Error> {
        self.door.flush(&mut self.simulation)?;
        while self.hand_over()? {
            while self.hand_over()? {}
            // Quiet can come with what was just delivered; and who waits for that may have more said.
            self.waiting.retain_mut(|until| !until(&mut self.simulation));
        }
        Ok(())
    }

    /// Hands over what arrives at the guest next; whether there was anything, and room for it.
    fn hand_over(&mut self) -> Result<bool, Error> {
        if !self.door.has_room() {
            return Ok(false);
        }
        let Some(delivery) = self.simulation.poll() else { return Ok(false) };
        self.door.hand_over(self.simulation.host().message_processor(), delivery)?;
        Ok(true)
    }
}
