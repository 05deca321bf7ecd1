//! R5.4: a link that has gone silent, and nobody says so.

use std::io::Write;
use std::time::{Duration, Instant};

use vmbus_channels::KeepAlive;
use vmbus_channels::group::GroupOptions;
use vmbus_devices::multiplex::Settings;
use vmbus_simhost::device::MultiplexSettings;
use vmbus_tests::LONG;

use crate::world::{World, bytes, echo, until};

fn watched(keep_alive: KeepAlive) -> Settings {
    let group = GroupOptions { keep_alive: Some(keep_alive), ..GroupOptions::default() };
    Settings { group, ..Settings::default() }
}

#[test]
fn r5_4_a_silent_link_is_found_in_time_and_its_streams_move() {
    let millis = Duration::from_millis;
    let keep_alive = KeepAlive::new(millis(100), millis(50), 3).unwrap();
    let world = World::start(20, 2, MultiplexSettings::default(), watched(keep_alive));
    let streams: Vec<_> = (0..6).map(|_| world.device.connect(Some(LONG)).unwrap()).collect();
    let silent = world.offer(1);
    world.stack.control.command(silent, "deaf").unwrap();
    let start = Instant::now();
    let sent = bytes(20, 100_000);
    std::thread::scope(|scope| {
        for stream in &streams {
            scope.spawn(|| echo(stream, &sent).unwrap());
        }
        until(|| world.device.counts().moves >= 2);
    });
    let took = start.elapsed();
    // Generous: this machine may be busy.
    assert!(took >= millis(50) && took < keep_alive.bound() + Duration::from_secs(10), "{took:?}");
    drop(streams);
    world.wait_links(2);
    world.wait_forgotten();
    world.end();
}

#[test]
fn r5_4_a_link_that_answers_is_left_alone() {
    let millis = Duration::from_millis;
    let keep_alive = KeepAlive::new(millis(20), Duration::from_secs(20), 3).unwrap();
    let world = World::start(21, 1, MultiplexSettings::default(), watched(keep_alive));
    let stream = world.device.connect(Some(LONG)).unwrap();
    until(|| world.count("probes") >= 6);
    assert_eq!((world.device.counts().links, world.device.counts().moves), (2, 0));
    // The host may ask, too.
    world.stack.control.command(world.offer(1), "probe").unwrap();
    let id = world.offer(1);
    until(|| world.stack.control.with(move |simulation| simulation.host().count(id, "alive")).unwrap() == 1);
    (&stream).write_all(b"still there").unwrap();
    drop(stream);
    world.wait_forgotten();
    world.end();
}
