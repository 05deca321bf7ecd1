//! Units that come, go, grow and change, and what they have to tell.

use vmbus_devices::storage::scsi::Sense;
use vmbus_devices::storage::{Address, Failure, Settings};
use vmbus_simhost::device::StorageSettings;
use vmbus_simhost::device::storage::DiskSettings;
use vmbus_tests::LONG;

use crate::world::{World, brief, disks, failure, noise};

fn at(luns: &[u8]) -> Vec<Address> {
    luns.iter().map(|lun| Address::lun(*lun)).collect()
}

#[test]
fn units_that_come_and_go_are_announced_and_found() {
    let world = World::with(disks(&[(0, 1 << 20), (5, 2 << 20)]), Settings { subchannels: 1, ..brief() });
    let found = world.storage.scan().unwrap();
    assert_eq!((found.units.len(), found.added, found.removed), (2, at(&[0, 5]), Vec::new()));
    let gone = world.storage.disk(Address::lun(5)).unwrap();
    world.tell("add 63 1MiB");
    assert!(world.storage.wait_change(LONG).unwrap());
    let found = world.storage.scan().unwrap();
    assert_eq!((found.units.len(), found.added, found.removed), (3, at(&[63]), Vec::new()));
    world.tell("remove 5");
    assert!(world.storage.wait_change(LONG).unwrap());
    let found = world.storage.scan().unwrap();
    assert_eq!((found.units.len(), found.added, found.removed), (2, Vec::new(), at(&[5])));
    assert_eq!(failure(gone.read_at(0, &mut [0; 512])), Failure::NoUnit(Address::lun(5)));
    assert_eq!(failure(world.storage.disk(Address::lun(5))), Failure::NoUnit(Address::lun(5)));
    // Another disk at the same place is another disk.
    world.tell("remove 63");
    world.tell("add 63 4MiB");
    assert!(world.storage.wait_change(LONG).unwrap());
    let found = world.storage.scan().unwrap();
    assert_eq!((found.units.len(), found.added, found.removed), (2, at(&[63]), at(&[63])));
    let found = world.storage.scan().unwrap();
    assert_eq!((found.units.len(), found.added, found.removed), (2, Vec::new(), Vec::new()));
    world.end();
}

/// Both words by which a host says it; many at once are one.
#[test]
fn announcements_are_one_until_they_are_heard() {
    let world = World::with(disks(&[(0, 1 << 20)]), brief());
    for word in ["announce", "remove-device"] {
        for _ in 0..20 {
            world.tell(word);
        }
        assert!(world.storage.wait_change(LONG).unwrap());
        // All of them came before the answer to a command that was sent after them.
        world.storage.scan().unwrap();
        let _ = world.storage.wait_change(std::time::Duration::ZERO).unwrap();
        assert!(!world.storage.wait_change(std::time::Duration::ZERO).unwrap());
    }
    assert_eq!(world.storage.counters().announcements, 40);
    world.end();
}

#[test]
fn a_controller_without_a_first_unit_and_one_without_any() {
    let world = World::with(disks(&[(7, 1 << 20)]), Settings { paths: 2, targets: 2, ..brief() });
    assert_eq!(world.storage.scan().unwrap().added, at(&[7]));
    world.end();
    let world = World::with(disks(&[]), brief());
    assert!(world.storage.scan().unwrap().units.is_empty());
    world.end();
}

#[test]
fn all_units_that_there_can_be() {
    let all: Vec<_> = (0..=255).map(|lun| (lun, 4096)).collect();
    let world = World::with(disks(&all), brief());
    assert_eq!(world.storage.scan().unwrap().units.len(), 256);
    world.end();
}

#[test]
fn a_disk_that_grows_says_so_and_is_larger_then() {
    let world = World::with(disks(&[(0, 1 << 20)]), brief());
    let mut disk = world.storage.disk(Address::lun(0)).unwrap();
    world.tell("grow 0 2MiB");
    // What is under way is sent again, and goes on.
    disk.write_at(0, &noise(1, 4096), false).unwrap();
    assert!(world.storage.wait_change(LONG).unwrap(), "the unit told of it");
    assert!(matches!(failure(disk.read_at(1 << 20, &mut [0; 512])), Failure::Range { .. }));
    disk.refresh().unwrap();
    assert_eq!(disk.bytes(), 2 << 20);
    disk.read_at(1 << 20, &mut [0; 512]).unwrap();
    // Another disk is not the same, however alike.
    world.tell("remove 0");
    world.tell("add 0 2MiB");
    assert_eq!(failure(disk.refresh()), Failure::NoUnit(Address::lun(0)));
    world.end();
}

#[test]
fn what_is_protected_is_not_written() {
    let protected = DiskSettings { read_only: true, ..DiskSettings::in_memory(1 << 20) };
    let controller = StorageSettings { disks: vec![(0, protected)], ..disks(&[]) };
    let world = World::with(controller, brief());
    let disk = world.storage.disk(Address::lun(0)).unwrap();
    assert!(disk.identity().mode.read_only);
    assert_eq!(failure(disk.write_at(0, &[0; 512], false)), Failure::ReadOnly(Address::lun(0)));
    assert_eq!(failure(disk.unmap(0, 512)), Failure::ReadOnly(Address::lun(0)));
    disk.read_at(0, &mut [0; 512]).unwrap();
    disk.flush().unwrap();
    world.tell("permit 0");
    let disk = world.storage.disk(Address::lun(0)).unwrap();
    disk.write_at(0, &[1; 512], false).unwrap();
    // The host's mind changes while the disk is in use: then it is the host that says no.
    world.tell("protect 0");
    assert!(failure(disk.write_at(0, &[2; 512], false)).is_read_only());
    assert_eq!(world.count("writes"), 1);
    world.end();
}

#[test]
fn errors_of_the_medium_are_the_callers() {
    let world = World::with(disks(&[(0, 1 << 20)]), Settings { max_transfer_bytes: 4096, ..brief() });
    let disk = world.storage.disk(Address::lun(0)).unwrap();
    world.tell("fail 0 1");
    let Failure::Command { outcome, command, .. } = failure(disk.read_at(0, &mut vec![0; 65_536])) else {
        panic!("another error")
    };
    let sense: Sense = outcome.sense.unwrap();
    assert_eq!((command, sense.key.0, sense.code, outcome.is_good()), ("READ(10)", 3, 0x11, false));
    disk.read_at(0, &mut vec![0; 65_536]).unwrap();
    world.end();
}

#[test]
fn a_unit_that_never_stops_telling_something_ends_the_command() {
    let world = World::with(disks(&[(0, 1 << 20)]), brief());
    let disk = world.storage.disk(Address::lun(0)).unwrap();
    // Fewer than a command bears.
    for _ in 0..4 {
        world.tell("attention 0");
    }
    disk.write_at(0, &noise(1, 512), false).unwrap();
    // More: the unit keeps eight, and a write is sent nine times and once before.
    for _ in 0..8 {
        world.tell("attention 0");
    }
    world.tell("hold");
    let writer = std::thread::spawn({
        let disk = disk.clone();
        move || disk.flush()
    });
    world.await_count("held", 1);
    world.tell("release");
    writer.join().unwrap().unwrap();
    world.end();
}
