//! The two families over the wire link, with the simulated host's byte pipes as peers.

use std::time::Instant;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::OfferFlags;
use vmbus_channels::{Settings, Vmbus};
use vmbus_devices::socket::{Place, SocketSettings, Sockets, VmListener, VmSocketAddr, VmStream};
use vmbus_simhost::device::PipeSettings;
use vmbus_simhost::{Config, Control, DeviceSpec, OfferId, ServerSettings};
use vmbus_tests::Stack;

use crate::world::{Dialer, LONG, Peer, World};

const ECHO_PORT: u32 = 5000;
const FREE_PORT: u32 = 5001;
const LISTENING_PORT: u32 = 6000;
const PIPES: u64 = 8;

/// Either family.
pub(crate) struct OfBus {
    stack: Option<Stack>,
    pub(crate) sockets: Sockets,
    is_pipe: bool,
    /// Pipes that were not used yet: echoing, and told.
    next: u64,
    port: u32,
}

pub(crate) fn start(config: Config, is_pipe: bool) -> OfBus {
    start_with(config, is_pipe, Settings::default(), SocketSettings::default())
}

pub(crate) fn start_with(config: Config, is_pipe: bool, bus: Settings, settings: SocketSettings) -> OfBus {
    let stack = Stack::start_with(config, ServerSettings::default(), bus).unwrap();
    let sockets = if is_pipe { Sockets::pipes(&stack.bus, settings) } else { Sockets::hvsock(&stack.bus, settings) };
    OfBus { stack: Some(stack), sockets, is_pipe, next: 0, port: LISTENING_PORT }
}

/// What [`World::echo_place`] is of.
pub(crate) fn echo_service() -> Uuid {
    VmSocketAddr::host(ECHO_PORT).service_id().unwrap()
}

pub(crate) fn hvsock() -> Result<Box<dyn World>, String> {
    Ok(Box::new(hvsock_with(1)))
}

pub(crate) fn hvsock_with(seed: u64) -> OfBus {
    let mut config = Config::seeded(seed);
    config.services.push(echo_service());
    start(config, false)
}

/// The same where a connection has a processor of its own, and sleeps on its interrupt.
pub(crate) fn hvsock_direct() -> Result<Box<dyn World>, String> {
    let mut config = Config::seeded(1);
    config.services.push(echo_service());
    let mut settings = Settings::default();
    settings.dispatch.direct = 1;
    Ok(Box::new(start_with(config, false, settings, SocketSettings::default())))
}

fn pipe_spec(number: u64) -> DeviceSpec {
    // Even ones echo.
    let settings = PipeSettings { echoes: number.is_multiple_of(2), ..PipeSettings::default() };
    DeviceSpec::pipe(number, settings).with_flags(OfferFlags::NAMED_PIPE_MODE)
}

pub(crate) fn pipe() -> Result<Box<dyn World>, String> {
    let config = (0..PIPES).fold(Config::seeded(1), |config, number| config.with_device(pipe_spec(number)));
    Ok(Box::new(start(config, true)))
}

impl OfBus {
    pub(crate) fn bus(&self) -> &Vmbus {
        &self.stack.as_ref().unwrap().bus
    }

    pub(crate) fn control(&self) -> &Control {
        &self.stack.as_ref().unwrap().control
    }

    fn peer(&self, id: OfferId) -> Box<dyn Peer> {
        let Stack { bus, control, .. } = self.stack.as_ref().unwrap();
        let instances = control.with(move |simulation| {
            simulation.host().offered().iter().find(|offer| offer.id == id).map(|offer| offer.instance)
        });
        let (bus, instance) = (bus.clone(), instances.unwrap().unwrap());
        Box::new(Told { control: control.clone(), id, bus, instance, stays: self.is_pipe })
    }

    fn pipe_place(&mut self, echoes: bool) -> Place {
        self.next += 2;
        assert!(self.next <= PIPES, "more pipes than there are");
        let number = self.next - if echoes { 2 } else { 1 };
        self.sockets.at(pipe_spec(number).instance)
    }
}

/// The one channel that is open with this instance.
fn find(control: &Control, instance: Uuid) -> OfferId {
    let found = control.with(move |simulation| {
        simulation.host().offered().iter().find(|offer| offer.instance == instance).map(|offer| offer.id)
    });
    found.unwrap().unwrap()
}

/// The one channel that there is.
pub(crate) fn the_only(control: &Control) -> OfferId {
    control.with(|simulation| simulation.host().offered().first().map(|offer| offer.id)).unwrap().unwrap()
}

impl World for OfBus {
    fn echo(&mut self) -> VmStream {
        VmStream::connect(self.echo_place().unwrap()).unwrap()
    }

    fn told(&mut self) -> (VmStream, Box<dyn Peer>) {
        if self.is_pipe {
            let place = self.pipe_place(false);
            let instance = place.addr().service_id().unwrap();
            let stream = VmStream::connect(place).unwrap();
            let id = find(self.control(), instance);
            return (stream, self.peer(id));
        }
        self.port += 1;
        let listener = VmListener::bind(self.sockets.at(VmSocketAddr::any(self.port))).unwrap();
        let service = VmSocketAddr::any(self.port).service_id().unwrap();
        let id = self.control().with(move |simulation| simulation.host().connect(service, PipeSettings::default()));
        let id = id.unwrap().unwrap();
        let (stream, _) = listener.accept().unwrap();
        (stream, self.peer(id))
    }

    fn echo_place(&mut self) -> Result<Place, String> {
        Ok(if self.is_pipe { self.pipe_place(true) } else { self.sockets.at(VmSocketAddr::host(ECHO_PORT)) })
    }

    fn nobody(&mut self) -> Result<Place, String> {
        Ok(self.sockets.at(VmSocketAddr::host(FREE_PORT)))
    }

    fn listening(&mut self) -> Result<(Place, Box<dyn Dialer>), String> {
        let addr = VmSocketAddr::any(LISTENING_PORT);
        let (control, service, is_pipe) = (self.control().clone(), addr.service_id().unwrap(), self.is_pipe);
        Ok((self.sockets.at(addr), Box::new(HostDials { control, service, is_pipe, number: 100 })))
    }

    fn end(&mut self) {
        // Connections linger until the host has read everything, which takes it a moment.
        let (start, bus) = (Instant::now(), &self.stack.as_ref().unwrap().bus);
        let left =
            || (self.sockets.endpoints(), bus.counters().map(|counters| (counters.open, counters.waiting)).unwrap());
        while left() != (0, (0, 0)) {
            assert!(start.elapsed() < LONG, "endpoints, open channels, commands are left: {:?}", left());
            std::thread::yield_now();
        }
        self.sockets.shutdown();
        let faults = self.stack.take().unwrap().end().unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

/// A pipe of the simulated host.
struct Told {
    control: Control,
    id: OfferId,
    bus: Vmbus,
    instance: Uuid,
    /// A device is there behind its ends.
    stays: bool,
}

impl Peer for Told {
    fn send(&mut self, bytes: u64) {
        self.control.command(self.id, &format!("send {bytes}")).unwrap();
    }

    fn end(&mut self) {
        self.control.command(self.id, "end").unwrap();
    }

    fn stop(&mut self) {
        self.control.command(self.id, "stop").unwrap();
    }

    fn go(&mut self) {
        self.control.command(self.id, "go").unwrap();
    }

    fn reset(&mut self) -> Result<(), String> {
        self.stays = false;
        self.control.rescind(self.id).unwrap();
        Ok(())
    }

    fn wait_gone(&mut self) {
        let start = Instant::now();
        while !self.stays && self.bus.find(self.instance).is_ok() {
            assert!(start.elapsed() < LONG, "the host does not take the connection back");
            std::thread::yield_now();
        }
    }

    fn received(&mut self) -> (u64, u64, bool) {
        let id = self.id;
        let counts = self.control.with(move |simulation| {
            let host = simulation.host();
            ["received", "checksum", "end_received"].map(|name| host.count(id, name))
        });
        let [bytes, checksum, ended] = counts.unwrap();
        (bytes, checksum, ended != 0)
    }
}

/// The host connects, or offers one more pipe.
struct HostDials {
    control: Control,
    service: Uuid,
    is_pipe: bool,
    number: u64,
}

impl Dialer for HostDials {
    fn dial(&mut self) {
        let (service, number) = (self.service, self.number);
        self.number += 2;
        let echoes = PipeSettings { echoes: true, ..PipeSettings::default() };
        if self.is_pipe {
            let spec = DeviceSpec { class: Class(service), ..pipe_spec(number) };
            self.control.offer(spec).unwrap();
        } else {
            self.control.with(move |simulation| simulation.host().connect(service, echoes)).unwrap().unwrap();
        }
    }
}
