//! One guest's thread, when the guest is beyond a socket: waits for the hello, then serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustix::event::{PollFd, PollFlags};
use vmbus::wire::{Arrival, Greeting, Guest};

use super::control::Command;
use super::service::Service;
use super::wake::Wake;
use super::wire_door::WireDoor;
use super::{ServerSettings, Stopping};
use crate::Config;
use crate::memory::MappedMemory;

/// A guest that has connected and says no hello is let go after this.
const HELLO_WITHIN: Duration = Duration::from_secs(30);

/// One guest's thread.
pub(super) struct GuestThread {
    pub(super) arrival: Arrival,
    pub(super) config: Config,
    pub(super) settings: ServerSettings,
    pub(super) commands: Receiver<Command<MappedMemory>>,
    pub(super) wake: Arc<Wake>,
    pub(super) stopping: Arc<Stopping>,
    /// Keep the simulation when the guest has gone, until the server stops.
    pub(super) lingers: bool,
}

impl GuestThread {
    pub(super) fn run(self) {
        let Self { arrival, config, settings, commands, wake, stopping, lingers } = self;
        let Some(guest) = greet(arrival, &wake, &stopping) else { return };
        // Commands may have come meanwhile.
        wake.wake();
        match WireDoor::new(guest, &wake) {
            Ok(door) => Service::new(door, config, settings, commands).run(&wake, &stopping, lingers),
            Err(error) => log::warn!(target: "vmbus::simhost", "a guest is let go: {error}"),
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
