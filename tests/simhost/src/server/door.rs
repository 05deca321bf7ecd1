//! The seam between a simulation's thread and a guest: how it is reached, whatever it runs on.

use std::time::Duration;

use super::wake::Wake;
use crate::{Delivery, Error, Memory, Simulation};

/// How a guest is reached. One thread owns the door and the simulation, and calls in turn [`sleep`](Self::sleep),
/// [`take`](Self::take), [`flush`](Self::flush) and [`hand_over`](Self::hand_over).
pub trait Door {
    /// The guest's memory, as the host sees it.
    type Memory: Memory + 'static;

    /// The guest's memory.
    fn memory(&self) -> Self::Memory;

    /// Virtual processors of the guest.
    fn processors(&self) -> u32;

    /// Waits by [`Wake::sleep`] until the guest has done something, or somebody wakes, or for this long.
    fn sleep(&mut self, wake: &Wake, timeout: Option<Duration>);

    /// Tells the simulation what the guest has done: signals first, then messages. Waits for nothing.
    ///
    /// # Errors
    /// The guest has gone, and the simulation ends. What it has to say is handed over before.
    fn take(&mut self, simulation: &mut Simulation<Self::Memory>) -> Result<(), Error>;

    /// Whether [`hand_over`](Self::hand_over) may be called: a guest that does not take what it is sent has the rest kept
    /// in the host, which bears only so much.
    fn has_room(&self) -> bool {
        true
    }

    /// Sends what was kept back, as far as it goes now; what the simulation has become is known by now.
    ///
    /// # Errors
    /// The guest has gone.
    fn flush(&mut self, simulation: &mut Simulation<Self::Memory>) -> Result<(), Error>;

    /// Hands a message to this processor, or an interrupt to its own. Waits for nothing.
    ///
    /// # Errors
    /// The guest has gone.
    fn hand_over(&mut self, message_processor: u32, delivery: Delivery) -> Result<(), Error>;
}
