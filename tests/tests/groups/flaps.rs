//! R2.5: short connections while links flap. The seed is printed; `VMBUS_SEED=N` replays its decisions, and `VMBUS_CHURN=N`
//! makes it N rounds for each thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use vmbus_channels::group::{GroupOptions, Policy};
use vmbus_devices::multiplex::{Mode, Settings};
use vmbus_simhost::device::MultiplexSettings;
use vmbus_simhost::{Config, DeviceSpec, Random};
use vmbus_tests::{LONG, Stack};

use crate::world::{World, bytes, echo, until};

const THREADS: u64 = 8;
const SUBCHANNELS: usize = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The host takes subchannels back and offers others, at random, until it is over.
fn flap(world: &World, seed: u64, over: &AtomicBool) -> u64 {
    let (mut random, mut flaps) = (Random::new(seed), 0);
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_micros(random.below(4000)));
        let draw = random.next_u64();
        let flapped = world.stack.control.with(move |simulation| {
            let host = simulation.host();
            let offered = host.offered();
            let primary = offered.iter().find(|offer| offer.subchannel_index == 0).unwrap().id;
            let open: Vec<_> = offered
                .iter()
                .filter(|one| one.subchannel_index != 0 && one.state == "open")
                .map(|one| one.id)
                .collect();
            let there = offered.iter().filter(|one| one.subchannel_index != 0 && one.relid.is_some()).count();
            let pick = open.get(usize::try_from(draw >> 8).unwrap_or(0) % open.len().max(1)).copied();
            match (draw % 3, pick) {
                (0, Some(id)) => host.rescind(id).is_ok(),
                (1, Some(id)) => host.reoffer(id).is_ok(),
                _ if there < SUBCHANNELS => host.offer_subchannel(primary).is_ok(),
                _ => false,
            }
        });
        flaps += u64::from(flapped.unwrap());
    }
    flaps
}

fn churn(mode: Mode, policy: Policy) {
    let seed = number("VMBUS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = number("VMBUS_CHURN").unwrap_or(30);
    println!("seed {seed}, {mode:?}, {policy:?}");
    let group = GroupOptions { policy, processors: 2, ..GroupOptions::default() };
    let settings = Settings { group, mode, buffer_bytes: 8 * 1024 };
    let world = World::start(seed, 2, MultiplexSettings::default(), settings);
    let (over, whole, lost) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let flaps = std::thread::scope(|scope| {
        let flapping = scope.spawn(|| flap(&world, seed, &over));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (world, whole, lost) = (&world, &whole, &lost);
                scope.spawn(move || {
                    let mut random = Random::new(seed ^ (thread + 1) << 32);
                    for _ in 0..rounds {
                        let order = random.below(16);
                        let count = usize::try_from(random.below(1 << order)).unwrap();
                        let sent = bytes(random.next_u64(), count);
                        let talked = world.device.connect(Some(LONG)).and_then(|stream| {
                            stream.set_read_timeout(Some(LONG))?;
                            stream.set_write_timeout(Some(LONG))?;
                            if random.chance(1, 5) {
                                return Ok(());
                            }
                            echo(&stream, &sent)
                        });
                        match talked {
                            Ok(()) => whole.fetch_add(1, Ordering::Relaxed),
                            // No other error, and none at all where streams can move.
                            Err(error) => {
                                let is_lost = error.kind() == std::io::ErrorKind::ConnectionAborted;
                                assert!(mode == Mode::Plain && is_lost, "{error:?}");
                                lost.fetch_add(1, Ordering::Relaxed)
                            }
                        };
                    }
                })
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::Relaxed);
        let flaps = flapping.join().unwrap();
        ended.into_iter().for_each(|ended| ended.unwrap());
        flaps
    });
    let counts = world.device.counts();
    println!("{whole:?} whole, {lost:?} lost, {flaps} flaps, {} moves", counts.moves);
    assert_eq!(whole.into_inner() + lost.into_inner(), THREADS * rounds);
    assert!(flaps > 3);
    world.wait_forgotten();
    // A dispatcher may still have one in its hands, and the list of a link that has died as long as that lives.
    until(|| world.device.counts().held_connections == 0);
    assert_eq!(world.device.counts().connected, 0);
    // Links that died are nobody's any more.
    until(|| world.device.counts().held_links == world.device.counts().links);
    world.end();
}

#[test]
fn r2_5_short_connections_while_links_flap() {
    churn(Mode::Numbered, Policy::RoundRobin);
    churn(Mode::Numbered, Policy::LeastLoaded);
}

#[test]
fn r2_5_short_connections_that_cannot_move() {
    churn(Mode::Plain, Policy::Affinity);
}

/// Devices with all their channels come and go: nothing of a group is left.
#[test]
fn r2_5_groups_come_and_go() {
    let config = Config::seeded(7).with_device(DeviceSpec::multiplex(1, MultiplexSettings::default()));
    let stack = Stack::start(config).unwrap();
    for _ in 0..10 {
        let offer = stack.bus.of_class(Settings::CLASS).unwrap().pop().unwrap();
        let relid = offer.relid;
        let device = vmbus_devices::multiplex::Multiplex::open(&stack.bus, &offer, Settings::default()).unwrap();
        let added = stack.control.with(move |simulation| {
            let host = simulation.host();
            let primary = host.offer_on_relid(relid).unwrap();
            host.offer_subchannel(primary).map(drop)
        });
        added.unwrap().unwrap();
        let stream = device.connect(Some(LONG)).unwrap();
        echo(&stream, &bytes(7, 3000)).unwrap();
        drop(stream);
        device.close().unwrap();
        // Closed with the host, and its subchannels taken back, as hosts do.
        until(|| stack.bus.counters().unwrap().open == 0);
        until(|| stack.bus.offers().unwrap().len() == 1);
    }
    let faults = stack.end().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
