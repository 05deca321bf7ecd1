//! A group under shuttle: links come and die, connections connect, wait, move and close, in random orders.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" cargo test -p vmbus-channels --release --test group_shuttle`. A failure prints its
//! seed; `VMBUS_SEED=N` replays that one alone. Each mutant must be caught within the seeds that pass without it. (Here a
//! close wakes whoever waits, in the end: that a clear does is for loom to find.)
#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::{Config, Runner, thread};
use vmbus_channels::group::mutation::Mutation;
use vmbus_channels::group::{Group, Kind, Link, Over, Policy, Refused};

/// Seeds that must pass, and among which each mutant must be caught.
const SEEDS: u64 = 2000;

/// A link's channel: open until it is dropped. What the application does after the end of the link, it may not do.
struct Channel {
    open: Arc<AtomicU32>,
    dead: AtomicU32,
}

impl Drop for Channel {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

struct Model;

impl Kind for Model {
    type Link = Channel;
    type Connection = ();
}

#[derive(Clone)]
struct World {
    group: Arc<Group<Model>>,
    open: Arc<AtomicU32>,
}

impl World {
    /// A link comes.
    fn link(&self) -> Option<Link<Model>> {
        self.open.fetch_add(1, Ordering::SeqCst);
        let channel = Channel { open: Arc::clone(&self.open), dead: AtomicU32::new(0) };
        let link = self.group.link(channel, false, 0).ok()?;
        self.group.join(&link).ok().map(|()| link)
    }

    /// Links come and die.
    fn links(&self) {
        for _ in 0..2 {
            let Some(link) = self.link() else { return };
            thread::yield_now();
            self.clear(&link);
        }
    }

    fn clear(&self, link: &Link<Model>) {
        let cleared = self.group.clear(link);
        link.dead.store(1, Ordering::SeqCst);
        for connection in &cleared.moved {
            // As a protocol does: what is not acknowledged goes out on the new link.
            if let Ok(placed) = connection.place() {
                assert!(placed.moves > 0);
            }
        }
    }

    /// A connection lives: connects, waits until something happens, is closed; perhaps by two at a time.
    fn connection(&self) {
        let Ok(connection) = self.group.connection((), thread_rng().gen_range(0..4) != 0) else { return };
        assert_eq!(connection.check(), Err(Refused::NeverConnected));
        match connection.connect(0) {
            Ok(()) => {}
            Err(Refused::NoLink | Refused::Ended(_)) => return,
            Err(error) => panic!("{error}"),
        }
        // At any time, not only at the end.
        assert_eq!(self.group.contradiction(), None);
        let share = connection.share();
        let other = match thread_rng().gen_range(0..3) {
            0 => thread::spawn(move || share.close()),
            1 => thread::spawn(move || share.wake()),
            _ => {
                let seen = share.changes();
                thread::spawn(move || {
                    // Whatever ends it: a wake, a move, the end.
                    match share.wait(seen, None) {
                        Ok(()) | Err(Refused::WasConnected(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                })
            }
        };
        match connection.check() {
            Ok(()) | Err(Refused::WasConnected(_)) => {}
            Err(error) => panic!("{error}"),
        }
        connection.close();
        assert_eq!(connection.check().is_ok(), false, "it is back behind its close");
        other.join().unwrap();
        assert!(!connection.is_valid(), "it is back behind its close");
    }
}

fn scenario(without: Option<Mutation>) {
    let policy = [Policy::RoundRobin, Policy::LeastLoaded][thread_rng().gen_range(0..2)];
    let world = World { group: Arc::new(Group::without(policy, 8, without)), open: Arc::new(AtomicU32::new(0)) };
    let stays = world.link().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let world = world.clone();
            thread::spawn(move || {
                if number % 2 == 0 {
                    world.links();
                } else {
                    world.connection();
                    world.connection();
                }
            })
        })
        .collect();
    if thread_rng().gen_range(0..2) == 0 {
        world.clear(&stays);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(world.group.contradiction(), None);
    drop(stays);
    drop(world.group.end(Over::Closed));
    let counts = world.group.counts();
    assert_eq!((counts.links, counts.held_links), (0, 0), "links are left");
    assert_eq!((counts.connected, counts.held_connections), (0, 0), "connections are left");
    assert_eq!(world.open.load(Ordering::SeqCst), 0, "channels are left open");
}

fn run(seed: u64, without: Option<Mutation>) {
    let mut config = Config::new();
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.stack_size = 0x20000;
    if seed % 2 == 0 {
        Runner::new(RandomScheduler::new_from_seed(seed, 1), config).run(move || scenario(without));
    } else {
        Runner::new(PctScheduler::new_from_seed(seed, 3, 1), config).run(move || scenario(without));
    }
}

#[test]
fn r2_1_to_r2_4_in_random_orders() {
    let only = std::env::var("VMBUS_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let fresh = u64::from(std::process::id()) << 32;
    let seeds = only.map_or_else(|| (0..SEEDS).chain(fresh..fresh + SEEDS / 3).collect(), |seed| vec![seed]);
    for seed in seeds {
        if let Err(panic) = catch_unwind(|| run(seed, None)) {
            println!("VMBUS_SEED={seed} shows it again");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Set in the process that runs a mutant.
const CHILD: &str = "VMBUS_MUTANT";

/// Runs a mutant in a process of its own, as what is found may not unwind.
fn is_caught(test: &str, mutation: Mutation) -> bool {
    if std::env::var_os(CHILD).is_some() {
        let caught = |seed: &u64| catch_unwind(AssertUnwindSafe(|| run(*seed, Some(mutation)))).is_err();
        let seed = (0..SEEDS).find(caught);
        assert_eq!(seed, None, "{mutation:?} is caught by this seed");
        println!("nothing was found");
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("running 1 test"), "{said}");
    !said.contains("nothing was found") && !output.status.success()
}

macro_rules! mutants {
    ($($name:ident: $mutation:ident,)*) => {
        $(#[test]
        fn $name() {
            assert!(is_caught(stringify!($name), Mutation::$mutation));
        })*
    };
}

mutants! {
    r2_1_mutant_keep_cleared_is_caught: KeepCleared,
    r2_1_mutant_close_keeps_link_is_caught: CloseKeepsLink,
    r2_1_mutant_close_keeps_place_is_caught: CloseKeepsPlace,
    r2_3_mutant_pick_then_hold_is_caught: PickThenHold,
    r2_3_mutant_put_then_hold_is_caught: PutThenHold,
    r2_3_mutant_move_by_steps_is_caught: MoveBySteps,
    r2_4_mutant_clear_waits_is_caught: ClearWaits,
}
