//! Timers turn by turn, by a clock that is a number: when a channel is called, and when not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vmbus_channels::ChannelId;
use vmbus_channels::dispatch::parts::{Dispatcher, Lines, Mailbox, Mutant, Order, OwnFlags, Role, Tally, channel_id};
use vmbus_channels::dispatch::{Attention, Counters, Ending, Entry, Progress, Report, Serve};

const FIRST: fn() -> ChannelId = || channel_id(0, 1);
const SECOND: fn() -> ChannelId = || channel_id(0, 2);

/// What happened, in order.
type Diary = Arc<Mutex<Vec<String>>>;

/// When a channel wants to be called, in milliseconds; 0 is never. What the timer leaves behind is its next.
#[derive(Clone, Default)]
struct Wish(Arc<AtomicU64>);

impl Wish {
    fn at(milliseconds: u64) -> Self {
        Self(Arc::new(milliseconds.into()))
    }

    fn set(&self, milliseconds: u64) {
        self.0.store(milliseconds, Ordering::SeqCst);
    }
}

/// What a timer does.
type OnTime = fn(&Wish, u64) -> Result<(), Ending>;

/// A channel that writes down its calls.
struct Timed {
    name: &'static str,
    diary: Diary,
    origin: Instant,
    wish: Wish,
    /// What its timer does.
    timer: OnTime,
    /// What its turn does.
    turn: fn(&Wish),
}

impl Timed {
    fn note(&self, what: impl std::fmt::Display) {
        self.diary.lock().unwrap().push(format!("{} {what}", self.name));
    }
}

impl Serve for Timed {
    fn event(&mut self) -> Attention {
        Attention::Ready
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        self.note("turn");
        (self.turn)(&self.wish);
        Progress::Drained(0)
    }

    fn deadline(&self) -> Option<Instant> {
        let at = self.wish.0.load(Ordering::SeqCst);
        (at != 0).then(|| self.origin + Duration::from_millis(at))
    }

    fn timer(&mut self, now: Instant) -> Result<(), Ending> {
        let now = u64::try_from((now - self.origin).as_millis()).unwrap();
        self.note(format_args!("timer {now}"));
        (self.timer)(&self.wish, now)
    }

    fn ended(&mut self, why: Option<Ending>) {
        self.note(format_args!("ended {why:?}"));
        // Too late: nobody asks any more.
        self.wish.set(1);
    }
}

/// Dispatchers without threads, and their clock.
struct Team {
    dispatchers: Vec<Dispatcher<OwnFlags>>,
    flags: Vec<OwnFlags>,
    mail: Arc<[Mailbox]>,
    tallies: Vec<Arc<Tally>>,
    diary: Diary,
    origin: Instant,
    looks: u32,
}

impl Team {
    fn new(number: usize) -> Self {
        let (diary, origin) = (Diary::default(), Instant::now());
        let mail: Arc<[Mailbox]> = (0..number).map(|_| Mailbox::new(Mutant::default()).unwrap()).collect();
        let flags: Vec<_> = (0..number).map(|_| OwnFlags::new(2)).collect();
        let tallies: Vec<_> = (0..number).map(|_| Arc::new(Tally::default())).collect();
        let dispatcher = |number: usize| {
            let diary = Arc::clone(&diary);
            let reports = Arc::new(move |report: Report| diary.lock().unwrap().push(format!("{report:?}")));
            let mail = Arc::clone(&mail);
            let role = Role { number, relids: 128, budget: 4, mail, reports, mutant: Mutant::default() };
            let tally = Arc::clone(&tallies[number]);
            Dispatcher::new(role, flags[number].clone(), Lines::none(), tally).ticking_from(origin)
        };
        let dispatchers = (0..number).map(dispatcher).collect();
        Self { dispatchers, flags, mail, tallies, diary, origin, looks: 0 }
    }

    fn entry(&self, name: &'static str, wish: &Wish, timer: OnTime) -> Entry {
        self.entry_with(name, wish, timer, |_| ())
    }

    fn entry_with(&self, name: &'static str, wish: &Wish, timer: OnTime, turn: fn(&Wish)) -> Entry {
        let (diary, wish) = (Arc::clone(&self.diary), wish.clone());
        Entry::serve(Box::new(Timed { name, diary, origin: self.origin, wish, timer, turn }))
    }

    /// A turn at this time. What happened.
    fn turn(&mut self, number: usize, milliseconds: u64) -> Vec<String> {
        let (now, looks) = (self.origin + Duration::from_millis(milliseconds), &mut self.looks);
        self.dispatchers[number].turn_by(|| {
            *looks += 1;
            now
        });
        std::mem::take(&mut *self.diary.lock().unwrap())
    }

    fn order(&mut self, number: usize, milliseconds: u64, order: Order) -> Vec<String> {
        self.mail[number].post(order);
        self.turn(number, milliseconds)
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.tallies.iter().for_each(|tally| tally.add_to(&mut sum));
        sum
    }
}

/// For a timer that is called once.
fn once(wish: &Wish, _now: u64) -> Result<(), Ending> {
    wish.set(0);
    Ok(())
}

/// Red when `ring` looks at the clock first.
#[test]
fn without_timers_nobody_looks_at_the_clock() {
    let mut team = Team::new(1);
    let entry = team.entry("a", &Wish::default(), once);
    team.order(0, 0, Order::Insert(5, FIRST(), entry));
    for _ in 0..100 {
        team.flags[0].set(5);
        assert_eq!(team.turn(0, 1000), ["a turn"]);
    }
    assert_eq!((team.looks, team.counters().timers), (0, 0));
}

#[test]
fn a_timer_is_called_behind_a_turn_when_its_time_has_come() {
    let mut team = Team::new(1);
    let wish = Wish::at(50);
    let entry = team.entry("a", &wish, |wish, now| {
        wish.set(now + 50);
        Ok(())
    });
    assert_eq!(team.order(0, 0, Order::Insert(5, FIRST(), entry)), ["a turn"]);
    assert!(team.turn(0, 49).is_empty(), "never early");
    assert_eq!(team.turn(0, 50), ["a turn", "a timer 50"]);
    assert!(team.turn(0, 99).is_empty());
    // Late is late: what has passed is not made up for.
    assert_eq!(team.turn(0, 320), ["a turn", "a timer 320"]);
    assert_eq!(team.turn(0, 370), ["a turn", "a timer 370"]);
    assert_eq!(team.counters().timers, 3);
}

/// Red when an alarm is taken for a deadline, or the turn before the timer is left out.
#[test]
fn what_lies_in_the_ring_comes_before_the_timer() {
    let mut team = Team::new(1);
    let wish = Wish::at(50);
    let entry = team.entry_with("a", &wish, once, |wish| {
        if wish.0.load(Ordering::SeqCst) == 40 {
            wish.set(80);
        }
    });
    team.order(0, 0, Order::Insert(5, FIRST(), entry));
    wish.set(40);
    assert_eq!(team.turn(0, 50), ["a turn"], "the turn has found a sign of life");
    assert!(team.turn(0, 79).is_empty());
    assert_eq!(team.turn(0, 80), ["a turn", "a timer 80"]);
}

/// A deadline that moves on with each turn is one alarm, and costs a turn more when it rings too early.
#[test]
fn a_deadline_that_moves_on_is_asked_for_again() {
    let mut team = Team::new(1);
    let wish = Wish::at(10);
    let entry = team.entry("a", &wish, once);
    team.order(0, 0, Order::Insert(5, FIRST(), entry));
    for now in 1..=5 {
        wish.set(10 + now);
        team.flags[0].set(5);
        assert_eq!(team.turn(0, now), ["a turn"]);
        assert_eq!(team.dispatchers[0].alarms(), 1);
    }
    assert_eq!(team.turn(0, 10), ["a turn"], "asked again");
    assert!(team.turn(0, 14).is_empty());
    assert_eq!(team.turn(0, 15), ["a turn", "a timer 15"]);
    // And one that comes nearer, or goes.
    for (at, then) in [(100, 100), (30, 30), (20, 20)] {
        wish.set(at);
        team.flags[0].set(5);
        team.turn(0, 16);
        assert_eq!(team.dispatchers[0].alarms(), 1, "{then}");
    }
    assert_eq!(team.turn(0, 20), ["a turn", "a timer 20"]);
    wish.set(40);
    team.flags[0].set(5);
    team.turn(0, 21);
    wish.set(0);
    assert_eq!(team.turn(0, 40), ["a turn"], "it does not want to any more");
    assert!(team.turn(0, 1 << 40).is_empty());
    assert_eq!(team.dispatchers[0].alarms(), 0);
}

/// Red without `silence` in `drop_target`: what its last call asks for is heard by nobody, either.
#[test]
fn r5_2_nothing_is_called_behind_the_retirement() {
    // Before its time, and in the very turn in which it comes.
    for at in [10, 50] {
        let mut team = Team::new(1);
        let entry = team.entry("a", &Wish::at(50), once);
        team.order(0, 0, Order::Insert(5, FIRST(), entry));
        let retired = format!("{:?}", Report::Retired(FIRST()));
        assert_eq!(team.order(0, at, Order::Retire(5, FIRST(), Vec::new())), ["a ended None", &*retired]);
        assert_eq!(team.dispatchers[0].alarms(), 0, "at {at}");
        let entry = team.entry("b", &Wish::at(90), once);
        assert_eq!(team.order(0, at, Order::Insert(5, SECOND(), entry)), ["b turn"], "its own look, and no more");
        assert!(team.turn(0, 89).is_empty(), "the time of the former owner");
        assert_eq!(team.turn(0, 90), ["b turn", "b timer 90"]);
    }
}

/// Whatever ends it: its own verdict, a panic of the timer, or of the deadline.
#[test]
fn r5_2_nothing_is_called_behind_the_end() {
    let dead = Ending::Dead(Duration::from_millis(50));
    let verdict = |_: &Wish, now: u64| Err(Ending::Dead(Duration::from_millis(now)));
    let panics = |_: &Wish, now: u64| panic!("as asked, at {now}");
    let cases: [(_, OnTime, _); 2] = [("a", verdict, dead), ("b", panics, Ending::Panicked)];
    for (name, timer, ending) in cases {
        let mut team = Team::new(1);
        let wish = Wish::at(50);
        let entry = team.entry(name, &wish, timer);
        let other = team.entry("z", &Wish::at(50), once);
        team.mail[0].post(Order::Insert(5, FIRST(), entry));
        team.order(0, 0, Order::Insert(6, SECOND(), other));
        let happened = team.turn(0, 50);
        let report = format!("{:?}", Report::Ended(FIRST(), ending));
        assert!(happened.contains(&report), "{happened:?}");
        assert!(happened.contains(&"z timer 50".to_owned()), "another's is called all the same: {happened:?}");
        let told = format!("{name} ended Some({ending:?})");
        assert_eq!(happened.contains(&told), ending != Ending::Panicked, "{happened:?}");
        team.flags[0].set(5);
        assert!(team.turn(0, 100).is_empty());
        assert_eq!(team.dispatchers[0].alarms(), 0);
        let counters = team.counters();
        assert_eq!((counters.dead, counters.panics), if name == "a" { (1, 0) } else { (0, 1) });
    }
}

/// Red without `silence` in `leave`, or without `ask` where it arrives.
#[test]
fn r5_2_a_channel_that_moves_takes_its_timer_along() {
    let mut team = Team::new(2);
    let entry = team.entry("a", &Wish::at(50), once);
    team.order(0, 0, Order::Insert(5, FIRST(), entry));
    team.mail[1].post(Order::Expect(5, FIRST()));
    assert!(team.order(0, 49, Order::Leave(5, FIRST(), 1)).is_empty(), "its time comes while it is on its way");
    assert_eq!((team.dispatchers[0].alarms(), team.dispatchers[1].alarms()), (0, 0));
    assert_eq!(team.turn(1, 50), ["a turn", "a timer 50", "a turn"]);
}

/// A timer that does not move its deadline is called each millisecond, and not in a circle.
#[test]
fn a_deadline_that_stays_in_the_past_keeps_nobody_busy() {
    let mut team = Team::new(1);
    let entry = team.entry("a", &Wish::at(50), |_, _| Ok(()));
    team.order(0, 0, Order::Insert(5, FIRST(), entry));
    assert_eq!(team.turn(0, 70), ["a turn", "a timer 70"]);
    assert!(team.turn(0, 70).is_empty());
    assert_eq!(team.turn(0, 71), ["a turn", "a timer 71"]);
}
