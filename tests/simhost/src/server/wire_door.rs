//! The door to a guest beyond a socket: messages on the socket, interrupts and signals in shared memory and eventfds.
//!
//! The eventfd of the signals is watched by its edges and never read: a wake-up costs one system call.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use vmbus::wire::Guest;

use super::door::Door;
use super::wake::Wake;
use crate::memory::MappedMemory;
use crate::{Delivery, Error, Simulation};

/// Messages taken from the socket before something else has its turn.
const MESSAGES_PER_TURN: usize = 256;

/// What an event is about.
const WAKE: u64 = 0;
const SOCKET: u64 = 1;
const SIGNALS: u64 = 2;

/// A guest that was welcomed, and what the last sleep found to be looked at.
pub(super) struct WireDoor {
    set: OwnedFd,
    guest: Guest,
    /// Whether the socket is watched for room, too.
    wants_room: bool,
    socket_ready: bool,
    signals_ready: bool,
}

impl WireDoor {
    /// Watches all that the guest may do, and the wake by which this door sleeps.
    pub(super) fn new(guest: Guest, wake: &Wake) -> Result<Self, Error> {
        let watch = || {
            let set = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&set, wake, EventData::new_u64(WAKE), EventFlags::IN)?;
            epoll::add(&set, guest.connection.as_fd(), EventData::new_u64(SOCKET), EventFlags::IN)?;
            let edges = EventFlags::IN | EventFlags::ET;
            epoll::add(&set, guest.interrupts.signals(), EventData::new_u64(SIGNALS), edges)?;
            Ok(set)
        };
        let set = watch().map_err(|error: Errno| Error::System { what: "watch a guest", error: error.into() })?;
        Ok(Self { set, guest, wants_room: false, socket_ready: false, signals_ready: false })
    }

    /// Watches the socket for room while there is something to be sent.
    fn watch_room(&mut self) {
        let wants = self.guest.connection.wants_write();
        if wants == self.wants_room {
            return;
        }
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, wants);
        match epoll::modify(&self.set, self.guest.connection.as_fd(), EventData::new_u64(SOCKET), flags) {
            Ok(()) => self.wants_room = wants,
            Err(error) => log::error!(target: "vmbus::simhost", "epoll: {error}"),
        }
    }

    /// Waits, and takes note of what happened. Whether somebody woke.
    fn wait(&mut self, timeout: Option<Duration>) -> bool {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = [MaybeUninit::uninit(); 3];
        (self.socket_ready, self.signals_ready) = (false, false);
        let mut woken = false;
        match epoll::wait(&self.set, &mut events, timeout.as_ref()) {
            Ok((events, _)) => {
                for event in events.iter() {
                    match event.data.u64() {
                        WAKE => woken = true,
                        SOCKET => self.socket_ready = true,
                        _ => self.signals_ready = true,
                    }
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => log::error!(target: "vmbus::simhost", "epoll: {error}"),
        }
        woken
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
        self.watch_room();
        wake.sleep_by(timeout, |timeout| self.wait(timeout));
    }

    fn take(&mut self, simulation: &mut Simulation<MappedMemory>) -> Result<(), Error> {
        let monitored = simulation.host().has_monitored();
        if self.signals_ready || monitored {
            self.guest.interrupts.take_signal_bits(|relid| simulation.signal(relid));
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
