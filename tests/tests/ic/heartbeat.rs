//! Heartbeat: versions, beats, hostile packets, and an end in every state.

use std::time::Duration;

use vmbus_devices::ic::heartbeat::{ApplicationState, Applications};
use vmbus_devices::ic::{Event, Heartbeat, Ignored};
use vmbus_simhost::DeviceSpec;
use vmbus_simhost::device::ic::{ComponentHost, HeartbeatHost, HeartbeatSettings, HostSettings, Request};

use crate::world::World;

fn host(settings: HostSettings) -> DeviceSpec {
    let quick = HeartbeatSettings { interval: Duration::from_millis(1), ..HeartbeatSettings::default() };
    ComponentHost::spec(move || HeartbeatHost::new(quick), settings)
}

#[test]
fn the_heart_beats_at_every_version() {
    for (frameworks, versions, agreed) in [
        (vec![(1, 0), (3, 0)], vec![(1, 0), (3, 0)], 0x3_0000),
        (vec![(1, 0)], vec![(1, 0)], 0x1_0000),
        (vec![(3, 0)], vec![(9, 0), (3, 0)], 0x3_0000),
        (vec![(3, 0)], vec![(3, 1)], 0),
    ] {
        let applications = Applications::default();
        applications.set(ApplicationState::HEALTHY);
        let mut world = World::start(host(HostSettings { frameworks, versions }), Heartbeat::new(applications.clone()));
        if agreed == 0 {
            assert_eq!(world.event(), Event::NothingInCommon);
            world.wait("apart", 1);
        } else {
            world.wait("beats", 20);
            applications.set(ApplicationState::CRITICAL);
            let told = if agreed == 0x3_0000 { 2 } else { 0 };
            world.wait("applications", told);
            assert_eq!(world.count("version"), agreed);
            assert!(world.stop().counters.done >= 20);
        }
        world.end();
    }
}

#[test]
fn a_host_that_negotiates_again_gets_the_same_answer() {
    let world = World::start(host(HostSettings::default()), Heartbeat::default());
    world.wait("beats", 2);
    for _ in 0..3 {
        world.command("negotiate");
        world.until(|event| matches!(event, Event::Agreed(_)).then_some(()));
    }
    let beats = world.count("beats");
    world.wait("beats", beats + 2);
    world.end();
}

/// Packets that are none, between beats: the beat goes on.
#[test]
fn hostile_packets_do_not_stop_it() {
    let world = World::start(host(HostSettings::default()), Heartbeat::default());
    world.wait("beats", 1);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for bytes in [0, 1, 7, 8, 27] {
        world.command(&format!("raw {}", hex(&vec![0xff; bytes])));
        // Payloads are filled up to whole words.
        let filled = usize::div_ceil(bytes, 8) * 8;
        let short = if filled < 28 { Ignored::Short { bytes: filled } } else { Ignored::Kind(u16_kind()) };
        world.until(|event| matches!(event, Event::Ignored(what) if what == short).then_some(()));
    }
    world.command(&format!("raw {}", hex(&[0x11; 16_000])));
    world.until(|event| matches!(event, Event::Ignored(Ignored::Long { bytes: 16_000 })).then_some(()));
    world.command(&format!("raw-type 11 {}", hex(&[0; 32])));
    world.until(|event| matches!(event, Event::Ignored(Ignored::PacketType(11))).then_some(()));
    for (kind, body) in [(1, vec![]), (3, vec![0; 64]), (0, vec![0xff; 8]), (u16::MAX, vec![1; 9])] {
        let request = Request { versions: [(3, 0); 2], kind, transaction: 200, flags: 3, body };
        let stray = world.count("stray");
        world.command(&format!("raw {}", hex(&request.to_bytes())));
        // Each is answered, so that no host waits.
        world.wait("stray", stray + 1);
    }
    world.command("negotiate");
    let beats = world.count("beats");
    world.wait("beats", beats + 2);
    world.end();
}

const fn u16_kind() -> vmbus_devices::ic::wire::MessageType {
    vmbus_devices::ic::wire::MessageType(0xffff)
}

/// The host takes the device back before the agreement, in a beat, between beats; and a new service goes on from there.
#[test]
fn it_ends_when_the_host_takes_the_device_back() {
    for beats in [0, 1, 5] {
        let mut world = World::start(host(HostSettings::default()), Heartbeat::default());
        world.wait("beats", beats);
        world.rescind();
        world.end();
    }
    let mut world = World::start(host(HostSettings::default()), Heartbeat::default());
    for round in 1..4 {
        world.wait("beats", round * 3);
        assert!(world.stop().agreed.is_some());
        world.serve(Heartbeat::default());
    }
    world.end();
}
