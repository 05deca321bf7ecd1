//! How long each message must be and may be, under every protocol; every truncation of every message.

use super::super::{Features, GuestMessage, HostMessage, Message, MessageError, Protocol, Version};
use super::{newest, protocols};

/// Shortest length of each type, and where a longer form begins, from the documents. Index: type less one.
const SHORTEST: [usize; 29] =
    [196, 12, 8, 8, 148, 20, 12, 20, 16, 20, 16, 12, 12, 40, 16, 8, 8, 28, 20, 12, 40, 16, 44, 16, 24, 9, 8, 8, 8];

/// Shortest length of this type under this protocol. Long opens are not told by their length.
fn shortest(kind: usize, protocol: Protocol) -> usize {
    let long = Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS | Features::CHANNEL_INTERRUPT_REDIRECTION;
    if kind == 5 && protocol.has(long) { 156 } else { SHORTEST[kind - 1] }
}

fn bytes(kind: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..240_u16).map(|at| u8::try_from(at % 251).unwrap()).collect();
    bytes[..8].copy_from_slice(&[u8::try_from(kind).unwrap(), 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// What both sides make of it: the host's message, or else the guest's.
fn parse(bytes: &[u8], protocol: Protocol) -> Result<u32, MessageError> {
    match HostMessage::parse(bytes, protocol) {
        Err(MessageError::Direction { .. }) => GuestMessage::parse(bytes, protocol).map(|message| message.kind()),
        other => other.map(|message| message.kind()),
    }
}

/// Truncation at every byte of the longest message of each type: an error that says how much is missing, until it is
/// long enough, and then a message. (Take one byte off a layout, or read past a short one, and this fails.)
#[test]
fn every_truncation_is_an_error_or_a_message() {
    for protocol in protocols() {
        for kind in 1..=29 {
            let full = bytes(kind);
            if matches!(parse(&full, protocol), Err(MessageError::NotAgreed { .. })) {
                continue;
            }
            for had in 0..=240 {
                let result = parse(&full[..had], protocol);
                let needed = if had < 8 { 8 } else { shortest(kind, protocol) };
                let kind = if had < 8 { 0 } else { u32::try_from(kind).unwrap() };
                let expected = if had < needed { Err(MessageError::TooShort { kind, needed, had }) } else { Ok(kind) };
                assert_eq!(result, expected, "{had} bytes of message {kind} under {protocol}");
            }
        }
    }
}

#[test]
fn a_byte_more_than_a_message_can_have_is_refused() {
    let mut bytes = bytes(2);
    let protocol = Protocol::new(Version::V2_4, Features::empty());
    assert!(HostMessage::parse(&bytes, protocol).is_ok());
    bytes.push(0);
    assert_eq!(HostMessage::parse(&bytes, protocol), Err(MessageError::TooLong { kind: 2, had: 241 }));
    assert!(Message::try_from(bytes.as_slice()).is_err());
    assert_eq!(Message::try_from(&bytes[..240]).unwrap().as_ref(), &bytes[..240]);
}

/// Forms that only their length tells apart.
#[test]
fn a_longer_form_begins_where_the_documents_say() {
    let features_at = |had| match HostMessage::parse(&bytes(15)[..had], Protocol::NONE) {
        Ok(HostMessage::VersionResponse(response)) => response.features.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(!features_at(16) && !features_at(19) && features_at(20) && features_at(240));

    let silo_at = |had, version| match GuestMessage::parse(&bytes(21)[..had], Protocol::new(version, Features::empty()))
    {
        Ok(GuestMessage::TlConnect { silo, .. }) => silo.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(!silo_at(40, Version::V5_2) && !silo_at(55, Version::V5_2) && silo_at(56, Version::V5_2));
    assert!(silo_at(240, Version::V6_0) && !silo_at(240, Version::V5_1) && !silo_at(240, Version::V4_0));

    let client_at = |had, version: [u8; 4], features: u8| {
        let mut bytes = bytes(14);
        bytes[8..12].copy_from_slice(&version);
        bytes[20..24].copy_from_slice(&[features, 0, 0, 0]);
        match GuestMessage::parse(&bytes[..had], Protocol::NONE) {
            Ok(GuestMessage::InitiateContact(contact)) => Ok(contact.client.is_some()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    };
    assert_eq!(client_at(55, [0, 0, 6, 0], 0), Ok(false));
    assert_eq!(client_at(56, [0, 0, 6, 0], 0), Ok(true));
    assert_eq!(client_at(240, [3, 0, 5, 0], 8), Ok(false), "5.3 knows no client");
    assert_eq!(client_at(56, [0, 0, 6, 0], 8), Ok(true));
    let too_short = MessageError::TooShort { kind: 14, needed: 56, had: 55 };
    assert_eq!(client_at(55, [0, 0, 6, 0], 8), Err(too_short), "the feature promises a client");
}

#[test]
fn a_gpadl_message_holds_as_many_words_as_fit_and_no_more() {
    use super::super::gpadl::{BODY_WORDS, HEADER_WORDS};
    use super::super::{GpadlBody, GpadlHeader, GpadlId};
    let protocol = newest(Features::empty());
    let header = |words| {
        let words = vec![1; words];
        GuestMessage::GpadlHeader(GpadlHeader { relid: 1, gpadl: GpadlId(2), range_bytes: 3, ranges: 4, words })
    };
    let body = |words| GuestMessage::GpadlBody(GpadlBody { number: 1, gpadl: GpadlId(2), words: vec![1; words] });
    for (most, message) in [(HEADER_WORDS, &header as &dyn Fn(usize) -> GuestMessage), (BODY_WORDS, &body)] {
        let bytes = message(most).encode(protocol).unwrap();
        assert_eq!(GuestMessage::parse(bytes.as_ref(), protocol), Ok(message(most)));
        assert!(bytes.as_ref().len() > 240 - 8, "one more would not fit");
        assert!(matches!(message(most + 1).encode(protocol), Err(MessageError::TooLong { .. })));
    }
}
