//! The bus of a machine: the simulated host on a thread of its own, behind a door of hypercalls, SynIC and eventfds.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use vmbus::message::{Message, Version};
use vmbus_simhost::{Config, Control, Counters, Delivery, Door, Error, Server, ServerSettings, Simulation, Wake};

use crate::bus_memory::BusMemory;
use crate::exits::Hyperv;
use crate::hypercall::Front;
use crate::shared::Shared;
use crate::synic::Synic;
use crate::wires::Wires;

/// The interrupt source of the bus.
const VMBUS_SINT: u8 = 2;
/// Where guests post messages before 5.0.
const OLD_MESSAGE_CONNECTION: u32 = 1;
/// Connections that have an eventfd; further ones are signalled by hypercalls that come to us.
const EVENTS_AT_MOST: usize = 512;
/// Signals taken from the eventfds at a time.
const EVENTS_PER_LOOK: usize = 64;

/// A running bus. Dropping it ends its thread.
#[derive(Debug)]
pub struct Bus {
    front: Arc<Front>,
    shared: Arc<Shared>,
    memory: BusMemory,
    control: Control<BusMemory>,
    server: Server,
    wake: Arc<Wake>,
    restarts: Sender<Restart>,
}

/// A machine in which the guest starts anew, and who waits until the bus has changed over to it.
type Restart = (Box<dyn Wires>, Sender<Result<()>>);

impl Bus {
    /// Starts the host for a guest with that memory and so many processors.
    ///
    /// # Errors
    /// There are no descriptors or threads.
    pub fn start(
        config: Config,
        settings: ServerSettings,
        memory: &BusMemory,
        processors: u32,
        wires: impl Wires + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(processors));
        listen(&shared, &config);
        let (mut front, (restarts, restarted)) = (None, bounded(1));
        let wires: Box<dyn Wires> = Box::new(wires);
        let (server, control) = Server::behind(config, settings, |wake| {
            let (made, posted) = Front::new(memory.clone(), Arc::clone(&shared), Arc::clone(wake));
            front = Some((Arc::new(made), Arc::clone(wake)));
            let synic = Synic::new(memory.clone(), Arc::clone(&shared), wires);
            let failed = |error: rustix::io::Errno| Error::System { what: "create an epoll", error: error.into() };
            let signals = watch().map_err(failed)?;
            Ok(BusDoor {
                memory: memory.clone(),
                shared: Arc::clone(&shared),
                processors,
                synic,
                posted,
                signals,
                events: BTreeMap::new(),
                connections: BTreeSet::new(),
                seen: None,
                restarted,
            })
        })
        .context("start the bus")?;
        let (front, wake) = front.context("the bus has no front")?;
        Ok(Self { front, shared, memory: memory.clone(), control, server, wake, restarts })
    }

    /// The guest is gone, and another will start in the machine of these wires. The host keeps its offers, its counters
    /// and what it has been told to be like. No processor may be running.
    ///
    /// # Errors
    /// There are no descriptors, or the host has ended.
    pub fn restart(&self, wires: impl Wires + 'static) -> Result<()> {
        let (answer, answered) = bounded(1);
        let restart: Restart = (Box::new(wires), answer);
        self.restarts.send(restart).ok().context("the host has ended")?;
        self.wake.wake();
        answered.recv().context("the host has ended")?
    }

    /// Where the processors bring hypercalls and register writes.
    #[must_use]
    pub fn hyperv(&self) -> Arc<dyn Hyperv> {
        Arc::clone(&self.front) as Arc<dyn Hyperv>
    }

    /// The handle to the host.
    #[must_use]
    pub fn control(&self) -> &Control<BusMemory> {
        &self.control
    }

    /// What happens below the host.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &BusMemory {
        &self.memory
    }

    /// Ends the bus's thread and waits for it. Also done by drop.
    pub fn stop(&mut self) {
        self.server.stop();
    }
}

fn watch() -> rustix::io::Result<OwnedFd> {
    epoll::create(epoll::CreateFlags::CLOEXEC)
}

/// Lets guests post where a host of these versions listens.
fn listen(shared: &Shared, config: &Config) {
    let any = |new: bool| config.versions.iter().any(|version| (*version >= Version::V5_0) == new);
    let [old, new] = &shared.message_connections;
    old.store(if any(false) { OLD_MESSAGE_CONNECTION } else { 0 }, Ordering::SeqCst);
    new.store(if any(true) { config.message_connection } else { 0 }, Ordering::SeqCst);
}

/// The door between the host's thread and a guest in a machine.
struct BusDoor {
    memory: BusMemory,
    shared: Arc<Shared>,
    processors: u32,
    synic: Synic<Box<dyn Wires>>,
    posted: Receiver<Message>,
    /// Watches the eventfds of all connections.
    signals: OwnedFd,
    /// The eventfd of a connection. It stays when the channel goes: KVM waits for all processors before it lets go of
    /// one, and a relid that was used is used again. The host counts a signal for nobody.
    events: BTreeMap<u32, OwnedFd>,
    /// What the guest may signal.
    connections: BTreeSet<u32>,
    /// The host's offers and so on when the connections were looked at last.
    seen: Option<[u64; 4]>,
    restarted: Receiver<Restart>,
}

impl BusDoor {
    /// Forgets the guest, and changes over to another machine.
    fn restart(&mut self, simulation: &mut Simulation<BusMemory>, wires: Box<dyn Wires>) -> Result<()> {
        simulation.guest_gone();
        while self.posted.try_recv().is_ok() {
            self.shared.stats.posted.fetch_sub(1, Ordering::SeqCst);
        }
        self.shared.forget();
        self.synic = Synic::new(self.memory.clone(), Arc::clone(&self.shared), wires);
        self.connections.clear();
        self.events.clear();
        self.seen = None;
        self.signals = watch().context("create an epoll")?;
        Ok(())
    }

    /// Lets the guest signal and post to what there is.
    fn follow(&mut self, simulation: &mut Simulation<BusMemory>) {
        let host = simulation.host();
        listen(&self.shared, host.config());
        let Counters { offers, released, contacts, unloads, .. } = host.counters();
        if self.seen.replace([offers, released, contacts, unloads]) == Some([offers, released, contacts, unloads]) {
            return;
        }
        let there: BTreeSet<_> = host.offered().into_iter().filter_map(|channel| channel.relid).collect();
        for gone in std::mem::take(&mut self.connections).difference(&there) {
            self.shared.connections.remove(*gone);
        }
        for &connection in &there {
            self.shared.connections.insert(connection);
            if !self.events.contains_key(&connection) && self.events.len() < EVENTS_AT_MOST {
                match self.assign(connection) {
                    Ok(event) => drop(self.events.insert(connection, event)),
                    Err(error) => log::debug!(target: "vmbus::vmm", "connection {connection}: {error:#}"),
                }
            }
        }
        self.connections = there;
    }

    /// Has KVM take the signals of a connection.
    fn assign(&mut self, connection: u32) -> Result<OwnedFd> {
        let event = crate::event::new().context("create an eventfd")?;
        // Each write is an edge, so the counter need not be read.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.signals, &event, epoll::EventData::new_u64(connection.into()), flags)
            .context("watch an eventfd")?;
        self.synic.wires().assign(connection, &event)?;
        Ok(event)
    }

    fn take_signals(&mut self, simulation: &mut Simulation<BusMemory>) {
        self.shared.signalled.take(|connection| simulation.signal(connection));
        let mut events = Vec::with_capacity(EVENTS_PER_LOOK);
        loop {
            events.clear();
            match epoll::wait(&self.signals, spare_capacity(&mut events), Some(&Timespec::default())) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return log::error!(target: "vmbus::vmm", "look for signals: {error}"),
            }
            self.shared.stats.signals_by_event.fetch_add(events.len() as u64, Ordering::Relaxed);
            for event in &events {
                simulation.signal(u32::try_from(event.data.u64()).unwrap_or(u32::MAX));
            }
            if events.len() < EVENTS_PER_LOOK {
                return;
            }
        }
    }

    fn lost(&self, error: &anyhow::Error) {
        self.shared.stats.lost.fetch_add(1, Ordering::Relaxed);
        log::debug!(target: "vmbus::vmm", "{error:#}");
    }
}

impl Door for BusDoor {
    type Memory = BusMemory;

    fn memory(&self) -> BusMemory {
        self.memory.clone()
    }

    fn processors(&self) -> u32 {
        self.processors
    }

    fn sleep(&mut self, wake: &Wake, timeout: Option<Duration>) {
        let mut on = vec![PollFd::new(wake, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        on.extend(self.synic.ends().map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN)));
        wake.sleep(&mut on, [timeout, self.synic.look_again()].into_iter().flatten().min());
    }

    fn take(&mut self, simulation: &mut Simulation<BusMemory>) -> Result<(), Error> {
        if let Ok((wires, answer)) = self.restarted.try_recv() {
            // Who asked waits for this.
            let _ = answer.send(self.restart(simulation, wires));
        }
        self.take_signals(simulation);
        if simulation.host().has_monitored() {
            simulation.poll_monitor();
        }
        while let Ok(message) = self.posted.try_recv() {
            simulation.post(&message);
            self.shared.stats.posted.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.synic.has_room()
    }

    fn flush(&mut self, simulation: &mut Simulation<BusMemory>) -> Result<(), Error> {
        self.follow(simulation);
        self.synic.retry();
        Ok(())
    }

    fn hand_over(&mut self, message_processor: u32, delivery: Delivery) -> Result<(), Error> {
        let outcome = match delivery {
            Delivery::Message { message, .. } => self.synic.post(message_processor, VMBUS_SINT, message),
            Delivery::Interrupt { processor, flag } => self.synic.set_flag(processor, VMBUS_SINT, flag),
        };
        if let Err(error) = outcome {
            self.lost(&error);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
