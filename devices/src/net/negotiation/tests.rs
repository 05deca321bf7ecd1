//! The conversation as a table, and what a host may answer that makes no sense.

use super::*;
use crate::net::wire::nvsp::Section;
use zerocopy::little_endian::U32;

const WISHES: Wishes =
    Wishes { mtu: 1500, receive_bytes: 16 << 20, send_bytes: 1 << 20, host_timeout: Duration::from_secs(5) };
const AT: Duration = Duration::from_secs(100);

fn step(machine: Negotiation, input: Input) -> (Negotiation, Vec<Action>) {
    machine.step(AT, input)
}

fn init(status: Status) -> Input {
    Input::Answer(Ok(HostMessage::InitComplete(status)))
}

fn receive(status: Status, sections: u32, [offset, part_bytes, parts]: [u32; 3]) -> Input {
    let [offset, part_bytes, parts] = [offset, part_bytes, parts].map(U32::new);
    let first = Section { offset, part_bytes, parts, end: U32::ZERO };
    Input::Answer(Ok(HostMessage::ReceiveBufferComplete { status, sections, first }))
}

fn send(status: Status, section_bytes: u32) -> Input {
    Input::Answer(Ok(HostMessage::SendBufferComplete { status, section_bytes }))
}

/// Up to the state in which the receive buffer was named, at `version`.
fn named(version: Version) -> Negotiation {
    let (mut machine, mut actions) = step(Negotiation::new(WISHES), Input::Opened);
    while actions != [Action::Ask(GuestMessage::Init(version))] {
        (machine, actions) = step(machine, init(Status::FAILURE));
    }
    let (machine, _) = step(machine, init(Status::SUCCESS));
    assert_eq!(machine.state(), State::MakingReceive);
    step(machine, Input::Made { gpadl: 7, bytes: 1 << 20 }).0
}

/// And up to where the send buffer was.
fn both() -> Negotiation {
    let (machine, actions) = step(named(Version::V6_1), receive(Status::SUCCESS, 1, [0, 1728, 600]));
    assert_eq!(actions, [Action::MakeSend(1 << 20)]);
    step(machine, Input::Made { gpadl: 8, bytes: 1 << 20 }).0
}

#[test]
fn every_version_is_asked_for_best_first() {
    let (mut machine, mut actions) = step(Negotiation::new(WISHES), Input::Opened);
    for version in [0x6_0001, 0x6_0000, 0x5_0000, 0x4_0000, 0x3_0002, 2] {
        assert_eq!(actions, [Action::Ask(GuestMessage::Init(Version(version)))]);
        assert_eq!(machine.version(), Version(version));
        (machine, actions) = step(machine, init(Status::FAILURE));
    }
    assert_eq!((machine.state(), actions), (State::Failed, vec![Action::Fail(Failure::NoVersion)]));
}

#[test]
fn what_goes_with_each_version() {
    let both = Capabilities::IEEE_8021Q | Capabilities::TEAMING;
    let table = [
        (Version::V6_1, Some(both), 30, 16 << 20),
        (Version::V6, Some(both), 30, 16 << 20),
        (Version::V5, Some(both), 30, 16 << 20),
        (Version::V4, Some(Capabilities::IEEE_8021Q), 1, 16 << 20),
        (Version::V2, Some(Capabilities::IEEE_8021Q), 1, 15 << 20),
        (Version::V1, None, 1, 15 << 20),
    ];
    for (version, capabilities, minor, bytes) in table {
        let (mut machine, mut actions) = step(Negotiation::new(WISHES), Input::Opened);
        while actions != [Action::Ask(GuestMessage::Init(version))] {
            (machine, actions) = step(machine, init(Status::FAILURE));
        }
        let (_, actions) = step(machine, init(Status::SUCCESS));
        let config = |capabilities| Action::Tell(GuestMessage::NdisConfig { mtu: 1514, capabilities });
        let mut expected: Vec<_> = capabilities.map(config).into_iter().collect();
        expected.push(Action::Tell(GuestMessage::NdisVersion { major: 6, minor }));
        expected.push(Action::MakeReceive(bytes));
        assert_eq!(actions, expected, "{version}");
    }
}

#[test]
fn an_agreement() {
    let (machine, actions) = step(both(), send(Status::SUCCESS, 6144));
    let agreement = Agreement {
        version: Version::V6_1,
        receive_bytes: 1 << 20,
        part_bytes: 1728,
        parts: 600,
        section_bytes: 6144,
        sections: 170,
    };
    assert_eq!((machine.state(), actions), (State::Done, vec![Action::Agree(agreement)]));
    assert_eq!(machine.deadline(), None);
    // Nothing more comes of it.
    assert_eq!(step(machine, send(Status::SUCCESS, 6144)).1, []);
}

#[test]
fn a_receive_buffer_that_can_not_be() {
    let refused = Failure::Refused { what: "receive buffer", status: 6 };
    assert_eq!(step(named(Version::V5), receive(Status::BUSY, 0, [0; 3])).1, [Action::Fail(refused)]);
    let table = [
        (0, [0, 1728, 600], 0),
        (2, [0, 1728, 600], 2),
        (u32::MAX, [0, 1728, 600], u32::MAX),
        (1, [1, 1728, 600], 1),
        (1, [u32::MAX, 1728, 600], u32::MAX),
        (1, [0, 0, 600], 0),
        (1, [0, 67, 600], 67),
        (1, [0, u32::MAX, 1], 1),
        (1, [0, 1728, 0], 0),
        // One more than fit.
        (1, [0, 1728, 607], 607),
        (1, [0, 1728, u32::MAX], u32::MAX),
        (1, [0, u32::MAX, u32::MAX], u32::MAX),
    ];
    for (sections, section, value) in table {
        let (machine, actions) = step(named(Version::V5), receive(Status::SUCCESS, sections, section));
        let nonsense = Failure::Nonsense { what: "receive buffer", value: value.into() };
        assert_eq!((machine.state(), actions), (State::Failed, vec![Action::Fail(nonsense)]), "{sections} {section:?}");
    }
    // As many as fit.
    assert_eq!(step(named(Version::V5), receive(Status::SUCCESS, 1, [0, 1728, 606])).0.state(), State::MakingSend);
    assert_eq!(step(named(Version::V5), receive(Status::SUCCESS, 1, [0, 68, 15420])).0.state(), State::MakingSend);
}

#[test]
fn a_send_buffer_that_can_not_be() {
    let refused = Failure::Refused { what: "send buffer", status: 2 };
    assert_eq!(step(both(), send(Status::FAILURE, 0)).1, [Action::Fail(refused)]);
    for section_bytes in [0, 1, 1016, 1023, 1025, 6143, 6145, (1 << 20) + 8, u32::MAX] {
        let nonsense = Failure::Nonsense { what: "send buffer", value: section_bytes.into() };
        assert_eq!(step(both(), send(Status::SUCCESS, section_bytes)).1, [Action::Fail(nonsense)], "{section_bytes}");
    }
    for section_bytes in [1024, 6144, 1 << 20] {
        assert_eq!(step(both(), send(Status::SUCCESS, section_bytes)).0.state(), State::Done);
    }
}

#[test]
fn an_answer_to_something_else_ends_it_and_so_does_none() {
    let (asked, _) = step(Negotiation::new(WISHES), Input::Opened);
    let states = [(asked, "version"), (named(Version::V6), "receive buffer"), (both(), "send buffer")];
    for (machine, what) in states {
        let other = Input::Answer(Ok(HostMessage::RndisComplete(Status::SUCCESS)));
        assert_eq!(step(machine.clone(), other).1, [Action::Fail(Failure::Unexpected(what))]);
        let wire = WireError::Unknown(3);
        assert_eq!(step(machine.clone(), Input::Answer(Err(wire))).1, [Action::Fail(Failure::Wire(wire))]);
        // Not before the time is over.
        assert_eq!(machine.deadline(), Some(AT + WISHES.host_timeout));
        let (machine, actions) = machine.step(AT + WISHES.host_timeout - Duration::from_nanos(1), Input::Elapsed);
        assert_eq!(actions, []);
        let (machine, actions) = machine.step(AT + WISHES.host_timeout, Input::Elapsed);
        assert_eq!((machine.state(), actions), (State::Failed, vec![Action::Fail(Failure::Silent(what))]));
    }
}
