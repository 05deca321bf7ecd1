//! How a conversation begins: versions, properties, subchannels, and hosts that say no or nothing.

use std::time::Duration;

use vmbus_devices::storage::state::Negotiation;
use vmbus_devices::storage::wire::Version;
use vmbus_devices::storage::{Address, Failure, Settings, Storage};
use vmbus_simhost::device::StorageSettings;

use crate::world::{World, brief, disks, failure, noise, stack};

#[test]
fn every_version_is_spoken_and_the_newest_that_both_know_is_chosen() {
    let known = [0x0602, 0x0600, 0x0501, 0x0402];
    for (place, version) in known.into_iter().enumerate() {
        let versions = known.get(place..).unwrap().to_vec();
        let world = World::with(StorageSettings { versions, ..disks(&[(0, 1 << 20)]) }, Settings::default());
        let agreed = world.storage.agreed().unwrap();
        assert_eq!(agreed.version, Version(version));
        assert_eq!(agreed.max_transfer_bytes, 8 << 20);
        assert_eq!(
            agreed.subchannels,
            if version == 0x0402 { 0 } else { 3 },
            "those that were asked for, where they may be"
        );
        let disk = world.storage.disk(Address::lun(0)).unwrap();
        let (written, mut read) = (noise(1, 65_536), vec![0; 65_536]);
        disk.write_at(4096, &written, false).unwrap();
        disk.flush().unwrap();
        disk.read_at(4096, &mut read).unwrap();
        assert!(written == read, "version {version:#x}");
        world.end();
    }
}

#[test]
fn requests_go_through_all_subchannels() {
    let world = World::with(disks(&[(0, 1 << 20)]), Settings::default());
    assert_eq!(world.storage.channels(), 4);
    let disk = world.storage.disk(Address::lun(0)).unwrap();
    for place in 0..64 {
        disk.write_at(place * 4096, &noise(place, 4096), false).unwrap();
    }
    let mut read = vec![0; 4096];
    for place in 0..64 {
        disk.read_at(place * 4096, &mut read).unwrap();
        assert!(read == noise(place, 4096), "place {place}");
    }
    assert!(world.count("through_subchannels") > 80, "three of four: {}", world.count("through_subchannels"));
    world.end();
}

#[test]
fn a_host_without_subchannels_is_not_asked_for_any() {
    let world = World::with(StorageSettings { subchannels: 0, ..disks(&[(0, 1 << 20)]) }, Settings::default());
    assert_eq!(world.storage.channels(), 1);
    world.end();
}

#[test]
fn a_controller_is_opened_again_and_its_disks_are_as_they_were() {
    let mut world = World::with(disks(&[(0, 1 << 20)]), Settings::default());
    let disk = world.storage.disk(Address::lun(0)).unwrap();
    disk.write_at(0, &noise(5, 4096), true).unwrap();
    world.storage.close().unwrap();
    // What is closed says so.
    assert_eq!(failure(disk.flush()), Failure::Closed);
    world.storage = Storage::open(&world.stack.bus, &world.offer, Settings::default()).unwrap();
    let mut read = vec![0; 4096];
    world.storage.disk(Address::lun(0)).unwrap().read_at(0, &mut read).unwrap();
    assert!(read == noise(5, 4096));
    world.end();
}

#[test]
fn a_host_that_speaks_no_known_version_is_refused() {
    let (stack, offer, _) = stack(StorageSettings { versions: vec![0x0200], ..StorageSettings::default() });
    let why = failure(Storage::open(&stack.bus, &offer, brief()));
    assert_eq!(why, Failure::Negotiation(Negotiation::Version));
    // The channel is closed in the background; then nothing is left.
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn each_step_of_the_beginning_may_be_refused_or_not_answered() {
    let steps = ["the first word", "a version", "the question for its properties", "the last word"];
    for (step, name) in steps.into_iter().enumerate() {
        for word in ["lie status 3221225473", "never"] {
            let (stack, offer, host) = stack(disks(&[(0, 1 << 20)]));
            // What is before it is answered as it should be.
            for _ in 0..step {
                stack.control.command(host, "lie operation 1").unwrap();
            }
            stack.control.command(host, word).unwrap();
            let settings = Settings { host_timeout: Duration::from_secs(2), ..brief() };
            let opened = Storage::open(&stack.bus, &offer, settings);
            match (name, word) {
                // A host that says no to a version is asked for the next one. (It believes that it has agreed.)
                ("a version", "lie status 3221225473") => assert!(opened.is_err()),
                (_, "never") => assert_eq!(failure(opened), Failure::Negotiation(Negotiation::Silent(name))),
                _ => assert!(
                    matches!(failure(opened), Failure::Negotiation(Negotiation::Refused { status: 0xc000_0001, .. })),
                    "{name}"
                ),
            }
        }
    }
}
