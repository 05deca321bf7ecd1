//! What the protocol says of one channel, where no race is involved: refusals, silences, buffers, moves, reserved opens.

use vmbus::message::{Features, GpadlId, GuestMessage, HostMessage, Status, Version};

use super::settings;
use super::{Action, Answer, Bench, Command, Input, Refusal};
use crate::control::OpenSettings;

const NO: Status = Status(0xc000_009a);

#[test]
fn an_open_that_the_host_refuses_is_taken_back() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    let ring = bench.begin_open(id);
    let first = bench.tickets;
    bench.message(HostMessage::GpadlCreated { relid: 1, gpadl: ring, status: NO });
    assert_eq!(bench.out[0], Action::Unshare(ring));
    assert_eq!(bench.answers(), [(first, Answer::Failed(Refusal::Host(NO)))]);

    let ring = bench.begin_open(id);
    let second = bench.tickets;
    bench.created(1, ring);
    let open_id = bench.open_id();
    bench.message(HostMessage::OpenResult { relid: 1, open_id, status: NO });
    assert_eq!(bench.posts(), [GuestMessage::GpadlTeardown { relid: 1, gpadl: ring }]);
    bench.message(HostMessage::GpadlTorndown { gpadl: ring });
    // With its answer, the channel can be opened again.
    assert_eq!(bench.answers(), [(second, Answer::Failed(Refusal::Host(NO)))]);
    bench.open(1, id);
    let counters = bench.core.counters();
    assert_eq!((counters.opens, counters.opened, counters.open_failures), (3, 1, 2));
    bench.rescind(1);
    bench.let_go(id);
    bench.end();
}

#[test]
fn why_an_open_failed_is_more_than_that_its_memory_is_late() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    let ring = bench.begin_open(id);
    let ticket = bench.tickets;
    bench.created(1, ring);
    let open_id = bench.open_id();
    bench.message(HostMessage::OpenResult { relid: 1, open_id, status: NO });
    bench.elapse(11);
    assert_eq!(bench.answers(), [(ticket, Answer::Failed(Refusal::Host(NO)))]);
    assert_eq!(bench.core.live_gpadls(), 1);
    bench.message(HostMessage::GpadlTorndown { gpadl: ring });
    assert_eq!(bench.out, [Action::Unshare(ring)]);
    bench.end();
}

#[test]
fn a_late_open_is_closed_in_order() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    let ring = bench.begin_open(id);
    bench.created(1, ring);
    let open_id = bench.open_id();
    bench.elapse(11);
    assert!(matches!(bench.refused(Command::Open(id, settings(0))), Refusal::State(..)));
    assert_eq!(bench.core.live_gpadls(), 1, "the host may still reach it");
    bench.message(HostMessage::OpenResult { relid: 1, open_id, status: Status::SUCCESS });
    let torn = GuestMessage::GpadlTeardown { relid: 1, gpadl: ring };
    assert_eq!(bench.posts(), [GuestMessage::Close { relid: 1 }, torn]);
    bench.message(HostMessage::OpenResult { relid: 1, open_id, status: Status::SUCCESS });
    assert!(bench.out.is_empty(), "a second time it is a lie");
    bench.message(HostMessage::GpadlTorndown { gpadl: ring });
    bench.open(1, id);
    bench.rescind(1);
    bench.let_go(id);
    bench.end();
}

#[test]
fn senseless_numbers_are_refused_before_anything_is_shared() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    let bad = |outgoing_bytes, incoming_bytes, processor| OpenSettings {
        outgoing_bytes,
        incoming_bytes,
        ..settings(processor)
    };
    for settings in
        [bad(0, 8192, 0), bad(8192, 4096, 0), bad(8193, 8192, 0), bad(1 << 31, 1 << 31, 0), bad(8192, 8192, 4)]
    {
        assert!(matches!(bench.refused(Command::Open(id, settings)), Refusal::Argument(_)));
    }
    bench.open(1, id);
    for bytes in [0, 1, 4097, (64 << 20) + 4096] {
        assert!(matches!(bench.refused(Command::CreateGpadl(id, bytes)), Refusal::Argument(_)));
    }
    assert!(matches!(bench.refused(Command::Move(id, 4)), Refusal::Argument(_)));
    assert_eq!(bench.core.counters().gpadls, 1);
    bench.rescind(1);
    bench.let_go(id);
    bench.end();
}

#[test]
fn buffers_come_back_before_the_ring() {
    for (version, close_first) in [(Version::V5_3, true), (Version::V3_0, false)] {
        let mut bench = Bench::connected(version);
        let id = bench.offer(1);
        let ring = bench.open(1, id);
        let asked = bench.command(Command::CreateGpadl(id, 4096));
        let live = bench.shared();
        bench.created(1, live);
        assert_eq!(bench.answers(), [(asked, Answer::Shared(live))]);
        let half = bench.command(Command::CreateGpadl(id, 8192));
        let late = bench.shared();
        let close = bench.command(Command::Close(id));
        assert!(
            matches!(bench.answers().as_slice(), [(ticket, Answer::Failed(Refusal::State(..)))] if *ticket == half)
        );
        bench.let_go(id);
        let (shut, torn) = (GuestMessage::Close { relid: 1 }, |gpadl| GuestMessage::GpadlTeardown { relid: 1, gpadl });
        let order = if close_first { [shut, torn(live)] } else { [torn(live), shut] };
        assert_eq!(bench.posts(), order, "the ring waits for the buffer that the host has not answered for");
        bench.created(1, late);
        assert_eq!(bench.posts(), [torn(late), torn(ring)]);
        for gpadl in [ring, late, live] {
            bench.message(HostMessage::GpadlTorndown { gpadl });
            assert_eq!(bench.out[0], Action::Unshare(gpadl));
        }
        assert_eq!(bench.answers(), [(close, Answer::Done)]);
        bench.end();
    }
}

#[test]
fn buffers_have_answers_of_their_own() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    bench.open(1, id);
    // Refused by the host, and by the shell.
    let ticket = bench.command(Command::CreateGpadl(id, 4096));
    let gpadl = bench.shared();
    bench.message(HostMessage::GpadlCreated { relid: 2, gpadl, status: NO });
    assert!(bench.out.is_empty(), "of another channel");
    bench.message(HostMessage::GpadlCreated { relid: 1, gpadl, status: NO });
    assert_eq!(bench.answers(), [(ticket, Answer::Failed(Refusal::Host(NO)))]);
    let ticket = bench.command(Command::CreateGpadl(id, 4096));
    let gpadl = bench.shared();
    bench.feed(Input::ShareFailed(gpadl));
    assert_eq!(bench.out, [Action::Answer(super::Ticket(ticket), Answer::Failed(Refusal::Memory))]);
    // Nobody waits any more when it comes: it is taken back.
    let ticket = bench.command(Command::CreateGpadl(id, 4096));
    let gpadl = bench.shared();
    bench.elapse(11);
    assert_eq!(bench.answers(), [(ticket, Answer::Failed(Refusal::Silent(10_000)))]);
    bench.created(1, gpadl);
    assert_eq!(bench.posts(), [GuestMessage::GpadlTeardown { relid: 1, gpadl }]);
    bench.message(HostMessage::GpadlTorndown { gpadl });
    bench.message(HostMessage::GpadlTorndown { gpadl });
    assert!(bench.out.is_empty(), "a second time it is a lie");
    // Taken back, and waited for twice.
    let ticket = bench.command(Command::CreateGpadl(id, 4096));
    let gpadl = bench.shared();
    bench.created(1, gpadl);
    assert_eq!(bench.answers(), [(ticket, Answer::Shared(gpadl))]);
    let first = bench.command(Command::TearDownGpadl(id, gpadl));
    assert!(matches!(bench.refused(Command::TearDownGpadl(id, gpadl)), Refusal::State(..)));
    bench.elapse(11);
    assert_eq!(bench.answers(), [(first, Answer::Failed(Refusal::Silent(10_000)))]);
    let second = bench.command(Command::TearDownGpadl(id, gpadl));
    assert!(bench.posts().is_empty(), "it is posted already");
    bench.message(HostMessage::GpadlTorndown { gpadl });
    assert_eq!(bench.answers(), [(second, Answer::Done)]);
    assert_eq!(bench.refused(Command::TearDownGpadl(id, gpadl)), Refusal::NoBuffer(gpadl));
    assert_eq!(bench.refused(Command::TearDownGpadl(id, GpadlId(1))), Refusal::NoBuffer(GpadlId(1)));
    bench.rescind(1);
    bench.let_go(id);
    bench.end();
}

#[test]
fn what_can_be_outstanding_is_bounded() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    bench.open(1, id);
    for _ in 0..255 {
        bench.command(Command::CreateGpadl(id, 4096));
    }
    assert!(matches!(bench.refused(Command::CreateGpadl(id, 4096)), Refusal::TooMany(..)));
    let closes: Vec<u64> = (0..64).map(|_| bench.command(Command::Close(id))).collect();
    assert!(matches!(bench.refused(Command::Close(id)), Refusal::TooMany(..)));
    bench.rescind(1);
    bench.feed(Input::Unreferenced(id));
    assert!(bench.answers().is_empty());
    bench.feed(Input::Retired(id));
    assert_eq!(bench.answers(), closes.into_iter().map(|ticket| (ticket, Answer::Done)).collect::<Vec<_>>());
    bench.end();
}

#[test]
fn a_move_is_forwarded_until_the_host_has_confirmed() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    bench.open(1, id);
    let ticket = bench.command(Command::Move(id, 2));
    let modify = |target_vp| Action::Post(GuestMessage::ModifyChannel { relid: 1, target_vp });
    let moved = |from, to| Action::Move { channel: id, relid: 1, from, to };
    let forget = |processor| Action::Forget { channel: id, relid: 1, processor };
    assert_eq!(bench.out, [moved(0, 2), modify(2)]);
    assert!(matches!(bench.refused(Command::Move(id, 3)), Refusal::State(..)));
    bench.message(HostMessage::ModifyChannelResponse { relid: 1, status: Status::SUCCESS });
    assert_eq!(bench.out[0], forget(0));
    assert_eq!(bench.answers(), [(ticket, Answer::Done)]);
    // A host that refuses goes on with the old processor, and so does the map.
    let ticket = bench.command(Command::Move(id, 1));
    bench.message(HostMessage::ModifyChannelResponse { relid: 1, status: NO });
    assert_eq!(bench.out[..2], [moved(1, 2), forget(1)]);
    assert_eq!(bench.answers(), [(ticket, Answer::Failed(Refusal::Host(NO)))]);
    // A host that is silent may interrupt the old one until the channel is closed.
    let ticket = bench.command(Command::Move(id, 0));
    bench.elapse(11);
    assert_eq!(bench.answers(), [(ticket, Answer::Failed(Refusal::Silent(10_000)))]);
    assert!(matches!(bench.refused(Command::Move(id, 3)), Refusal::State(..)));
    bench.command(Command::Close(id));
    assert_eq!(bench.out, [Action::Retire { channel: id, relid: 1, processor: 0 }, forget(2)]);
    bench.sound();
    bench.rescind(1);
    bench.let_go(id);
    bench.end();
}

#[test]
fn older_hosts_confirm_no_move_and_the_oldest_know_none() {
    let mut bench = Bench::connected(Version::V5_2);
    let id = bench.offer(1);
    bench.open(1, id);
    for to in [1, 2, 1, 3] {
        let ticket = bench.command(Command::Move(id, to));
        assert_eq!(bench.answers(), [(ticket, Answer::Done)]);
    }
    bench.command(Command::Close(id));
    let forgets = bench.out.iter().filter(|action| matches!(action, Action::Forget { .. })).count();
    assert_eq!(forgets, 3, "each map that forwarded: {:?}", bench.out);
    bench.sound();
    bench.rescind(1);
    bench.let_go(id);
    bench.end();

    let mut bench = Bench::connected(Version::V4_0);
    let id = bench.offer(1);
    bench.open(1, id);
    assert!(matches!(bench.refused(Command::Move(id, 1)), Refusal::TooOld { needed: Version::V4_1, .. }));
    let same = bench.command(Command::Close(id));
    bench.rescind(1);
    bench.let_go(id);
    assert_eq!(bench.answers(), [(same, Answer::Done)]);
    bench.end();
}

#[test]
fn a_reserved_channel_is_closed_with_an_answer() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    bench.command(Command::OpenReserved(id, settings(3), 7));
    let ring = bench.shared();
    bench.created(1, ring);
    let posted =
        GuestMessage::OpenReserved { relid: 1, target_vp: 3, target_sint: 7, ring, downstream_offset_pages: 2 };
    assert_eq!(bench.posts(), [posted]);
    bench.message(HostMessage::OpenResult { relid: 1, open_id: 0, status: Status::SUCCESS });
    assert!(matches!(bench.out[0], Action::Opened { .. }));
    let close = bench.command(Command::Close(id));
    bench.let_go(id);
    assert_eq!(bench.posts(), [GuestMessage::CloseReserved { relid: 1, target_vp: 3, target_sint: 7 }]);
    bench.message(HostMessage::CloseReservedResponse { relid: 1 });
    assert_eq!(bench.posts(), [GuestMessage::GpadlTeardown { relid: 1, gpadl: ring }]);
    bench.message(HostMessage::CloseReservedResponse { relid: 1 });
    assert!(bench.out.is_empty());
    bench.message(HostMessage::GpadlTorndown { gpadl: ring });
    assert_eq!(bench.answers(), [(close, Answer::Done)]);
    bench.end();
}

#[test]
fn the_guest_chooses_signals_where_that_was_agreed_on() {
    for (version, signal) in [(Version::V6_0, Some((0x1_0005, 5))), (Version::V5_3, None)] {
        let mut bench = Bench::connected(version);
        assert_eq!(bench.core.agreed().is_some_and(|agreed| !agreed.features.is_empty()), version == Version::V6_0);
        assert!(Features::all().contains(Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS));
        let id = bench.offer(5);
        let ring = bench.begin_open(id);
        bench.created(5, ring);
        let posts = bench.posts();
        assert!(matches!(posts.as_slice(), [GuestMessage::Open(open)] if open.signal == signal), "{posts:?}");
        bench.end();
    }
}

/// What the shell can't do after all is closed like anything else.
#[test]
fn a_port_that_could_not_be_had_is_an_orderly_close() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    let ring = bench.open(1, id);
    bench.feed(Input::Unreferenced(id));
    assert_eq!(bench.out, [Action::Retire { channel: id, relid: 1, processor: 0 }]);
    bench.feed(Input::Retired(id));
    assert_eq!(bench.posts()[0], GuestMessage::Close { relid: 1 });
    bench.message(HostMessage::GpadlTorndown { gpadl: ring });
    bench.open(1, id);
    bench.rescind(1);
    bench.let_go(id);
    bench.end();
}
