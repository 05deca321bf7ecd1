//! hv_sock: net/vmw_vsock/hyperv_transport.c.

use std::time::Duration;

use uuid::Uuid;
use vmbus::message::{GuestMessage, HostMessage, OfferChannel, Status, Version};
use vmbus_ringbuf::{OutgoingPacket, PacketType};
use vmbus_simhost::device::PipeSettings;
use vmbus_simhost::{Config, OfferId, hvsock_service};

use crate::common::{Guest, Open};

/// 0x400-facb-..., the service of port 1024.
const SERVICE: Uuid = Uuid::from_u128(0x0000_0400_facb_11e6_bd58_6400_6a79_86d3);
/// The endpoint that Linux makes of the port that the socket has got, by the same template.
const ENDPOINT: Uuid = Uuid::from_u128(0x1234_5678_facb_11e6_bd58_6400_6a79_86d3);

fn guest(version: Version) -> Guest {
    Guest::connected(Config { services: vec![SERVICE], ..Config::seeded(1) }, version)
}

/// As `connect()` does it.
fn connect(guest: &mut Guest) -> (OfferChannel, Open, OfferId) {
    guest.post(&GuestMessage::TlConnect { endpoint: ENDPOINT, service: SERVICE, silo: None });
    let offer = guest.offers.pop().unwrap();
    let open = guest.open(offer.relid);
    let id = guest.host().offer_on_relid(offer.relid).unwrap();
    (offer, open, id)
}

/// A header, the bytes, and what pads them to eight.
fn packet(data: &[u8]) -> Vec<u8> {
    let mut bytes = [&1_u32.to_le_bytes()[..], &u32::try_from(data.len()).unwrap().to_le_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn say(guest: &mut Guest, open: &mut Open, data: &[u8]) {
    guest.send(open, &OutgoingPacket::in_band(0), &packet(data));
}

fn heard(guest: &mut Guest, open: &mut Open) -> Vec<Vec<u8>> {
    let packets = guest.receive(open);
    assert!(packets.iter().all(|(kind, ..)| *kind == PacketType::IN_BAND));
    packets.into_iter().map(|(_, _, payload)| payload).collect()
}

/// CLOSE and RELID_RELEASED come only after the rescind, which Linux awaits without a limit; no teardown.
fn released_after_rescind(guest: &mut Guest, relid: u32) {
    guest.expect(&HostMessage::Rescind { relid });
    guest.post(&GuestMessage::Close { relid });
    guest.post(&GuestMessage::RelidReleased { relid });
    assert_eq!(guest.host().released(relid), 1);
    assert!(guest.host().offered().is_empty());
}

/// What the host's end of the last connection counted, when it was all over.
fn ended<const N: usize>(guest: &mut Guest, names: [&str; N]) -> [u64; N] {
    let id = guest.host().ended().last().unwrap().offer.id;
    names.map(|name| guest.host().count(id, name))
}

#[test]
fn a_socket_that_is_closed_says_its_end_and_waits_for_the_rescind() {
    for version in [Version::V4_0, Version::V4_1, Version::V5_0, Version::V5_2, Version::V5_3] {
        let mut guest = guest(version);
        let (offer, mut open, _) = connect(&mut guest);
        say(&mut guest, &mut open, b"hello");
        assert_eq!(heard(&mut guest, &mut open), [packet(b"hello")]);
        say(&mut guest, &mut open, b"");
        assert_eq!(heard(&mut guest, &mut open), [packet(b"")]);
        released_after_rescind(&mut guest, offer.relid);
        let sum = b"hello".iter().zip(0..).map(|(byte, at)| u64::from(*byte) * at).sum();
        assert_eq!(ended(&mut guest, ["received", "sent", "checksum", "end_received"]), [5, 5, sum, 1]);
    }
}

#[test]
fn a_socket_that_shuts_its_writing_side_hears_the_rest_first() {
    let mut guest = guest(Version::V5_2);
    let service = Uuid::from_u128(SERVICE.as_u128() + (7 << 96));
    let id = guest.host().connect(service, PipeSettings::default()).unwrap();
    guest.drain();
    let offer = guest.offers.pop().unwrap();
    let mut open = guest.open(offer.relid);
    say(&mut guest, &mut open, b"");
    assert!(guest.inbox.is_empty(), "the host has not said its end");
    guest.host().command(id, "send 300").unwrap();
    guest.host().command(id, "end").unwrap();
    guest.drain();
    let pattern: Vec<_> = (0..300_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    assert_eq!(heard(&mut guest, &mut open), [packet(&pattern), packet(b"")]);
    released_after_rescind(&mut guest, offer.relid);
}

/// `close()` with bytes unread: the ring stays full, and nobody will make room.
#[test]
fn a_socket_that_is_closed_with_bytes_unread_is_given_up() {
    let mut guest = guest(Version::V5_2);
    let (offer, mut open, id) = connect(&mut guest);
    guest.host().command(id, "send 100000").unwrap();
    guest.drain();
    guest.elapse(Duration::from_secs(100));
    assert!(guest.inbox.is_empty(), "it may read as slowly as it likes");
    say(&mut guest, &mut open, b"");
    guest.elapse(Duration::from_secs(29));
    assert!(guest.inbox.is_empty());
    guest.elapse(Duration::from_secs(2));
    released_after_rescind(&mut guest, offer.relid);
}

/// `vmbus_onoffer` goes by the instance alone, and that is the endpoint: two connections of one endpoint can't be.
#[test]
fn an_endpoint_that_is_connected_is_refused_and_one_that_is_closing_waits() {
    let mut guest = guest(Version::V5_3);
    let (first, mut open, _) = connect(&mut guest);
    let again = GuestMessage::TlConnect { endpoint: ENDPOINT, service: SERVICE, silo: None };
    guest.post(&again);
    let status = Status::CONNECTION_REFUSED;
    guest.expect(&HostMessage::TlConnectResult { endpoint: ENDPOINT, service: SERVICE, status });
    say(&mut guest, &mut open, b"");
    guest.expect(&HostMessage::Rescind { relid: first.relid });
    guest.post(&again);
    assert!(guest.offers.is_empty());
    // As long as it takes: the time to accept it begins later.
    guest.elapse(Duration::from_secs(40));
    guest.post(&GuestMessage::Close { relid: first.relid });
    guest.post(&GuestMessage::RelidReleased { relid: first.relid });
    let offer = guest.offers.pop().unwrap();
    assert_eq!(offer.instance, ENDPOINT);
    guest.elapse(Duration::from_secs(61));
    guest.expect(&HostMessage::Rescind { relid: offer.relid });
}

#[test]
fn ports_are_services() {
    assert_eq!(hvsock_service(1024), SERVICE);
    assert_eq!(hvsock_service(0x7fff_ffff).to_string(), "7fffffff-facb-11e6-bd58-64006a7986d3");
    let mut guest = Guest::connected(Config::seeded(1), Version::V3_0);
    assert!(guest.host().connect(hvsock_service(5), PipeSettings::default()).is_err(), "no hv_sock before 4.0");
    // At byte 4 of the user-defined bytes, behind the kind of pipe, Linux looks for who called.
    let mut guest = Guest::connected(Config::seeded(1), Version::V4_0);
    guest.host().connect(hvsock_service(5), PipeSettings::default()).unwrap();
    guest.drain();
    let offer = guest.offers.pop().unwrap();
    assert_eq!((offer.class.0, &offer.user_defined[..8]), (hvsock_service(5), &[0, 0, 0, 0, 1, 0, 0, 0][..]));
}
