//! The connection: negotiation, goodbye, coming back, loss; and what can be asked of it while it lasts.

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{
    ConnectionState, ContactTarget, Features, GuestMessage, HostMessage, OfferFlags, Status, Version, VersionResponse,
};

use super::control_model::{offer, offered};
use super::steps::not_supported;
use super::{Action, Answer, Bench, Command, Limits, Refusal};
use crate::Announcement;
use crate::control::{Agreed, Contact, FEATURES};

/// The version that was offered in the last step, and to whom.
fn contact(bench: &Bench) -> Option<(Version, ContactTarget, Option<Uuid>)> {
    match bench.posts().as_slice() {
        [GuestMessage::InitiateContact(contact)] => Some((contact.version, contact.target, contact.client)),
        _ => None,
    }
}

fn agreed(bench: &Bench) -> Agreed {
    let found =
        bench.out.iter().find_map(|action| if let Action::Connected(agreed) = action { Some(*agreed) } else { None });
    found.expect("a connection was made")
}

#[test]
fn versions_are_offered_downwards() {
    for speaks in Version::ALL {
        let client = Uuid::from_u128(77);
        let contact_of = Contact { sint: 2, interrupt_page: 0x5000, client: Some(client), ..Contact::default() };
        let mut bench = Bench::new(Limits { contact: contact_of, ..Limits::default() });
        bench.command(Command::Connect);
        for expected in Version::ALL {
            let (version, target, named) = contact(&bench).expect("the next version");
            assert_eq!(version, expected);
            let features = if version == Version::V6_0 { FEATURES } else { Features::empty() };
            let source = ContactTarget::Source { sint: 2, vtl: 0, features };
            let old = ContactTarget::InterruptPage(0x5000);
            assert_eq!(target, if version >= Version::V5_0 { source } else { old });
            assert_eq!(named, (version == Version::V6_0).then_some(client));
            if version == speaks {
                break;
            }
            bench.message(not_supported());
        }
        bench.accept();
        let message_connection = if speaks >= Version::V5_0 { 4 } else { 1 };
        let features = if speaks == Version::V6_0 { FEATURES } else { Features::empty() };
        assert_eq!(agreed(&bench), Agreed { version: speaks, features, message_connection });
        assert_eq!(bench.posts(), [GuestMessage::RequestOffers]);
        assert_eq!(bench.core.agreed().map(|agreed| agreed.version), Some(speaks));
        bench.message(HostMessage::AllOffersDelivered);
        assert_eq!(bench.answers(), [(1, Answer::Done)]);
        assert!(bench.out.contains(&Action::Announce(Announcement::AllArrived)));
        // A second time it is a lie.
        bench.message(HostMessage::AllOffersDelivered);
        assert!(bench.out.is_empty());
        bench.end();
    }
}

#[test]
fn features_are_those_that_both_want() {
    let mut bench = Bench::new(Limits { features: Features::PAUSE_RESUME | Features::CLIENT_ID, ..Limits::default() });
    bench.command(Command::Connect);
    let host = Features::PAUSE_RESUME | Features::MODIFY_CONNECTION;
    let response =
        VersionResponse { supported: true, state: ConnectionState::SUCCESSFUL, selected: 9, features: Some(host) };
    bench.message(HostMessage::VersionResponse(response));
    assert_eq!((agreed(&bench).features, agreed(&bench).message_connection), (Features::PAUSE_RESUME, 9));
    let modify = Command::ModifyConnection { parent_to_child_monitor: 0, child_to_parent_monitor: 0 };
    assert_eq!(bench.refused(modify), Refusal::Feature(Features::MODIFY_CONNECTION));
    bench.end();
}

#[test]
fn a_host_that_speaks_nothing_is_said_so() {
    let mut bench = Bench::new(Limits { oldest: Version::V5_2, ..Limits::default() });
    bench.command(Command::Connect);
    bench.message(not_supported());
    bench.message(not_supported());
    bench.message(not_supported());
    let refusal = Refusal::Version { newest: Version::V6_0, oldest: Version::V5_2 };
    assert_eq!(bench.answers(), [(1, Answer::Failed(refusal))]);
    // It can be tried again, and refused for another reason.
    bench.command(Command::Connect);
    let state = ConnectionState::FAILED_LOW_RESOURCES;
    let response = VersionResponse { supported: true, state, selected: 0, features: None };
    bench.message(HostMessage::VersionResponse(response));
    assert_eq!(bench.answers(), [(2, Answer::Failed(Refusal::Contact(state)))]);
    assert!(bench.core.is_empty());
}

#[test]
fn a_silent_host_is_waited_for_and_may_answer_the_next_time() {
    let mut bench = Bench::new(Limits::default());
    bench.command(Command::Connect);
    bench.message(not_supported());
    assert!(bench.core.deadline().is_some_and(|at| at <= std::time::Duration::from_secs(10)));
    bench.elapse(9);
    assert!(bench.answers().is_empty());
    bench.elapse(2);
    assert_eq!(bench.answers(), [(1, Answer::Failed(Refusal::Silent(10_000)))]);
    bench.accept();
    assert_eq!(bench.core.counters().stale_answers, 1);
    // The version that was not answered comes first now, so that a late answer to it means the same.
    bench.command(Command::Connect);
    assert_eq!(contact(&bench).map(|(version, ..)| version), Some(Version::V5_3));
    bench.accept();
    // The offers don't end: what there is can be used.
    bench.elapse(11);
    assert_eq!(bench.answers(), [(2, Answer::Failed(Refusal::Silent(10_000)))]);
    bench.offer(1);
    bench.message(HostMessage::AllOffersDelivered);
    assert!(bench.out.contains(&Action::Announce(Announcement::AllArrived)));
    bench.end();
}

#[test]
fn suspend_and_resume_find_the_same_devices() {
    let mut bench = Bench::connected(Version::V5_2);
    let (open, idle) = (bench.offer(1), bench.offer(2));
    let ring = bench.open(1, open);
    let instances: Vec<_> = bench.core.offers().into_iter().map(|offer| offer.instance).collect();

    let suspend = bench.command(Command::Suspend);
    assert_eq!(bench.posts(), [GuestMessage::Unload]);
    assert!(bench.core.offers().is_empty() && !bench.core.is_offered(idle));
    assert_eq!(bench.refused(Command::Resume), Refusal::Connection("being ended"));
    bench.message(offered(offer(3)));
    assert!(bench.out.is_empty(), "nothing is taken after goodbye: {:?}", bench.out);
    bench.message(HostMessage::UnloadResponse);
    assert_eq!(bench.answers(), [(suspend, Answer::Done)]);
    assert_eq!(bench.refused(Command::Connect), Refusal::Connection("suspended"));

    // The channel is still held here while its number is another one's.
    let resume = bench.command(Command::Resume);
    assert_eq!(contact(&bench).map(|(version, ..)| version), Some(Version::V5_2), "the same version first");
    bench.accept();
    let (again, other) = (bench.offer(2), bench.offer(1));
    assert!(again != open && again != idle && other != open);
    bench.message(HostMessage::AllOffersDelivered);
    assert_eq!(bench.answers(), [(resume, Answer::Done)]);
    let mut found: Vec<_> = bench.core.offers().into_iter().map(|offer| offer.instance).collect();
    found.sort_unstable();
    assert_eq!(found, instances);
    bench.open(1, other);
    bench.let_go(open);
    assert!(bench.out.contains(&Action::Unshare(ring)), "{:?}", bench.out);
    assert!(bench.posts().is_empty(), "its number is not its own any more: {:?}", bench.out);
    assert_eq!(bench.core.counters().severed, 2);
    bench.sound();
    bench.rescind(1);
    bench.let_go(other);
    bench.end();
}

#[test]
fn a_host_that_came_back_older_is_offered_all_versions() {
    let mut bench = Bench::connected(Version::V5_3);
    bench.command(Command::Suspend);
    bench.message(HostMessage::UnloadResponse);
    bench.command(Command::Resume);
    let mut tried = Vec::new();
    while let Some((version, ..)) = contact(&bench) {
        tried.push(version);
        bench.message(not_supported());
    }
    assert_eq!(tried, Version::ALL[1..]);
    let resume = bench.command(Command::Resume);
    bench.accept();
    bench.message(HostMessage::AllOffersDelivered);
    assert_eq!(bench.answers(), [(resume, Answer::Done)]);
    bench.end();
}

#[test]
fn unload_waits_for_the_host_and_then_for_references() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    let ring = bench.open(1, id);
    let close = bench.command(Command::Close(id));
    let unload = bench.command(Command::Unload);
    bench.feed(super::Input::Retired(id));
    bench.elapse(99);
    assert!(bench.answers().is_empty(), "a host may write its caches back first");
    bench.elapse(2);
    assert_eq!(bench.answers(), [(unload, Answer::Failed(Refusal::Silent(100_000)))]);
    bench.feed(super::Input::Unreferenced(id));
    assert_eq!(bench.answers(), [(close, Answer::Done)], "its users are done");
    assert_eq!(bench.core.live_gpadls(), 1, "and the host is not");
    bench.message(HostMessage::UnloadResponse);
    assert_eq!(bench.out, [Action::Unshare(ring)]);
    assert!(bench.core.is_empty());
    let again = bench.command(Command::Unload);
    assert_eq!(bench.answers(), [(again, Answer::Done)]);
    bench.command(Command::Connect);
    assert!(contact(&bench).is_some());
    bench.end();
}

#[test]
fn a_host_of_2_4_is_left_without_a_word() {
    let mut bench = Bench::connected(Version::V2_4);
    let id = bench.offer(1);
    let ring = bench.begin_open(id);
    assert!(matches!(bench.refused(Command::Suspend), Refusal::TooOld { needed: Version::V3_0, .. }));
    let unload = bench.command(Command::Unload);
    assert!(bench.posts().is_empty());
    assert!(bench.answers().contains(&(unload, Answer::Done)));
    assert_eq!(bench.core.live_gpadls(), 1, "nobody said that the host has let go");
    bench.feed(super::Input::Lost);
    assert_eq!(bench.out, [Action::Unshare(ring)]);
    bench.end();
}

#[test]
fn nothing_is_asked_of_a_connection_that_is_not_there() {
    let mut bench = Bench::new(Limits::default());
    let (endpoint, service) = (Uuid::nil(), Uuid::nil());
    let monitors = Command::ModifyConnection { parent_to_child_monitor: 0, child_to_parent_monitor: 0 };
    for command in [
        Command::Suspend,
        Command::TlConnect { endpoint, service, silo: None },
        monitors,
        Command::PauseMessages,
        Command::ResumeMessages,
    ] {
        assert_eq!(bench.refused(command), Refusal::NotConnected);
    }
    assert_eq!(bench.refused(Command::Resume), Refusal::Connection("not made"));
    bench.feed(super::Input::Lost);
    assert_eq!(bench.refused(Command::Connect), Refusal::NotConnected);
    let unload = bench.command(Command::Unload);
    assert_eq!(bench.answers(), [(unload, Answer::Done)]);
    assert!(bench.core.is_empty());
}

#[test]
fn a_paused_host_is_not_late() {
    let mut bench = Bench::connected(Version::V6_0);
    let id = bench.offer(1);
    let ring = bench.begin_open(id);
    let open = bench.tickets;
    let pause = bench.command(Command::PauseMessages);
    assert_eq!(bench.posts(), [GuestMessage::Pause]);
    bench.message(HostMessage::PauseResponse);
    assert_eq!(bench.answers(), [(pause, Answer::Done)]);
    assert_eq!(bench.refused(Command::PauseMessages), Refusal::Connection("paused"));
    bench.elapse(60);
    assert!(bench.out.is_empty());
    bench.command(Command::ResumeMessages);
    assert_eq!(bench.posts(), [GuestMessage::Resume]);
    bench.elapse(11);
    assert_eq!(bench.answers(), [(open, Answer::Failed(Refusal::Silent(10_000)))]);
    bench.created(1, ring);
    bench.message(HostMessage::GpadlTorndown { gpadl: ring });
    assert!(matches!(bench.refused(Command::ResumeMessages), Refusal::Connection("not paused")));
    bench.end();
}

#[test]
fn monitor_pages_can_be_changed() {
    let mut bench = Bench::connected(Version::V6_0);
    let monitors = Command::ModifyConnection { parent_to_child_monitor: 1, child_to_parent_monitor: 2 };
    for (state, answer) in [
        (ConnectionState::SUCCESSFUL, Answer::Done),
        (ConnectionState::FAILED_UNKNOWN, Answer::Failed(Refusal::Contact(ConnectionState::FAILED_UNKNOWN))),
    ] {
        let ticket = bench.command(monitors.clone());
        let posted = GuestMessage::ModifyConnection { parent_to_child_monitor: 1, child_to_parent_monitor: 2 };
        assert_eq!(bench.posts(), [posted]);
        assert_eq!(bench.refused(monitors.clone()), Refusal::Connection("being modified"));
        bench.message(HostMessage::ModifyConnectionResponse { state });
        assert_eq!(bench.answers(), [(ticket, answer)]);
    }
    bench.end();
}

#[test]
fn sockets_are_answered_by_their_channel_or_a_refusal() {
    let mut bench = Bench::connected(Version::V5_2);
    let (service, endpoint) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let connect = Command::TlConnect { endpoint, service, silo: None };
    let refused = bench.command(connect.clone());
    assert!(matches!(bench.refused(connect.clone()), Refusal::Argument(_)));
    let status = Status::CONNECTION_REFUSED;
    bench.message(HostMessage::TlConnectResult { endpoint, service, status });
    assert_eq!(bench.answers(), [(refused, Answer::Failed(Refusal::Host(status)))]);

    let made = bench.command(connect.clone());
    let mut channel = offer(5);
    (channel.class, channel.instance) = (Class(service), endpoint);
    channel.flags = OfferFlags::TLNPI_PROVIDER;
    bench.message(offered(channel));
    let id = bench.arrived().expect("the channel");
    assert_eq!(bench.answers(), [(made, Answer::Channel(id))]);

    let silent = bench.command(connect);
    bench.elapse(11);
    assert_eq!(bench.answers(), [(silent, Answer::Failed(Refusal::Silent(10_000)))]);
    bench.message(HostMessage::TlConnectResult { endpoint, service, status });
    assert_eq!(bench.core.counters().stale_answers, 1);
    bench.end();

    let mut old = Bench::connected(Version::V3_0);
    let connect = Command::TlConnect { endpoint, service, silo: None };
    assert!(matches!(old.refused(connect), Refusal::TooOld { needed: Version::V4_0, .. }));
}
