//! The properties of RACES R1 that the core alone carries, each beside the mutant that it catches.

use vmbus::message::{HostMessage, Status, Version};

use super::control_model::{offer, offered};
use super::settings;
use super::{Answer, Bench, Command, Input, Refusal};
use crate::ChannelId;
use crate::control::Action;
use crate::mutation::{self, Mutation};

/// Where an open channel's life can be when the host takes it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    BeforeProbe,
    AfterFailedAnnouncement,
    RingShared,
    OpenPosted,
    Quarantined,
    Open,
    OpenWithBufferAsked,
    OpenWithBuffer,
    BufferComingBack,
    Moving,
    Draining,
    DrainingRetired,
    DrainingUnreferenced,
    TearingDown,
    ReservedClosing,
    Closed,
}

const MOMENTS: [Moment; 16] = [
    Moment::BeforeProbe,
    Moment::AfterFailedAnnouncement,
    Moment::RingShared,
    Moment::OpenPosted,
    Moment::Quarantined,
    Moment::Open,
    Moment::OpenWithBufferAsked,
    Moment::OpenWithBuffer,
    Moment::BufferComingBack,
    Moment::Moving,
    Moment::Draining,
    Moment::DrainingRetired,
    Moment::DrainingUnreferenced,
    Moment::TearingDown,
    Moment::ReservedClosing,
    Moment::Closed,
];

/// Brings relid 1 to that moment. Which commands wait for the host, and which for a close.
fn bring_to(bench: &mut Bench, moment: Moment) -> (ChannelId, Vec<u64>, Vec<u64>) {
    let id = bench.offer(1);
    let (mut host, mut close) = (Vec::new(), Vec::new());
    match moment {
        Moment::BeforeProbe => {}
        Moment::AfterFailedAnnouncement => {
            bench.begin_open(id);
            host.push(bench.tickets);
            bench.feed(Input::AnnounceFailed(id));
        }
        Moment::RingShared | Moment::OpenPosted | Moment::Quarantined => {
            let ring = bench.begin_open(id);
            if moment != Moment::RingShared {
                bench.created(1, ring);
            }
            if moment == Moment::Quarantined {
                bench.elapse(11);
            } else {
                host.push(bench.tickets);
            }
        }
        Moment::ReservedClosing => {
            bench.command(Command::OpenReserved(id, settings(0), 5));
            let ring = bench.shared();
            bench.created(1, ring);
            bench.message(HostMessage::OpenResult { relid: 1, open_id: 0, status: Status::SUCCESS });
            close.push(bench.command(Command::Close(id)));
            bench.let_go(id);
        }
        _ => {
            bench.open(1, id);
            (host, close) = go_on(bench, id, moment);
        }
    }
    (id, host, close)
}

/// From open to that moment.
fn go_on(bench: &mut Bench, id: ChannelId, moment: Moment) -> (Vec<u64>, Vec<u64>) {
    match moment {
        Moment::OpenWithBufferAsked => return (vec![bench.command(Command::CreateGpadl(id, 4096))], vec![]),
        Moment::OpenWithBuffer | Moment::BufferComingBack => {
            bench.command(Command::CreateGpadl(id, 4096));
            let buffer = bench.shared();
            bench.created(1, buffer);
            if moment == Moment::BufferComingBack {
                return (vec![bench.command(Command::TearDownGpadl(id, buffer))], vec![]);
            }
        }
        Moment::Moving => return (vec![bench.command(Command::Move(id, 2))], vec![]),
        Moment::Open => {}
        _ => {
            let ticket = bench.command(Command::Close(id));
            if matches!(moment, Moment::DrainingRetired | Moment::TearingDown | Moment::Closed) {
                bench.feed(Input::Retired(id));
            }
            if matches!(moment, Moment::DrainingUnreferenced | Moment::TearingDown | Moment::Closed) {
                bench.feed(Input::Unreferenced(id));
            }
            if moment == Moment::Closed {
                let ring = *bench.ghost.memory.keys().next().expect("the ring is there");
                bench.message(HostMessage::GpadlTorndown { gpadl: ring });
                assert_eq!(bench.answers(), [(ticket, Answer::Done)]);
                return (vec![], vec![]);
            }
            return (vec![], vec![ticket]);
        }
    }
    (vec![], vec![])
}

/// R1.1: the core is the one place where the table changes, and the order of inputs is the order of effects: a rescind and
/// an offer of the same number that come together in the queue end in the same state however they are cut into steps.
/// That nothing else changes it is for types to say: the executor's thread owns the core, whose every change is a `step` of
/// `&mut self`, and no handle has more than a way into the queue. That this is one queue: `executor::tests`, with its mutant.
#[test]
fn r1_1_inputs_take_effect_in_their_order() {
    let mut bench = Bench::connected(Version::V5_3);
    let first = bench.offer(1);
    let inputs = [
        Input::Message(HostMessage::Rescind { relid: 1 }),
        Input::Message(offered(offer(1))),
        Input::Command(super::Ticket(90), Command::Open(first, settings(0))),
        Input::Message(HostMessage::Rescind { relid: 1 }),
    ];
    for input in inputs {
        bench.feed(input);
    }
    bench.sound();
    assert_eq!(bench.core.live_channels(), 0);
    let counters = bench.core.counters();
    assert_eq!((counters.offers, counters.released, counters.stale_commands), (2, 2, 1));
    bench.end();
}

/// R1.2: whatever a channel waits for, a rescind ends the wait in the same step: of an open, of a GPADL, of a move and, with
/// nobody left who uses the channel, of a close.
#[test]
fn r1_2_a_rescind_cancels_every_wait_at_once() {
    for moment in MOMENTS {
        let mut bench = Bench::connected(Version::V5_3);
        let (id, host, close) = bring_to(&mut bench, moment);
        let unused = !bench.ghost.channels[&id].referenced && !bench.ghost.channels[&id].mapped;
        bench.rescind(1);
        let answers = bench.answers();
        for ticket in host {
            assert!(answers.contains(&(ticket, Answer::Failed(Refusal::Rescinded(id)))), "{moment:?}: {answers:?}");
        }
        for ticket in close {
            assert_eq!(answers.contains(&(ticket, Answer::Done)), unused, "{moment:?}: {answers:?}");
        }
        assert_eq!(bench.core.running_timers(), 0, "{moment:?}");
        bench.sound();
        bench.let_go(id);
        bench.end();
    }
}

#[test]
fn r1_2_mutant_a_rescind_that_keeps_waits_is_noticed() {
    let broken = |moment| {
        mutation::with(Mutation::RescindKeepsWaits, || {
            let mut bench = Bench::connected(Version::V5_3);
            bring_to(&mut bench, moment);
            bench.rescind(1);
            bench.broken
        })
    };
    for moment in
        [Moment::RingShared, Moment::OpenPosted, Moment::OpenWithBufferAsked, Moment::BufferComingBack, Moment::Moving]
    {
        let what = broken(moment).unwrap_or_else(|| panic!("{moment:?}: unnoticed"));
        assert!(what.contains("wait"), "{moment:?}: {what}");
    }
}

/// The number of releases of relid 1 from this rescind to the end, and after which of the two that let go.
fn releases_after_rescind(moment: Moment, retired_first: bool) -> (Bench, Vec<usize>) {
    let mut bench = Bench::connected(Version::V5_3);
    let (id, ..) = bring_to(&mut bench, moment);
    let seen = bench.ghost.channels[&id].clone();
    bench.rescind(1);
    let mut releases = vec![bench.releases(1)];
    let mut still = Vec::new();
    if seen.mapped {
        still.push(Input::Retired(id));
    }
    if seen.referenced {
        still.push(Input::Unreferenced(id));
    }
    if !retired_first {
        still.reverse();
    }
    for input in still {
        bench.feed(input);
        releases.push(bench.releases(1));
    }
    bench.rescind(1);
    releases.push(bench.releases(1));
    (bench, releases)
}

/// R1.4: one RELID_RELEASED for each offer, at whatever moment it is rescinded: with the last one that lets go, not before,
/// and not again for a second rescind.
#[test]
fn r1_4_one_release_at_every_moment_of_a_rescind() {
    for moment in MOMENTS {
        for retired_first in [true, false] {
            let (mut bench, releases) = releases_after_rescind(moment, retired_first);
            bench.sound();
            let last = releases.len() - 2;
            let expected: Vec<usize> = (0..releases.len()).map(|step| usize::from(step == last)).collect();
            assert_eq!(releases, expected, "{moment:?}, retired first: {retired_first}");
            assert_eq!(bench.core.live_channels() + bench.core.live_gpadls(), 0, "{moment:?}");
            bench.end();
        }
    }
}

#[test]
fn r1_4_mutants_wrong_releases_are_noticed() {
    let broken = |mutation, moment, retired_first| {
        mutation::with(mutation, || {
            let (bench, releases) = releases_after_rescind(moment, retired_first);
            bench.broken.is_some() || releases.iter().sum::<usize>() != 1
        })
    };
    assert!(MOMENTS.into_iter().all(|moment| broken(Mutation::DoubleRelease, moment, true)));
    assert!(broken(Mutation::ReleaseBeforeUnreferenced, Moment::Open, true));
    assert!(broken(Mutation::ReleaseBeforeRetired, Moment::Open, false));
    for moment in [Moment::Draining, Moment::DrainingRetired, Moment::TearingDown] {
        assert!(broken(Mutation::RescindForgetsClosing, moment, true), "{moment:?}");
    }
}

/// An open that is answered late: by then the number is another channel's, which is being opened in turn. Whether that one
/// is taken to be open.
fn late_result_reaches_the_next() -> (Bench, bool) {
    let mut bench = Bench::connected(Version::V5_3);
    let old = bench.offer(1);
    let ring = bench.begin_open(old);
    bench.created(1, ring);
    let open_id = bench.open_id();
    bench.rescind(1);
    let new = bench.offer(1);
    assert_ne!(old, new);
    let ring = bench.begin_open(new);
    bench.created(1, ring);
    bench.message(HostMessage::OpenResult { relid: 1, open_id, status: Status::SUCCESS });
    let reached = bench.out.iter().any(|action| matches!(action, Action::Opened { .. }));
    (bench, reached)
}

/// R1.6: a number that is offered again at once is another channel: late answers about the old one, and what its users and
/// dispatchers still say, don't reach the new one.
#[test]
fn r1_6_nothing_late_reaches_the_next_channel() {
    let (mut bench, reached) = late_result_reaches_the_next();
    assert!(!reached);
    bench.sound();
    bench.end();

    let mut bench = Bench::connected(Version::V5_3);
    let old = bench.offer(1);
    let old_ring = bench.open(1, old);
    bench.rescind(1);
    bench.let_go(old);
    assert_eq!(bench.releases(1), 1);
    let new = bench.offer(1);
    bench.open(1, new);
    bench.message(HostMessage::GpadlTorndown { gpadl: old_ring });
    bench.feed(Input::Unreferenced(old));
    bench.feed(Input::Retired(old));
    assert_eq!(bench.refused(Command::Close(old)), Refusal::Gone(old));
    bench.sound();
    assert!(bench.core.is_offered(new) && bench.ghost.channels[&new].mapped);
    assert_eq!(bench.core.counters().stale_references, 2);
    bench.rescind(1);
    bench.let_go(new);
    bench.end();
}

#[test]
fn r1_6_mutants_late_answers_are_noticed() {
    let (bench, reached) = mutation::with(Mutation::MatchByRelidOnly, late_result_reaches_the_next);
    assert!(reached && bench.broken.is_some());
    let broken = mutation::with(Mutation::ReuseGeneration, offered_twice);
    assert!(broken.is_some_and(|what| what.contains("a name is used again")));
}

fn offered_twice() -> Option<String> {
    let mut bench = Bench::connected(Version::V5_3);
    bench.offer(1);
    bench.rescind(1);
    bench.offer(1);
    bench.broken
}
