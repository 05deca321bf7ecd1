//! One guest's thread: waits for the socket, the guest's signals, commands and time, and carries messages and
//! interrupts between the wire and the simulation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use rustix::event::{PollFd, PollFlags};
use vmbus::wire::{Arrival, Greeting, Guest};

use super::control::{Command, Condition, Sim};
use super::wake::Wake;
use super::{ServerSettings, Stopping};
use crate::memory::MappedMemory;
use crate::{Config, Delivery, Simulation};

/// Messages taken from the socket before something else has its turn.
const MESSAGES_PER_TURN: usize = 256;
/// A guest that has connected and says no hello is let go after this.
const HELLO_WITHIN: Duration = Duration::from_secs(30);

/// One guest's thread.
pub(super) struct GuestThread {
    pub(super) arrival: Arrival,
    pub(super) config: Config,
    pub(super) settings: ServerSettings,
    pub(super) commands: Receiver<Command>,
    pub(super) wake: Arc<Wake>,
    pub(super) stopping: Arc<Stopping>,
    /// Keep the simulation when the guest has gone, until the server stops.
    pub(super) lingers: bool,
}

impl GuestThread {
    pub(super) fn run(self) {
        let Self { arrival, mut config, settings, commands, wake, stopping, lingers } = self;
        let Some(guest) = greet(arrival, &wake, &stopping) else { return };
        // Commands may have come meanwhile.
        wake.wake();
        config.processors = u32::try_from(guest.interrupts.processors()).unwrap_or(1);
        let mut simulation = Simulation::new(config, MappedMemory::new(Arc::clone(&guest.memory)));
        simulation.set_faults(&settings.faults);
        let mut service = Service { simulation, commands, started: Instant::now(), waiting: Vec::new() };
        if let Err(error) = service.serve(guest, &settings, &wake, &stopping) {
            log::debug!(target: "vmbus::simhost", "a guest has gone: {error}");
        }
        service.simulation.host().guest_gone();
        while lingers && !stopping.is_set() && service.carry_out() {
            wake.sleep(&mut [PollFd::new(&*wake, PollFlags::IN)], None);
        }
    }
}

/// Waits for the hello. `None`: there was none, or the server ends.
fn greet(arrival: Arrival, wake: &Wake, stopping: &Stopping) -> Option<Guest> {
    let (mut arrival, deadline) = (arrival, Instant::now() + HELLO_WITHIN);
    while !stopping.is_set() && Instant::now() < deadline {
        match arrival.greet() {
            Ok(Greeting::Guest(guest)) => return Some(guest),
            Ok(Greeting::Waiting(again)) => arrival = again,
            Err(error) => {
                log::debug!(target: "vmbus::simhost", "no guest: {error}");
                return None;
            }
        }
        // Commands that came stay in their queue; they are for the guest's simulation.
        let left = deadline.saturating_duration_since(Instant::now());
        wake.sleep(&mut [PollFd::new(wake, PollFlags::IN), PollFd::new(&arrival, PollFlags::IN)], Some(left));
    }
    None
}

/// What a sleep found to be looked at.
struct Ready {
    socket: bool,
    signals: bool,
}

/// A simulation at work.
struct Service {
    simulation: Sim,
    commands: Receiver<Command>,
    started: Instant,
    /// Those who wait for something to become true.
    waiting: Vec<Condition>,
}

impl Service {
    /// Serves the guest until it has gone or the server ends.
    fn serve(
        &mut self,
        mut guest: Guest,
        settings: &ServerSettings,
        wake: &Wake,
        stopping: &Stopping,
    ) -> Result<(), vmbus::Error> {
        while !stopping.is_set() {
            let ready = self.sleep(&guest, settings, wake);
            self.simulation.elapsed(self.started.elapsed());
            let simulation = &mut self.simulation;
            let monitored = simulation.host().has_monitored();
            if ready.signals || monitored {
                guest.interrupts.take_signals(|relid| simulation.signal(relid));
            }
            if monitored {
                guest.interrupts.take_monitors(|monitor| simulation.monitored(monitor));
            }
            let received = if ready.socket { self.receive(&mut guest) } else { Ok(()) };
            self.carry_out();
            self.deliver(&mut guest)?;
            received?;
        }
        Ok(())
    }

    fn sleep(&mut self, guest: &Guest, settings: &ServerSettings, wake: &Wake) -> Ready {
        let now = self.started.elapsed();
        let due = self.simulation.deadline().map(|due| due.saturating_sub(now));
        let monitor = self.simulation.host().has_monitored().then_some(settings.monitor_latency);
        let timeout = [due, monitor].into_iter().flatten().min();
        let mut socket = PollFlags::IN;
        socket.set(PollFlags::OUT, guest.connection.wants_write());
        let signals = guest.interrupts.signals();
        let mut on = [
            PollFd::new(wake, PollFlags::IN),
            PollFd::new(&guest.connection, socket),
            PollFd::new(&signals, PollFlags::IN),
        ];
        wake.sleep(&mut on, timeout);
        let [_, socket, signals] = on.map(|polled| !polled.revents().is_empty());
        Ready { socket, signals }
    }

    fn receive(&mut self, guest: &mut Guest) -> Result<(), vmbus::Error> {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(post) = guest.connection.receive()? else { break };
            self.simulation.post(&post.message);
        }
        Ok(())
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

    fn deliver(&mut self, guest: &mut Guest) -> Result<(), vmbus::Error> {
        guest.connection.flush()?;
        while let Some(first) = self.simulation.poll() {
            let mut next = Some(first);
            while let Some(delivery) = next {
                self.hand_over(guest, delivery)?;
                next = self.simulation.poll();
            }
            // Quiet can come with what was just delivered; and who waits for that may have more said.
            self.waiting.retain_mut(|until| !until(&mut self.simulation));
        }
        Ok(())
    }

    fn hand_over(&mut self, guest: &mut Guest, delivery: Delivery) -> Result<(), vmbus::Error> {
        match delivery {
            Delivery::Message { message, .. } => {
                guest.connection.send(self.simulation.host().message_processor(), &message)
            }
            Delivery::Interrupt { processor, flag } => {
                let processor = usize::try_from(processor).unwrap_or(usize::MAX);
                if let Err(error) = guest.interrupts.raise(processor, flag) {
                    log::debug!(target: "vmbus::simhost", "an interrupt is lost: {error}");
                }
                Ok(())
            }
        }
    }
}
