//! Hosts that are slow, silent or gone: timeouts, late completions, resets, rescinds, and closes in the middle.

use std::time::{Duration, Instant};

use vmbus_devices::storage::scsi::Command;
use vmbus_devices::storage::{Address, Data, Failure, Pending, Settings, Storage};
use vmbus_simhost::DeviceSpec;
use vmbus_simhost::device::StorageController;
use vmbus_tests::LONG;

use crate::world::{World, brief, disks, failure, noise};

const BRIEF: Duration = Duration::from_millis(50);
const UNIT: Address = Address::lun(0);

fn read(storage: &Storage, block: u64, timeout: Duration) -> Pending {
    storage.submit(UNIT, Command::read(block, 8), &Data::In(4096), timeout).unwrap()
}

/// Waits until the host has completed everything.
fn settle(storage: &Storage) {
    let deadline = Instant::now() + LONG;
    while storage.counters().under_way != 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

/// The request's owner hears of the timeout, once; its completion comes later, into pages that nobody else got.
#[test]
fn a_late_completion_is_nobodys_and_its_pages_were_nobodys() {
    let settings = Settings { pool_bytes: 64 * 1024, ..brief() };
    let world = World::with(disks(&[(0, 1 << 20)]), settings);
    let disk = world.storage.disk(UNIT).unwrap();
    disk.write_at(0, &noise(1, 4096), false).unwrap();
    world.tell("hold");
    let late = read(&world.storage, 0, BRIEF);
    let mut nothing = vec![0x55; 4096];
    assert!(matches!(failure(late.wait(&mut nothing)), Failure::Timeout { .. }));
    assert!(nothing.iter().all(|byte| *byte == 0x55), "nothing came");
    world.await_count("held", 1);
    // Fifteen of sixteen pages: the one that the host may still write is not among them.
    let zeroes: Vec<_> = (1..16).map(|block| read(&world.storage, block * 8, LONG)).collect();
    world.await_count("held", 16);
    let more = world.storage.submit(UNIT, Command::read(0, 8), &Data::In(4096), BRIEF);
    assert!(matches!(failure(more), Failure::Busy { .. }), "its page is not given to anybody");
    world.tell("release");
    for pending in zeroes {
        let mut data = vec![0x55; 4096];
        assert!(pending.wait(&mut data).unwrap().is_good());
        assert!(data.iter().all(|byte| *byte == 0), "the late one's data are nowhere else");
    }
    // All pages are back.
    assert!(read(&world.storage, 0, LONG).wait(&mut nothing).unwrap().is_good());
    assert!(nothing == noise(1, 4096));
    let counters = world.storage.counters();
    assert_eq!((counters.abandoned, counters.late, counters.unknown, counters.under_way), (1, 1, 0, 0));
    world.end();
}

#[test]
fn a_request_that_nobody_waits_for_keeps_its_place_until_it_is_done() {
    let world = World::with(disks(&[(0, 1 << 20)]), Settings { depth: 2, ..brief() });
    world.storage.disk(UNIT).unwrap();
    world.tell("hold");
    drop(read(&world.storage, 0, LONG));
    drop(read(&world.storage, 8, LONG));
    let more = world.storage.submit(UNIT, Command::read(0, 8), &Data::In(4096), BRIEF);
    assert!(matches!(failure(more), Failure::Busy { .. }));
    world.tell("release");
    assert!(read(&world.storage, 0, LONG).wait(&mut [0; 4096]).unwrap().is_good());
    assert_eq!((world.storage.counters().abandoned, world.storage.counters().late), (2, 2));
    world.end();
}

/// Timeouts and completions race; each request has one end.
#[test]
fn a_timeout_and_a_completion_in_the_same_moment_are_one_end() {
    let world = World::with(disks(&[(0, 1 << 20)]), Settings { subchannels: 3, ..brief() });
    let disk = world.storage.disk(UNIT).unwrap();
    disk.write_at(0, &noise(1, 4096), false).unwrap();
    let (mut timeouts, mut completions) = (0_u64, 0_u64);
    let start = world.storage.counters();
    for round in 0..2000_u64 {
        let timeout = Duration::from_micros(round % 200);
        let pending = match world.storage.submit(UNIT, Command::read(0, 8), &Data::In(4096), timeout) {
            Ok(pending) => pending,
            Err(error) => {
                // As many late ones as there may be.
                assert!(matches!(failure(Err::<(), _>(error)), Failure::Busy { .. }));
                settle(&world.storage);
                continue;
            }
        };
        let mut data = vec![0; 4096];
        match pending.wait(&mut data) {
            Ok(outcome) => {
                assert!(outcome.is_good() && data == noise(1, 4096));
                completions += 1;
            }
            Err(error) => {
                assert!(matches!(failure(Err::<(), _>(error)), Failure::Timeout { .. }));
                timeouts += 1;
            }
        }
    }
    settle(&world.storage);
    let end = world.storage.counters();
    assert_eq!((end.completed - start.completed, end.late, end.abandoned), (completions, timeouts, timeouts));
    assert_eq!((end.unknown, end.malformed), (0, 0));
    world.end();
}

#[test]
fn a_reset_ends_what_is_under_way() {
    let world = World::with(disks(&[(0, 1 << 20), (1, 1 << 20)]), Settings { subchannels: 2, ..brief() });
    let disk = world.storage.disk(UNIT).unwrap();
    for resets in 1..=2 {
        world.tell("hold");
        let held: Vec<_> = (0..12).map(|block| read(&world.storage, block, LONG)).collect();
        world.await_count("held", 12);
        match resets {
            1 => world.storage.reset_bus(0).unwrap(),
            _ => world.storage.reset_unit(UNIT).unwrap(),
        }
        for pending in held {
            let outcome = pending.wait(&mut [0; 4096]).unwrap();
            assert_eq!((outcome.srb_status.code(), outcome.transferred), (0x0e, 0), "aborted");
        }
        world.tell("release");
        assert_eq!(world.count("resets"), resets);
        // The unit tells of it, which the disk takes note of and goes on.
        disk.read_at(0, &mut [0; 4096]).unwrap();
    }
    assert!(matches!(failure(world.storage.reset_unit(Address::lun(9))), Failure::Refused { .. }));
    world.end();
}

/// A reset finds its place although everything is full.
#[test]
fn a_reset_works_when_nothing_else_does() {
    let world = World::with(disks(&[(0, 1 << 20)]), Settings { depth: 3, ..brief() });
    world.storage.disk(UNIT).unwrap();
    world.tell("hold");
    let held: Vec<_> = (0..3).map(|block| read(&world.storage, block, LONG)).collect();
    assert!(matches!(
        failure(world.storage.submit(UNIT, Command::read(0, 8), &Data::In(4096), BRIEF)),
        Failure::Busy { .. }
    ));
    world.storage.reset_bus(0).unwrap();
    assert!(held.into_iter().all(|pending| !pending.wait(&mut []).unwrap().is_good()));
    world.tell("release");
    world.end();
}

#[test]
fn a_close_waits_for_what_is_under_way_and_ends_what_does_not_end() {
    for released in [true, false] {
        let world = World::with(disks(&[(0, 1 << 20)]), Settings { subchannels: 2, ..brief() });
        world.storage.disk(UNIT).unwrap();
        world.tell("hold");
        let held: Vec<_> = (0..6).map(|block| read(&world.storage, block, LONG)).collect();
        world.await_count("held", 6);
        let World { stack, storage, host, .. } = world;
        if released {
            stack.control.command(host, "release").unwrap();
        }
        storage.close().unwrap();
        for pending in held {
            let outcome = pending.wait(&mut []).unwrap();
            assert_eq!(outcome.is_good(), released || outcome.is_attention(), "{outcome:?}");
        }
        let faults = stack.end().unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

/// Not even the reset is answered: the channels close all the same.
#[test]
fn a_close_does_not_wait_for_ever_for_a_silent_host() {
    let settings =
        Settings { host_timeout: Duration::from_millis(100), drain_timeout: Duration::from_millis(100), ..brief() };
    let world = World::with(disks(&[(0, 1 << 20)]), Settings { host_timeout: Duration::from_secs(5), ..settings });
    world.storage.disk(UNIT).unwrap();
    for _ in 0..8 {
        world.tell("never");
    }
    let pending = read(&world.storage, 0, LONG);
    world.await_count("reads", 1);
    let World { stack, storage, .. } = world;
    storage.close().unwrap();
    assert_eq!(failure(pending.wait(&mut [0; 4096])), Failure::Closed);
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The host takes the controller back: everything ends at once, with that reason, and nothing is left.
#[test]
fn a_rescind_ends_everything_at_once() {
    for subchannels in [0, 3] {
        let world = World::with(disks(&[(0, 1 << 20)]), Settings { subchannels, ..brief() });
        let disk = world.storage.disk(UNIT).unwrap();
        world.tell("hold");
        let held: Vec<_> = (0..8).map(|block| read(&world.storage, block, LONG)).collect();
        let start = Instant::now();
        world.stack.control.rescind(world.host).unwrap();
        for pending in held {
            let error = pending.wait(&mut [0; 4096]).unwrap_err();
            // Through a subchannel, which went first; or with the controller.
            let lost = matches!(&error, vmbus_devices::Error::Storage { failure: Failure::LinkLost(_), .. });
            assert!(error.is_rescinded() || lost && subchannels != 0, "{error}");
        }
        assert!(disk.flush().unwrap_err().is_rescinded());
        assert!(world.storage.wait_change(LONG).unwrap_err().is_rescinded());
        assert!(world.storage.reset_bus(0).unwrap_err().is_rescinded());
        assert!(start.elapsed() < Duration::from_secs(5), "no timeout was waited for");
        world.end();
    }
}

/// A subchannel goes while requests are under way: they are sent again through another, and none of them fails.
#[test]
fn a_subchannel_that_is_taken_back_costs_no_request() {
    let world = World::with(disks(&[(0, 16 << 20)]), Settings { subchannels: 3, ..brief() });
    let disk = world.storage.disk(UNIT).unwrap();
    let (data, mut round) = (noise(4, 1 << 20), 0);
    for left in (1..4_usize).rev() {
        let writer = {
            let (disk, data) = (disk.clone(), data.clone());
            std::thread::spawn(move || {
                for place in 0..8 {
                    disk.write_at(place << 20, &data, false).unwrap();
                }
            })
        };
        let offered = world.stack.control.with(|sim| sim.host().offered()).unwrap();
        let subchannel = offered.iter().rfind(|offer| offer.subchannel_index != 0 && offer.relid.is_some()).unwrap().id;
        world.stack.control.rescind(subchannel).unwrap();
        writer.join().unwrap();
        let deadline = Instant::now() + LONG;
        while world.storage.channels() != left {
            assert!(Instant::now() < deadline, "{} channels, {left} expected", world.storage.channels());
            std::thread::yield_now();
        }
        let mut read = vec![0; 1 << 20];
        disk.read_at(round << 20, &mut read).unwrap();
        assert!(read == data);
        round += 1;
    }
    world.end();
}

/// The device comes and goes while threads read and write; after that nothing is left of it anywhere.
#[test]
fn controllers_that_come_and_go_leave_nothing_behind() {
    let (stack, before, first) = crate::world::stack(disks(&[(0, 1 << 20)]));
    stack.control.rescind(first).unwrap();
    let mut changes = stack.bus.subscribe().unwrap();
    for round in 0..30_u64 {
        let spec: DeviceSpec = StorageController::spec(2, disks(&[(0, 1 << 20)])).unwrap();
        let host = stack.control.offer(spec).unwrap();
        let offer = loop {
            match changes.next(Some(LONG)).unwrap() {
                // The guest may not have heard yet that the one before was taken back.
                Some(vmbus_channels::Announcement::Arrived(offer))
                    if offer.subchannel_index == 0 && offer.instance != before.instance =>
                {
                    break offer;
                }
                Some(_) => {}
                None => panic!("round {round}: no offer"),
            }
        };
        let control = stack.control.clone();
        let rescind = std::thread::spawn(move || {
            // At another moment each round, as far as a thread can choose one.
            control
                .wait_for(LONG, move |sim| {
                    sim.host().state(host).is_none() || sim.host().count(host, "commands") >= round
                })
                .unwrap();
            control.rescind(host).unwrap();
        });
        match Storage::open(&stack.bus, &offer, Settings { subchannels: 2, ..brief() }) {
            Ok(storage) => {
                // Until it is gone. A request may be out of its time before, on a busy machine.
                let start = Instant::now();
                loop {
                    let outcome = storage
                        .disk(UNIT)
                        .and_then(|disk| disk.write_at(0, &noise(round, 8192), false).and_then(|()| disk.flush()));
                    match outcome {
                        Err(error) if error.is_rescinded() => break,
                        outcome => assert!(start.elapsed() < LONG, "round {round}: {outcome:?}"),
                    }
                }
                storage.close().unwrap();
            }
            Err(error) => assert!(error.is_rescinded(), "round {round}: {error:?}"),
        }
        rescind.join().unwrap();
    }
    drop(changes);
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The host takes the controller back in the middle of writes and offers it again: whatever a flush had acknowledged is
/// there then.
#[test]
fn a_rescind_loses_no_acknowledged_flush() {
    let (stack, mut offer, mut host) = crate::world::stack(disks(&[(0, 1 << 20)]));
    let mut changes = stack.bus.subscribe().unwrap();
    // What each of the first blocks was written with, as far as that was acknowledged.
    let mut kept = [0_u64; 16];
    let mut number = 0;
    for round in 0..12_u64 {
        let storage = Storage::open(&stack.bus, &offer, Settings { subchannels: 1, ..brief() }).unwrap();
        let disk = storage.disk(UNIT).unwrap();
        for (block, seed) in (0_u64..).zip(kept) {
            let mut read = vec![0; 512];
            disk.read_at(block * 512, &mut read).unwrap();
            let there = u64::from_le_bytes(*read.first_chunk().unwrap());
            assert!(
                there >= seed && (there == 0 || read == [there.to_le_bytes(); 64].concat()),
                "round {round}: {there}"
            );
        }
        let control = stack.control.clone();
        let goal = 10 + 7 * round;
        control
            .when(move |sim| {
                let due = sim.host().count(host, "flushes") >= goal;
                // It is there until this says so.
                due && sim.host().reoffer(host).is_ok()
            })
            .unwrap();
        loop {
            number += 1;
            let block = number % 16;
            let written = disk.write_at(block * 512, &[number.to_le_bytes(); 64].concat(), false);
            match written.and_then(|()| disk.flush()) {
                Ok(()) => *kept.get_mut(usize::try_from(block).unwrap()).unwrap() = number,
                Err(error) => {
                    assert!(error.is_rescinded(), "{error}");
                    break;
                }
            }
        }
        storage.close().unwrap();
        // The same device, on the same relid.
        offer = loop {
            match changes.next(Some(LONG)).unwrap() {
                Some(vmbus_channels::Announcement::Arrived(again))
                    if again.id != offer.id && again.primary.is_none() =>
                {
                    break again;
                }
                Some(_) => {}
                None => panic!("round {round}: no offer"),
            }
        };
        let relid = offer.relid;
        host = stack.control.with(move |sim| sim.host().offer_on_relid(relid)).unwrap().unwrap();
    }
    assert!(number > 80, "{number} writes");
    drop(changes);
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
