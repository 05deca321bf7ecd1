//! Hosts that lie: every field of an answer at its borders, packets of any length, completions that nobody waits for.

use std::time::Duration;

use vmbus_devices::storage::scsi::Command;
use vmbus_devices::storage::{Address, Data, Failure, Settings};
use vmbus_simhost::Random;
use vmbus_tests::LONG;

use crate::world::{World, brief, disks, failure, noise};

const UNIT: Address = Address::lun(0);

/// Whatever an answer says, it moves no more than was asked for, and the controller goes on.
#[test]
fn each_field_of_an_answer_at_its_borders() {
    let world = World::with(disks(&[(0, 1 << 20)]), brief());
    let disk = world.storage.disk(UNIT).unwrap();
    disk.write_at(0, &noise(1, 4096), false).unwrap();
    let fields = [
        ("status", u32::MAX),
        ("length", 0xffff),
        ("srb-status", 0xff),
        ("scsi-status", 0xff),
        ("sense-bytes", 0xff),
        ("transfer-bytes", u32::MAX),
        ("sense", 0xff),
    ];
    for (field, most) in fields {
        for value in [0, 1, 2, 0x12, 0x20, 0x81, 4095, 4096, 4097, 0x7fff_ffff, most - 1, most] {
            world.tell(&format!("lie {field} {}", value.min(most)));
            let mut data = vec![0x77; 4096];
            let pending = world.storage.submit(UNIT, Command::read(0, 8), &Data::In(4096), LONG).unwrap();
            match pending.wait(&mut data) {
                Ok(outcome) => {
                    assert!(outcome.transferred <= 4096, "{field} {value}");
                    let (came, rest) = data.split_at(outcome.transferred);
                    assert!(
                        noise(1, 4096).starts_with(came) && rest.iter().all(|byte| *byte == 0x77),
                        "{field} {value}"
                    );
                }
                Err(error) => {
                    let why = failure(Err::<(), _>(error));
                    assert!(matches!(why, Failure::NoUnit(_) | Failure::Refused { .. }), "{field} {value}: {why}");
                }
            }
            // The whole disk driver with the same lie: an error at worst.
            world.tell(&format!("lie {field} {}", value.min(most)));
            let _ = disk.read_at(0, &mut data);
            disk.read_at(0, &mut data).unwrap();
            assert!(data == noise(1, 4096), "{field} {value}");
        }
    }
    let counters = world.storage.counters();
    assert_eq!((counters.under_way, counters.abandoned, counters.unknown), (0, 0, 0));
    world.end();
}

/// What is no completion leaves the request waiting: its pages stay the host's until it says that it is done.
#[test]
fn an_answer_that_is_none_is_not_taken_for_one() {
    let world = World::with(disks(&[(0, 1 << 20)]), brief());
    world.storage.disk(UNIT).unwrap();
    for (number, words) in [
        "lie operation 0",
        "lie operation 3",
        "lie operation 11",
        "lie operation 4294967295",
        "short 0",
        "short 3",
        "short 8",
    ]
    .into_iter()
    .enumerate()
    {
        world.tell(words);
        let pending =
            world.storage.submit(UNIT, Command::read(0, 8), &Data::In(4096), Duration::from_millis(100)).unwrap();
        assert!(matches!(failure(pending.wait(&mut [0; 4096])), Failure::Timeout { .. }), "{words}");
        let counters = world.storage.counters();
        assert_eq!((counters.malformed, counters.under_way), (number as u64 + 1, number as u64 + 1), "{words}");
    }
    let World { stack, storage, .. } = world;
    storage.close().unwrap();
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Short answers are filled up with zeroes, which is no success.
#[test]
fn a_short_answer_is_no_success() {
    let world = World::with(disks(&[(0, 1 << 20)]), brief());
    world.storage.disk(UNIT).unwrap();
    for bytes in [12, 13, 14] {
        world.tell(&format!("short {bytes}"));
        let pending = world.storage.submit(UNIT, Command::read(0, 8), &Data::In(4096), LONG).unwrap();
        // A packet is padded to 8 bytes.
        match pending.wait(&mut [0; 4096]) {
            Ok(outcome) => assert_eq!(outcome.transferred, 0, "{bytes}"),
            Err(error) => panic!("{error}"),
        }
    }
    world.end();
}

#[test]
fn a_second_completion_is_nobodys() {
    let world = World::with(disks(&[(0, 1 << 20)]), Settings { subchannels: 2, ..brief() });
    let disk = world.storage.disk(UNIT).unwrap();
    for round in 0..50 {
        world.tell("twice");
        disk.write_at(0, &noise(round, 4096), false).unwrap();
        let mut read = vec![0; 4096];
        disk.read_at(0, &mut read).unwrap();
        assert!(read == noise(round, 4096));
    }
    // The last one may still be on its way, behind the answer to what is asked now on each channel.
    for _ in 0..6 {
        disk.flush().unwrap();
    }
    assert_eq!(world.storage.counters().unknown, 50);
    world.end();
}

/// Everything a host may say about itself, at random: an error at worst, and never more than was asked for.
#[test]
fn lies_at_random_do_no_harm() {
    for seed in 0..6_u64 {
        let settings = Settings { command_timeout: Duration::from_millis(50), ..brief() };
        let world = World::with(disks(&[(0, 1 << 20), (1, 4096)]), settings);
        let mut random = Random::new(seed);
        for _ in 0..60 {
            for _ in 0..1 + random.index(6) {
                let fields = [
                    "operation",
                    "status",
                    "length",
                    "srb-status",
                    "scsi-status",
                    "sense-bytes",
                    "transfer-bytes",
                    "sense",
                ];
                let words = match random.below(12) {
                    0 => "twice".to_owned(),
                    1 => "never".to_owned(),
                    2 => format!("short {}", random.below(65)),
                    3 => "lie length 52".to_owned(),
                    _ => format!(
                        "lie {} {}",
                        fields.get(random.index(fields.len())).unwrap(),
                        random.next_u32() >> random.below(32)
                    ),
                };
                world.tell(&words);
            }
            let _ = world.storage.scan();
            if let Ok(disk) = world.storage.disk(Address::lun(0)) {
                let mut data = vec![0; 8192];
                let _ = disk.write_at(0, &data, false);
                let _ = disk.read_at(4096, &mut data);
            }
        }
        // The reset that ends what was never answered.
        world.tell("honest");
        let World { stack, storage, .. } = world;
        storage.close().unwrap();
        let faults = stack.end().unwrap();
        assert!(faults.is_empty(), "seed {seed}: {}", faults.join("\n"));
    }
}
