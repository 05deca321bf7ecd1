//! The door to a guest beyond a socket: messages on the socket, interrupts and signals in shared memory and eventfds.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use vmbus::wire::Guest;

use super::door::Door;
use super::wake::Wake;
use crate::memory::MappedMemory;
use crate::{Delivery, Error, Simulation};

/// Messages taken from the socket before something else has its turn.
const MESSAGES_PER_TURN: usize = 256;

/// A guest that was welcomed, and what the last sleep found to be looked at.
pub(super) struct WireDoor {
    guest: Guest,
    socket_ready: bool,
    signals_ready: bool,
}

impl WireDoor {
    pub(super) const fn new(guest: Guest) -> Self {
        Self { guest, socket_ready: false, signals_ready: false }
    }
}

impl Door for WireDoor {
    type Memory = MappedMemory;

    fn memory(&self) -> MappedMemory {
        MappedMemory::new(Arc::clone(&self.guest.memory))
    }

    fn processors(&self) -> u32 {
        u32::try_from(self.guest.interrupts.processors()).unwrap_or(1)
    }

    fn sleep(&mut self, wake: &Wake, timeout: Option<Duration>) {
        let mut socket = PollFlags::IN;
        socket.set(PollFlags::OUT, self.guest.connection.wants_write());
        let signals = self.guest.interrupts.signals();
        let mut on = [
            PollFd::new(wake, PollFlags::IN),
            PollFd::new(&self.guest.connection, socket),
            PollFd::new(&signals, PollFlags::IN),
        ];
        wake.sleep(&mut on, timeout);
        let [_, socket, signals] = on.map(|polled| !polled.revents().is_empty());
        (self.socket_ready, self.signals_ready) = (socket, signals);
    }

    fn take(&mut self, simulation: &mut Simulation<MappedMemory>) -> Result<(), Error> {
        let monitored = simulation.host().has_monitored();
        if self.signals_ready || monitored {
            self.guest.interrupts.take_signals(|relid| simulation.signal(relid));
        }
        if monitored {
            self.guest.interrupts.take_monitors(|monitor| simulation.monitored(monitor));
        }
        if self.socket_ready {
            for _ in 0..MESSAGES_PER_TURN {
                let Some(post) = self.guest.connection.receive()? else { break };
                simulation.post(&post.message);
            }
        }
        Ok(())
    }

    fn flush(&mut self, _simulation: &mut Simulation<MappedMemory>) -> Result<(), Error> {
        Ok(self.guest.connection.flush()?)
    }

    fn hand_over(&mut self, message_processor: u32, delivery: Delivery) -> Result<(), Error> {
        match delivery {
            Delivery::Message { message, .. } => Ok(self.guest.connection.send(message_processor, &message)?),
            Delivery::Interrupt { processor, flag } => {
                let processor = usize::try_from(processor).unwrap_or(usize::MAX);
                if let Err(error) = self.guest.interrupts.raise(processor, flag) {
                    log::debug!(target: "vmbus::simhost", "an interrupt is lost: {error}");
                }
                Ok(())
            }
        }
    }
}
