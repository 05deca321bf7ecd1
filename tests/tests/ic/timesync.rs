//! Time synchronisation: the first message sets the clock, the samples keep it, and nonsense does nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use vmbus_devices::ic::timesync::{Clock, Discipline, Notice, Rejected, Settings, Verdict};
use vmbus_devices::ic::{Event, TimeSync};
use vmbus_simhost::device::ic::{ComponentHost, HostSettings, TimeSyncHost, TimeSyncSettings};

use crate::world::World;

/// A clock that stands where it is set.
#[derive(Clone)]
struct Double(Arc<Mutex<SystemTime>>);

impl Double {
    fn shift(&self, offset_ns: i64) {
        let mut now = self.0.lock().unwrap();
        let by = Duration::from_nanos(offset_ns.unsigned_abs());
        *now = if offset_ns < 0 { *now - by } else { *now + by };
    }
}

impl Clock for Double {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }

    fn step(&mut self, offset_ns: i64) -> Result<(), String> {
        self.shift(offset_ns);
        Ok(())
    }

    fn slew(&mut self, offset_ns: i64) -> Result<(), String> {
        self.shift(offset_ns);
        Ok(())
    }
}

/// A host in 2026, far ahead of its guest.
fn world(version: (u16, u16), interval: Duration, asks: bool) -> (World, Double) {
    let settings = HostSettings { versions: vec![version], ..HostSettings::default() };
    let host = TimeSyncSettings { start: Duration::from_secs(1_780_000_000), interval, asks };
    let clock = Double(Arc::new(Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))));
    let discipline = Settings { discipline: Discipline::Slew, tolerance: Duration::ZERO, ..Settings::default() };
    let spec = ComponentHost::spec(move || TimeSyncHost::new(host), settings);
    (World::start(spec, TimeSync::new(discipline, clock.clone())), clock)
}

fn notice(world: &World) -> Notice {
    world.until(|event| if let Event::Time(notice) = event { Some(notice) } else { None })
}

#[test]
fn the_clock_is_set_once_and_then_kept() {
    for version in [(1, 0), (3, 0), (4, 0)] {
        let (world, clock) = world(version, Duration::from_millis(1), true);
        let first = notice(&world);
        assert!(first.sample.sync && matches!(first.verdict, Verdict::Step(_)), "{first:?}");
        assert_eq!(first.sample.reference.is_some(), version == (4, 0));
        for _ in 0..5 {
            let next = notice(&world);
            assert!(next.sample.sample && matches!(next.verdict, Verdict::Slew(_)), "{next:?}");
        }
        let set = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!((1_780_000_000..1_780_001_000).contains(&set), "{set}");
        world.end();
    }
}

#[test]
fn nonsense_leaves_the_clock_alone() {
    let (world, clock) = world((4, 0), Duration::from_secs(100_000), true);
    notice(&world);
    let before = clock.now();
    for (words, expected) in [
        ("say 0 1 0", Rejected::Date),
        ("say 18446744073709551615 1 0", Rejected::Date),
        ("say 116444736000000000 3 0", Rejected::Date),
        ("say 134244736000000000 1 3", Rejected::Leap(3)),
        ("say 135244736000000000 2 0", Rejected::Unconfirmed),
    ] {
        world.command(words);
        assert_eq!(notice(&world).verdict, Verdict::Rejected(expected), "{words}");
    }
    assert_eq!(clock.now(), before);
    world.end();
}

/// Many more samples than answers fit into the ring of a host that reads none.
#[test]
fn a_host_that_wants_no_answers_gets_none() {
    let (world, _) = world((4, 0), Duration::ZERO, false);
    world.wait("told", 3000);
    assert_eq!(world.count("answers"), 1, "the negotiation");
    world.end();
}
