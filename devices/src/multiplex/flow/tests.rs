//! Two streams and links that die: a guest's [`Flow`] and a model of its peer, in random orders that a seed decides.
//!
//! The model shares nothing with the flow but the header; it keeps everything that ever came, and compares.

use std::collections::VecDeque;

use proptest::prelude::*;
use zerocopy::FromZeros;

use super::*;

/// Bytes that each side keeps.
const BUFFER: usize = 300;

/// The byte of a place.
fn byte(place: usize) -> u8 {
    u8::try_from(place * 7 % 251).unwrap()
}

type Frames = VecDeque<(Header, Vec<u8>)>;

/// The other side: says bytes of its own, and takes ours.
#[derive(Default)]
struct Peer {
    known: bool,
    moves: u32,
    taken: Vec<u8>,
    /// Our end was taken.
    ended: bool,
    to_say: usize,
    /// Heard by us.
    base: usize,
    next: usize,
    end_sent: bool,
    limit: u64,
    owes: Option<Kind>,
    done: bool,
}

impl Peer {
    fn header(&self, kind: Kind, sequence: usize) -> Header {
        Header {
            kind,
            moves: U32::new(self.moves),
            stream: U64::new(1),
            sequence: U64::new(sequence as u64),
            acknowledged: U64::new(self.taken.len() as u64 + u64::from(self.ended)),
            limit: U64::new((self.taken.len() + BUFFER) as u64),
            ..Header::new_zeroed()
        }
    }

    fn hear(&mut self, header: &Header, data: &[u8]) {
        match header.kind {
            Kind::RESET => {
                self.done = true;
                self.owes = Some(Kind::RESET);
                return;
            }
            Kind::OPEN | Kind::MOVE => {
                assert!(self.known || header.kind == Kind::OPEN, "a move of what was never opened");
                if self.known && header.moves.get() <= self.moves {
                    return;
                }
                (self.known, self.moves) = (true, header.moves.get());
                self.limit = self.limit.max(header.limit.get());
                self.heard(header);
                (self.next, self.end_sent) = (self.base, false);
                self.owes = Some(if header.kind == Kind::OPEN { Kind::OPEN } else { Kind::ACKNOWLEDGE });
                return;
            }
            _ if header.moves.get() != self.moves => return,
            _ => {}
        }
        self.limit = self.limit.max(header.limit.get());
        self.heard(header);
        let place = usize::try_from(header.sequence.get()).unwrap();
        if header.kind == Kind::DATA {
            assert!(place <= self.taken.len(), "bytes are lost");
            let new = data.get(self.taken.len() - place..).unwrap_or_default();
            assert!(!self.ended || new.is_empty(), "bytes behind the end");
            self.taken.extend(new);
            self.owes = Some(Kind::ACKNOWLEDGE);
        }
        if header.kind == Kind::END {
            assert_eq!(place, self.taken.len(), "an end in another place");
            self.ended = true;
            self.owes = Some(Kind::ACKNOWLEDGE);
        }
    }

    fn heard(&mut self, header: &Header) {
        let heard = usize::try_from(header.acknowledged.get()).unwrap();
        assert!(heard <= self.to_say + 1);
        self.base = self.base.max(heard);
        self.next = self.next.max(self.base);
    }

    /// The next frame, if there is one.
    fn say(&mut self) -> Option<(Header, Vec<u8>)> {
        if let Some(kind) = self.owes.take() {
            return Some((self.header(kind, 0), Vec::new()));
        }
        if !self.known || self.done || self.next > self.to_say {
            return None;
        }
        if self.next == self.to_say {
            if std::mem::replace(&mut self.end_sent, true) {
                return None;
            }
            return Some((self.header(Kind::END, self.next), Vec::new()));
        }
        let until = self.to_say.min(usize::try_from(self.limit).unwrap()).min(self.next + 90);
        let data: Vec<u8> = (self.next..until).map(byte).collect();
        if data.is_empty() {
            return None;
        }
        let mut header = self.header(Kind::DATA, self.next);
        header.bytes = U16::new(u16::try_from(data.len()).unwrap());
        self.next = until;
        Some((header, data))
    }
}

/// A stream, its peer, and what is under way.
struct World {
    flow: Flow,
    peer: Peer,
    moves: u32,
    up: Frames,
    down: Frames,
    /// From links that have died: they may still come, or not.
    late: Frames,
    written: usize,
    to_write: usize,
    read: Vec<u8>,
    at_end: bool,
}

impl World {
    fn new(to_write: usize, to_say: usize) -> Self {
        Self {
            flow: Flow::new(1, Mode::Numbered, BUFFER),
            peer: Peer { to_say, ..Peer::default() },
            moves: 0,
            up: Frames::new(),
            down: Frames::new(),
            late: Frames::new(),
            written: 0,
            to_write,
            read: Vec::new(),
            at_end: false,
        }
    }

    fn send(&mut self) {
        if !self.flow.on_link(self.moves) {
            return;
        }
        let Some(frame) = self.flow.next() else { return };
        let (first, second) = self.flow.bytes(&frame);
        self.up.push_back((frame.header, [first, second].concat()));
        self.flow.sent(&frame);
    }

    fn receive(&mut self, frame: Option<(Header, Vec<u8>)>) {
        if let Some((header, data)) = frame {
            self.flow.heard(&header, &data).unwrap();
        }
        assert!(self.flow.incoming_bytes() <= BUFFER, "more is kept than there is room for");
    }

    fn step(&mut self, what: u8, how_much: usize) {
        match what {
            0..=3 => self.send(),
            4..=6 => {
                if let Some((header, data)) = self.up.pop_front() {
                    self.peer.hear(&header, &data);
                }
            }
            // What it says before it hears of a move goes to the link that has died.
            7..=9 if self.peer.moves != self.moves => self.late.extend(self.peer.say()),
            7..=9 => self.down.extend(self.peer.say()),
            10..=12 => {
                let frame = self.down.pop_front();
                self.receive(frame);
            }
            13 | 14 => {
                let mut bytes = vec![0; how_much];
                if let Some(read) = self.flow.read(&mut bytes) {
                    self.at_end |= read == 0 && how_much != 0;
                    self.read.extend(&bytes[..read]);
                }
            }
            15 | 16 => {
                let until = self.to_write.min(self.written + how_much);
                let data: Vec<u8> = (self.written..until).map(byte).collect();
                self.written += self.flow.write(&data).unwrap_or(0);
                if self.written == self.to_write {
                    self.flow.end();
                }
            }
            17 => {
                let frame = self.late.pop_front();
                self.receive(frame);
            }
            // The link dies: what was on it to the host is lost, what was on it to us may come late.
            _ => {
                self.moves += 1;
                self.up.clear();
                self.late.append(&mut self.down);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn r2_3_links_die_and_every_byte_arrives_once_in_its_place(
        to_write in 0_usize..1500,
        to_say in 0_usize..1500,
        steps in prop::collection::vec((0_u8..20, 0_usize..200), 0..600),
    ) {
        let mut world = World::new(to_write, to_say);
        for (what, how_much) in steps {
            // A link lives for a while.
            let what = if what >= 18 && how_much > 20 { 0 } else { what };
            world.step(what, how_much);
        }
        // From here on no link dies: everything comes to its end.
        for round in 0..20_000_usize {
            world.step(u8::try_from(round % 18).unwrap(), 150);
        }
        prop_assert_eq!(world.flow.stage(), Stage::Over(Reason::DONE));
        prop_assert_eq!(world.written, to_write);
        let expected = |count: usize| (0..count).map(byte).collect::<Vec<_>>();
        prop_assert!(world.peer.taken == expected(to_write) && world.peer.ended);
        prop_assert!(world.read == expected(to_say) && world.at_end);
    }

    /// A host that says anything gets an answer, and no more memory than there is room for.
    #[test]
    fn nonsense_is_an_error_and_nothing_else(
        mode: bool,
        frames in prop::collection::vec((1_u16..9, 0_u32..3, 0_u64..700, 0_u64..700, any::<u64>(), 0_usize..200), 0..60),
    ) {
        let mut flow = Flow::new(1, if mode { Mode::Numbered } else { Mode::Plain }, BUFFER);
        for (kind, moves, sequence, acknowledged, limit, bytes) in frames {
            flow.on_link(moves);
            flow.write(&[1; 40]);
            if let Some(frame) = flow.next() {
                let (first, second) = flow.bytes(&frame);
                prop_assert_eq!(first.len() + second.len(), usize::from(frame.header.bytes.get()));
                flow.sent(&frame);
            }
            let header = Header {
                kind: Kind(U16::new(kind)),
                bytes: U16::new(u16::try_from(bytes).unwrap()),
                moves: U32::new(moves),
                stream: U64::new(1),
                sequence: U64::new(sequence),
                acknowledged: U64::new(acknowledged),
                limit: U64::new(limit),
            };
            let _ = flow.heard(&header, &vec![7; bytes]);
            prop_assert!(flow.incoming_bytes() <= BUFFER);
        }
    }
}

fn frame(kind: Kind, moves: u32, sequence: u64, acknowledged: u64, limit: u64) -> Header {
    let numbers = [sequence, acknowledged, limit].map(U64::new);
    let [sequence, acknowledged, limit] = numbers;
    Header { kind, bytes: U16::ZERO, moves: U32::new(moves), stream: U64::new(1), sequence, acknowledged, limit }
}

/// A flow that the host has taken.
fn open() -> Flow {
    let mut flow = Flow::new(1, Mode::Numbered, BUFFER);
    let first = flow.next().unwrap();
    assert_eq!(first.header.kind, Kind::OPEN);
    flow.sent(&first);
    assert_eq!(flow.heard(&frame(Kind::OPEN, 0, 0, 0, 100), &[]).map(|heard| heard.wake), Ok(true));
    flow
}

#[test]
fn what_a_host_must_not_say() {
    let cases = [
        (frame(Kind::DATA, 0, 5, 0, 0), Nonsense::Gap),
        (frame(Kind::DATA, 1, 0, 0, 0), Nonsense::Frame),
        (frame(Kind::MOVE, 0, 0, 0, 0), Nonsense::Frame),
        (frame(Kind::END, 0, 1, 0, 0), Nonsense::Gap),
        (frame(Kind::ACKNOWLEDGE, 0, 0, 1, 0), Nonsense::Acknowledgement),
    ];
    for (header, nonsense) in cases {
        assert_eq!(open().heard(&header, &[1, 2, 3]), Err(nonsense), "{header:?}");
    }
    assert_eq!(open().heard(&frame(Kind::DATA, 0, 0, 0, 0), &[0; BUFFER + 1]), Err(Nonsense::BeyondLimit));
    let mut ended = open();
    ended.heard(&frame(Kind::END, 0, 0, 0, 0), &[]).unwrap();
    assert_eq!(ended.heard(&frame(Kind::DATA, 0, 1, 0, 0), &[1]), Err(Nonsense::BehindEnd));
}

#[test]
fn nothing_is_sent_beyond_the_limit_and_all_of_it_again_on_a_new_link() {
    let mut flow = open();
    assert_eq!(flow.write(&[9; BUFFER + 5]), Some(BUFFER), "no more than there is room for");
    let first = flow.next().unwrap();
    assert_eq!((first.header.kind, first.header.bytes.get()), (Kind::DATA, 100));
    flow.sent(&first);
    assert!(flow.next().is_none());
    flow.heard(&frame(Kind::ACKNOWLEDGE, 0, 0, 40, 120), &[]).unwrap();
    assert!(flow.on_link(1) && !flow.on_link(0), "a link that was left stays left");
    let moved = flow.next().unwrap();
    assert_eq!(moved.header.kind, Kind::MOVE);
    flow.sent(&moved);
    let again = flow.next().unwrap();
    assert_eq!((again.header.sequence.get(), again.header.bytes.get()), (40, 80));
    flow.sent(&again);
    // What the old link still brings is not looked at.
    assert_eq!(flow.heard(&frame(Kind::DATA, 0, 0, 0, 0), &[1]), Ok(Heard::default()));
}

#[test]
fn a_reset_is_told_until_the_other_side_knows() {
    let mut flow = open();
    assert!(flow.abort(Reason::ABORTED));
    let first = flow.next().unwrap();
    assert_eq!((first.header.kind, first.header.sequence.get()), (Kind::RESET, Reason::ABORTED.0));
    flow.sent(&first);
    assert!(flow.next().is_none());
    flow.on_link(1);
    assert_eq!(flow.next().unwrap().header.kind, Kind::RESET, "again on a new link");
    let heard = flow.heard(&frame(Kind::RESET, 0, 1, 0, 0), &[]).unwrap();
    assert!(heard.over && flow.stage() == Stage::Over(Reason::ABORTED));
    assert!(flow.next().is_none());
}
