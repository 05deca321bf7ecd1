//! Groups in every order of two and three threads. Each protection that is taken away must be noticed.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p vmbus-channels --release --test group_loom`.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use vmbus_channels::group::mutation::Mutation;
use vmbus_channels::group::{Connection, Group, Kind, Link, Over, Policy, Refused, Turnstile};

/// What a link carries: its drop is the close of its channel.
struct Channel(Arc<AtomicU32>);

impl Drop for Channel {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Model;

impl Kind for Model {
    type Link = Channel;
    type Connection = ();
}

struct World {
    group: Arc<Group<Model>>,
    closed: Arc<AtomicU32>,
}

impl World {
    fn link(&self) -> Link<Model> {
        let link = self.group.link(Channel(Arc::clone(&self.closed)), false, 0).unwrap();
        self.group.join(&link).unwrap();
        link
    }

    fn connected(&self) -> Connection<Model> {
        let connection = self.group.connection((), true).unwrap();
        connection.connect(0).unwrap();
        connection
    }

    fn sound(&self) {
        assert_eq!(self.group.contradiction(), None);
    }
}

/// Runs a scenario in every order; whatever it made, nothing is left at the end, and each link's channel is closed once.
fn model(without: Option<Mutation>, scenario: fn(&World)) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let group = Arc::new(Group::without(Policy::RoundRobin, 4, without));
        let world = World { group, closed: Arc::new(AtomicU32::new(0)) };
        scenario(&world);
        world.sound();
        let links = world.group.links().len();
        drop(world.group.end(Over::Closed));
        let counts = world.group.counts();
        assert_eq!((counts.links, counts.held_links), (0, 0), "links are left");
        assert_eq!((counts.connected, counts.held_connections), (0, 0), "connections are left");
        assert!(links <= 2);
    });
}

/// Two close one connection, and its link is cleared: each hold goes back once.
fn closed_twice(world: &World) {
    let link = world.link();
    let connection = Arc::new(world.connected());
    let other = connection.share();
    let closing = thread::spawn(move || other.close());
    connection.close();
    assert!(!connection.is_valid());
    world.group.clear(&link);
    drop(link);
    closing.join().unwrap();
    assert_eq!(world.group.counts().held_links, 0, "somebody holds the link");
    assert_eq!(world.closed.load(Ordering::SeqCst), 1, "its channel is closed");
    assert_eq!(connection.place().err(), Some(Refused::WasConnected(Over::Closed)));
}

/// A connection is closed while its link dies: it is over, and stays so.
fn closed_while_moved(world: &World) {
    let (first, second) = (world.link(), world.link());
    let connection = world.connected();
    let share = connection.share();
    let closing = thread::spawn(move || {
        share.close();
        assert!(!share.is_valid(), "it is back behind its close");
    });
    world.group.clear(&first);
    closing.join().unwrap();
    assert!(!connection.is_valid(), "it is back behind its close");
    drop((first, second));
}

/// A connection connects while a link dies: it is on the one that is left.
fn connects_while_cleared(world: &World) {
    let (first, second) = (world.link(), world.link());
    let connection = world.group.connection((), true).unwrap();
    let share = connection.share();
    let connecting = thread::spawn(move || share.connect(0).unwrap());
    world.group.clear(&first);
    connecting.join().unwrap();
    world.sound();
    assert!(connection.place().unwrap().link.is(&second), "it is on a link that was cleared");
}

/// Somebody uses a connection while it moves: it is valid all the time, and never on no link.
fn used_while_moved(world: &World) {
    let (first, second) = (world.link(), world.link());
    let connection = world.connected();
    let share = connection.share();
    let using = thread::spawn(move || {
        let placed = share.place().unwrap();
        assert!(share.is_valid(), "between two links");
        placed.moves
    });
    let cleared = world.group.clear(&first);
    assert_eq!(cleared.moved.len(), 1);
    let seen = using.join().unwrap();
    let placed = connection.place().unwrap();
    assert!(placed.moves == 1 && seen <= 1);
    assert!(placed.link.is(&second));
}

/// A sender waits for room on the only link, which it holds, and the link dies.
fn waits_on_the_last_link(world: &World) {
    let link = world.link();
    let connection = world.connected();
    let share = connection.share();
    let waiting = thread::spawn(move || {
        let seen = share.changes();
        let Ok(placed) = share.place() else { return };
        let waited = share.wait(seen, None);
        drop(placed);
        assert_eq!(waited, Err(Refused::WasConnected(Over::NoLink)));
    });
    let cleared = world.group.clear(&link);
    assert_eq!((cleared.moved.len(), cleared.ended.len()), (0, 1));
    waiting.join().unwrap();
}

/// A sender waits for room on a link that dies, and goes on on another.
fn waits_and_moves(world: &World) {
    let (first, _second) = (world.link(), world.link());
    let connection = world.connected();
    let share = connection.share();
    let waiting = thread::spawn(move || {
        let seen = share.changes();
        let placed = share.place().unwrap();
        if placed.moves == 0 {
            assert_eq!(share.wait(seen, None), Ok(()));
        }
    });
    world.group.clear(&first);
    waiting.join().unwrap();
}

/// Somebody wakes who waits.
fn waits_for_a_wake(world: &World) {
    let _link = world.link();
    let connection = world.connected();
    let share = connection.share();
    let happened = Arc::new(AtomicU32::new(0));
    let theirs = Arc::clone(&happened);
    let waking = thread::spawn(move || {
        theirs.store(1, Ordering::SeqCst);
        share.wake();
    });
    let seen = connection.changes();
    if happened.load(Ordering::SeqCst) == 0 {
        connection.wait(seen, None).unwrap();
        assert_eq!(happened.load(Ordering::SeqCst), 1);
    }
    waking.join().unwrap();
}

/// Two have something for one sender: all of it is sent, by one of them at a time.
fn one_sender(without: Option<Mutation>) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let turnstile = Arc::new(Turnstile::without(without));
        // What is to be sent, and whether somebody sends; the turnstile orders both.
        let queued = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let (sent, inside) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let send = {
            let (turnstile, queued, sent) = (Arc::clone(&turnstile), Arc::clone(&queued), Arc::clone(&sent));
            move |place: usize| {
                // Orders what comes after a round behind it, for loom, and nothing before one.
                queued[place].fetch_add(1, Ordering::Acquire);
                turnstile.pass(|| {
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two send at a time");
                    for one in queued.iter() {
                        sent.fetch_add(one.swap(0, Ordering::Release), Ordering::Relaxed);
                    }
                    inside.fetch_sub(1, Ordering::Relaxed);
                });
            }
        };
        let theirs = send.clone();
        let other = thread::spawn(move || theirs(1));
        send(0);
        other.join().unwrap();
        assert_eq!(sent.load(Ordering::Relaxed), 2, "something stays unsent");
    });
}

/// Set in the process that runs a mutant.
const CHILD: &str = "VMBUS_MUTANT";
/// What a child says that found nothing.
const NOT_CAUGHT: &str = "nothing was found";

/// Runs a mutant in a process of its own, which must fail: loom can't unwind what it finds while holds are held, and
/// aborts.
fn is_caught(test: &str, run: impl FnOnce()) -> bool {
    if std::env::var_os(CHILD).is_some() {
        run();
        return false;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("running 1 test"), "{said}");
    // The scenario's own verdict, or a deadlock; not that it came to an end and nothing was found.
    said.contains("panicked at") && !said.contains(NOT_CAUGHT)
}

macro_rules! models {
    ($($name:ident: $scenario:ident, $($mutant:ident: $mutation:ident,)*;)*) => {
        $(
            #[test]
            fn $name() {
                model(None, $scenario);
            }
            $(#[test]
            fn $mutant() {
                let caught = is_caught(stringify!($mutant), || model(Some(Mutation::$mutation), $scenario));
                assert!(caught, "{NOT_CAUGHT}");
            })*
        )*
    };
}

models! {
    r2_1_each_hold_goes_back_once: closed_twice,
        r2_1_mutant_keep_cleared_is_caught: KeepCleared,
        r2_1_mutant_close_keeps_link_is_caught: CloseKeepsLink,;
    r2_1_a_closed_connection_stays_closed: closed_while_moved,
        r2_1_mutant_close_keeps_place_is_caught: CloseKeepsPlace,
        r2_3_mutant_move_by_steps_is_caught: MoveBySteps,;
    r2_3_a_link_is_held_as_it_is_picked: connects_while_cleared,
        r2_3_mutant_pick_then_hold_is_caught: PickThenHold,;
    r2_3_the_new_link_is_held_before_the_old_is_put: used_while_moved,
        r2_3_mutant_put_then_hold_is_caught: PutThenHold,;
    r2_4_a_sender_on_the_last_link_is_woken: waits_on_the_last_link,
        r2_4_mutant_clear_tells_nobody_is_caught: ClearTellsNobody,
        r2_4_mutant_clear_waits_is_caught: ClearWaits,;
    r2_4_a_sender_on_a_dying_link_moves: waits_and_moves,
        r2_4_mutant_moved_are_not_told_is_caught: ClearTellsNobody,;
    r2_4_a_wake_is_not_lost: waits_for_a_wake,;
}

#[test]
fn r2_4_nobody_waits_for_the_sender() {
    one_sender(None);
}

#[test]
fn r2_4_mutant_turn_missed_is_caught() {
    let caught = is_caught("r2_4_mutant_turn_missed_is_caught", || one_sender(Some(Mutation::TurnMissed)));
    assert!(caught, "{NOT_CAUGHT}");
}
