//! hv_balloon: drivers/hv/hv_balloon.c. Its bytes are written out here, as its packed structs have them.

use vmbus::message::Version;
use vmbus_ringbuf::OutgoingPacket;
use vmbus_simhost::device::DynamicMemorySettings;
use vmbus_simhost::{Config, DeviceSpec, OfferId};

use crate::common::{Guest, Open};

/// Ranges that fit the page that it builds a response in.
const RANGES: u64 = (4096 - 16) / 8;
/// Pages of a 2 MiB allocation, its first choice.
const HUGE: u64 = 512;

struct Balloon {
    guest: Guest,
    open: Open,
    id: OfferId,
    transaction: u32,
}

impl Balloon {
    /// Probed: version 2.0, capabilities {balloon, hot-add, 128 MiB alignment}, no bounds.
    fn probed() -> Self {
        let settings = DynamicMemorySettings { max_pages: Some(1 << 18), ..DynamicMemorySettings::default() };
        let config = Config::seeded(1).with_device(DeviceSpec::dynamic_memory(settings));
        let mut guest = Guest::connected(config, Version::V5_3);
        let open = guest.open(1);
        let id = guest.host().offer_on_relid(1).unwrap();
        let mut balloon = Self { guest, open, id, transaction: 0 };
        balloon.say(1, &[0, 0, 2, 0, 0, 0, 0, 0]);
        assert_eq!(balloon.hear(), [(2, vec![1])]);
        balloon.say(3, &[&(3_u64 | 7 << 2).to_le_bytes()[..], &[0; 8], &[0xff; 8]].concat());
        // {reserved, bytes that follow}, {kind, bytes of data}, the number.
        assert_eq!(balloon.hear(), [(4, vec![1]), (12, vec![16 << 32, 8 << 32, 1 << 18])]);
        balloon
    }

    fn say(&mut self, kind: u16, body: &[u8]) {
        self.transaction += 1;
        let size = u16::try_from(8 + body.len()).unwrap();
        let head = [&kind.to_le_bytes()[..], &size.to_le_bytes(), &self.transaction.to_le_bytes()].concat();
        self.guest.send(&mut self.open, &OutgoingPacket::in_band(0), &[&head, body].concat());
    }

    fn hear(&mut self) -> Vec<(u16, Vec<u64>)> {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let packets = self.guest.receive(&mut self.open);
        let message = |bytes: Vec<u8>| {
            assert!(bytes.len() <= 4096, "it reads into one page");
            let size = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
            (u16::from_le_bytes([bytes[0], bytes[1]]), bytes[8..size].chunks(8).map(word).collect())
        };
        packets.into_iter().map(|(_, _, bytes)| message(bytes)).collect()
    }

    /// One response: so many ranges of so many pages each.
    fn give(&mut self, more: bool, start: u64, ranges: u64, pages: u64) {
        let words = (0..ranges).map(|at| (start + at * pages) | pages << 40);
        let count = u32::try_from(ranges).unwrap() << 1 | u32::from(more);
        let body = [[0; 4], count.to_le_bytes()].concat();
        self.say(7, &[body, words.flat_map(u64::to_le_bytes).collect()].concat());
    }

    fn status(&mut self, available: u64, committed: u64) {
        let body = [available, committed, 0, 0, 0].map(u64::to_le_bytes).concat();
        self.say(5, &body);
    }

    fn command(&mut self, words: &str) {
        self.guest.host().command(self.id, words).unwrap();
        self.guest.drain();
    }

    fn counts<const N: usize>(&mut self, names: [&str; N]) -> [u64; N] {
        names.map(|name| self.guest.host().count(self.id, name))
    }
}

/// 2 MiB at a time as long as there are any, then single pages; a status report may be between two responses.
#[test]
fn a_balloon_is_filled_by_chains_of_responses() {
    let mut balloon = Balloon::probed();
    balloon.status(200_000, 90_000);
    balloon.command("balloon 1100MiB");
    assert_eq!(balloon.hear(), [(6, vec![1100 * 256])]);
    balloon.give(true, 1 << 20, RANGES, HUGE);
    balloon.status(100, 200);
    balloon.give(true, 2 << 20, 30, HUGE);
    balloon.give(true, 3 << 20, RANGES, 1);
    let left = 1100 * 256 - (RANGES + 30) * HUGE - RANGES;
    balloon.give(false, 4 << 20, left.min(RANGES), 1);
    let taken = (RANGES + 30) * HUGE + RANGES + left.min(RANGES);
    assert_eq!(
        balloon.counts(["asked", "ballooned", "owed", "reports", "available", "committed"]),
        [1100 * 256, taken, 0, 2, 100, 200]
    );
    balloon.guest.assert_honest();
}

/// At its floor it gives what it can: the last response has no ranges when there was nothing left to give.
#[test]
fn a_balloon_at_its_floor_is_filled_in_part() {
    let mut balloon = Balloon::probed();
    balloon.command("balloon 64MiB");
    balloon.command("balloon 1");
    assert_eq!(balloon.hear(), [(6, vec![64 * 256])]);
    balloon.give(true, 4096, 3, HUGE);
    balloon.give(false, 0, 0, 1);
    assert_eq!(balloon.hear(), [(6, vec![1])]);
    balloon.give(false, 0, 0, 1);
    assert_eq!(balloon.counts(["asked", "ballooned", "owed"]), [64 * 256 + 1, 3 * HUGE, 0]);
    balloon.guest.assert_honest();
}

/// Given back in pieces that each fit its page; it answers the last one.
#[test]
fn a_balloon_is_emptied_to_a_target() {
    let mut balloon = Balloon::probed();
    balloon.command("target 40MiB");
    assert_eq!(balloon.hear(), [(6, vec![40 * 256])]);
    balloon.give(true, 4096, 20, HUGE);
    balloon.give(false, 1 << 20, 0, 1);
    balloon.command("target 30MiB");
    assert_eq!(balloon.hear(), [(8, vec![1 << 32, 4096 | (10 * 256) << 40])]);
    balloon.say(9, &[]);
    assert_eq!(balloon.counts(["ballooned", "given_back", "owed"]), [30 * 256, 10 * 256, 0]);
    // Pages that don't touch: more ranges than one message takes.
    balloon.command("balloon 1000");
    assert_eq!(balloon.hear(), [(6, vec![1000])]);
    for (more, start) in [(true, 0), (false, 1 << 30)] {
        let words: Vec<_> = (0..500_u64).flat_map(|at| ((start + at * 2) | (1 << 40)).to_le_bytes()).collect();
        let count = (500_u32 << 1 | u32::from(more)).to_le_bytes();
        balloon.say(7, &[&[0; 4][..], &count, &words].concat());
    }
    balloon.command("target 0");
    let given = balloon.hear();
    assert_eq!(given.iter().map(|(kind, body)| (*kind, body[0] & 1)).collect::<Vec<_>>(), [(8, 1), (8, 1), (8, 0)]);
    let pages: u64 = given.iter().flat_map(|(_, body)| &body[1..]).map(|range| range >> 40).sum();
    assert_eq!(pages, 1000 + 30 * 256);
    balloon.say(9, &[]);
    assert_eq!(balloon.counts(["ballooned", "owed"]), [0, 0]);
    balloon.guest.assert_honest();
}
