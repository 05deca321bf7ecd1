//! One random life of three channels, and what must hold in it. Time is a number, which passes at random as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Mutex;
use shuttle::thread;
use vmbus_channels::ChannelId;
use vmbus_channels::dispatch::parts::{
    Dispatcher, Lines, Mailbox, Mutant, Mutation, OwnFlags, Role, Roster, Tally, channel_id,
};
use vmbus_channels::dispatch::{Attention, Counters, Ending, Entry, Notifier, Progress, Report, Serve};

const CHANNELS: u32 = 3;
const PROCESSORS: u32 = 2;
/// What the executor does, and the host.
const STEPS: u32 = 14;
const SIGNALS: u32 = 8;
/// Each channel wants to be called again behind so many milliseconds.
const PERIOD: u64 = 3;

/// One opening of a channel, as everybody sees it. Ordinary atomics where nobody waits for them: every order of shuttle
/// is consistent, and fewer switches reach further.
#[derive(Default)]
struct Life {
    /// Packets that the host has put into its ring.
    sent: AtomicU32,
    /// Packets that were handled.
    handled: AtomicU32,
    /// Times that the channel was told to look.
    events: AtomicU32,
    /// At most so many events are due: flags that the host has set, moves, and the look at the beginning.
    due: AtomicU32,
    /// The retirement was answered.
    retired: AtomicU32,
    /// When it wants to be called next, in milliseconds.
    wanted: AtomicU64,
}

/// Time, in milliseconds: passes as the executor says.
#[derive(Clone)]
struct Clock {
    origin: Instant,
    milliseconds: Arc<AtomicU64>,
}

impl Clock {
    fn at(&self, milliseconds: u64) -> Instant {
        self.origin + Duration::from_millis(milliseconds)
    }

    fn now(&self) -> Instant {
        self.at(self.milliseconds.load(Ordering::SeqCst))
    }

    /// Ends all sleeps, as those do that end in time.
    fn pass(&self, milliseconds: u64, mail: &[Mailbox]) {
        self.milliseconds.fetch_add(milliseconds, Ordering::SeqCst);
        mail.iter().for_each(Mailbox::interrupt);
    }
}

/// An open channel with a ring that is a number.
struct Open {
    life: Arc<Life>,
    progress: Notifier,
    clock: Clock,
    /// Whether it wants to be called at all.
    timed: bool,
}

impl Open {
    fn alive(&self) {
        assert_eq!(self.life.retired.load(Ordering::SeqCst), 0, "touched although its retirement was answered");
    }
}

impl Serve for Open {
    fn event(&mut self) -> Attention {
        self.alive();
        let events = self.life.events.fetch_add(1, Ordering::SeqCst) + 1;
        let due = self.life.due.load(Ordering::SeqCst);
        assert!(events <= due, "{events} events, more events than the {due} that are due");
        Attention::Ready
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        self.alive();
        let sent = self.life.sent.load(Ordering::SeqCst);
        // One at a time, so that there is often more.
        let handled = self.life.handled.load(Ordering::SeqCst);
        if handled < sent {
            self.life.handled.store(handled + 1, Ordering::SeqCst);
            self.progress.raise();
            return Progress::More(1);
        }
        Progress::Drained(0)
    }

    fn deadline(&self) -> Option<Instant> {
        self.alive();
        self.timed.then(|| self.clock.at(self.life.wanted.load(Ordering::SeqCst)))
    }

    fn timer(&mut self, now: Instant) -> Result<(), Ending> {
        self.alive();
        let wanted = self.life.wanted.load(Ordering::SeqCst);
        assert!(now >= self.clock.at(wanted), "called too early");
        let now = u64::try_from((now - self.clock.origin).as_millis()).unwrap();
        self.life.wanted.store(now + PERIOD, Ordering::SeqCst);
        Ok(())
    }

    fn ended(&mut self, _why: Option<Ending>) {
        self.alive();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.alive();
        }
    }
}

/// A channel as the host sees it: whose ring it is, and where its interrupts go.
struct Connected {
    life: Arc<Life>,
    processor: u32,
    /// The guest has asked for a move, and it may not have reached everybody: signals go here or there.
    former: Option<u32>,
}

#[derive(Default)]
struct Bus([Option<Connected>; CHANNELS as usize]);

struct Executor {
    roster: Roster,
    bus: Arc<Mutex<Bus>>,
    mail: Arc<[Mailbox]>,
    lives: [Option<(ChannelId, Arc<Life>)>; CHANNELS as usize],
    generation: u32,
    answers: Notifier,
    progress: Notifier,
    answered: Arc<std::sync::Mutex<Vec<ChannelId>>>,
    clock: Clock,
    timed: bool,
}

/// The host: packets into rings, and flags where it believes the channel to be.
fn host(bus: &Mutex<Bus>, flags: &[OwnFlags], mail: &[Mailbox]) {
    for _ in 0..SIGNALS {
        let index = thread_rng().gen_range(0..CHANNELS);
        let bus = bus.lock().unwrap();
        let Some(connected) = &bus.0[index as usize] else { continue };
        connected.life.due.fetch_add(1, Ordering::SeqCst);
        connected.life.sent.fetch_add(1, Ordering::SeqCst);
        let former = connected.former.filter(|_| thread_rng().gen_bool(0.5));
        let processor = former.unwrap_or(connected.processor) as usize;
        flags[processor].set(index as usize + 1);
        mail[processor].interrupt();
    }
}

impl Executor {
    fn step(&mut self) {
        let index = thread_rng().gen_range(0..CHANNELS);
        let relid = index + 1;
        let Some((id, life)) = self.lives[index as usize].clone() else { return self.open(index) };
        match thread_rng().gen_range(0..if self.timed { 7 } else { 6 }) {
            // Close or rescind: to the maps they are the same.
            0 => {
                self.roster.retire(id);
                self.wait_for(id);
                life.retired.store(1, Ordering::SeqCst);
                // The host hears of it only now, and may have signalled until now.
                self.bus.lock().unwrap().0[index as usize] = None;
                self.lives[index as usize] = None;
                if thread_rng().gen_bool(0.7) {
                    // Offered again at once.
                    self.open(index);
                }
            }
            1 | 2 => {
                let to = thread_rng().gen_range(0..PROCESSORS);
                let mut bus = self.bus.lock().unwrap();
                let Some(connected) = &mut bus.0[index as usize] else { return };
                if connected.processor == to {
                    return;
                }
                life.due.fetch_add(1, Ordering::SeqCst);
                self.roster.move_entry(id, to);
                // One at a time: the former move is confirmed before the next is asked for.
                if connected.former.take().is_some() {
                    connected.former = None;
                }
                connected.former = Some(connected.processor);
                connected.processor = to;
            }
            3 | 4 => {
                let confirmed = {
                    let mut bus = self.bus.lock().unwrap();
                    bus.0[index as usize].as_mut().is_some_and(|connected| connected.former.take().is_some())
                };
                if confirmed {
                    self.roster.settle(id);
                }
            }
            6 => self.clock.pass(thread_rng().gen_range(1..2 * PERIOD), &self.mail),
            _ => {
                life.due.fetch_add(1, Ordering::SeqCst);
                self.roster.poke(id);
            }
        }
        assert!(relid <= CHANNELS);
    }

    fn open(&mut self, index: u32) {
        self.generation += 1;
        let (id, life) = (channel_id(index, self.generation), Arc::new(Life::default()));
        let processor = thread_rng().gen_range(0..PROCESSORS);
        life.due.store(1, Ordering::SeqCst);
        if self.timed {
            let now = self.clock.milliseconds.load(Ordering::SeqCst);
            life.wanted.store(now + thread_rng().gen_range(0..PERIOD), Ordering::SeqCst);
        }
        let (progress, clock) = (self.progress.clone(), self.clock.clone());
        let open = Open { life: Arc::clone(&life), progress, clock, timed: self.timed };
        self.bus.lock().unwrap().0[index as usize] =
            Some(Connected { life: Arc::clone(&life), processor, former: None });
        self.roster.insert(processor, index + 1, id, Entry::serve(Box::new(open)));
        self.lives[index as usize] = Some((id, life));
    }

    fn wait_for(&self, id: ChannelId) {
        while !self.answered.lock().unwrap().contains(&id) {
            self.answers.wait(None).unwrap();
            self.answers.clear();
        }
    }

    /// Everything that the host has sent is handled in the end, wherever its signals went, and everybody is called whose
    /// time has come; then all is closed.
    fn finish(&mut self) {
        for (_, life) in self.lives.iter().flatten() {
            while life.handled.load(Ordering::SeqCst) != life.sent.load(Ordering::SeqCst) {
                self.progress.wait(None).unwrap();
                self.progress.clear();
            }
        }
        let time = self.clock.milliseconds.load(Ordering::SeqCst) + PERIOD;
        for (_, life) in self.lives.iter().flatten().filter(|_| self.timed) {
            let mut patience = 10_000;
            while life.wanted.load(Ordering::SeqCst) <= time {
                // Whose time is over when it comes is called with the next tick.
                self.clock.pass(1, &self.mail);
                thread::yield_now();
                patience -= 1;
                assert_ne!(patience, 0, "not called although its time has come");
            }
        }
        for index in 0..CHANNELS as usize {
            if let Some((id, life)) = self.lives[index].take() {
                self.roster.retire(id);
                self.wait_for(id);
                life.retired.store(1, Ordering::SeqCst);
            }
        }
        assert_eq!(self.mail.len(), PROCESSORS as usize);
        self.roster.stop();
    }
}

/// One life, with channels that want to be called again and again, or without.
pub(crate) fn run(mutation: Option<Mutation>, timed: bool) {
    let mutant = Mutant::without(mutation);
    let mail: Arc<[Mailbox]> = (0..PROCESSORS).map(|_| Mailbox::new(mutant).unwrap()).collect();
    let flags: Vec<_> = (0..PROCESSORS).map(|_| OwnFlags::new(1)).collect();
    let tallies: Vec<_> = (0..PROCESSORS).map(|_| Arc::new(Tally::default())).collect();
    let (answers, progress) = (Notifier::new().unwrap(), Notifier::new().unwrap());
    let answered = Arc::new(std::sync::Mutex::new(Vec::new()));
    let clock = Clock { origin: Instant::now(), milliseconds: Arc::default() };
    let mut threads = Vec::new();
    for number in 0..PROCESSORS as usize {
        let (answered, answers) = (Arc::clone(&answered), answers.clone());
        let reports = Arc::new(move |report| {
            let Report::Retired(id) = report else { panic!("{report:?}") };
            answered.lock().unwrap().push(id);
            answers.raise();
        });
        let role = Role { number, relids: 64, budget: 1, mail: Arc::clone(&mail), reports, mutant };
        let dispatcher = Dispatcher::new(role, flags[number].clone(), Lines::none(), Arc::clone(&tallies[number]));
        let (mut dispatcher, clock) = (dispatcher.ticking_from(clock.origin), clock.clone());
        threads.push(thread::spawn(move || {
            while !dispatcher.is_stopping() {
                if !dispatcher.turn_by(|| clock.now()) && !dispatcher.is_stopping() {
                    dispatcher.mail().unwrap().sleep();
                }
            }
        }));
    }
    let bus = Arc::new(Mutex::new(Bus::default()));
    let signals = {
        let (bus, flags, mail) = (Arc::clone(&bus), flags.clone(), Arc::clone(&mail));
        thread::spawn(move || host(&bus, &flags, &mail))
    };
    let mut executor = Executor {
        roster: Roster::new(Arc::clone(&mail)),
        bus,
        mail,
        lives: Default::default(),
        generation: 0,
        answers,
        progress,
        answered,
        clock,
        timed,
    };
    for _ in 0..STEPS {
        executor.step();
    }
    signals.join().unwrap();
    executor.finish();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut counters = Counters::default();
    tallies.iter().for_each(|tally| tally.add_to(&mut counters));
    assert_eq!((counters.entries, counters.markers), (0, 0), "something is left in the maps");
    assert_eq!(executor.roster.stale(), 0);
}
