//! Dispatchers in a model: their threads, their flags, their clock, and who waits for their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loom::thread;
use vmbus_channels::dispatch::parts::{Dispatcher, Lines, Mailbox, Mutant, OwnFlags, Role, Roster, Tally, channel_id};
use vmbus_channels::dispatch::{Counters, Notifier, Report};

/// The dispatchers of a model, before their threads start.
pub(super) struct Model {
    pub(super) roster: Roster,
    pub(super) mail: Arc<[Mailbox]>,
    pub(super) flags: Vec<OwnFlags>,
    pub(super) dispatchers: Vec<Dispatcher<OwnFlags>>,
    tallies: Vec<Arc<Tally>>,
    /// Retirements that were answered, as a bit each; and who waits for them. Ordinary atomics: the report itself is
    /// what orders, and that is the notifier's.
    pub(super) answered: Arc<AtomicU32>,
    answers: Notifier,
    pub(super) clock: Clock,
}

impl Model {
    pub(super) fn new(number: usize, mutant: Mutant) -> Self {
        let mail: Arc<[Mailbox]> = (0..number).map(|_| Mailbox::new(mutant).unwrap()).collect();
        let flags: Vec<_> = (0..number).map(|_| OwnFlags::new(1)).collect();
        let tallies: Vec<_> = (0..number).map(|_| Arc::new(Tally::default())).collect();
        let (answered, answers) = (Arc::new(AtomicU32::new(0)), Notifier::new().unwrap());
        let clock = Clock::new();
        let mut dispatchers = Vec::new();
        for number in 0..number {
            let (answered, answers) = (Arc::clone(&answered), answers.clone());
            let reports = Arc::new(move |report| {
                let number = if report == Report::Retired(channel_id(1, 1)) { 1 } else { 2 };
                answered.fetch_or(number, Ordering::SeqCst);
                answers.raise();
            });
            let role = Role { number, relids: 64, budget: 1, mail: Arc::clone(&mail), reports, mutant };
            let tally = Arc::clone(&tallies[number]);
            let dispatcher = Dispatcher::new(role, flags[number].clone(), Lines::none(), tally);
            dispatchers.push(dispatcher.ticking_from(clock.origin));
        }
        Self { roster: Roster::new(Arc::clone(&mail)), mail, flags, dispatchers, tallies, answered, answers, clock }
    }

    /// Starts a thread for each, which ends when it is told to, or with `done`.
    pub(super) fn start(&mut self, done: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
        let run = |mut dispatcher: Dispatcher<OwnFlags>| {
            let (done, clock) = (Arc::clone(done), self.clock.clone());
            thread::spawn(move || {
                let ends = |dispatcher: &Dispatcher<_>| dispatcher.is_stopping() || done.load(Ordering::SeqCst);
                while !ends(&dispatcher) {
                    if !dispatcher.turn_by(|| clock.now()) && !ends(&dispatcher) {
                        dispatcher.mail().unwrap().sleep();
                    }
                }
            })
        };
        self.dispatchers.drain(..).map(run).collect()
    }

    pub(super) fn wait_for_answer(&self) {
        while self.answered.load(Ordering::SeqCst) == 0 {
            self.answers.wait(None).unwrap();
            self.answers.clear();
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.tallies.iter().for_each(|tally| tally.add_to(&mut sum));
        sum
    }
}

/// Time in a model: milliseconds, which somebody lets pass. It orders nothing.
#[derive(Clone)]
pub(super) struct Clock {
    origin: Instant,
    milliseconds: Arc<AtomicU64>,
}

impl Clock {
    fn new() -> Self {
        Self { origin: Instant::now(), milliseconds: Arc::default() }
    }

    pub(super) fn at(&self, milliseconds: u64) -> Instant {
        self.origin + Duration::from_millis(milliseconds)
    }

    pub(super) fn now(&self) -> Instant {
        self.at(self.milliseconds.load(Ordering::SeqCst))
    }

    /// Time passes: as a sleep that ends in time, for all dispatchers.
    pub(super) fn pass(&self, milliseconds: u64, mail: &[Mailbox]) {
        self.milliseconds.store(milliseconds, Ordering::SeqCst);
        mail.iter().for_each(Mailbox::interrupt);
    }
}
