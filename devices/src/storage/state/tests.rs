//! The state machine's table: each event in each state.

use super::super::wire::{HostPacket, parse};
use super::*;

const AGREED: Agreed = Agreed { version: Version::V6_0, max_transfer_bytes: 65_536, subchannels: 2 };
const NO: u32 = 0xc000_0059;

fn answer(status: u32, body: &[u8]) -> Input {
    let bytes = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &status.to_le_bytes(), body].concat();
    match parse(&bytes) {
        Ok(HostPacket::Completed(completion)) => Input::Completed(completion),
        other => panic!("{other:?}"),
    }
}

fn step(state: State, input: Input) -> (State, Action) {
    let (machine, action) = Machine { wanted: 3, versions: Version::ALL, state }.step(input);
    (machine.state, action)
}

fn asking(asked: Version, rest: &'static [Version]) -> State {
    State::Version { asked, rest }
}

#[test]
fn each_answer_in_each_state() {
    let (yes, no) = (answer(0, &[]), answer(NO, &[]));
    let refused = |what| fail(Negotiation::Refused { what, status: NO });
    let say = |state, packet| (state, Action::Say(packet));
    let (rest, ended) = (&Version::ALL[1..], Agreed { subchannels: 0, ..AGREED });
    let table = [
        (State::Closed, Input::Opened, say(State::Beginning, GuestPacket::Begin)),
        (State::Beginning, yes, say(asking(Version::V6_2, rest), GuestPacket::QueryVersion(Version::V6_2))),
        (State::Beginning, no, refused("to begin")),
        (asking(Version::V6_2, rest), yes, say(State::Properties(Version::V6_2), GuestPacket::QueryProperties)),
        (
            asking(Version::V6_2, rest),
            no,
            say(asking(Version::V6_0, &rest[1..]), GuestPacket::QueryVersion(Version::V6_0)),
        ),
        (asking(Version::V4_2, &[]), no, fail(Negotiation::Version)),
        (State::Properties(Version::V6_0), no, refused("its properties")),
        (State::Ending(AGREED), yes, say(State::Subchannels(AGREED), GuestPacket::CreateSubchannels(2))),
        (State::Ending(ended), yes, run(ended)),
        (State::Ending(AGREED), no, refused("to end the beginning")),
        (State::Subchannels(AGREED), yes, run(AGREED)),
        (State::Subchannels(AGREED), no, run(ended)),
        // Silence.
        (State::Beginning, Input::Silent, fail(Negotiation::Silent("the first word"))),
        (asking(Version::V6_2, rest), Input::Silent, fail(Negotiation::Silent("a version"))),
        (State::Properties(Version::V6_0), Input::Silent, fail(Negotiation::Silent("the question for its properties"))),
        (State::Ending(AGREED), Input::Silent, fail(Negotiation::Silent("the last word"))),
        (State::Subchannels(AGREED), Input::Silent, run(ended)),
    ];
    for (state, input, expected) in table {
        assert_eq!(step(state, input), expected, "{state:?} {input:?}");
    }
    // What can't be.
    let order = fail(Negotiation::Order);
    for state in [State::Closed, State::Running(AGREED), State::Failed] {
        for input in [yes, no, Input::Silent] {
            assert_eq!(step(state, input), order, "{state:?}");
        }
    }
    for state in [State::Beginning, State::Properties(Version::V6_2), State::Ending(AGREED), State::Running(AGREED)] {
        assert_eq!(step(state, Input::Opened), order, "{state:?}");
    }
}

#[test]
fn properties_at_their_borders() {
    let properties = |version, subchannels: u16, flags: u32, most: u32| {
        let mut body = vec![0; 4];
        body.extend(subchannels.to_le_bytes());
        body.extend([0; 2]);
        body.extend(flags.to_le_bytes());
        body.extend(most.to_le_bytes());
        match step(State::Properties(version), answer(0, &body)) {
            (State::Ending(agreed), Action::Say(GuestPacket::End)) => (agreed.subchannels, agreed.max_transfer_bytes),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(properties(Version::V6_2, 2, 1, 4096), (2, 4096));
    assert_eq!(properties(Version::V6_2, u16::MAX, 1, u32::MAX), (3, u32::MAX), "no more than are wanted");
    assert_eq!(properties(Version::V6_2, 2, 0xffff_fffe, 1), (0, 1), "without the flag there are none");
    assert_eq!(
        properties(Version::V4_2, 2, 1, 0),
        (0, LEAST_TRANSFER_BYTES),
        "nor before 5.1; and nothing said is a little"
    );
}

#[test]
fn packets_are_as_short_as_the_host_may_need_until_it_has_said_more() {
    let at = |state| Machine { wanted: 0, versions: Version::ALL, state }.version();
    assert_eq!(at(State::Beginning), Version::V4_2);
    assert_eq!(at(asking(Version::V6_2, &[])), Version::V4_2);
    assert_eq!(at(State::Properties(Version::V6_2)), Version::V6_2);
    assert_eq!(at(State::Running(AGREED)), Version::V6_0);
}
