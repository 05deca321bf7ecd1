//! Drivers over arbitrary bytes, shared by the property tests and the fuzz targets: feature `doubles`.
//!
//! Each takes a script and checks what must hold whatever it says. A broken promise is a failed assertion.

use vmbus_ringbuf::doubles::Script;

use super::gpadl::{Assembler, Gpadl, GpadlError, Limits, Progress, Range, split};
use super::{Features, GpadlBody, GpadlHeader, GpadlId, GuestMessage, HostMessage, Protocol, Version};

/// Reads the protocol from the first three bytes (version, features), and gives what is left.
fn protocol(input: &[u8]) -> (Protocol, &[u8]) {
    let Some(([version, low, high], rest)) = input.split_first_chunk() else { return (Protocol::NONE, &[]) };
    let features = Features::from_bits_retain(u32::from(*low) | u32::from(*high) << 24);
    let protocol = match Version::ALL.get(usize::from(*version % 16)) {
        Some(version) => Protocol::new(*version, features),
        None => Protocol { version: None, features },
    };
    (protocol, rest)
}

/// Three bytes of protocol, then a message of the host's: if it is one, its value is encoded and parsed to the same.
pub fn host_message(input: &[u8]) {
    let (protocol, bytes) = protocol(input);
    let Ok(message) = HostMessage::parse(bytes, protocol) else { return };
    let encoded = message.encode(protocol);
    let Ok(encoded) = encoded else { panic_with("was parsed and can't be encoded", &(message, encoded)) };
    assert!(encoded.as_ref().len() <= bytes.len(), "{message:?} was read from fewer bytes than it has");
    assert_eq!(HostMessage::parse(encoded.as_ref(), protocol).as_ref(), Ok(&message), "under {protocol}");
}

/// Three bytes of protocol, then a message of the guest's: if it is one, its value is encoded and parsed to the same.
pub fn guest_message(input: &[u8]) {
    let (protocol, bytes) = protocol(input);
    let Ok(message) = GuestMessage::parse(bytes, protocol) else { return };
    let encoded = message.encode(protocol);
    let Ok(encoded) = encoded else { panic_with("was parsed and can't be encoded", &(message, encoded)) };
    assert!(encoded.as_ref().len() <= bytes.len(), "{message:?} was read from fewer bytes than it has");
    assert_eq!(GuestMessage::parse(encoded.as_ref(), protocol).as_ref(), Ok(&message), "under {protocol}");
}

#[track_caller]
#[expect(clippy::panic, reason = "this is how a driver tells of a broken promise")]
fn panic_with(what: &str, who: &dyn std::fmt::Debug) -> ! {
    panic!("{who:?} {what}")
}

/// A script of GPADLs: the first byte says whether sound ranges make the way to the host, or arbitrary words do.
pub fn gpadl(input: &[u8]) {
    let mut script = Script::new(input);
    if script.byte().is_multiple_of(2) { arbitrary_gpadl(&mut script) } else { sound_gpadl(&mut script) }
}

/// GPADLs that the script holds at most, and messages of one that nothing completes.
const MESSAGES: usize = 512;

/// Arbitrary headers and bodies against a plain model, which looks at all words at once after each message.
fn arbitrary_gpadl(script: &mut Script<'_>) {
    let limits = if script.byte().is_multiple_of(2) {
        Limits { ranges: 4, bytes: 64 * 4096 }
    } else {
        Limits { ranges: u16::MAX, bytes: u32::MAX }
    };
    let gpadl = GpadlId(script.u32());
    let ranges = if script.byte() < 8 { script.u16() } else { u16::from(script.byte() % 4) };
    // Mostly what the ranges need, once that is known; else whatever the script says.
    let range_bytes = if script.byte() < 128 { script.u16() } else { script.u16() % 64 * 8 };
    let mut all = words(script);
    let relid = script.u32();
    let header = GpadlHeader { relid, gpadl, range_bytes, ranges, words: all.clone() };
    let mut progress = Assembler::start(&header, limits);
    for number in 0..MESSAGES {
        let expected = model(&header, &all, limits);
        let assembler = match (progress, expected) {
            (Ok(Progress::More(assembler)), Expected::More) => assembler,
            (Ok(Progress::Done(Gpadl { relid, gpadl, ranges })), Expected::Done(expected)) => {
                return assert_eq!((relid, gpadl, ranges), (header.relid, header.gpadl, expected));
            }
            (Err(_), Expected::Refused) => return,
            other => panic_with("is not what the model expects", &(&header, &all, other)),
        };
        assert!(assembler.capacity_words() <= 64 + 8 * all.len(), "memory for words that never came");
        if script.is_exhausted() {
            return;
        }
        let odd = script.byte();
        let words = if odd == 1 { Vec::new() } else { words(script) };
        let whose = if odd == 2 { GpadlId(gpadl.0.wrapping_add(1)) } else { gpadl };
        let nothing = words.is_empty();
        all.extend_from_slice(&words);
        progress = assembler.push(&GpadlBody { number: u32::try_from(number).unwrap_or(0), gpadl: whose, words });
        if whose != gpadl {
            return assert!(matches!(progress, Err(GpadlError::Other { .. })));
        }
        if nothing {
            return assert!(matches!(progress, Err(GpadlError::Empty { .. })));
        }
    }
}

/// Up to a message of words, most of them page numbers or sensible heads.
fn words(script: &mut Script<'_>) -> Vec<u64> {
    let count = script.byte() % 29;
    (0..count)
        .map(|_| match script.byte() {
            0..16 => script.u64(),
            16..32 => u64::from(script.u32()),
            32..64 => (u64::from(script.byte()) * 4096) | (u64::from(script.byte()) << 36),
            64..128 => (u64::from(script.byte()) % 32 + 1) * 4096,
            page => u64::from(page),
        })
        .collect()
}

#[derive(Debug)]
enum Expected {
    More,
    Done(Vec<Range>),
    Refused,
}

/// What the words make, told from their beginning without any state.
fn model(header: &GpadlHeader, all: &[u64], limits: Limits) -> Expected {
    if header.ranges == 0 || header.ranges > limits.ranges {
        return Expected::Refused;
    }
    let mut rest = all;
    let mut ranges = Vec::new();
    let mut bytes = 0;
    for _ in 0..header.ranges {
        let Some((head, behind)) = rest.split_first() else { return Expected::More };
        let (byte_offset, byte_count) = (head >> 32, head & 0xffff_ffff);
        bytes += byte_count;
        if byte_count == 0 || byte_offset >= 4096 || bytes > u64::from(limits.bytes) {
            return Expected::Refused;
        }
        let pages = usize::try_from((byte_offset + byte_count - 1) / 4096 + 1).unwrap_or(usize::MAX);
        let Some((pages, behind)) = behind.split_at_checked(pages) else { return Expected::More };
        let (Ok(byte_offset), Ok(byte_count)) = (u32::try_from(byte_offset), u32::try_from(byte_count)) else {
            return Expected::Refused;
        };
        ranges.push(Range { byte_offset, byte_count, pages: pages.to_vec() });
        rest = behind;
    }
    let used = (all.len() - rest.len()) * 8;
    if used % 0x1_0000 == usize::from(header.range_bytes) { Expected::Done(ranges) } else { Expected::Refused }
}

/// Ranges that make sense are split, encoded, parsed and assembled to what they were.
fn sound_gpadl(script: &mut Script<'_>) {
    let protocol = Protocol::new(Version::V2_4, Features::empty());
    let (relid, gpadl) = (script.u32(), GpadlId(script.u32()));
    let mut ranges = Vec::new();
    let mut bytes = 0;
    let limits = Limits::default();
    while !script.is_exhausted() && ranges.len() < usize::from(limits.ranges) {
        let byte_offset = u32::from(script.u16()) % 4096;
        let byte_count = match script.byte() {
            0 => script.u32() % (32 << 20) + 1,
            small => u32::from(small) * 512,
        };
        bytes += u64::from(byte_count);
        if bytes > u64::from(limits.bytes) {
            break;
        }
        let first = script.u64();
        let pages = u64::from((byte_offset + byte_count).div_ceil(4096));
        let pages = (0..pages).map(|page| first.wrapping_add(page)).collect();
        ranges.push(Range { byte_offset, byte_count, pages });
    }
    let Ok(messages) = split(relid, gpadl, &ranges) else { return assert!(ranges.is_empty()) };
    let mut assembler = None;
    for message in messages {
        let Ok(encoded) = message.encode(protocol) else { panic_with("was split off and can't be encoded", &message) };
        let back = GuestMessage::parse(encoded.as_ref(), protocol);
        assert_eq!(back.as_ref(), Ok(&message));
        let progress = match (back, assembler.take()) {
            (Ok(GuestMessage::GpadlHeader(header)), None) => Assembler::start(&header, limits),
            (Ok(GuestMessage::GpadlBody(body)), Some(Progress::More(assembler))) => assembler.push(&body),
            other => panic_with("is one message too many", &other),
        };
        match progress {
            Ok(progress) => assembler = Some(progress),
            Err(error) => panic_with("was refused", &error),
        }
    }
    match assembler {
        Some(Progress::Done(done)) => assert_eq!(done, Gpadl { relid, gpadl, ranges }),
        other => panic_with("is not done", &other),
    }
}
