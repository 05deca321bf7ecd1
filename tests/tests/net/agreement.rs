//! What guest and host agree on: each version, little hosts, and the end.

use super::world::{World, pump};
use vmbus_devices::net::{Offloads, Settings, Version};
use vmbus_simhost::device::NetworkSettings;

#[test]
fn frames_at_each_version_and_nothing_is_left() {
    for version in Version::OFFERED {
        let world = World::with(NetworkSettings { versions: vec![version.0], ..NetworkSettings::default() });
        let mut adapter = world.started(Settings::default());
        assert_eq!(adapter.facts().version, version);
        assert_eq!(adapter.facts().address, [0x00, 0x15, 0x5d, 1, 2, 3]);
        assert_eq!(adapter.facts().mtu, 1500);
        assert!(adapter.link().up);
        assert_eq!(adapter.link().bits_per_second, Some(10_000_000_000));
        assert_eq!(adapter.facts().most_queues, if version >= Version::V5 { 4 } else { 1 });
        assert_eq!(world.count("version"), u64::from(version.0));
        assert_ne!(world.count("filter"), 0);
        pump(adapter.queue(), 500, |number| 60 + usize::try_from(number * 7 % 1455).unwrap());
        assert_eq!(world.count("frames"), 500);
        adapter.close().unwrap();
        world.end();
    }
}

#[test]
fn a_host_that_knows_little_will_do() {
    let world = World::with(NetworkSettings { knows_little: true, ..NetworkSettings::default() });
    let mut adapter = world.started(Settings { offloads: Offloads::all(), ..Settings::default() });
    let facts = *adapter.facts();
    assert_eq!((facts.offloads, facts.most_queues, facts.mtu), (Offloads::empty(), 1, 1500));
    pump(adapter.queue(), 50, |_| 100);
    adapter.close().unwrap();
    world.end();
}

#[test]
fn the_mtu_is_what_both_can() {
    let world = World::with(NetworkSettings { mtu: 4000, part_bytes: 4096, ..NetworkSettings::default() });
    for (wished, got) in [(1500, 1500), (4000, 4000), (9000, 4000)] {
        let mut adapter = world.started(Settings { mtu: wished, ..Settings::default() });
        assert_eq!(adapter.facts().mtu, got);
        let longest = usize::try_from(got).unwrap() + 14;
        pump(adapter.queue(), 20, |_| longest);
        adapter.close().unwrap();
    }
    world.end();
}

#[test]
fn an_adapter_is_opened_again_and_again() {
    let world = World::new();
    for _ in 0..5 {
        let mut adapter = world.reopened(World::small());
        pump(adapter.queue(), 20, |_| 200);
        // With a word, and without.
        adapter.close().unwrap();
        drop(world.reopened(World::small()));
    }
    // The last one has closed when there is another.
    world.reopened(World::small()).close().unwrap();
    world.end();
}

#[test]
fn offloads_are_those_that_both_want() {
    let world = World::new();
    let wanted = Offloads::TRANSMIT_TCP_V4 | Offloads::RECEIVE_V4 | Offloads::SEGMENTATION_V4;
    let adapter = world.open(Settings { offloads: wanted, ..Settings::default() }).unwrap();
    assert_eq!((adapter.facts().offloads, adapter.facts().longest_segmented), (wanted, 0xffff));
    // TCP over IPv4, both ways.
    assert_eq!(world.count("offloads"), 4);
    adapter.close().unwrap();
    world.end();
}
