//! Connections that somebody else decides on, and the conduit at their host's end.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "shared by several tests, of which each needs a part")]
mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Guest, Open, RING_PAGES};
use uuid::Uuid;
use vmbus::message::{GuestMessage, HostMessage, Status, Version};
use vmbus_ringbuf::OutgoingPacket;
use vmbus_simhost::device::{Conduit, Line, Taken};
use vmbus_simhost::{Asked, Config, Error, ViolationKind, hvsock_service};

const SERVICE: Uuid = hvsock_service(80);
const ENDPOINT: Uuid = hvsock_service(0x1234);
const ASKED: Asked = Asked { endpoint: ENDPOINT, service: SERVICE };

/// A line that a test holds the other end of.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    room: usize,
    given: Vec<u8>,
    given_end: bool,
    to_take: Vec<u8>,
    take_end: bool,
    broken: bool,
    closed: bool,
    news: bool,
}

impl Held {
    /// Something happens at the far end.
    fn does<R>(&self, what: impl FnOnce(&mut Ends) -> R) -> R {
        let mut ends = self.0.lock().unwrap();
        ends.news = true;
        what(&mut ends)
    }
}

impl Line for Held {
    fn note(&mut self) {
        self.0.lock().unwrap().news = false;
    }

    fn has_news(&self) -> bool {
        self.0.lock().unwrap().news
    }

    fn is_broken(&self) -> bool {
        self.0.lock().unwrap().broken
    }

    fn give(&mut self, bytes: &[u8]) -> usize {
        let mut ends = self.0.lock().unwrap();
        let fits = bytes.len().min(ends.room);
        ends.room -= fits;
        ends.given.extend(&bytes[..fits]);
        fits
    }

    fn give_end(&mut self) {
        self.0.lock().unwrap().given_end = true;
    }

    fn take(&mut self, bytes: &mut Vec<u8>, most: usize) -> Taken {
        let mut ends = self.0.lock().unwrap();
        let most = most.min(ends.to_take.len());
        bytes.extend(ends.to_take.drain(..most));
        match (most, ends.take_end) {
            (0, true) => Taken::End,
            (0, false) => Taken::Nothing,
            _ => Taken::Bytes,
        }
    }

    fn close(&mut self) {
        self.0.lock().unwrap().closed = true;
    }
}

fn guest() -> Guest {
    Guest::connected(Config { decided_elsewhere: [SERVICE].into(), ..Config::seeded(1) }, Version::V5_2)
}

fn ask(guest: &mut Guest) {
    guest.post(&GuestMessage::TlConnect { endpoint: ENDPOINT, service: SERVICE, silo: None });
}

/// An open connection with a line that has so much room.
fn connected(room: usize) -> (Guest, Open, Held) {
    let (mut guest, line) = (guest(), Held::default());
    line.does(|ends| ends.room = room);
    ask(&mut guest);
    let asked = guest.host().next_asked().unwrap();
    guest.host().accept(asked, Box::new(Conduit::new(Box::new(line.clone())))).unwrap();
    guest.drain();
    let relid = guest.offers.pop().unwrap().relid;
    let open = guest.open(relid);
    (guest, open, line)
}

/// Time passes, so that devices with news have their turns.
fn turn(guest: &mut Guest) {
    guest.now += Duration::from_millis(1);
    let now = guest.now;
    guest.sim.elapsed(now);
    guest.drain();
}

fn say(guest: &mut Guest, open: &mut Open, data: &[u8]) {
    let mut bytes = [&1_u32.to_le_bytes()[..], &u32::try_from(data.len()).unwrap().to_le_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    guest.send(open, &OutgoingPacket::in_band(0), &bytes);
}

/// Data of the packets that have come; an empty one is the end.
fn heard(guest: &mut Guest, open: &mut Open) -> Vec<Vec<u8>> {
    let data = |payload: Vec<u8>| {
        let bytes = u32::from_le_bytes(payload[4..8].try_into().unwrap());
        payload[8..8 + usize::try_from(bytes).unwrap()].to_vec()
    };
    guest.receive(open).into_iter().map(|(_, _, payload)| data(payload)).collect()
}

#[test]
fn the_guest_waits_for_the_decision() {
    let mut guest = guest();
    ask(&mut guest);
    assert!(guest.offers.is_empty() && guest.inbox.is_empty());
    assert_eq!((guest.host().next_asked(), guest.host().next_asked()), (Some(ASKED), None));
    guest.host().refuse(ASKED).unwrap();
    guest.drain();
    let (endpoint, service) = (ENDPOINT, SERVICE);
    guest.expect(&HostMessage::TlConnectResult { endpoint, service, status: Status::CONNECTION_REFUSED });
    // Once.
    assert!(matches!(guest.host().refuse(ASKED), Err(Error::NoOffer)));
    let device = Box::new(Conduit::new(Box::new(Held::default())));
    assert!(matches!(guest.host().accept(ASKED, device), Err(Error::NoOffer)));
}

#[test]
fn a_decision_for_a_guest_that_has_gone_is_for_nobody() {
    let mut guest = guest();
    ask(&mut guest);
    guest.post(&GuestMessage::Unload);
    assert_eq!(guest.host().next_asked(), None);
    let line = Held::default();
    let accepted = guest.host().accept(ASKED, Box::new(Conduit::new(Box::new(line.clone()))));
    assert!(matches!(accepted, Err(Error::NoOffer)));
    assert!(line.does(|ends| ends.closed), "and the other end hears of it");
}

#[test]
fn questions_count_as_connections() {
    let mut guest = guest();
    guest.host().configure(|config| config.limits.connections = 2);
    for number in 0..3_u128 {
        let endpoint = Uuid::from_u128(number);
        guest.post(&GuestMessage::TlConnect { endpoint, service: SERVICE, silo: None });
    }
    assert_eq!(std::iter::from_fn(|| guest.host().next_asked()).count(), 2);
    let kinds: Vec<_> = guest.host().violations().iter().map(|violation| violation.kind).collect();
    assert_eq!(kinds, [ViolationKind::TooManyConnections]);
}

#[test]
fn bytes_and_ends_go_through() {
    let (mut guest, mut open, line) = connected(usize::MAX);
    say(&mut guest, &mut open, b"there");
    assert_eq!(line.does(|ends| ends.given.clone()), b"there");
    line.does(|ends| ends.to_take.extend(b"back"));
    turn(&mut guest);
    assert_eq!(heard(&mut guest, &mut open), [b"back"]);
    say(&mut guest, &mut open, b"");
    assert!(line.does(|ends| ends.given_end && !ends.closed));
    line.does(|ends| ends.take_end = true);
    turn(&mut guest);
    assert_eq!(heard(&mut guest, &mut open), [b""]);
    guest.expect(&HostMessage::Rescind { relid: open.relid });
    assert!(line.does(|ends| ends.closed) && guest.host().violations().is_empty());
}

#[test]
fn a_line_without_room_leaves_packets_with_the_guest() {
    let (mut guest, mut open, line) = connected(3);
    say(&mut guest, &mut open, b"12345");
    say(&mut guest, &mut open, b"678");
    say(&mut guest, &mut open, b"");
    assert_eq!(line.does(|ends| (ends.given.clone(), ends.given_end)), (b"123".to_vec(), false));
    for room in [1, 1, 2, 1] {
        line.does(|ends| ends.room = room);
        turn(&mut guest);
    }
    assert_eq!(line.does(|ends| (ends.given.clone(), ends.given_end)), (b"12345678".to_vec(), true));
}

#[test]
fn a_ring_without_room_leaves_bytes_in_the_line() {
    let (mut guest, mut open, line) = connected(0);
    let bytes: Vec<u8> = (0..=250).cycle().take(100_000).collect();
    line.does(|ends| {
        ends.to_take.clone_from(&bytes);
        ends.take_end = true;
    });
    turn(&mut guest);
    assert!(line.does(|ends| ends.to_take.len()) > 50_000, "more than the ring has, and a packet");
    let mut all = Vec::new();
    loop {
        let packets = heard(&mut guest, &mut open);
        assert!(packets.iter().all(|packet| packet.len() <= 16 * 1024));
        all.extend(packets.concat());
        if packets.last().is_some_and(Vec::is_empty) {
            break;
        }
        turn(&mut guest);
    }
    assert!(all == bytes);
}

#[test]
fn a_break_is_a_reset_also_behind_the_end() {
    for ended in [false, true] {
        let (mut guest, mut open, line) = connected(usize::MAX);
        line.does(|ends| ends.take_end = ended);
        turn(&mut guest);
        assert_eq!(heard(&mut guest, &mut open).len(), usize::from(ended));
        line.does(|ends| ends.broken = true);
        turn(&mut guest);
        guest.expect(&HostMessage::Rescind { relid: open.relid });
        assert!(line.does(|ends| ends.closed));
    }
}

#[test]
fn a_break_before_the_open_is_one_after_it() {
    let (mut guest, line) = (guest(), Held::default());
    guest.host().connect_with(SERVICE, Box::new(Conduit::new(Box::new(line.clone())))).unwrap();
    guest.drain();
    line.does(|ends| ends.broken = true);
    let relid = guest.offers.pop().unwrap().relid;
    let ring = guest.share(relid, 2 * RING_PAGES);
    guest.post(&Guest::open_message(relid, ring));
    turn(&mut guest);
    assert_eq!(guest.inbox.pop(), Some(HostMessage::Rescind { relid }));
}

#[test]
fn nonsense_is_told_and_not_passed_on() {
    let mut packets = vec![vec![1, 0, 0, 0], vec![0; 8], vec![2, 0, 0, 0, 0, 0, 0, 0]];
    packets.push([&1_u32.to_le_bytes()[..], &u32::MAX.to_le_bytes(), b"12345678"].concat());
    packets.push([&1_u32.to_le_bytes()[..], &9_u32.to_le_bytes(), b"12345678"].concat());
    for mut packet in packets {
        let (mut guest, mut open, line) = connected(usize::MAX);
        packet.resize(packet.len().next_multiple_of(8), 0);
        if packet.len() == 8 && packet[0] == 1 {
            // This was too short, and is an end now.
            packet = vec![];
        }
        guest.send(&mut open, &OutgoingPacket::in_band(0), &packet);
        assert_eq!(guest.host().violations().len(), 1, "{packet:?}");
        assert!(line.does(|ends| ends.given.is_empty() && !ends.given_end), "{packet:?}");
    }
    let (mut guest, mut open, line) = connected(usize::MAX);
    say(&mut guest, &mut open, b"");
    say(&mut guest, &mut open, b"late");
    assert_eq!(guest.host().violations().len(), 1);
    assert!(line.does(|ends| ends.given.is_empty()));
}
