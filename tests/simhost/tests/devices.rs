//! The devices, each against a guest that speaks its protocol.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "shared by several tests, of which each needs a part")]
mod common;

use std::sync::{Arc, Mutex};

use common::{Guest, Open};
use vmbus::class::Class;
use vmbus::message::Version;
use vmbus_ringbuf::{OutgoingPacket, PacketType, Writer};
use vmbus_simhost::device::{DynamicMemorySettings, EchoSettings, PipeSettings, Port};
use vmbus_simhost::{Config, Device, DeviceSpec, Error, OfferId, PageRing, ViolationKind};

fn with(device: DeviceSpec) -> (Guest, Open, OfferId) {
    let mut guest = Guest::connected(Config::seeded(1).with_device(device), Version::V5_2);
    let open = guest.open(1);
    let id = guest.host().offer_on_relid(1).unwrap();
    (guest, open, id)
}

#[test]
fn an_echo_greets_asks_holds_and_interrupts_idly() {
    let settings = EchoSettings { asks: true, interrupts_idly: false, greets: 3 };
    let (mut guest, mut open, id) = with(DeviceSpec::echo_with(1, settings));
    let greetings = guest.receive(&mut open);
    assert_eq!(greetings.len(), 3);
    assert_eq!(guest.host().count(id, "asked"), 3);
    for (kind, transaction, _) in greetings {
        assert_eq!(kind, PacketType::IN_BAND);
        guest.send(&mut open, &OutgoingPacket::completion(transaction), &[]);
    }
    assert_eq!((guest.host().count(id, "asked"), guest.host().count(id, "completions")), (0, 3));
    guest.host().command(id, "hold").unwrap();
    guest.send(&mut open, &OutgoingPacket::in_band(8).with_completion_requested(), b"12345678");
    assert_eq!(guest.receive(&mut open), []);
    guest.host().command(id, "release").unwrap();
    assert_eq!(guest.receive(&mut open), [(PacketType::COMPLETION, 8, b"12345678".to_vec())]);
    guest.drain();
    guest.interrupts.clear();
    guest.host().command(id, "interrupt").unwrap();
    guest.drain();
    assert_eq!((guest.interrupts.len(), guest.receive(&mut open).len()), (1, 0));
    assert!(guest.host().command(id, "dance").is_err());
    guest.assert_honest();
    guest.send(&mut open, &OutgoingPacket::completion(8), &[]);
    assert_eq!(guest.violations(), [ViolationKind::Device], "nobody asked for that completion");
}

#[test]
fn an_echo_says_what_no_honest_device_says() {
    let (mut guest, mut open, id) = with(DeviceSpec::echo(1));
    guest.host().command(id, "complete 12345").unwrap();
    guest.host().command(id, "packet 77 5").unwrap();
    guest.drain();
    let unknown = (PacketType(77), 5, vec![0; 8]);
    assert_eq!(guest.receive(&mut open), [(PacketType::COMPLETION, 12345, vec![]), unknown]);
    for nonsense in ["complete", "complete x", "complete 1 2", "packet 7", "packet x 1", "send 1 2"] {
        assert!(guest.host().command(id, nonsense).is_err(), "{nonsense}");
    }
}

fn pipe_packet(data: &[u8]) -> Vec<u8> {
    [&1_u32.to_le_bytes()[..], &u32::try_from(data.len()).unwrap().to_le_bytes(), data].concat()
}

/// The bytes of pipe packets, and whether the end is among them.
fn pipe_bytes(packets: &[(PacketType, u64, Vec<u8>)]) -> (Vec<u8>, bool) {
    let (mut all, mut end) = (Vec::new(), false);
    for (_, _, payload) in packets {
        assert_eq!(payload[..4], 1_u32.to_le_bytes());
        let bytes = usize::try_from(u32::from_le_bytes(payload[4..8].try_into().unwrap())).unwrap();
        end |= bytes == 0;
        all.extend_from_slice(&payload[8..8 + bytes]);
    }
    (all, end)
}

#[test]
fn a_pipe_carries_bytes_both_ways_to_the_end() {
    let (mut guest, mut open, id) = with(DeviceSpec::pipe(1, PipeSettings { echoes: false, packet_bytes: 1000 }));
    guest.host().command(id, "send 100000").unwrap();
    guest.host().command(id, "end").unwrap();
    open.writer.announce_flow_control();
    let (mut received, mut end) = (Vec::new(), false);
    while !end {
        guest.settle();
        let packets = guest.receive(&mut open);
        assert!(!packets.is_empty(), "it stalled after {} bytes", received.len());
        let (bytes, last) = pipe_bytes(&packets);
        received.extend(bytes);
        end = last;
    }
    let pattern: Vec<_> = (0..100_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    assert!(received == pattern, "{} bytes", received.len());
    for part in [&b"hello, "[..], b"pipe", b""] {
        guest.send(&mut open, &OutgoingPacket::in_band(0), &pipe_packet(part));
    }
    let expected: u64 = b"hello, pipe".iter().zip(0..).map(|(byte, at)| u64::from(*byte) * at).sum();
    assert_eq!(guest.host().count(id, "checksum"), expected);
    assert_eq!((guest.host().count(id, "received"), guest.host().count(id, "end_received")), (11, 1));
    guest.assert_honest();
    guest.send(&mut open, &OutgoingPacket::in_band(0), &pipe_packet(b"more"));
    guest.send(&mut open, &OutgoingPacket::in_band(0), &[2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(guest.violations(), [ViolationKind::Device; 2]);
}

/// A host that polls needs no signals; and what comes as it stops is neither lost nor left until a signal.
#[test]
fn a_host_that_polls_is_not_signalled() {
    let (mut guest, mut open, _) = with(DeviceSpec::pipe(1, PipeSettings { echoes: true, packet_bytes: 1000 }));
    let write = |open: &mut Open, part: &[u8]| {
        open.writer.try_write(&OutgoingPacket::in_band(0), &[&pipe_packet(part)]).unwrap().is_needed()
    };
    guest.host().poll_rings();
    // The masks were open when it began.
    guest.send(&mut open, &OutgoingPacket::in_band(0), &pipe_packet(b"first"));
    assert_eq!(pipe_bytes(&guest.receive(&mut open)).0, b"first");
    for round in [&b"second"[..], b"third"] {
        assert!(!write(&mut open, round), "a signal nobody needs");
        assert!(guest.host().look() && !guest.host().look());
        assert_eq!(pipe_bytes(&guest.receive(&mut open)).0, round);
    }
    assert!(!write(&mut open, b"fourth"));
    guest.host().rest();
    assert_eq!(guest.host().deadline(), Some(std::time::Duration::ZERO), "nobody would look");
    guest.elapse(std::time::Duration::ZERO);
    assert_eq!(pipe_bytes(&guest.receive(&mut open)).0, b"fourth");
    assert!(write(&mut open, b"fifth"), "it sleeps now");
    guest.assert_honest();
}

/// A Dynamic Memory guest, by hand.
struct Balloon {
    guest: Guest,
    open: Open,
    id: OfferId,
}

impl Balloon {
    fn new(settings: DynamicMemorySettings) -> Self {
        let (guest, open, id) = with(DeviceSpec::dynamic_memory(settings));
        Self { guest, open, id }
    }

    fn say(&mut self, kind: u16, body: &[u64]) {
        let size = u16::try_from(8 + body.len() * 8).unwrap();
        let mut bytes = [kind.to_le_bytes(), size.to_le_bytes(), [0; 2], [0; 2]].concat();
        bytes.extend(body.iter().flat_map(|word| word.to_le_bytes()));
        self.guest.send(&mut self.open, &OutgoingPacket::in_band(1), &bytes);
    }

    /// Type and body of each message of the host.
    fn hear(&mut self) -> Vec<(u16, Vec<u64>)> {
        let packets = self.guest.receive(&mut self.open);
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        packets
            .into_iter()
            .map(|(_, _, bytes)| {
                let size = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
                (u16::from_le_bytes([bytes[0], bytes[1]]), bytes[8..size].chunks(8).map(word).collect())
            })
            .collect()
    }

    fn command(&mut self, words: &str) {
        self.guest.host().command(self.id, words).unwrap();
        self.guest.drain();
    }

    fn count(&mut self, name: &str) -> u64 {
        self.guest.host().count(self.id, name)
    }

    /// At version 2.0, ready for requests.
    fn ready() -> Self {
        let mut balloon = Self::new(DynamicMemorySettings::default());
        balloon.say(1, &[0x2_0000]);
        balloon.say(3, &[1, 0, u64::MAX]);
        assert_eq!(balloon.hear(), [(2, vec![1]), (4, vec![1])]);
        balloon
    }
}

const fn range(start: u64, count: u64) -> u64 {
    start | count << 40
}

#[test]
fn dynamic_memory_negotiates_downwards() {
    for (versions, attempts) in [(vec![3], 3), (vec![0x1_0000, 3], 2), (vec![0x2_0000], 1)] {
        let settings = DynamicMemorySettings { versions, suppresses_status: true, max_pages: Some(5000) };
        let mut balloon = Balloon::new(settings);
        let offered = [0x2_0000, 0x1_0000, 3 | 1 << 32];
        for (version, attempt) in offered.into_iter().zip(1..=attempts) {
            balloon.say(1, &[version]);
            assert_eq!(balloon.hear(), [(2, vec![u64::from(attempt == attempts)])]);
        }
        balloon.say(3, &[1, 0, u64::MAX]);
        let mut answers = vec![(4, vec![1 | u64::from(attempts == 1) << 2])];
        // {reserved, bytes that follow}, {kind, bytes of data}, the number.
        answers.extend((attempts < 3).then_some((12, vec![16 << 32, 8 << 32, 5000])));
        assert_eq!(balloon.hear(), answers);
        balloon.guest.assert_honest();
    }
}

#[test]
fn pages_are_taken_and_given_back() {
    let mut balloon = Balloon::ready();
    balloon.say(5, &[1000, 2000, 0, 0, 0]);
    assert_eq!((balloon.count("reports"), balloon.count("available"), balloon.count("committed")), (1, 1000, 2000));
    balloon.command("balloon 100");
    balloon.command("balloon 50");
    assert_eq!(balloon.hear(), [(6, vec![100])], "one thing at a time");
    // More follows: one range; then the last, which is all that the guest can give.
    balloon.say(7, &[(1 | 1 << 1) << 32, range(5000, 60)]);
    assert_eq!((balloon.hear(), balloon.count("ballooned")), (vec![], 60));
    balloon.say(7, &[(2 << 1) << 32, range(6000, 10), range(5060, 5)]);
    assert_eq!(balloon.count("ballooned"), 75);
    assert_eq!(balloon.hear(), [(6, vec![50])]);
    balloon.say(7, &[0]);
    balloon.command("unballoon 70");
    assert_eq!(balloon.hear(), [(8, vec![2 << 32, range(5000, 65), range(6000, 5)])]);
    assert_eq!((balloon.count("ballooned"), balloon.count("owed")), (5, 1));
    balloon.say(9, &[]);
    assert_eq!(balloon.count("owed"), 0);
    balloon.command("hot-add 9000 128");
    assert_eq!(balloon.hear(), [(10, vec![range(9000, 128)])]);
    balloon.say(11, &[128 | 1 << 32]);
    assert_eq!(balloon.count("hot_added"), 128);
    balloon.guest.assert_honest();
}

#[test]
fn pages_that_the_guest_can_not_give_are_found() {
    // Overlapping, more than asked for, none, and unasked.
    for (body, asked) in [
        ([(2 << 1) << 32, range(5000, 10), range(5009, 2)], true),
        ([(2 << 1) << 32, range(5000, 99), range(6000, 2)], true),
        ([(2 << 1) << 32, range(5000, 10), range(6000, 0)], true),
        ([(2 << 1) << 32, range(5000, 10), range(6000, 1)], false),
    ] {
        let mut balloon = Balloon::ready();
        if asked {
            balloon.command("balloon 100");
        }
        balloon.say(7, &body);
        assert_eq!(balloon.guest.violations(), [ViolationKind::Device]);
    }
}

/// A guest's writing end that its device's turn can reach, too.
type Shared = Arc<Mutex<Option<Writer<PageRing>>>>;

/// Finds nothing in its first turns; and right after that look, the guest writes a packet.
struct Late {
    guest: Shared,
    seen: u64,
}

impl Device for Late {
    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let mut payload = Vec::new();
        while port.receive(&mut payload)?.is_some() {
            self.seen += 1;
        }
        if let Some(mut writer) = self.guest.lock().unwrap().take() {
            let signal = writer.try_write(&OutgoingPacket::in_band(1), &[b"late"]).unwrap();
            assert!(!signal.is_needed(), "the host has masked its ring");
        }
        Ok(())
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![("seen", self.seen)]
    }
}

/// A signal without a packet, and the packet comes while the device looks: nobody signals that one. Red when a turn in
/// which the device did nothing is always its last.
#[test]
fn what_comes_while_a_device_finds_nothing_is_not_lost() {
    let shared = Shared::default();
    let guest = Arc::clone(&shared);
    let class = Class(uuid::Uuid::from_u128(7));
    let device =
        DeviceSpec::new(class, uuid::Uuid::from_u128(8), move || Box::new(Late { guest: Arc::clone(&guest), seen: 0 }));
    let (mut guest, open, id) = with(device);
    *shared.lock().unwrap() = Some(open.writer);
    guest.sim.signal(open.relid);
    guest.drain();
    assert_eq!(guest.host().count(id, "seen"), 1);
}
