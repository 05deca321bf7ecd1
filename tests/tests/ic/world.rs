//! A component that is served on a thread, and the host that it is served to.
#![expect(unreachable_pub, reason = "part of a test")]

use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;

use vmbus_channels::Waker;
use vmbus_devices::Error;
use vmbus_devices::ic::{Component, Event, Service, Settings, Summary};
use vmbus_simhost::{Config, DeviceSpec, OfferId};
use vmbus_tests::{LONG, Stack};

/// A served component.
pub struct World {
    pub stack: Stack,
    pub id: OfferId,
    events: Receiver<Event>,
    serving: Option<(JoinHandle<Result<Summary, Error>>, Waker)>,
}

impl World {
    /// Offers a device and serves it.
    pub fn start(device: DeviceSpec, component: impl Component + 'static) -> Self {
        let stack = Stack::start(Config::seeded(6).with_device(device)).unwrap();
        let relid = stack.bus.offers().unwrap().pop().unwrap().relid;
        let id = stack.control.with(move |sim| sim.host().offer_on_relid(relid)).unwrap().unwrap();
        let (_, events) = mpsc::channel();
        let mut world = Self { stack, id, events, serving: None };
        world.serve(component);
        world
    }

    /// Serves the device that is there.
    pub fn serve(&mut self, component: impl Component + 'static) {
        let offer = self.stack.bus.offers().unwrap().pop().unwrap();
        let service = Service::open(&self.stack.bus, &offer, Box::new(component), Settings::default()).unwrap();
        let (tell, events) = mpsc::channel();
        let waker = service.waker();
        // Whoever listens no more is done with the events, not with the service.
        let run = move || service.run(|event| drop(tell.send(event.clone())));
        self.events = events;
        self.serving = Some((std::thread::spawn(run), waker));
    }

    /// The next event.
    #[track_caller]
    pub fn event(&self) -> Event {
        self.events.recv_timeout(LONG).unwrap()
    }

    /// The next event that is of interest.
    #[track_caller]
    pub fn until<T>(&self, mut is: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = is(self.event()) {
                return found;
            }
        }
    }

    /// Has the host do something.
    #[track_caller]
    pub fn command(&self, words: &str) {
        self.stack.control.command(self.id, words).unwrap();
    }

    /// Waits until a number of the host's device has come to this.
    #[track_caller]
    pub fn wait(&self, name: &'static str, at_least: u64) {
        let id = self.id;
        let reached = self.stack.control.wait_for(LONG, move |sim| sim.host().count(id, name) >= at_least).unwrap();
        assert!(reached, "{name} is {}\n{}", self.count(name), self.stack.control.trace().unwrap());
    }

    pub fn count(&self, name: &'static str) -> u64 {
        let id = self.id;
        self.stack.control.with(move |sim| sim.host().count(id, name)).unwrap()
    }

    /// Ends the service.
    #[track_caller]
    pub fn stop(&mut self) -> Summary {
        let (thread, waker) = self.serving.take().unwrap();
        waker.wake();
        thread.join().unwrap().unwrap()
    }

    /// The service ends by itself, as the host took the device back.
    #[track_caller]
    pub fn rescind(&mut self) {
        self.stack.control.rescind(self.id).unwrap();
        let (thread, _) = self.serving.take().unwrap();
        let error = thread.join().unwrap().unwrap_err();
        assert!(error.is_rescinded(), "{error}");
    }

    /// Ends all, and nobody has anything to complain about.
    #[track_caller]
    pub fn end(mut self) {
        if self.serving.is_some() {
            self.stop();
        }
        let faults = self.stack.end().unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
