//! The state machine's table: each event in each state.

use super::*;
use crate::balloon::report::Memory;
use crate::balloon::wire::{Info, InfoType, PageRange, StatusReport};
use proptest::prelude::*;

pub(super) const NOW: Duration = Duration::from_secs(100);
const TIMEOUT: Duration = Duration::from_secs(5);

/// A guest of 512 MiB whose floor is 168 MiB, less what is ballooned.
pub(super) fn memory(available_pages: u64, ballooned_pages: u64) -> Memory {
    Memory { total_pages: 131_072, available_pages, committed_pages: 1000, ballooned_pages }
}

pub(super) fn machine(state: State) -> Machine {
    Machine { settings: Settings::default(), state, transaction: 10 }
}

fn asking(asked: Version, rest: &'static [Version]) -> State {
    State::Version { asked, rest, deadline: NOW + TIMEOUT }
}

fn capable(version: Version) -> State {
    State::Capabilities { version, deadline: NOW + TIMEOUT }
}

fn running(version: Version) -> State {
    State::Running { version, status_due: Some(NOW), inflation: None, deflated: 0 }
}

pub(super) fn quiet(version: Version) -> State {
    State::Running { version, status_due: None, inflation: None, deflated: 0 }
}

pub(super) fn range(start: u64, count: u32) -> PageRange {
    PageRange { start, count }
}

fn version_request(version: Version, last: bool) -> Action {
    Action::Send(11, GuestMessage::VersionRequest { version, last })
}

fn ignored(what: &'static str) -> Vec<Action> {
    vec![Action::Notify(Notice::Unexpected(what))]
}

fn step(state: State, input: Input) -> (State, Vec<Action>) {
    let (machine, actions) = machine(state).step(NOW, input);
    (machine.state, actions)
}

#[test]
fn negotiation_by_the_table() {
    let accepted = || Input::Message(HostMessage::VersionResponse { accepted: true });
    let refused = || Input::Message(HostMessage::VersionResponse { accepted: false });
    let capabilities =
        |accepted, suppress_status| Input::Message(HostMessage::CapabilitiesResponse { accepted, suppress_status });
    let balloon = || Input::Message(HostMessage::BalloonRequest { pages: 1 });
    let (v2, v1, v0) = (Version::V2_0, Version::V1_0, Version::V0_3);
    let rest: &'static [Version] = &Version::OFFERED;
    let negotiated = |version, status_reports| vec![Action::Notify(Notice::Negotiated { version, status_reports })];
    let report = vec![Action::Send(11, GuestMessage::Capabilities { balloon: true, hot_add_alignment: None })];
    let fail = |failure| vec![Action::Fail(failure)];
    #[rustfmt::skip]
    let table = vec![
        (State::Closed, Input::Opened, asking(v2, &rest[1..]), vec![version_request(v2, false)]),
        (State::Closed, balloon(), State::Closed, ignored("balloon request")),
        (asking(v2, &rest[1..]), refused(), asking(v1, &rest[2..]), vec![version_request(v1, false)]),
        (asking(v1, &rest[2..]), refused(), asking(v0, &[]), vec![version_request(v0, true)]),
        (asking(v0, &[]), refused(), State::Failed, fail(Failure::NoVersion)),
        (asking(v2, &rest[1..]), accepted(), capable(v2), report.clone()),
        (asking(v0, &[]), accepted(), capable(v0), report),
        (asking(v2, &rest[1..]), balloon(), asking(v2, &rest[1..]), ignored("balloon request")),
        (asking(v2, &rest[1..]), capabilities(true, false), asking(v2, &rest[1..]), ignored("capabilities response")),
        (asking(v2, &rest[1..]), Input::Elapsed, asking(v2, &rest[1..]), vec![]),
        (capable(v2), capabilities(true, false), running(v2), negotiated(v2, true)),
        (capable(v2), capabilities(true, true), quiet(v2), negotiated(v2, false)),
        (capable(v1), capabilities(true, true), running(v1), negotiated(v1, true)),
        (capable(v1), capabilities(false, false), State::Failed, fail(Failure::Capabilities)),
        (capable(v1), accepted(), capable(v1), ignored("version response")),
        (capable(v1), Input::Elapsed, capable(v1), vec![]),
        (running(v1), accepted(), running(v1), ignored("version response")),
        (running(v1), capabilities(false, false), running(v1), ignored("capabilities response")),
        (State::Failed, accepted(), State::Failed, vec![]),
    ];
    for (state, input, next, actions) in table {
        assert_eq!(step(state.clone(), input.clone()), (next, actions), "{state:?} {input:?}");
    }
}

#[test]
fn a_silent_host_ends_it_after_the_deadline() {
    let table = [
        (asking(Version::V2_0, &[]), Failure::Silent("version request")),
        (capable(Version::V2_0), Failure::Silent("capabilities report")),
    ];
    for (state, failure) in table {
        let machine = machine(state.clone());
        assert_eq!(machine.deadline(), Some(NOW + TIMEOUT));
        let (early, actions) = machine.clone().step(NOW + TIMEOUT - Duration::from_nanos(1), Input::Elapsed);
        assert_eq!((early.state(), actions), (&state, vec![]));
        let (late, actions) = machine.step(NOW + TIMEOUT, Input::Elapsed);
        assert_eq!((late.state(), late.deadline(), actions), (&State::Failed, None, vec![Action::Fail(failure)]));
    }
}

#[test]
fn one_deadline_covers_all_versions() {
    let (machine, _) = machine(State::Closed).step(NOW, Input::Opened);
    let refused = Input::Message(HostMessage::VersionResponse { accepted: false });
    let (machine, _) = machine.step(NOW + Duration::from_secs(3), refused);
    assert_eq!(machine.deadline(), Some(NOW + TIMEOUT));
}

#[test]
fn hot_add_is_announced_if_wanted() {
    let settings = Settings { announce_hot_add: true, ..Settings::default() };
    let machine = Machine { settings, ..machine(asking(Version::V2_0, &[])) };
    let (_, actions) = machine.step(NOW, Input::Message(HostMessage::VersionResponse { accepted: true }));
    let expected = GuestMessage::Capabilities { balloon: true, hot_add_alignment: Some(7) };
    assert_eq!(actions, [Action::Send(11, expected)]);
}

#[test]
fn requests_by_the_table() {
    let (v1, v0) = (Version::V1_0, Version::V0_3);
    let message = Input::Message;
    let hot_add = || message(HostMessage::HotAddRequest { range: range(9, 7), region: None });
    let info = || message(HostMessage::Info(Info::Other(InfoType(3))));
    let unballoon = |more| message(HostMessage::UnballoonRequest { more, ranges: vec![range(1, 2)] });
    let release = |last| vec![Action::Release { ranges: vec![range(1, 2)], last }];
    let refusal = vec![
        Action::Send(11, GuestMessage::HotAddResponse { pages: 0, success: true }),
        Action::Notify(Notice::HotAddRefused { pages: 7 }),
    ];
    let deflating = |deflated| State::Running { version: v1, status_due: Some(NOW), inflation: None, deflated };
    let done =
        |pages| vec![Action::Send(11, GuestMessage::UnballoonResponse), Action::Notify(Notice::Deflated { pages })];
    #[rustfmt::skip]
    let table = vec![
        (running(v1), hot_add(), running(v1), refusal),
        (running(v1), info(), running(v1), vec![Action::Notify(Notice::Info(Info::Other(InfoType(3))))]),
        (running(v0), info(), running(v0), ignored("info message")),
        (running(v1), unballoon(true), running(v1), release(false)),
        (running(v1), unballoon(false), running(v1), release(true)),
        (running(v1), Input::Released { pages: 5, last: false }, deflating(5), vec![]),
        (deflating(5), Input::Released { pages: 2, last: true }, running(v1), done(7)),
        (running(v1), Input::Elapsed, running(v1), vec![Action::Measure]),
        (quiet(v1), Input::Elapsed, quiet(v1), vec![]),
        (quiet(v1), Input::Measured(memory(9, 9)), quiet(v1), vec![]),
        (quiet(v1), Input::Taken(vec![range(1, 2)]), quiet(v1), vec![Action::Undo(vec![range(1, 2)])]),
        (quiet(v1), Input::NotTaken, quiet(v1), vec![]),
    ];
    for (state, input, next, actions) in table {
        assert_eq!(step(state.clone(), input.clone()), (next, actions), "{state:?} {input:?}");
    }
}

#[test]
fn a_report_goes_out_every_interval_with_the_floor_in_it() {
    let (machine, actions) = machine(running(Version::V2_0)).step(NOW, Input::Measured(memory(100_000, 0)));
    let report = StatusReport { available_pages: 100_000, committed_pages: 1000 + 168 * 256 };
    assert_eq!(actions, [Action::Send(11, GuestMessage::Status(report)), Action::Notify(Notice::Status(report))]);
    assert_eq!(machine.deadline(), Some(NOW + Duration::from_secs(1)));
    // A look at the memory for another reason is no report.
    let (machine, actions) = machine.step(NOW + Duration::from_millis(999), Input::Measured(memory(1, 0)));
    assert_eq!(actions, []);
    let (_, actions) = machine.step(NOW + Duration::from_secs(1), Input::Measured(memory(1, 0)));
    assert!(matches!(&actions[..], [Action::Send(12, GuestMessage::Status(_)), _]));
}

proptest! {
    /// Any order of events: no panic, and after a failure nothing more.
    #[test]
    fn any_order_of_events_is_survived(events in prop::collection::vec((input(), 0_u64..3), 0..60)) {
        let mut machine = Machine::new(Settings::default());
        let mut now = NOW;
        for (input, seconds) in events {
            now += Duration::from_secs(seconds);
            let failed = machine.state() == &State::Failed;
            let (next, actions) = machine.step(now, input);
            prop_assert!(!failed || actions.is_empty());
            machine = next;
        }
    }
}

fn input() -> impl Strategy<Value = Input> {
    let message = prop_oneof![
        any::<bool>().prop_map(|accepted| HostMessage::VersionResponse { accepted }),
        any::<(bool, bool)>().prop_map(|(accepted, suppress_status)| {
            HostMessage::CapabilitiesResponse { accepted: accepted || suppress_status, suppress_status }
        }),
        any::<u32>().prop_map(|pages| HostMessage::BalloonRequest { pages }),
        any::<bool>().prop_map(|more| HostMessage::UnballoonRequest { more, ranges: vec![range(1, 2)] }),
        Just(HostMessage::HotAddRequest { range: range(1, 2), region: None }),
        any::<u64>().prop_map(|pages| HostMessage::Info(Info::MaxPageCount(pages))),
    ];
    prop_oneof![
        2 => Just(Input::Opened),
        8 => message.prop_map(Input::Message),
        2 => Just(Input::Elapsed),
        4 => any::<(u32, u32)>().prop_map(|(a, b)| Input::Measured(memory(a.into(), b.into()))),
        2 => (0_u64..1 << 40, 1_u32..513).prop_map(|(start, count)| Input::Taken(vec![range(start, count)])),
        1 => Just(Input::NotTaken),
        1 => any::<(u64, bool)>().prop_map(|(pages, last)| Input::Released { pages, last }),
    ]
}
