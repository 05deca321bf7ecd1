//! Turn by turn, in one thread: what each order does, in every state that a relid can be in.

use std::sync::{Arc, Mutex};

use vmbus_channels::ChannelId;
use vmbus_channels::dispatch::parts::{Dispatcher, Lines, Mailbox, Mutant, Order, OwnFlags, Role, Tally, channel_id};
use vmbus_channels::dispatch::{Attention, Counters, Ending, Entry, Progress, Report, Serve};

/// What happened, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// Writes down what it is called for; has `work` packets after each event.
struct Scribe {
    name: &'static str,
    diary: Diary,
    work: usize,
    left: usize,
    panics: bool,
}

impl Serve for Scribe {
    fn event(&mut self) -> Attention {
        self.diary.note(format!("{} event", self.name));
        self.left = self.work;
        if self.work == 0 { Attention::Told } else { Attention::Ready }
    }

    fn serve(&mut self, budget: usize) -> Progress {
        let now = self.left.min(budget);
        self.left -= now;
        self.diary.note(format!("{} serves {now}", self.name));
        assert!(!self.panics, "as asked");
        if self.left == 0 { Progress::Drained(now) } else { Progress::More(now) }
    }

    fn ended(&mut self, why: Option<Ending>) {
        self.diary.note(format!("{} ended {why:?}", self.name));
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.diary.note(format!("{} dropped", self.name));
    }
}

/// Dispatchers without threads.
struct Team {
    dispatchers: Vec<Dispatcher<OwnFlags>>,
    flags: Vec<OwnFlags>,
    mail: Arc<[Mailbox]>,
    tallies: Vec<Arc<Tally>>,
    diary: Diary,
}

impl Team {
    fn new(number: usize) -> Self {
        let diary = Diary::default();
        let mail: Arc<[Mailbox]> = (0..number).map(|_| Mailbox::new(Mutant::default()).unwrap()).collect();
        let flags: Vec<_> = (0..number).map(|_| OwnFlags::new(2)).collect();
        let tallies: Vec<_> = (0..number).map(|_| Arc::new(Tally::default())).collect();
        let dispatcher = |number: usize| {
            let diary = diary.clone();
            let reports = Arc::new(move |report: Report| diary.note(format!("{report:?}")));
            let mail = Arc::clone(&mail);
            let role = Role { number, relids: 128, budget: 4, mail, reports, mutant: Mutant::default() };
            Dispatcher::new(role, flags[number].clone(), Lines::none(), Arc::clone(&tallies[number]))
        };
        Self { dispatchers: (0..number).map(dispatcher).collect(), flags, mail, tallies, diary }
    }

    fn scribe(&self, name: &'static str, work: usize) -> Entry {
        Entry::serve(Box::new(Scribe { name, diary: self.diary.clone(), work, left: 0, panics: false }))
    }

    fn order(&mut self, number: usize, order: Order) -> Vec<String> {
        self.mail[number].post(order);
        self.turn(number)
    }

    fn turn(&mut self, number: usize) -> Vec<String> {
        self.dispatchers[number].turn();
        self.diary.take()
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.tallies.iter().for_each(|tally| tally.add_to(&mut sum));
        sum
    }
}

const FIRST: fn() -> ChannelId = || channel_id(0, 1);
const SECOND: fn() -> ChannelId = || channel_id(0, 2);

fn retired(id: ChannelId) -> String {
    format!("{:?}", Report::Retired(id))
}

#[test]
fn an_inserted_channel_is_looked_after_and_then_hears_its_flags() {
    let mut team = Team::new(1);
    let entry = team.scribe("a", 0);
    assert_eq!(team.order(0, Order::Insert(65, FIRST(), entry)), ["a event"]);
    assert!(team.turn(0).is_empty());
    team.flags[0].set(65);
    assert_eq!(team.turn(0), ["a event"]);
    team.flags[0].set(66);
    assert!(team.turn(0).is_empty());
    let counters = team.counters();
    assert_eq!((counters.events, counters.stray_events, counters.entries), (2, 1, 1));
}

/// Red without the `take_one` of `insert`, or without its look.
#[test]
fn r1_6_a_flag_of_the_former_owner_is_taken_away() {
    let mut team = Team::new(1);
    let (a, b) = (team.scribe("a", 0), team.scribe("b", 0));
    team.order(0, Order::Insert(7, FIRST(), a));
    team.mail[0].post(Order::Retire(7, FIRST(), Vec::new()));
    team.flags[0].set(7);
    assert_eq!(team.turn(0), ["a ended None", "a dropped", &*retired(FIRST())]);
    assert!(!team.flags[0].is_set(7), "the answer says that it is clear");
    // The host is late once more, before the next owner comes.
    team.flags[0].set(7);
    assert_eq!(team.order(0, Order::Insert(7, SECOND(), b)), ["b event"], "its own look, and no more");
    assert!(team.turn(0).is_empty());
    assert!(team.order(0, Order::Poke(7, FIRST())).is_empty(), "an event that was sent after the old one");
    assert!(team.order(0, Order::Retire(7, FIRST(), Vec::new())).is_empty(), "a retirement of the old one");
    assert_eq!(team.counters().stale, 2);
}

/// Red when `ReadyList::push` lists twice, or `serve` keeps to one channel until it is drained.
#[test]
fn channels_take_turns() {
    let mut team = Team::new(1);
    let (a, b) = (team.scribe("a", 9), team.scribe("b", 2));
    team.mail[0].post(Order::Insert(1, FIRST(), a));
    team.mail[0].post(Order::Insert(2, channel_id(1, 1), b));
    assert_eq!(team.turn(0), ["a event", "b event", "a serves 4"]);
    assert_eq!(team.turn(0), ["b serves 2", "a serves 4"]);
    assert_eq!(team.turn(0), ["a serves 1"]);
    assert_eq!(team.counters().packets, 11);
}

#[test]
fn a_retired_channel_is_not_served_although_it_was_ready() {
    let mut team = Team::new(1);
    let a = team.scribe("a", 9);
    assert_eq!(team.order(0, Order::Insert(1, FIRST(), a)), ["a event", "a serves 4"]);
    let ended = ["a ended None".to_owned(), "a dropped".to_owned(), retired(FIRST())];
    assert_eq!(team.order(0, Order::Retire(1, FIRST(), Vec::new())), ended);
    assert_eq!(team.counters().entries, 0);
}

/// Red when `contained` does not catch; the flags behind the panicking one are delivered all the same.
#[test]
fn a_panic_ends_its_channel_and_nothing_else() {
    let mut team = Team::new(1);
    let hold = Dropped("the hold is dropped", team.diary.clone());
    let bad = Scribe { name: "a", diary: team.diary.clone(), work: 1, left: 0, panics: true };
    let b = team.scribe("b", 1);
    team.mail[0].post(Order::Insert(1, FIRST(), Entry::serve(Box::new(bad)).holding(hold)));
    team.mail[0].post(Order::Insert(2, SECOND(), b));
    let ended = format!("{:?}", Report::Ended(FIRST(), Ending::Panicked));
    assert_eq!(team.turn(0), ["a event", "b event", "a serves 1", "a dropped", &*ended, "b serves 1"]);
    team.flags[0].set(1);
    team.flags[0].set(2);
    assert_eq!(team.turn(0), ["b event", "b serves 1"]);
    // It stays to be retired, and what it holds is kept until then.
    assert_eq!(team.order(0, Order::Retire(1, FIRST(), Vec::new())), ["the hold is dropped", &*retired(FIRST())]);
    assert_eq!((team.counters().panics, team.counters().entries), (1, 1));
}

struct Dropped(&'static str, Diary);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.1.note(self.0);
    }
}

/// A channel whose event panics, between two others in the same word.
#[test]
fn a_panic_in_an_event_does_not_take_the_others_events() {
    struct Bomb(u32);
    impl Serve for Bomb {
        fn event(&mut self) -> Attention {
            self.0 -= 1;
            assert_ne!(self.0, 0, "as asked");
            Attention::Told
        }
        fn serve(&mut self, _budget: usize) -> Progress {
            Progress::Drained(0)
        }
        fn ended(&mut self, _why: Option<Ending>) {}
    }
    let mut team = Team::new(1);
    let (a, c) = (team.scribe("a", 0), team.scribe("c", 0));
    team.mail[0].post(Order::Insert(1, channel_id(1, 1), a));
    team.mail[0].post(Order::Insert(3, channel_id(3, 1), c));
    team.mail[0].post(Order::Insert(2, channel_id(2, 1), Entry::serve(Box::new(Bomb(2)))));
    team.turn(0);
    for relid in [1, 2, 3] {
        team.flags[0].set(relid);
    }
    let ended = format!("{:?}", Report::Ended(channel_id(2, 1), Ending::Panicked));
    assert_eq!(team.turn(0), ["a event", &*ended, "c event"]);
}

#[test]
fn r1_8_events_at_the_old_place_follow_the_channel() {
    let mut team = Team::new(2);
    let a = team.scribe("a", 0);
    team.order(0, Order::Insert(5, FIRST(), a));
    team.flags[0].set(5);
    team.mail[1].post(Order::Expect(5, FIRST()));
    // The flag is found in the turn in which the channel leaves, behind the order.
    assert!(team.order(0, Order::Leave(5, FIRST(), 1)).is_empty());
    assert_eq!(team.turn(1), ["a event", "a event"], "looked after when it comes, and what was sent after it");
    team.flags[0].set(5);
    assert!(team.turn(0).is_empty());
    assert_eq!(team.turn(1), ["a event"]);
    assert_eq!((team.counters().forwarded_events, team.counters().markers), (2, 1));
    // Confirmed by the host, with one flag that nobody has seen yet.
    team.flags[0].set(5);
    team.order(0, Order::Settle(5, FIRST()));
    assert_eq!(team.turn(1), ["a event"]);
    team.flags[0].set(5);
    assert!(team.turn(0).is_empty());
    assert!(team.turn(1).is_empty());
    assert_eq!((team.counters().stray_events, team.counters().markers), (1, 0));
}

/// The order in which dispatchers run must not matter: all that is ordered of a channel on its way waits for it.
#[test]
fn r1_8_orders_wait_for_a_channel_on_its_way() {
    let mut team = Team::new(3);
    let a = team.scribe("a", 0);
    team.order(0, Order::Insert(5, FIRST(), a));
    // 0 to 1, to 2, and back to 1, and retired by way of 0 and 2: 2 and 1 run before 0 has heard of anything.
    team.mail[1].post(Order::Expect(5, FIRST()));
    team.mail[0].post(Order::Leave(5, FIRST(), 1));
    team.mail[2].post(Order::Expect(5, FIRST()));
    team.mail[1].post(Order::Leave(5, FIRST(), 2));
    team.mail[1].post(Order::Expect(5, FIRST()));
    team.mail[2].post(Order::Leave(5, FIRST(), 1));
    team.mail[0].post(Order::Retire(5, FIRST(), vec![2, 1]));
    let mut happened = Vec::new();
    for number in [2, 1, 0, 1, 2, 1, 2, 1] {
        happened.extend(team.turn(number));
    }
    let end = ["a ended None".to_owned(), "a dropped".to_owned(), retired(FIRST())];
    assert_eq!(happened, [&["a event", "a event", "a event"].map(String::from)[..], &end[..]].concat());
    let counters = team.counters();
    assert_eq!((counters.stale, counters.entries, counters.markers), (0, 0, 0));
}

#[test]
fn a_channel_that_ended_by_itself_moves_and_is_retired() {
    let mut team = Team::new(2);
    let bad = Scribe { name: "a", diary: team.diary.clone(), work: 1, left: 0, panics: true };
    team.order(0, Order::Insert(5, FIRST(), Entry::serve(Box::new(bad))));
    team.mail[1].post(Order::Expect(5, FIRST()));
    team.mail[1].post(Order::Retire(5, FIRST(), Vec::new()));
    assert!(team.order(0, Order::Leave(5, FIRST(), 1)).is_empty());
    assert_eq!(team.turn(1), [retired(FIRST())]);
}

#[test]
fn orders_that_make_no_sense_are_counted_and_do_nothing() {
    let mut team = Team::new(2);
    let (a, b, c) = (team.scribe("a", 0), team.scribe("b", 0), team.scribe("c", 0));
    team.order(0, Order::Insert(5, FIRST(), a));
    assert_eq!(team.order(0, Order::Insert(5, SECOND(), b)), ["b dropped"]);
    assert_eq!(team.order(0, Order::Insert(128, SECOND(), c)), ["c dropped"]);
    for order in [
        Order::Leave(5, SECOND(), 1),
        Order::Leave(6, FIRST(), 1),
        Order::Expect(5, SECOND()),
        Order::Expect(usize::MAX, SECOND()),
        Order::Retire(6, FIRST(), Vec::new()),
        Order::Poke(6, FIRST()),
    ] {
        let what = format!("{order:?}");
        assert!(team.order(0, order).is_empty(), "{what}");
    }
    assert_eq!(team.counters().stale, 8);
    assert!(team.order(0, Order::Settle(5, FIRST())).is_empty());
    team.flags[0].set(5);
    assert_eq!(team.turn(0), ["a event"]);
}

#[test]
fn a_dispatcher_that_ends_drops_everything() {
    let mut team = Team::new(1);
    let (a, b) = (team.scribe("a", 0), team.scribe("b", 0));
    team.order(0, Order::Insert(5, FIRST(), a));
    team.mail[0].post(Order::Stop);
    team.mail[0].post(Order::Insert(6, SECOND(), b));
    assert!(team.turn(0).is_empty());
    assert!(team.dispatchers[0].is_stopping());
    let Team { dispatchers, mail, diary, .. } = team;
    drop(dispatchers);
    assert_eq!(diary.take(), ["a ended None", "a dropped"]);
    drop(mail);
    assert_eq!(diary.take(), ["b dropped"], "what it was not told any more");
}
