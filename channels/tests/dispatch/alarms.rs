//! Timers with the dispatchers' threads: that a sleep ends in time, and whose thread it is.

use std::collections::HashSet;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use vmbus_channels::dispatch::parts::channel_id;
use vmbus_channels::dispatch::{Attention, Dispatchers, Ending, Entry, Progress, Report, Serve, Settings};

use crate::link::link;

/// Long enough for any machine; only a test that fails waits so long.
const LONG: Duration = Duration::from_secs(20);

/// A call of a timer: how late, and on which thread.
type Call = (Duration, ThreadId);

/// Wants to be called so many times, each time so long behind the last.
struct Beating {
    calls: Sender<Call>,
    next: Option<Instant>,
    each: Duration,
    left: u32,
}

impl Serve for Beating {
    fn event(&mut self) -> Attention {
        Attention::Told
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        Progress::Drained(0)
    }

    fn deadline(&self) -> Option<Instant> {
        self.next
    }

    fn timer(&mut self, now: Instant) -> Result<(), Ending> {
        let due = self.next.take().unwrap();
        assert!(now >= due, "early");
        let _ = self.calls.send((now - due, thread::current().id()));
        self.left -= 1;
        self.next = (self.left != 0).then(|| now + self.each);
        Ok(())
    }

    fn ended(&mut self, _why: Option<Ending>) {}
}

/// Four hundred keep-alives, and whatever each of them does is done by the two dispatchers. Red when `sleep` does not end
/// in time: nothing else wakes them.
#[test]
fn r5_3_no_thread_sleeps_for_a_timer() {
    const TIMERS: u32 = 400;
    const CALLS: u32 = 5;
    let (mut pages, _host) = link(2);
    let mut team = Dispatchers::start(&mut pages, &Settings::default(), |_| {}).unwrap();
    let (calls, called) = channel();
    let start = Instant::now();
    for number in 1..=TIMERS {
        let each = Duration::from_millis(u64::from(1 + number % 20));
        let beating = Beating { calls: calls.clone(), next: Some(start + each), each, left: CALLS };
        team.insert(number % 2, number, channel_id(number, 1), Entry::serve(Box::new(beating)));
    }
    let mut threads = HashSet::new();
    for _ in 0..TIMERS * CALLS {
        let (late, thread) = called.recv_timeout(LONG).unwrap();
        assert!(late < LONG);
        threads.insert(thread);
    }
    assert_eq!(threads.len(), 2, "one thread for each dispatcher");
    assert!(!threads.contains(&thread::current().id()));
    let counters = team.counters();
    assert_eq!((counters.timers, counters.entries), (u64::from(TIMERS * CALLS), u64::from(TIMERS)));
    // Those that are due at the same time are called in the same turn.
    assert!(counters.sleeps < u64::from(TIMERS * CALLS), "{counters:?}");
}

/// Red without `silence` in `drop_target`, or when the answer comes before it.
#[test]
fn r5_2_no_timer_is_called_behind_the_answer() {
    let (mut pages, _host) = link(1);
    let (report, reports) = channel();
    let report = std::sync::Mutex::new(report);
    let report = move |said| drop(report.lock().unwrap().send(said));
    let mut team = Dispatchers::start(&mut pages, &Settings::default(), report).unwrap();
    for generation in 1..=50 {
        let (calls, called) = channel();
        let each = Duration::from_millis(1);
        let beating = Beating { calls, next: Some(Instant::now()), each, left: u32::MAX };
        team.insert(0, 5, channel_id(5, generation), Entry::serve(Box::new(beating)));
        called.recv_timeout(LONG).unwrap();
        team.retire(0, 5, channel_id(5, generation));
        assert_eq!(reports.recv_timeout(LONG), Ok(Report::Retired(channel_id(5, generation))));
        // Its end of this is dropped: whatever was called was called before.
        while called.try_recv().is_ok() {}
        assert!(called.recv_timeout(LONG).is_err(), "generation {generation} lives");
    }
    let counters = team.counters();
    assert_eq!((counters.entries, counters.stale, counters.panics), (0, 0, 0));
}
