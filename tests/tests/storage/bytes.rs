//! What is written is what is read: in all sizes, by many threads, through small pools, with flush and trim.

use std::sync::Arc;

use vmbus_devices::storage::scsi::Command;
use vmbus_devices::storage::{Address, Data, Failure, Settings};
use vmbus_simhost::Random;
use vmbus_simhost::device::StorageSettings;
use vmbus_simhost::device::storage::{Backing, DiskSettings};
use vmbus_tests::LONG;

use crate::world::{World, brief, disks, failure, noise};

#[test]
fn a_disk_says_what_it_is() {
    let world = World::with(disks(&[(3, 64 << 20)]), brief());
    let disk = world.storage.disk(Address::lun(3)).unwrap();
    let identity = disk.identity();
    assert_eq!(
        (identity.unit.inquiry.vendor.as_str(), identity.unit.inquiry.product.as_str()),
        ("Msft", "Virtual Disk")
    );
    assert_eq!(identity.unit.serial.as_deref(), Some("SIM0000000000000001"));
    assert_eq!(identity.unit.identifier.as_deref(), Some("60022480000000000000000000000001"));
    let capacity = identity.capacity;
    assert_eq!((capacity.blocks, capacity.block_bytes, capacity.physical_bytes), (131_072, 512, 4096));
    assert!(identity.mode.write_cache && !identity.mode.read_only);
    assert!(identity.unmaps() && identity.provisioning.reads_zeroes);
    assert_eq!(disk.bytes(), 64 << 20);
    world.end();
}

#[test]
fn random_reads_and_writes_agree_with_a_copy() {
    const BYTES: usize = 4 << 20;
    for (seed, pool_bytes) in [(1, 64 * 1024), (2, 8 << 20)] {
        let settings = Settings { pool_bytes, max_transfer_bytes: 128 * 1024, ..Settings::default() };
        let world = World::with(disks(&[(0, BYTES as u64)]), settings);
        let disk = world.storage.disk(Address::lun(0)).unwrap();
        let (mut copy, mut random) = (vec![0; BYTES], Random::new(seed));
        for round in 0..150 {
            let blocks = 1 + random.index(if round % 8 == 0 { 2048 } else { 64 });
            let at = random.index(BYTES / 512 - blocks) * 512;
            let range = at..at + blocks * 512;
            match random.below(3) {
                0 => {
                    let data = noise(random.next_u64(), blocks * 512);
                    disk.write_at(at as u64, &data, round % 5 == 0).unwrap();
                    copy.get_mut(range).unwrap().copy_from_slice(&data);
                }
                1 if random.chance(1, 4) => {
                    disk.unmap(at as u64, (blocks * 512) as u64).unwrap();
                    copy.get_mut(range).unwrap().fill(0);
                }
                _ => {
                    let mut data = vec![0xee; blocks * 512];
                    disk.read_at(at as u64, &mut data).unwrap();
                    assert!(Some(data.as_slice()) == copy.get(range), "seed {seed}, round {round}");
                }
            }
        }
        let mut all = vec![0; BYTES];
        disk.read_at(0, &mut all).unwrap();
        assert!(all == copy, "seed {seed}");
        world.end();
    }
}

/// More threads than the pool has room for: each waits for its turn, and none of them for itself.
#[test]
fn many_threads_share_a_small_pool() {
    let settings = Settings {
        pool_bytes: 256 * 1024,
        max_transfer_bytes: 128 * 1024,
        depth: 6,
        command_timeout: LONG,
        ..Settings::default()
    };
    let world = World::with(disks(&[(0, 64 << 20)]), settings);
    let disk = Arc::new(world.storage.disk(Address::lun(0)).unwrap());
    let threads: Vec<_> = (0..16_u64)
        .map(|number| {
            let disk = Arc::clone(&disk);
            std::thread::spawn(move || {
                let data = noise(number, 1 << 20);
                disk.write_at(number << 20, &data, false).unwrap();
                let mut read = vec![0; 1 << 20];
                disk.read_at(number << 20, &mut read).unwrap();
                assert!(data == read, "thread {number}");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(disk);
    let counters = world.storage.counters();
    assert_eq!((counters.abandoned, counters.under_way, counters.unknown, counters.malformed), (0, 0, 0, 0));
    world.end();
}

#[test]
fn a_disk_in_a_file_keeps_its_bytes_there() {
    let path = std::env::temp_dir().join(format!("vmbus-disk-{}", std::process::id()));
    let disk =
        DiskSettings { backing: Backing::File(path.clone()), block_bytes: 4096, ..DiskSettings::in_memory(1 << 20) };
    let world = World::with(StorageSettings { disks: vec![(0, disk)], ..StorageSettings::default() }, brief());
    let disk = world.storage.disk(Address::lun(0)).unwrap();
    assert_eq!(disk.identity().capacity.block_bytes, 4096);
    let data = noise(3, 16_384);
    disk.write_at(8192, &data, false).unwrap();
    disk.flush().unwrap();
    let file = std::fs::read(&path).unwrap();
    assert!(file.get(8192..24_576) == Some(&data));
    assert_eq!((file.len(), world.count("flushes")), (1 << 20, 1));
    std::fs::remove_file(path).unwrap();
    world.end();
}

#[test]
fn what_is_not_whole_blocks_of_the_disk_is_refused_here() {
    let world = World::with(disks(&[(0, 1 << 20)]), brief());
    let disk = world.storage.disk(Address::lun(0)).unwrap();
    let before = world.count("commands");
    for (offset, bytes) in [(1, 512), (0, 511), (1 << 20, 512), ((1 << 20) - 512, 1024), (u64::MAX - 511, 512)] {
        assert!(
            matches!(failure(disk.read_at(offset, &mut vec![0; bytes])), Failure::Range { .. }),
            "{offset}+{bytes}"
        );
        assert!(matches!(failure(disk.write_at(offset, &vec![0; bytes], false)), Failure::Range { .. }));
        assert!(matches!(failure(disk.unmap(offset, bytes as u64)), Failure::Range { .. }));
    }
    assert_eq!(world.count("commands"), before, "the host never heard of them");
    disk.read_at(0, &mut []).unwrap();
    world.end();
}

#[test]
fn old_disks_and_large_ones_are_asked_by_the_command_that_they_know() {
    let old = DiskSettings { modern: false, thin: false, ..DiskSettings::in_memory(1 << 20) };
    let large = DiskSettings::in_memory(3 << 40);
    let controller = StorageSettings { disks: vec![(0, old), (1, large)], ..StorageSettings::default() };
    let world = World::with(controller, brief());
    let old = world.storage.disk(Address::lun(0)).unwrap();
    assert_eq!((old.bytes(), old.identity().unmaps()), (1 << 20, false));
    assert!(matches!(failure(old.unmap(0, 4096)), Failure::Unsupported { .. }));
    let large = world.storage.disk(Address::lun(1)).unwrap();
    assert_eq!(large.bytes(), 3 << 40);
    // Behind the end of what the short commands can say.
    let (data, mut read) = (noise(9, 4096), vec![0; 4096]);
    large.write_at((3 << 40) - 4096, &data, false).unwrap();
    large.read_at((3 << 40) - 4096, &mut read).unwrap();
    assert!(data == read);
    world.end();
}

#[test]
fn commands_of_the_callers_own_and_their_limits() {
    let world = World::with(disks(&[(0, 1 << 20)]), Settings { max_transfer_bytes: 65_536, ..brief() });
    let unit = Address::lun(0);
    let mut sense = [0; 18];
    // The unit has just been switched on, which is told once.
    let outcome = world.storage.execute(unit, Command::request_sense(18), &mut sense).unwrap();
    assert!(outcome.is_good());
    assert_eq!((outcome.transferred, sense[2], sense[12]), (18, 6, 0x29));
    assert!(world.storage.execute(unit, Command::test_unit_ready(), &mut []).unwrap().is_good());
    let unknown = Command::other(&[0xc1, 0, 0, 0, 0, 0], vmbus_devices::storage::wire::Direction::None);
    let outcome = world.storage.execute(unit, unknown, &mut []).unwrap();
    assert_eq!(outcome.sense.map(|sense| (sense.key.0, sense.code)), Some((5, 0x20)));
    let most = world.storage.max_command_bytes();
    assert_eq!(most, 65_536);
    let large = world.storage.submit(unit, Command::read(0, 129), &Data::In(most + 512), LONG);
    assert_eq!(failure(large), Failure::TooLarge { bytes: most + 512, most });
    world.end();
}
