//! Whose event is it: retirement against events and the next owner of a relid; moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use loom::sync::atomic as model_atomic;
use loom::thread;
use vmbus_channels::dispatch::parts::{Mutant, Mutation, Order, channel_id};
use vmbus_channels::dispatch::{Attention, Ending, Entry, Progress, Serve};

use super::team::Model;
use super::{check, finds};

const RELID: u32 = 5;

/// A channel that counts its events and must not be touched once its retirement is answered.
struct Owner {
    events: Arc<AtomicU32>,
    answered: Arc<AtomicU32>,
}

impl Owner {
    fn alive(&self) {
        assert_eq!(self.answered.load(Ordering::SeqCst) & 1, 0, "touched although its retirement was answered");
    }
}

impl Serve for Owner {
    fn event(&mut self) -> Attention {
        self.alive();
        self.events.fetch_add(1, Ordering::SeqCst);
        Attention::Ready
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        self.alive();
        Progress::Drained(1)
    }

    fn ended(&mut self, _why: Option<Ending>) {
        self.alive();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.alive();
        }
    }
}

/// The host flags a channel while it is retired, and its relid gets a new owner: that one is looked after once, and
/// hears nothing of it.
fn next_owner(mutant: Mutant) {
    let mut model = Model::new(1, mutant);
    let (first, second) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let owner =
        |events: &Arc<AtomicU32>, answered| Entry::serve(Box::new(Owner { events: Arc::clone(events), answered }));
    model.roster.insert(0, RELID, channel_id(1, 1), owner(&first, Arc::clone(&model.answered)));
    let threads = model.start(&Arc::default());
    let host = {
        let (flags, mail) = (model.flags[0].clone(), Arc::clone(&model.mail));
        thread::spawn(move || {
            flags.set(RELID as usize);
            mail[0].interrupt();
        })
    };
    model.roster.retire(channel_id(1, 1));
    model.wait_for_answer();
    // Only now would the host be told that the channel is closed; it has said its last about it.
    host.join().unwrap();
    model.roster.insert(0, RELID, channel_id(1, 2), owner(&second, Arc::default()));
    model.roster.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let events = second.load(Ordering::SeqCst);
    assert!(events <= 1, "the next owner of the relid got the event of the former one");
    assert!((1..=2).contains(&first.load(Ordering::SeqCst)));
}

#[test]
fn r1_6_a_late_event_never_reaches_the_next_owner() {
    check(3, None, next_owner);
}

#[test]
fn r1_6_flags_must_be_taken_at_retirement() {
    finds(3, Mutation::FlagKept, "the event of the former one", next_owner);
}

#[test]
fn r1_5_the_answer_must_come_last() {
    finds(3, Mutation::AnsweredEarly, "although its retirement was answered", next_owner);
}

/// An event is under way from the old processor to the new one while the channel is retired, and its relid gets a new
/// owner at the new processor.
fn next_owner_after_move(mutant: Mutant) {
    let mut model = Model::new(2, mutant);
    let (first, second) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let owner =
        |events: &Arc<AtomicU32>, answered| Entry::serve(Box::new(Owner { events: Arc::clone(events), answered }));
    model.roster.insert(0, RELID, channel_id(1, 1), owner(&first, Arc::clone(&model.answered)));
    model.roster.move_entry(channel_id(1, 1), 1);
    for number in [0, 1] {
        model.dispatchers[number].take_orders();
    }
    // The host's last signal to the old processor; then it confirms the move.
    model.flags[0].set(RELID as usize);
    let threads = model.start(&Arc::default());
    model.roster.settle(channel_id(1, 1));
    model.roster.retire(channel_id(1, 1));
    model.wait_for_answer();
    model.roster.insert(1, RELID, channel_id(1, 2), owner(&second, Arc::default()));
    model.mail[0].post(Order::Stop);
    let mut threads = threads.into_iter();
    threads.next().unwrap().join().unwrap();
    // Whatever was sent on has been sent; the other one finds it before it ends.
    model.roster.stop();
    threads.next().unwrap().join().unwrap();
    let events = second.load(Ordering::SeqCst);
    assert_eq!(events, 1, "the next owner of the relid got the event of the former one");
    assert_eq!(model.counters().markers, 0);
}

#[test]
fn r1_6_an_event_under_way_never_reaches_the_next_owner() {
    check(2, None, next_owner_after_move);
}

#[test]
fn r1_6_events_under_way_must_carry_the_generation() {
    finds(2, Mutation::GenerationIgnored, "the event of the former one", next_owner_after_move);
}

/// A channel that looks for what the host has done when it is served, at the second time it is asked; as one whose
/// neighbours used up the budget at first.
struct Seeker {
    done: Arc<model_atomic::AtomicU32>,
    hesitates: bool,
    found: Arc<AtomicBool>,
}

impl Serve for Seeker {
    fn event(&mut self) -> Attention {
        Attention::Ready
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        if self.hesitates {
            self.hesitates = false;
            return Progress::More(1);
        }
        if self.done.load(Ordering::Relaxed) == 1 {
            self.found.store(true, Ordering::SeqCst);
        }
        Progress::Drained(1)
    }

    fn ended(&mut self, _why: Option<Ending>) {}
}

/// The host does something and flags the old processor while the channel moves to the other one; then it confirms. The
/// new one goes on until it has found what the host did: if that is lost, it sleeps for ever.
fn moving(mutant: Mutant, hesitates: bool) {
    let mut model = Model::new(2, mutant);
    let (done, found) = (Arc::new(model_atomic::AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let seeker = Seeker { done: Arc::clone(&done), hesitates, found: Arc::clone(&found) };
    model.roster.insert(0, RELID, channel_id(1, 1), Entry::serve(Box::new(seeker)));
    model.dispatchers[0].take_orders();
    if !hesitates {
        // Its first look is over.
        model.dispatchers[0].serve();
    }
    let threads = model.start(&found);
    model.roster.move_entry(channel_id(1, 1), 1);
    done.store(1, Ordering::Relaxed);
    model.flags[0].set(RELID as usize);
    model.mail[0].interrupt();
    model.roster.settle(channel_id(1, 1));
    model.mail[0].post(Order::Stop);
    let mut threads = threads.into_iter();
    threads.next().unwrap().join().unwrap();
    if found.load(Ordering::SeqCst) {
        // At the old place already, before it left.
        model.mail[1].post(Order::Stop);
    }
    threads.next().unwrap().join().unwrap();
}

#[test]
fn r1_8_nothing_is_lost_in_a_move() {
    check(2, None, |mutant| moving(mutant, false));
}

#[test]
fn r1_8_nothing_is_lost_in_a_move_of_a_channel_with_work() {
    check(2, None, |mutant| moving(mutant, true));
}

#[test]
fn r1_8_the_marker_is_needed() {
    finds(2, Mutation::NoMarker, "deadlock", |mutant| moving(mutant, false));
}

#[test]
fn r1_8_the_look_at_the_end_of_the_marker_is_needed() {
    finds(2, Mutation::MarkerDropsFlag, "deadlock", |mutant| moving(mutant, false));
}

#[test]
fn r1_8_the_look_on_arrival_is_needed() {
    finds(2, Mutation::NoLook, "deadlock", |mutant| moving(mutant, true));
}
