//! From when on each message is there, and whose it is: a table of its own, checked under every protocol.

use super::super::{Features, GuestMessage, HostMessage, MessageError, Protocol, Version};
use super::protocols;

/// Type, whether the host says it, and what it needs. Taken from the documents, not from the code under test.
const TABLE: [(u8, bool, Needs); 29] = [
    (1, true, Needs::Version(0, 13)),
    (2, true, Needs::Version(0, 13)),
    (3, false, Needs::Version(0, 13)),
    (4, true, Needs::Version(0, 13)),
    (5, false, Needs::Version(0, 13)),
    (6, true, Needs::Version(0, 13)),
    (7, false, Needs::Version(0, 13)),
    (8, false, Needs::Version(0, 13)),
    (9, false, Needs::Version(0, 13)),
    (10, true, Needs::Version(0, 13)),
    (11, false, Needs::Version(0, 13)),
    (12, true, Needs::Version(0, 13)),
    (13, false, Needs::Version(0, 13)),
    (14, false, Needs::Nothing),
    (15, true, Needs::Nothing),
    (16, false, Needs::Version(0, 13)),
    (17, true, Needs::Version(1, 1)),
    (18, false, Needs::Version(4, 0)),
    (19, false, Needs::Nothing),
    (20, true, Needs::Version(4, 0)),
    (21, false, Needs::Version(4, 0)),
    (22, false, Needs::Version(4, 1)),
    (23, true, Needs::Version(4, 1)),
    (24, true, Needs::Version(5, 3)),
    (25, false, Needs::Bit(2)),
    (26, true, Needs::Bit(2)),
    (27, false, Needs::Bit(5)),
    (28, true, Needs::Bit(5)),
    (29, false, Needs::Bit(5)),
];

#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Version(u32, u32),
    Bit(u32),
}

impl Needs {
    fn are_met(self, protocol: Protocol) -> bool {
        match (self, protocol.version) {
            (Self::Nothing, _) => true,
            (_, None) => false,
            (Self::Version(major, minor), Some(agreed)) => agreed.0 >= major << 16 | minor,
            (Self::Bit(bit), Some(agreed)) => agreed.0 >= 6 << 16 && protocol.features.bits() >> bit & 1 == 1,
        }
    }
}

/// The longest message of this type, all zeroes.
fn zeroes(kind: u32) -> [u8; 240] {
    let mut bytes = [0; 240];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes
}

#[test]
fn each_message_is_there_under_exactly_the_protocols_that_have_it() {
    for protocol in protocols() {
        for (kind, hosts, needs) in TABLE {
            let kind = u32::from(kind);
            let bytes = zeroes(kind);
            let host = HostMessage::parse(&bytes, protocol);
            let guest = GuestMessage::parse(&bytes, protocol);
            let (right, wrong) = if hosts {
                (host.map(|message| message.kind()), guest.map(|message| message.kind()))
            } else {
                (guest.map(|message| message.kind()), host.map(|message| message.kind()))
            };
            assert_eq!(wrong, Err(MessageError::Direction { kind }), "{kind} from the wrong side under {protocol}");
            let there =
                if needs.are_met(protocol) { Ok(kind) } else { Err(MessageError::NotAgreed { kind, protocol }) };
            assert_eq!(right, there, "{kind} under {protocol}");
        }
    }
}

#[test]
fn what_is_not_there_is_not_encoded_either() {
    for protocol in protocols() {
        for (kind, hosts, needs) in TABLE {
            let kind = u32::from(kind);
            let everything = Protocol::new(Version::V6_0, Features::MODIFY_CONNECTION | Features::PAUSE_RESUME);
            let bytes = zeroes(kind);
            let encoded = if hosts {
                HostMessage::parse(&bytes, everything).unwrap().encode(protocol)
            } else {
                match GuestMessage::parse(&bytes, everything).unwrap() {
                    // A silo and signal parameters have gates of their own.
                    GuestMessage::TlConnect { endpoint, service, .. } => {
                        GuestMessage::TlConnect { endpoint, service, silo: None }.encode(protocol)
                    }
                    GuestMessage::Open(mut open) => {
                        open.signal = protocol.has(Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS).then_some((1, 2));
                        GuestMessage::Open(open).encode(protocol)
                    }
                    message => message.encode(protocol),
                }
            };
            // A goodbye may be said before the answer to the hello is heard.
            let there = kind == 16 || needs.are_met(protocol);
            assert_eq!(encoded.is_ok(), there, "{kind} under {protocol}: {encoded:?}");
        }
    }
}

#[test]
fn nobody_knows_other_types() {
    for kind in (30..300).chain([0, 0x100, 0x1_0000, u32::MAX]) {
        for protocol in [Protocol::NONE, Protocol::new(Version::V6_0, Features::all())] {
            assert_eq!(HostMessage::parse(&zeroes(kind), protocol), Err(MessageError::Unknown { kind }));
            assert_eq!(GuestMessage::parse(&zeroes(kind), protocol), Err(MessageError::Unknown { kind }));
        }
    }
}

#[test]
fn features_with_a_name_are_the_six_that_the_documents_have() {
    assert_eq!(Features::KNOWN.bits(), 0b11_1111);
    assert_eq!(Features::all().bits(), u32::MAX);
}

#[test]
fn features_count_from_6_0_on_only() {
    for protocol in protocols() {
        let counts = protocol.version.is_some_and(|version| version >= Version::V6_0);
        assert_eq!(protocol.has(Features::all()), counts && !protocol.features.is_empty(), "{protocol}");
    }
    assert!(!Protocol { version: None, features: Features::all() }.has(Features::CLIENT_ID));
}

#[test]
fn what_has_no_place_is_refused_rather_than_lost() {
    use super::super::{ContactTarget, GpadlId, InitiateContact, OpenChannel, OpenFlags};
    use super::NIC;

    let older = Protocol::new(Version::V5_1, Features::empty());
    let silo = GuestMessage::TlConnect { endpoint: NIC, service: NIC, silo: Some(NIC) };
    assert!(matches!(silo.encode(older), Err(MessageError::NoPlace { what: "a silo", .. })));

    let open = OpenChannel {
        relid: 1,
        open_id: 2,
        ring: GpadlId(3),
        target_vp: 4,
        downstream_offset_pages: 5,
        user_defined: [0; 120],
        signal: None,
        flags: OpenFlags::empty(),
    };
    let choose = Protocol::new(Version::V6_0, Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS);
    let message = GuestMessage::Open(Box::new(open.clone()));
    assert!(matches!(message.encode(choose), Err(MessageError::Missing { .. })), "zeroes would be the guest's choice");
    let message = GuestMessage::Open(Box::new(OpenChannel { signal: Some((1, 2)), ..open.clone() }));
    assert!(matches!(message.encode(older), Err(MessageError::NoPlace { what: "signal parameters", .. })));
    let message = GuestMessage::Open(Box::new(OpenChannel {
        flags: OpenFlags::REDIRECT_INTERRUPT,
        signal: Some((1, 2)),
        ..open
    }));
    assert!(matches!(message.encode(choose), Err(MessageError::NoPlace { what: "open flags", .. })));

    let hello = |version, target, client| {
        let (parent_to_child_monitor, child_to_parent_monitor) = (1, 2);
        let contact =
            InitiateContact { version, target_vp: 0, target, parent_to_child_monitor, child_to_parent_monitor, client };
        GuestMessage::InitiateContact(contact).encode(Protocol::NONE)
    };
    let source = |features| ContactTarget::Source { sint: 2, vtl: 0, features };
    assert!(hello(Version::V4_1, ContactTarget::InterruptPage(1), None).is_ok());
    assert!(hello(Version::V5_0, ContactTarget::InterruptPage(1), None).is_err());
    assert!(hello(Version::V4_1, source(Features::empty()), None).is_err());
    assert!(hello(Version::V5_0, source(Features::empty()), None).is_ok());
    assert!(hello(Version::V5_3, source(Features::PAUSE_RESUME), None).is_err());
    assert!(hello(Version::V6_0, source(Features::PAUSE_RESUME), None).is_ok());
    assert!(hello(Version::V5_3, source(Features::empty()), Some(NIC)).is_err());
    assert!(hello(Version::V6_0, source(Features::CLIENT_ID), None).is_err());
    assert!(hello(Version::V6_0, source(Features::CLIENT_ID), Some(NIC)).is_ok());
}
