//! The loop on its thread, with a channel of the standard library in place of the host.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use uuid::Uuid;
use vmbus_channels::{Announcement, ChannelId};

use super::*;
use crate::balloon::Failure;
use crate::registry::{DeviceState, Registration, Registry};

/// What ends a loop: its stop, or the host.
enum End {
    Stop,
    HostBrokeIt,
}

struct Double {
    ends: Mutex<Option<(Sender<End>, Receiver<End>)>>,
    ended: Sender<()>,
}

impl Driver for Double {
    fn name(&self) -> String {
        "double".to_owned()
    }

    fn ids(&self) -> DeviceIds {
        DeviceIds::class(Class::DYNAMIC_MEMORY)
    }

    fn probe(&self, context: &Context, _: Offer) -> Result<Box<dyn Instance>, Error> {
        let (end, ends) = self.ends.lock().unwrap().take().ok_or(Error::NoBus)?;
        let ended = self.ended.clone();
        let run = move |context: &Context| {
            let outcome = match ends.recv().unwrap() {
                End::Stop => Ok(Summary::default()),
                End::HostBrokeIt => {
                    Err(Error::Negotiation { device: "double".to_owned(), failure: Failure::NoVersion })
                }
            };
            drop(context.registry().devices());
            ended.send(()).unwrap();
            outcome
        };
        serve(context, move || drop(end.send(End::Stop)), run)
    }
}

/// A registry with a device that its driver serves.
struct Driven {
    registry: Registry,
    registration: Registration,
    /// Ends the driver's loop from the host's side.
    host: Sender<End>,
    /// Says that it has ended.
    ended: Receiver<()>,
}

fn driven() -> Driven {
    let (host, ends) = channel();
    let (say_ended, ended) = channel();
    let registry = Registry::by_hand(crate::registry::Settings::default(), None).unwrap();
    let driver = Double { ends: Mutex::new(Some((host.clone(), ends))), ended: say_ended };
    let registration = registry.register(driver).unwrap();
    let offer = Offer::made_up(ChannelId::made_up(1, 1), Class::DYNAMIC_MEMORY, Uuid::from_u128(1));
    registry.announce(Announcement::Arrived(offer));
    registry.settle().unwrap();
    Driven { registry, registration, host, ended }
}

#[test]
fn the_loop_is_stopped_and_joined_by_the_removal() {
    let Driven { registry, registration, ended, .. } = driven();
    assert_eq!(registry.devices().unwrap()[0].state, DeviceState::Driven);
    registration.unregister().unwrap();
    assert!(ended.try_recv().is_ok(), "it has ended when the call returns");
    registry.shutdown().unwrap();
}

#[test]
fn a_loop_that_ends_with_an_error_gives_the_device_up() {
    let Driven { registry, registration, host, ended } = driven();
    host.send(End::HostBrokeIt).unwrap();
    ended.recv().unwrap();
    while registry.devices().unwrap()[0].state != DeviceState::Failed {
        std::thread::yield_now();
    }
    assert!(registry.devices().unwrap()[0].failure.is_some());
    registration.unregister().unwrap();
    registry.shutdown().unwrap();
}
