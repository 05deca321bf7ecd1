//! The pulse by a table and against any life, and a watched handler by a clock that is a number.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::dispatch::Ending;
use crate::{Handler, IncomingPacket};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn keep_alive() -> KeepAlive {
    KeepAlive::new(ms(100), ms(10), 3).unwrap()
}

#[test]
fn times_of_zero_are_errors() {
    for (idle, interval, count) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
        let refused = KeepAlive::new(ms(idle), ms(interval), count);
        assert!(matches!(refused, Err(Error::Argument(_))), "{idle} {interval} {count}: {refused:?}");
    }
    assert_eq!(keep_alive().bound(), ms(130));
    let longest = KeepAlive::new(Duration::MAX, Duration::MAX, u32::MAX).unwrap();
    assert_eq!(longest.bound(), Duration::MAX);
}

/// What happens, when, what comes of it, and the next deadline.
enum Step {
    Look(u64, Beat, Option<u64>),
    Hear(u64, Option<u64>),
}

#[test]
fn the_pulse_step_by_step() {
    use Step::{Hear, Look};
    let cases: [(&str, &[Step]); 6] = [
        (
            "nothing ever comes",
            &[
                Look(0, Beat::Wait, Some(100)),
                Look(99, Beat::Wait, Some(100)),
                Look(100, Beat::Ask, Some(110)),
                Look(109, Beat::Wait, Some(110)),
                Look(110, Beat::Ask, Some(120)),
                Look(120, Beat::Ask, Some(130)),
                Look(129, Beat::Wait, Some(130)),
                Look(130, Beat::Dead(ms(130)), None),
                Look(500, Beat::Wait, None),
            ],
        ),
        ("packets come", &[Hear(50, Some(150)), Hear(140, Some(240)), Look(239, Beat::Wait, Some(240))]),
        (
            "an answer to the last question of all",
            &[
                Look(100, Beat::Ask, Some(110)),
                Look(110, Beat::Ask, Some(120)),
                Look(120, Beat::Ask, Some(130)),
                Hear(129, Some(229)),
                Look(229, Beat::Ask, Some(239)),
            ],
        ),
        (
            "who looks late does not find it dead for that",
            &[
                Look(100, Beat::Ask, Some(110)),
                Look(5000, Beat::Ask, Some(5010)),
                Look(9000, Beat::Ask, Some(9010)),
                Look(9010, Beat::Dead(ms(9010)), None),
            ],
        ),
        (
            "nothing brings back who was given up",
            &[
                Look(100, Beat::Ask, Some(110)),
                Look(110, Beat::Ask, Some(120)),
                Look(120, Beat::Ask, Some(130)),
                Look(130, Beat::Dead(ms(130)), None),
                Hear(131, None),
                Look(999, Beat::Wait, None),
            ],
        ),
        ("a clock that goes back", &[Hear(50, Some(150)), Hear(20, Some(150))]),
    ];
    let origin = Instant::now();
    let since = |at: Option<Instant>| at.map(|at| u64::try_from((at - origin).as_millis()).unwrap());
    for (name, steps) in cases {
        let mut pulse = Pulse::new(keep_alive(), origin);
        for (number, step) in steps.iter().enumerate() {
            let (at, next) = match step {
                Look(at, beat, next) => {
                    assert_eq!(pulse.look(origin + ms(*at)), *beat, "{name}, step {number}");
                    (at, next)
                }
                Hear(at, next) => {
                    pulse.heard(origin + ms(*at));
                    (at, next)
                }
            };
            assert_eq!(since(pulse.deadline()), *next, "{name}, step {number} at {at}");
        }
    }
}

/// Times beyond time: no deadline, and no overflow.
#[test]
fn a_time_that_never_comes_is_never_asked_for() {
    let settings = KeepAlive::new(Duration::MAX, ms(1), 1).unwrap();
    let mut pulse = Pulse::new(settings, Instant::now());
    assert_eq!(pulse.deadline(), None);
    assert_eq!(pulse.look(Instant::now()), Beat::Wait);
}

proptest! {
    /// Whatever comes and whenever it is looked: who has said something within the bound is never given up, and who has
    /// not is, by whoever looks at each deadline. Red when a question gets less than its interval, or one is left out.
    #[test]
    fn the_verdict_comes_within_the_bound_and_never_before(
        idle in 1_u64..500, interval in 1_u64..500, count in 1_u32..6,
        heard in proptest::collection::vec(1_u64..600, 0..20),
    ) {
        let settings = KeepAlive::new(ms(idle), ms(interval), count).unwrap();
        let origin = Instant::now();
        let mut pulse = Pulse::new(settings, origin);
        let (mut asked, mut last) = (0, origin);
        let mut now = origin;
        for gap in heard {
            let packet = now + ms(gap);
            while let Some(deadline) = pulse.deadline().filter(|deadline| *deadline < packet) {
                match pulse.look(deadline) {
                    Beat::Ask => asked += 1,
                    Beat::Dead(silent) => {
                        prop_assert_eq!(silent, settings.bound());
                        prop_assert_eq!(deadline, last + settings.bound());
                        prop_assert_eq!(asked, count);
                        return Ok(());
                    }
                    Beat::Wait => prop_assert!(false, "a deadline at which there is nothing to do"),
                }
                prop_assert_eq!(pulse.asked(), asked);
            }
            prop_assert!(packet - last <= settings.bound());
            pulse.heard(packet);
            (now, last, asked) = (packet, packet, 0);
        }
        prop_assert!(!pulse.is_dead());
    }
}

thread_local! {
    static CLOCK: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn clock() -> Instant {
    CLOCK.get().unwrap()
}

/// A protocol that writes down what it is asked to do.
#[derive(Default)]
struct Protocol {
    probes: u32,
    probed: Option<Probed>,
    own: Option<Instant>,
    called: u32,
    ended: Arc<Mutex<Option<Ending>>>,
    batches: u32,
}

impl Handler for Protocol {
    fn packet(&mut self, _packet: &IncomingPacket<'_>) {}

    fn batch(&mut self) {
        self.batches += 1;
    }

    fn deadline(&self) -> Option<Instant> {
        self.own
    }

    fn timer(&mut self, _now: Instant) -> Result<(), Ending> {
        self.called += 1;
        self.own = None;
        Ok(())
    }

    fn ended(&mut self, why: Ending) {
        *self.ended.lock().unwrap() = Some(why);
    }
}

impl Probe for Protocol {
    fn probe(&mut self) -> Probed {
        self.probes += 1;
        self.probed.unwrap_or(Probed::Sent)
    }
}

fn watched(keep_alive: Option<KeepAlive>) -> (Watched<Protocol>, Instant) {
    let origin = Instant::now();
    CLOCK.set(Some(origin));
    (Watched::with_clock(Protocol::default(), keep_alive, clock), origin)
}

/// Red when an empty batch counts as life, or a packet does not.
#[test]
fn packets_are_life() {
    let (mut watched, origin) = watched(Some(keep_alive()));
    CLOCK.set(Some(origin + ms(50)));
    watched.batch();
    assert_eq!(watched.deadline(), Some(origin + ms(100)), "nothing came");
    watched.heard = true;
    watched.batch();
    assert_eq!((watched.deadline(), watched.handler.batches), (Some(origin + ms(150)), 2));
    CLOCK.set(Some(origin + ms(60)));
    watched.batch();
    assert_eq!(watched.deadline(), Some(origin + ms(150)), "heard of once");
}

/// An answer on the spot is an answer; a probe that can't be sent is one that nobody answers. Red when the question is
/// counted behind the answer.
#[test]
fn r5_1_a_probe_may_be_completed_inline() {
    for (probed, dies) in [(Probed::Answered, false), (Probed::Sent, true), (Probed::Unsent, true)] {
        let (mut watched, origin) = watched(Some(keep_alive()));
        watched.handler.probed = Some(probed);
        let mut verdict = None;
        for _ in 0..20 {
            let Some(now) = watched.deadline() else { break };
            verdict = watched.timer(now).err().map(|ending| (ending, now - origin));
        }
        if dies {
            assert_eq!(verdict, Some((Ending::Dead(ms(130)), ms(130))), "{probed:?}");
            assert_eq!(watched.handler.probes, 3);
        } else {
            assert_eq!((verdict, watched.handler.probes), (None, 20), "{probed:?}");
            assert_eq!(watched.deadline(), Some(origin + ms(2100)), "each a sign of life");
        }
    }
}

#[test]
fn the_protocols_own_timer_goes_on_beside_it() {
    let (mut watched, origin) = watched(Some(keep_alive()));
    watched.handler.own = Some(origin + ms(30));
    assert_eq!(watched.deadline(), Some(origin + ms(30)));
    watched.timer(origin + ms(30)).unwrap();
    assert_eq!((watched.handler.called, watched.handler.probes), (1, 0));
    assert_eq!(watched.deadline(), Some(origin + ms(100)));
    watched.timer(origin + ms(100)).unwrap();
    assert_eq!((watched.handler.called, watched.handler.probes), (1, 1));
}

#[test]
fn without_a_keep_alive_there_is_nothing() {
    let (mut watched, origin) = watched(None);
    CLOCK.set(None);
    watched.heard = true;
    watched.batch();
    assert_eq!(watched.deadline(), None, "and nobody has looked at the clock");
    watched.timer(origin + ms(1 << 30)).unwrap();
    watched.ended(Ending::Rescinded);
    assert_eq!(watched.handler.probes, 0);
    assert_eq!(*watched.handler.ended.lock().unwrap(), Some(Ending::Rescinded));
}
