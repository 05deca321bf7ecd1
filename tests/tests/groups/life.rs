//! Streams where nothing goes wrong but what the application, or the host, does on purpose.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use vmbus_channels::group::{GroupOptions, Policy};
use vmbus_devices::Error;
use vmbus_devices::multiplex::{Mode, Multiplex, Settings};
use vmbus_simhost::device::MultiplexSettings;
use vmbus_tests::LONG;

use crate::world::{World, bytes, echo, until};

fn with(policy: Policy) -> Settings {
    Settings { group: GroupOptions { policy, processors: 2, ..GroupOptions::default() }, ..Settings::default() }
}

#[test]
fn many_streams_share_the_links_and_each_is_its_own() {
    for mode in [Mode::Numbered, Mode::Plain] {
        let settings = Settings { mode, ..with(Policy::RoundRobin) };
        let world = World::start(1, 2, MultiplexSettings::default(), settings);
        std::thread::scope(|scope| {
            for number in 0..12_u64 {
                let device = &world.device;
                scope.spawn(move || {
                    let stream = device.connect(Some(LONG)).unwrap();
                    stream.set_read_timeout(Some(LONG)).unwrap();
                    stream.set_write_timeout(Some(LONG)).unwrap();
                    echo(&stream, &bytes(number, 50_000 + 3000 * usize::try_from(number).unwrap())).unwrap();
                    assert_eq!(stream.moves().unwrap_or(0), 0);
                });
            }
        });
        world.wait_forgotten();
        assert_eq!(world.count("opened"), 12);
        world.end();
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let world = World::start(8, 0, MultiplexSettings::default(), Settings::default());
    let offer = world.bus().of_class(Settings::CLASS).unwrap().pop().unwrap();
    let mut group = GroupOptions::default();
    group.open.outgoing_bytes = 8192;
    for settings in [Settings { buffer_bytes: 0, ..Settings::default() }, Settings { group, ..Settings::default() }] {
        let error = Multiplex::open(world.bus(), &offer, settings).unwrap_err();
        assert!(matches!(error, Error::Argument(_)), "{error}");
    }
    // It is open already.
    assert!(Multiplex::open(world.bus(), &offer, Settings::default()).is_err());
    world.end();
}

#[test]
fn streams_are_spread_by_the_policy() {
    let world = World::start(2, 2, MultiplexSettings::default(), with(Policy::RoundRobin));
    let streams: Vec<_> = (0..6).map(|_| world.device.connect(Some(LONG)).unwrap()).collect();
    let mut on: Vec<_> = streams.iter().map(|stream| stream.link().unwrap()).collect();
    on.sort_unstable();
    assert_eq!(on, [0, 0, 1, 1, 2, 2]);
    drop(streams);
    world.wait_forgotten();
    world.end();

    let world = World::start(2, 2, MultiplexSettings::default(), with(Policy::LeastLoaded));
    let first = world.device.connect(Some(LONG)).unwrap();
    let second = world.device.connect(Some(LONG)).unwrap();
    assert_ne!(first.link().unwrap(), second.link().unwrap());
    drop((first, second));
    world.wait_forgotten();
    world.end();
}

#[test]
fn a_slow_reader_takes_no_memory_and_a_fast_writer_waits() {
    let host = MultiplexSettings { buffer_bytes: 20_000, ..MultiplexSettings::default() };
    let settings = Settings { buffer_bytes: 10_000, ..Settings::default() };
    let world = World::start(3, 1, host, settings);
    let stream = world.device.connect(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let sent = bytes(9, 100_000);
    let mut at = 0;
    let error = loop {
        match (&stream).write(&sent[at..]) {
            Ok(written) => at += written,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    // Ours to send, the host's, and ours to read: no more than that is anywhere.
    assert!(at <= 10_000 + 20_000 + 10_000, "{at} bytes are somewhere");
    assert!(at >= 20_000);
    // As soon as somebody reads, it goes on.
    stream.set_write_timeout(Some(LONG)).unwrap();
    let rest = &sent[at..];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(rest).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        (&stream).read_to_end(&mut back).unwrap();
        assert!(back == sent);
    });
    stream.finish().unwrap();
    world.wait_forgotten();
    world.end();
}

#[test]
fn timeouts_resets_and_refusals_are_told_apart() {
    let host = MultiplexSettings { streams: 2, ..MultiplexSettings::default() };
    let world = World::start(4, 0, host, Settings::default());
    let stream = world.device.connect(Some(LONG)).unwrap();
    let _other = world.device.connect(Some(LONG)).unwrap();
    let refused = world.device.connect(Some(LONG)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    assert_eq!(world.device.connect(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert_eq!((&stream).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // A reader that waits is woken by a reset.
    stream.set_read_timeout(None).unwrap();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| (&stream).read(&mut [0; 8]));
        world.stack.control.command(world.offer(0), "reset").unwrap();
        assert_eq!(reading.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
    assert_eq!((&stream).write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
    world.wait_forgotten();
    world.end();
}

#[test]
fn r2_1_a_dropped_stream_is_forgotten_on_both_sides() {
    let world = World::start(5, 1, MultiplexSettings::default(), Settings::default());
    for round in 0..20 {
        let stream = world.device.connect(Some(LONG)).unwrap();
        (&stream).write_all(&bytes(round, 5000)).unwrap();
        drop(stream);
    }
    world.wait_forgotten();
    assert_eq!((world.count("opened"), world.count("done")), (20, 20));
    world.end();
}

#[test]
fn r2_2_handles_outlive_the_device() {
    let world = World::start(6, 1, MultiplexSettings::default(), Settings::default());
    let streams: Vec<_> = (0..4).map(|_| world.device.connect(Some(LONG)).unwrap()).collect();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| (&streams[0]).read(&mut [0; 8]));
        world.rescind(0);
        let error = reading.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    });
    until(|| world.device.is_over());
    for stream in &streams {
        let error = (&*stream).write(b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
        assert!(stream.link().is_err());
    }
    let error = world.device.connect(Some(LONG)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    until(|| world.bus().offers().unwrap().is_empty());
    drop(streams);
    until(|| world.device.counts().held_connections == 0 && world.device.counts().held_links == 0);
    world.end();
}
