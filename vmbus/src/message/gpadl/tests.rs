//! GPADLs cut up and put together: lengths by hand, limits, hostile headers, and what Linux and UEFI send.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{GpadlBody, GpadlHeader, GuestMessage};
use super::*;

const ID: GpadlId = GpadlId(0xe1e10);

/// So many whole pages, each with a number of its own.
fn pages(count: u64) -> Range {
    Range::of_pages((0x1000..0x1000 + count).collect()).unwrap()
}

fn messages(ranges: &[Range]) -> Vec<GuestMessage> {
    split(7, ID, ranges).unwrap().collect()
}

/// Feeds messages to the host's side until it is done, and demands that it is so with the last one.
fn assemble(messages: &[GuestMessage], limits: Limits) -> Result<Gpadl, GpadlError> {
    let Some((GuestMessage::GpadlHeader(header), bodies)) = messages.split_first() else { panic!("no header") };
    let mut progress = Assembler::start(header, limits)?;
    for body in bodies {
        let GuestMessage::GpadlBody(body) = body else { panic!("no body: {body:?}") };
        let Progress::More(assembler) = progress else { panic!("done before its last body") };
        progress = assembler.push(body)?;
    }
    match progress {
        Progress::Done(gpadl) => Ok(gpadl),
        Progress::More(assembler) => panic!("still waiting: {assembler:?}"),
    }
}

fn header(range_bytes: u16, ranges: u16, words: &[u64]) -> GpadlHeader {
    GpadlHeader { relid: 7, gpadl: ID, range_bytes, ranges, words: words.to_vec() }
}

fn body(words: &[u64]) -> GpadlBody {
    GpadlBody { number: 0, gpadl: ID, words: words.to_vec() }
}

fn more(progress: Result<Progress, GpadlError>) -> Assembler {
    match progress {
        Ok(Progress::More(assembler)) => assembler,
        other => panic!("{other:?}"),
    }
}

/// As drivers/hv/channel.c would cut it: 26 pages beside the head of the range, 28 in each body.
#[test]
fn a_ring_of_two_mebibytes_each_way_takes_a_header_and_36_bodies() {
    let messages = messages(&[pages(1024)]);
    assert_eq!(messages.len(), 1 + 36);
    let GuestMessage::GpadlHeader(header) = &messages[0] else { panic!() };
    assert_eq!((header.ranges, header.range_bytes, header.words.len()), (1, 8 + 8192, 27));
    assert_eq!(header.words[..3], [4 << 20, 0x1000, 0x1001]);
    let GuestMessage::GpadlBody(body) = &messages[1] else { panic!() };
    assert_eq!((body.number, body.words.len(), body.words[0]), (1, 28, 0x1000 + 26));
    let GuestMessage::GpadlBody(last) = &messages[36] else { panic!() };
    assert_eq!((last.number, last.words.as_slice()), (36, (0x13ee..0x1400).collect::<Vec<u64>>().as_slice()));
}

#[test]
fn lengths_around_the_edges_of_messages() {
    for (count, expected) in [(1, 1), (26, 1), (27, 2), (26 + 28, 2), (26 + 29, 3), (8190, 293)] {
        let messages = messages(&[pages(count)]);
        assert_eq!(messages.len(), expected, "{count} pages");
        assert_eq!(assemble(&messages, Limits::default()).unwrap().ranges, [pages(count)]);
    }
}

/// The most that a header can state is [`ANY_HOST_WORDS`]; from there on its length wraps, as Linux lets it.
#[test]
fn the_length_wraps_beyond_what_a_header_can_state() {
    let stated = |count| match &messages(&[pages(count)])[0] {
        GuestMessage::GpadlHeader(header) => header.range_bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(ANY_HOST_WORDS * 8, 65_528);
    assert_eq!(stated(8190), 65_528);
    assert_eq!(stated(8191), 0);
    assert_eq!(stated(16_384), 8, "64 MiB");
    for count in [8191, 16_384] {
        assert_eq!(assemble(&messages(&[pages(count)]), Limits::default()).unwrap().ranges, [pages(count)]);
    }
}

#[test]
fn ranges_that_make_no_sense_are_not_split() {
    let range = |byte_offset, byte_count, pages| Range { byte_offset, byte_count, pages: vec![1; pages] };
    for bad in [range(0, 0, 0), range(0, 0, 1), range(4096, 1, 2), range(4095, 2, 1), range(0, 4096, 2), range(1, 1, 0)]
    {
        assert!(matches!(split(1, ID, std::slice::from_ref(&bad)).err(), Some(GpadlError::Range { .. })), "{bad:?}");
    }
    for good in [range(4095, 1, 1), range(4095, 2, 2), range(0, 1, 1), range(4095, 4098, 3)] {
        assert!(split(1, ID, &[good]).is_ok());
    }
    assert!(matches!(split(1, ID, &[]).err(), Some(GpadlError::Ranges { ranges: 0, .. })));
    let many = vec![range(0, 1, 1); 65_536];
    assert!(matches!(split(1, ID, &many).err(), Some(GpadlError::Ranges { ranges: 65_536, .. })));
    assert!(matches!(split(1, ID, &[pages(16_384), pages(1)]).err(), Some(GpadlError::Bytes { .. })));
    assert!(Range::of_pages(Vec::new()).is_err());
    assert!(Range::of_pages(vec![0; 1 << 20]).is_err(), "4 GiB");
}

#[test]
fn hostile_headers_and_bodies_are_refused() {
    let limits = Limits { ranges: 2, bytes: 16 * 4096 };
    let start = |range_bytes, ranges, words: &[u64]| Assembler::start(&header(range_bytes, ranges, words), limits);
    assert!(matches!(start(16, 0, &[4096, 1]), Err(GpadlError::Ranges { ranges: 0, .. })));
    assert!(matches!(start(16, 3, &[4096, 1]), Err(GpadlError::Ranges { ranges: 3, most: 2 })));
    assert!(matches!(start(16, 1, &[0, 1]), Err(GpadlError::Range { .. })), "no bytes");
    assert!(matches!(start(16, 1, &[0x1000_0000_0001, 1]), Err(GpadlError::Range { byte_offset: 4096, .. })));
    assert!(matches!(start(16, 1, &[u64::from(u32::MAX), 1]), Err(GpadlError::Bytes { .. })));
    assert!(matches!(start(8, 1, &[16 * 4096 + 1]), Err(GpadlError::Bytes { .. })));
    assert!(matches!(start(24, 2, &[16 * 4096]), Ok(Progress::More(_))));
    assert!(matches!(start(15, 1, &[4096, 1]), Err(GpadlError::Length { stated: 15, needed: 16 })));
    assert!(matches!(start(24, 1, &[4096, 1]), Err(GpadlError::Length { stated: 24, needed: 16 })));
    let waiting = || more(start(24, 1, &[8192, 1]));
    assert!(matches!(waiting().push(&body(&[])), Err(GpadlError::Empty { .. })));
    let other = GpadlBody { gpadl: GpadlId(1), ..body(&[2]) };
    assert!(matches!(waiting().push(&other), Err(GpadlError::Other { .. })));
    assert!(matches!(waiting().push(&body(&[2])), Ok(Progress::Done(_))));
    // Two ranges whose bytes are too many together, the second one's head in a body.
    let first = more(start(200, 2, &[8 * 4096, 1, 2, 3, 4, 5, 6, 7, 8]));
    assert!(matches!(first.push(&body(&[8 * 4096 + 1])), Err(GpadlError::Bytes { .. })));
}

/// Linux numbers no body; UEFI sends each message as long as there can be, whatever is in the rest.
#[test]
fn what_linux_and_uefi_send_is_understood() {
    let assembler =
        more(Assembler::start(&header(8 * 30, 1, &[vec![29 * 4096], vec![5; 26]].concat()), Limits::default()));
    let Ok(Progress::Done(gpadl)) = assembler.push(&body(&[[6; 3].as_slice(), &[0xdead; 25]].concat())) else {
        panic!()
    };
    assert_eq!(gpadl.ranges, [Range::of_pages([[5; 26].as_slice(), &[6; 3]].concat()).unwrap()]);
    let Ok(Progress::Done(gpadl)) =
        Assembler::start(&header(16, 1, &[vec![4096, 9], vec![0xdead; 25]].concat()), Limits::default())
    else {
        panic!()
    };
    assert_eq!((gpadl.relid, gpadl.gpadl, gpadl.ranges), (7, ID, vec![Range::of_pages(vec![9]).unwrap()]));
}

/// A guest may promise the most there is: what is held is what came. (Reserve by the promise, and the capacity shows.)
#[test]
fn nothing_is_allocated_for_promises() {
    let most = Limits { ranges: u16::MAX, bytes: u32::MAX };
    let assembler = more(Assembler::start(&header(u16::MAX, u16::MAX, &[u64::from(u32::MAX), 1]), most));
    assert_eq!(assembler.words(), 2);
    assert!(assembler.capacity_words() <= 32, "{assembler:?}");
}

fn range() -> impl Strategy<Value = Range> {
    (0..4096_u32, prop_oneof![1..64_u32, 4000..4200_u32, 1..400_000_u32], any::<u64>()).prop_map(
        |(byte_offset, byte_count, seed)| {
            let pages = u64::from((byte_offset + byte_count).div_ceil(4096));
            Range { byte_offset, byte_count, pages: (0..pages).map(|page| seed.wrapping_mul(page | 1)).collect() }
        },
    )
}

proptest! {
    #[test]
    fn what_is_split_is_assembled_again(ranges in vec(range(), 1..40)) {
        let messages = messages(&ranges);
        for (message, last) in messages.iter().zip((1..=messages.len()).map(|at| at == messages.len())) {
            let full = match message {
                GuestMessage::GpadlHeader(header) => header.words.len() == HEADER_WORDS,
                GuestMessage::GpadlBody(body) => body.words.len() == BODY_WORDS,
                _ => false,
            };
            prop_assert!(full || last, "a message before the last one is not full");
        }
        let gpadl = assemble(&messages, Limits::default()).unwrap();
        prop_assert_eq!((gpadl.relid, gpadl.gpadl, gpadl.ranges), (7, ID, ranges));
    }
}
