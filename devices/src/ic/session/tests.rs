//! Each kind of message against a session, before and after the agreement.

use super::*;
use crate::ic::Heartbeat;
use crate::ic::negotiate::BadOffer;
use crate::ic::wire::Version;
use proptest::prelude::*;

fn frame(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(20 + body.len()).unwrap();
    let mut bytes = [1_u32.to_le_bytes(), size.to_le_bytes()].concat();
    bytes.extend([0; 4]);
    bytes.extend(kind.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend([0, 0, 0, 0, 77, flags, 0, 0]);
    bytes.extend(body);
    bytes
}

const REQUEST: u8 = 3;
/// One version of each kind: 3.0 and 3.0.
const OFFER: [u8; 16] = [1, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0];

struct Talk {
    session: Session,
    events: Vec<Event>,
}

impl Talk {
    fn new() -> Self {
        Self { session: Session::new(Box::new(Heartbeat::default())), events: Vec::new() }
    }

    fn agreed() -> Self {
        let mut talk = Self::new();
        let mut offer = frame(0, REQUEST, &OFFER);
        assert_eq!(talk.packet(&mut offer), Outcome::Answer);
        talk.events.clear();
        talk
    }

    fn packet(&mut self, bytes: &mut [u8]) -> Outcome {
        let events = &mut self.events;
        self.session.packet(Duration::ZERO, bytes, &mut |event| events.push(event))
    }
}

fn status(bytes: &[u8]) -> Status {
    Status(u32::from_le_bytes(bytes[20..24].try_into().unwrap()))
}

#[test]
fn an_answer_is_its_request_with_status_and_flags() {
    let mut talk = Talk::new();
    let mut offer = frame(0, REQUEST, &OFFER);
    assert_eq!(talk.packet(&mut offer), Outcome::Answer);
    let mut expected = frame(0, 5, &OFFER);
    expected[18] = 16;
    assert_eq!(offer, expected);
    let version = Version::new(3, 0);
    let agreed = Agreed { framework: version, message: version };
    assert_eq!(talk.events, [Event::Agreed(agreed)]);
    assert_eq!(talk.session.summary().agreed, Some(agreed));
    let mut beat = frame(1, REQUEST, &9_u64.to_le_bytes());
    assert_eq!(talk.packet(&mut beat), Outcome::Answer);
    assert_eq!(beat, frame(1, 5, &10_u64.to_le_bytes()));
}

/// A message of this type with this body: its status, and what is told of it.
#[test]
fn what_is_not_done_is_answered_with_a_failure() {
    let short = Ignored::Refused(Status::INVALID_ARGUMENT);
    for (kind, body, agreed, expected, ignored) in [
        (1, 8, false, Status::FAIL, Ignored::NotAgreed),
        (1, 7, true, Status::INVALID_ARGUMENT, short),
        (1, 0, true, Status::INVALID_ARGUMENT, short),
        (2, 8, true, Status::FAIL, Ignored::Kind(MessageType::KVP)),
        (2, 8, false, Status::FAIL, Ignored::Kind(MessageType::KVP)),
        (u16::MAX, 8, true, Status::FAIL, Ignored::Kind(MessageType(u16::MAX))),
        (0, 7, true, Status::OK, Ignored::Offer(BadOffer::Short { bytes: 7 })),
    ] {
        let mut talk = if agreed { Talk::agreed() } else { Talk::new() };
        let mut bytes = frame(kind, REQUEST, &vec![0; body]);
        assert_eq!(talk.packet(&mut bytes), Outcome::Answer);
        assert_eq!((status(&bytes), bytes[24], bytes[25]), (expected, 77, 5), "{ignored}");
        assert_eq!(talk.events, [Event::Ignored(ignored)]);
    }
}

#[test]
fn what_has_no_header_or_asks_for_no_answer_gets_none() {
    for bytes in 0..28 {
        let mut talk = Talk::agreed();
        assert_eq!(talk.packet(&mut vec![0xff; bytes]), Outcome::Silence);
        assert_eq!(talk.events, [Event::Ignored(Ignored::Short { bytes })]);
        assert_eq!(talk.session.summary().counters.malformed, 1);
    }
    for (flags, outcome) in [(0, Outcome::Silence), (4, Outcome::Silence), (1, Outcome::Answer), (2, Outcome::Answer)] {
        let mut talk = Talk::agreed();
        assert_eq!(talk.packet(&mut frame(1, flags, &[0; 8])), outcome);
        assert_eq!(talk.session.summary().counters.done, 1, "done all the same");
    }
}

#[test]
fn a_later_disagreement_ends_the_agreement() {
    for offer in [&[0_u8; 8][..], &[1, 0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0], &[255; 8]] {
        let mut talk = Talk::agreed();
        let mut bytes = frame(0, REQUEST, offer);
        assert_eq!(talk.packet(&mut bytes), Outcome::Answer);
        assert_eq!((&bytes[28..32], status(&bytes)), (&[0; 4][..], Status::OK));
        assert_eq!(talk.session.summary().agreed, None);
        let mut beat = frame(1, REQUEST, &[0; 8]);
        assert_eq!(talk.packet(&mut beat), Outcome::Answer);
        assert_eq!(status(&beat), Status::FAIL);
    }
}

proptest! {
    /// Nothing panics; nothing grows; each packet is counted once.
    #[test]
    fn any_packets_at_all(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20)) {
        let mut talk = Talk::agreed();
        let count = packets.len();
        for mut bytes in packets {
            let before = bytes.len();
            let outcome = talk.packet(&mut bytes);
            prop_assert_eq!(bytes.len(), before);
            prop_assert!(before >= 28 || outcome == Outcome::Silence);
        }
        let counters = talk.session.summary().counters;
        let counted = counters.agreements + counters.disagreements + counters.done + counters.refused + counters.malformed;
        prop_assert_eq!(counted, u64::try_from(count).unwrap() + 1);
    }
}
