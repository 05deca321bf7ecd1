//! Bridges: hvsock services of the host that lead to sockets of this machine, and sockets that lead to guests' listeners.
//!
//! The simulation does no input or output. It asks about each connection ([`crate::Host::next_asked`]); a thread connects
//! on, and what is carried waits in a bounded `line` between a conduit and two threads for each socket.

mod carry;
mod line;
mod publish;
mod sink;

pub(super) use publish::{Guests, Publisher};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use uuid::Uuid;

use super::{Control, spawn};
use crate::device::{Conduit, Device};
use crate::plain::{Plain, PlainAddr};
use crate::{Asked, Config, Error, Memory};

/// How long a socket of this machine may take to accept, for each of its addresses.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Connections at a time, of one guest or to one socket; more are refused.
const CONNECTIONS_AT_MOST: usize = 256;
/// Connections that wait to be decided on; more are refused.
const ASKED_AT_MOST: usize = 256;

/// Where connections of guests to a service lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To a socket of this machine, for each connection anew. If that refuses, so does the host.
    Plain(PlainAddr),
    /// Back: what the guest says it hears.
    Echo,
    /// Nowhere: what the guest says is thrown away, and its end is answered by one.
    Sink,
}

/// What leads from guests to this machine, and from this machine to guests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bridges {
    /// Services of the host.
    pub services: Vec<(Uuid, Target)>,
    /// Sockets of this machine to listen on, and the service of the guest that each leads to: of the guest that came
    /// first, of those that are there.
    pub published: Vec<(PlainAddr, Uuid)>,
}

impl Bridges {
    /// Makes a host know the services.
    pub(super) fn configure(&self, config: &mut Config) {
        for (service, target) in &self.services {
            match target {
                Target::Echo => config.services.push(*service),
                Target::Plain(_) | Target::Sink => drop(config.decided_elsewhere.insert(*service)),
            }
        }
    }

    /// Serves what a guest connects to, for as long as its simulation is there.
    ///
    /// # Errors
    /// [`Error::System`] when there are no threads.
    pub(super) fn serve<M: Memory + 'static>(&self, control: &Control<M>) -> Result<(), Error> {
        if self.services.iter().all(|(_, target)| *target == Target::Echo) {
            return Ok(());
        }
        let (asks, asked) = bounded(ASKED_AT_MOST);
        control.when(move |simulation| {
            while let Some(one) = simulation.host().next_asked() {
                // A guest that says goodbye and hello again all the time may ask faster than it is answered.
                if asks.try_send(one).is_err() {
                    drop(simulation.host().refuse(one));
                }
            }
            false
        })?;
        let (services, control) = (self.services.clone(), control.clone());
        spawn("simhost-bridge", move || decide(&services, &control, &asked)).map(drop)
    }
}

/// Decides on connections until the simulation is over.
fn decide<M: Memory + 'static>(services: &[(Uuid, Target)], control: &Control<M>, asked: &Receiver<Asked>) {
    let places = Places::default();
    for asked in asked {
        let target = services.iter().find(|(service, _)| *service == asked.service).map(|(_, target)| target);
        let decided = match target {
            Some(Target::Plain(addr)) => match places.take() {
                Some(place) => {
                    let (control, addr) = (control.clone(), addr.clone());
                    let work = move || {
                        connect_on(&control, asked, &addr);
                        drop(place);
                    };
                    spawn("simhost-connect", work).map(drop)
                }
                None => refuse(control, asked),
            },
            Some(Target::Sink) => accept(control, asked, Box::new(Conduit::new(sink::new()))),
            Some(Target::Echo) | None => refuse(control, asked),
        };
        if let Err(error) = decided {
            log::warn!(target: "vmbus::simhost", "a guest's connection to {} is not decided on: {error}", asked.service);
        }
    }
}

/// Places for connections that are made or carried.
#[derive(Clone, Default)]
struct Places(Arc<AtomicUsize>);

/// A place that is taken, until the drop.
struct Place(Arc<AtomicUsize>);

impl Places {
    /// A place, if there is one left.
    fn take(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.0));
        (self.0.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_AT_MOST).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn accept<M: Memory + 'static>(control: &Control<M>, asked: Asked, device: Box<dyn Device>) -> Result<(), Error> {
    control.with(move |simulation| simulation.host().accept(asked, device).map(drop))?
}

fn refuse<M: Memory + 'static>(control: &Control<M>, asked: Asked) -> Result<(), Error> {
    control.with(move |simulation| simulation.host().refuse(asked))?
}

/// Connects on, then accepts or refuses, and carries until it is over.
fn connect_on<M: Memory + 'static>(control: &Control<M>, asked: Asked, addr: &PlainAddr) {
    let decided = match Plain::connect(addr, CONNECT_WITHIN) {
        Ok(plain) => carry::over(Arc::new(plain), control.waker(), |conduit| accept(control, asked, conduit)),
        Err(error) => {
            log::info!(target: "vmbus::simhost", "a guest is refused, as {addr} can't be reached: {error}");
            refuse(control, asked)
        }
    };
    if let Err(error) = decided {
        log::debug!(target: "vmbus::simhost", "no connection to {addr}: {error}");
    }
}
