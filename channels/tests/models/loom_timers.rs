//! Timers against retirements, moves, packets and the last user who goes: what must not be called, what must, and what
//! must live as long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use loom::sync::Mutex;
use loom::thread;
use vmbus_channels::dispatch::parts::{Mutant, Mutation, channel_id};
use vmbus_channels::dispatch::{Attention, Ending, Entry, Notifier, Progress, Serve};

use super::team::Model;
use super::{check, finds};

const RELID: u32 = 5;
/// When it is time, in milliseconds.
const TIME: u64 = 5;

/// What a channel does and what it has seen. Ordinary atomics: nobody may rely on what they order.
#[derive(Default)]
struct Life {
    turns: AtomicU32,
    timers: AtomicU32,
    /// Packets that the host has put into the ring, and those that were handled.
    sent: AtomicU32,
    handled: AtomicU32,
    /// The channel's memory has gone.
    released: AtomicBool,
}

/// A channel that wants to be called once, or never.
struct Timed {
    life: Arc<Life>,
    deadline: Option<Instant>,
    /// Its retirement was answered.
    answered: Arc<AtomicU32>,
    /// The application's use of the channel, which goes with the completion of what the timer submits.
    user: Arc<Mutex<Option<Use>>>,
    called: Notifier,
}

/// A use of a channel; with the last one its memory goes.
#[derive(Clone)]
struct Use {
    _memory: Arc<Memory>,
}

struct Memory(Arc<Life>);

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.released.store(true, Ordering::SeqCst);
    }
}

impl Timed {
    fn new(life: &Arc<Life>, deadline: Option<Instant>, answered: &Arc<AtomicU32>) -> Self {
        let (life, answered, called) = (Arc::clone(life), Arc::clone(answered), Notifier::new().unwrap());
        Self { life, deadline, answered, user: Arc::new(Mutex::new(None)), called }
    }

    fn alive(&self) {
        if std::thread::panicking() {
            // Found already; the dispatcher's drop calls on.
            return;
        }
        assert_eq!(self.answered.load(Ordering::SeqCst) & 1, 0, "touched although its retirement was answered");
        assert!(!self.life.released.load(Ordering::SeqCst), "its memory is gone while it is called");
    }
}

impl Serve for Timed {
    fn event(&mut self) -> Attention {
        self.alive();
        // Who is not served by its events is asked when it comes, or never.
        Attention::Told
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        self.alive();
        self.life.turns.fetch_add(1, Ordering::SeqCst);
        self.life.handled.store(self.life.sent.load(Ordering::SeqCst), Ordering::SeqCst);
        Progress::Drained(0)
    }

    fn deadline(&self) -> Option<Instant> {
        self.alive();
        self.deadline
    }

    fn timer(&mut self, now: Instant) -> Result<(), Ending> {
        self.alive();
        assert!(self.deadline.is_some_and(|deadline| deadline <= now), "early");
        self.deadline = None;
        // Sent before the time had come.
        let (sent, handled) = (&self.life.sent, &self.life.handled);
        assert_eq!(sent.load(Ordering::SeqCst), handled.load(Ordering::SeqCst), "blind to what lies in the ring");
        // Completed on the spot, and the completion is the end of its user.
        let user = self.user.lock().unwrap().take();
        drop(user);
        self.alive();
        self.life.timers.fetch_add(1, Ordering::SeqCst);
        self.called.raise();
        Ok(())
    }

    fn ended(&mut self, _why: Option<Ending>) {
        self.alive();
    }
}

/// A channel is retired while its time comes, and its relid gets an owner who wants no calls.
fn retiring(mutant: Mutant) {
    let mut model = Model::new(1, mutant);
    let (first, second) = (Arc::new(Life::default()), Arc::new(Life::default()));
    let timed = Timed::new(&first, Some(model.clock.at(TIME)), &model.answered);
    model.roster.insert(0, RELID, channel_id(1, 1), Entry::serve(Box::new(timed)));
    let threads = model.start(&Arc::default());
    let time = {
        let (clock, mail) = (model.clock.clone(), Arc::clone(&model.mail));
        thread::spawn(move || clock.pass(TIME, &mail))
    };
    model.roster.retire(channel_id(1, 1));
    model.wait_for_answer();
    let timed = Timed::new(&second, None, &Arc::default());
    model.roster.insert(0, RELID, channel_id(1, 2), Entry::serve(Box::new(timed)));
    time.join().unwrap();
    model.roster.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(first.timers.load(Ordering::SeqCst) <= 1);
    assert_eq!(second.turns.load(Ordering::SeqCst), 0, "called at the time of the former owner of its relid");
    assert_eq!(second.timers.load(Ordering::SeqCst), 0);
}

#[test]
fn r5_2_nothing_is_called_behind_the_retirement() {
    check(2, None, retiring);
}

#[test]
fn r5_2_the_alarm_must_be_cancelled() {
    finds(2, Mutation::AlarmKept, "the former owner", retiring);
}

#[test]
fn r5_2_the_answer_must_come_last() {
    finds(2, Mutation::AnsweredEarly, "although its retirement was answered", retiring);
}

/// The time of a channel comes while it moves: it is called once, wherever it is. A timer that gets lost is a deadlock.
fn moving(mutant: Mutant) {
    let mut model = Model::new(2, mutant);
    let life = Arc::new(Life::default());
    let timed = Timed::new(&life, Some(model.clock.at(TIME)), &model.answered);
    let called = timed.called.clone();
    model.roster.insert(0, RELID, channel_id(1, 1), Entry::serve(Box::new(timed)));
    model.dispatchers[0].take_orders();
    let done = Arc::new(AtomicBool::new(false));
    let threads = model.start(&done);
    model.roster.move_entry(channel_id(1, 1), 1);
    // Before anybody has heard of the move, or behind it.
    model.clock.pass(TIME, &model.mail);
    called.wait(None).unwrap();
    model.roster.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(life.timers.load(Ordering::SeqCst), 1);
}

#[test]
fn r5_2_a_channel_that_moves_takes_its_timer_along() {
    check(2, None, moving);
}

#[test]
fn r5_2_who_arrives_must_be_asked() {
    finds(2, Mutation::NotAsked, "deadlock", moving);
}

/// The host answers in time, without an interrupt that anybody hears, and then it is time.
fn answering(mutant: Mutant) {
    let mut model = Model::new(1, mutant);
    let life = Arc::new(Life::default());
    let timed = Timed::new(&life, Some(model.clock.at(TIME)), &model.answered);
    let called = timed.called.clone();
    model.roster.insert(0, RELID, channel_id(1, 1), Entry::serve(Box::new(timed)));
    let threads = model.start(&Arc::default());
    life.sent.store(1, Ordering::SeqCst);
    model.clock.pass(TIME, &model.mail);
    called.wait(None).unwrap();
    model.roster.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(life.timers.load(Ordering::SeqCst), 1);
}

#[test]
fn r5_1_an_answer_that_is_there_is_no_silence() {
    check(3, None, answering);
}

#[test]
fn r5_1_a_timer_must_look_first() {
    finds(3, Mutation::CalledBlind, "blind", answering);
}

/// What the timer submits is completed on the spot, and that is the end of the channel's last user; or the user goes by
/// itself, at any time. The dispatcher goes on with the channel all the same, until it is retired.
fn completing(mutant: Mutant) {
    let mut model = Model::new(1, mutant);
    let life = Arc::new(Life::default());
    let timed = Timed::new(&life, Some(model.clock.at(TIME)), &model.answered);
    let (user, memory) = (Arc::clone(&timed.user), Use { _memory: Arc::new(Memory(Arc::clone(&life))) });
    *user.lock().unwrap() = Some(memory.clone());
    model.roster.insert(0, RELID, channel_id(1, 1), Entry::serve(Box::new(timed)).holding(memory));
    let threads = model.start(&Arc::default());
    let application = thread::spawn(move || {
        let user = user.lock().unwrap().take();
        drop(user);
    });
    model.clock.pass(TIME, &model.mail);
    application.join().unwrap();
    model.roster.retire(channel_id(1, 1));
    model.wait_for_answer();
    assert!(life.released.load(Ordering::SeqCst), "given back by the dispatcher before it answers");
    model.roster.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn r5_1_a_dispatch_has_a_use_of_its_own() {
    check(3, None, completing);
}

#[test]
fn r5_1_the_dispatchers_use_is_needed() {
    finds(3, Mutation::HoldDropped, "its memory is gone", completing);
}
