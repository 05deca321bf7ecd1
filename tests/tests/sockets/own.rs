//! What only a bus has: backlogs that the host hears of, ports, services without any, and what a host does with time.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use uuid::Uuid;
use vmbus_devices::socket::{Family, VmListener, VmSocketAddr, VmStream, tokio as tasks};
use vmbus_simhost::Config;
use vmbus_simhost::device::PipeSettings;
use vmbus_simhost::fault::{Effect, Rule, Target};

use crate::bus::{OfBus, hvsock, start};
use crate::world::{LONG, World, checksum, pattern};

/// What only a bus has.
pub(crate) fn tests() -> Vec<(&'static str, fn())> {
    vec![
        ("a_full_backlog_lets_go_of_the_next", unaccepted),
        ("ephemeral_ports_are_returned", ports_are_returned),
        ("r3_5_nothing_is_left_after_a_churn", crate::churn::churn),
        ("r3_5_nothing_is_left_of_refused_aborted_and_reset_connections", r3_5_every_way_out),
        ("an_unaccepted_offer_is_taken_back_after_30_s", taken_back),
        ("a_slow_reader_keeps_the_host_waiting", slow_reader),
        ("a_task_writes_on_although_the_host_signals_no_room", forgetful),
        ("a_service_without_a_port_has_an_address", service_without_port),
    ]
}

/// The backlog is full: the next is closed at once.
fn unaccepted() {
    let mut world = start(Config::seeded(1), false);
    let (place, mut dialer) = world.listening().unwrap();
    let listener = VmListener::bind_with_backlog(place, 1).unwrap();
    dialer.dial();
    // It is taken at once; nobody has accepted it.
    let open = |count| move |simulation: &mut vmbus_simhost::server::Sim| states(simulation) == vec!["open"; count];
    assert!(world.control().wait_for(LONG, open(1)).unwrap());
    // Once the first waits here, the second is taken and let go of: its channel is closed, which a host takes as the end.
    assert!(crate::suite::readable(&listener, LONG));
    dialer.dial();
    assert!(world.control().wait_for(LONG, |simulation| simulation.host().counters().closes == 1).unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"here").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"here");
    drop((stream, listener));
    world.end();
}

fn states(simulation: &mut vmbus_simhost::server::Sim) -> Vec<&'static str> {
    simulation.host().offered().iter().map(|offer| offer.state).collect()
}

fn ports_are_returned() {
    let mut world = hvsock().unwrap();
    let mut ports = BTreeSet::new();
    for _ in 0..20 {
        let mut stream = world.echo();
        ports.insert(stream.local_addr().unwrap().port().unwrap());
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    }
    assert_eq!(ports.len(), 20, "a port is not used again at once");
    world.end();
}

fn service_without_port() {
    let service = Uuid::from_u128(0x1234);
    let mut config = Config::seeded(1);
    config.services.push(service);
    let mut world = start(config, false);
    let mut stream = VmStream::connect(world.sockets.at(service)).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), VmSocketAddr::Service(service));
    stream.write_all(b"x").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "x");
    drop(stream);
    world.end();
}

/// Nobody listens: the guest leaves the offer alone, and the host's time is what takes it back.
fn taken_back() {
    let mut world = start(Config::seeded(1), false);
    let heard = VmListener::bind(world.sockets.at(VmSocketAddr::any(1))).unwrap();
    let service = VmSocketAddr::any(2).service_id().unwrap();
    let connect =
        move |simulation: &mut vmbus_simhost::server::Sim| simulation.host().connect(service, PipeSettings::default());
    let id = world.control().with(connect).unwrap().unwrap();
    let offers = || world.bus().offers().unwrap().len();
    let wait = |count| {
        let start = Instant::now();
        while offers() != count {
            assert!(start.elapsed() < LONG, "{} offers", offers());
            std::thread::yield_now();
        }
    };
    wait(1);
    let state = |after| {
        let later = move |simulation: &mut vmbus_simhost::server::Sim| {
            let now = simulation.host().now();
            simulation.elapsed(now + after);
            simulation.host().state(id)
        };
        world.control().with(later).unwrap()
    };
    // The moment of the connect was a little before that.
    assert_eq!(state(Duration::from_secs(25)), Some("offered"));
    assert_eq!(offers(), 1);
    assert_ne!(state(Duration::from_secs(5)), Some("offered"));
    wait(0);
    assert_eq!(world.sockets.endpoints(), 1, "the listener");
    // Who listens by then has nothing of it.
    let late = VmListener::bind(world.sockets.at(VmSocketAddr::any(2))).unwrap();
    late.set_nonblocking(true).unwrap();
    assert_eq!(late.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop((heard, late));
    world.end();
}

/// However much the host has to send: what is not read stays with it, but for the ring and one packet.
fn slow_reader() {
    const RING: u64 = 256 * 1024;
    let mut world = start(Config::seeded(1), false);
    let (mut stream, mut peer) = world.told();
    let id = crate::bus::the_only(world.control());
    let total = 1_u64 << 32;
    peer.send(total);
    let sent = || {
        assert!(world.control().wait_quiet(LONG).unwrap());
        world.control().with(move |simulation| simulation.host().count(id, "sent")).unwrap()
    };
    let mut read = 0;
    for bytes in [0, 1, 10, 5000, 20_000, 100_000] {
        let mut buffer = vec![0; bytes];
        stream.read_exact(&mut buffer).unwrap();
        assert!(buffer == pattern(read, bytes));
        read += u64::try_from(bytes).unwrap();
        // The one packet is that of which a part was read.
        let ahead = sent() - read;
        assert!(ahead <= RING + 16 * 1024, "{ahead} bytes wait here");
    }
    assert!(sent() > RING / 2, "and it did send");
    peer.reset().unwrap();
    drop(stream);
    world.end();
}

/// Every interrupt is lost, also that for room; who waits looks by itself.
fn forgetful() {
    let mut world = start(Config::seeded(1), false);
    let (stream, mut peer) = world.told();
    assert_eq!(stream.family(), Family::Hvsock);
    peer.stop();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let mut stream = tasks::VmStream::from_std(stream).unwrap();
        let mut full = 0;
        let error = loop {
            stream.writable().await.unwrap();
            match stream.try_write(&pattern(full, 10_000)) {
                Ok(bytes) => full += u64::try_from(bytes).unwrap(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        world.control().set_faults(vec![Rule::always(Target::Interrupt, Effect::Drop)]).unwrap();
        peer.go();
        let bytes = pattern(full, 1 << 20);
        stream.write_all(&bytes).await.unwrap();
        let total = full + (1 << 20);
        peer.wait_received((total, checksum(&pattern(0, usize::try_from(total).unwrap())), false));
        world.control().set_faults(Vec::new()).unwrap();
    });
    peer.end();
    world.end();
}

/// Each way that a connection may end, and each time the tables are empty behind it.
fn r3_5_every_way_out() {
    let mut world = crate::bus::hvsock_with(1);
    let place = world.echo_place().unwrap();
    let nobody = world.nobody().unwrap();
    for _ in 0..20 {
        assert!(VmStream::connect(&nobody).is_err());
        drop(vmbus_devices::socket::VmConnect::start(&place).unwrap());
        drop(VmStream::connect(&place).unwrap());
        let (stream, mut peer) = world.told();
        peer.reset().unwrap();
        drop(stream);
    }
    let left = |world: &OfBus| (world.sockets.endpoints(), world.bus().counters().unwrap().open);
    let start = Instant::now();
    while left(&world) != (0, 0) {
        assert!(start.elapsed() < LONG, "{:?}", left(&world));
        std::thread::yield_now();
    }
    world.end();
}
