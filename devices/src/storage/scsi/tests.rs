//! Commands byte by byte, answers of real devices, and whatever bytes there may be.

use proptest::prelude::*;

use super::*;
use crate::storage::wire::Direction;

#[test]
fn commands_byte_by_byte() {
    let all: [(Command, &[u8]); 14] = [
        (Command::test_unit_ready(), &[0; 6]),
        (Command::request_sense(18), &[3, 0, 0, 0, 18, 0]),
        (Command::inquiry(None, 36), &[0x12, 0, 0, 0, 36, 0]),
        (Command::inquiry(Some(0xb0), 0x102), &[0x12, 1, 0xb0, 1, 2, 0]),
        (Command::mode_sense_6(8, 192), &[0x1a, 8, 8, 0, 192, 0]),
        (Command::mode_sense_10(0x3f, 0x102), &[0x5a, 8, 0x3f, 0, 0, 0, 0, 1, 2, 0]),
        (Command::read_capacity_10(), &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (Command::read_capacity_16(32), &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]),
        (Command::report_luns(0x0102_0304), &[0xa0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0]),
        (Command::read(1, 65_535), &[0x28, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 0]),
        (Command::read(1, 65_536), &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]),
        (Command::write(1 << 32, 1, true), &[0x8a, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
        (Command::synchronize_cache(), &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (Command::unmap(24), &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]),
    ];
    for (command, bytes) in all {
        assert_eq!(command.bytes(), bytes, "{}", command.name());
    }
    assert_eq!(Command::other(&[1; 20], Direction::None).bytes().len(), 16);
}

#[test]
fn the_list_of_an_unmap() {
    let list = Command::unmap_list(&[(0x0102, 3), (4, 5)]);
    assert_eq!(list[..8], [0, 38, 0, 32, 0, 0, 0, 0]);
    assert_eq!(list[8..24], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0, 0, 0]);
    assert_eq!(list.len(), 40);
    assert_eq!(Command::unmap_list(&vec![(0, 1); 5000]).len(), 8 + 16 * 4095, "as many as a length can say");
}

#[test]
fn sense_data_of_both_formats() {
    let sense = |key, code, qualifier, information| Some(Sense { key: SenseKey(key), code, qualifier, information });
    let fixed = [0xf0, 0, 0x23, 0, 0, 1, 2, 10, 0, 0, 0, 0, 0x11, 1];
    assert_eq!(Sense::parse(&fixed), sense(3, 0x11, 1, Some(0x102)));
    assert_eq!(Sense::parse(&[0x70, 0, 6, 0, 0, 0, 0]), sense(6, 0, 0, None), "one that ends early");
    let described = [0x72, 5, 0x24, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(Sense::parse(&described), sense(5, 0x24, 0, Some(0x1_0000_0002)));
    assert_eq!(Sense::parse(&described[..8]), sense(5, 0x24, 0, None));
    for nothing in [&[][..], &[0x70], &[0x70, 0], &[0x72, 1], &[0, 1, 2, 3], &[0x7f; 18]] {
        assert_eq!(Sense::parse(nothing), None, "{nothing:?}");
    }
    let change =
        |code, qualifier| Sense { key: SenseKey::UNIT_ATTENTION, code, qualifier, information: None }.is_change();
    assert!(change(0x2a, 9) && change(0x3f, 0x0e) && !change(0x29, 0) && !change(0x2a, 1));
    let shown = Sense { key: SenseKey(3), code: 0x11, qualifier: 1, information: Some(7) };
    assert_eq!(shown.to_string(), "medium error (03/11/01) at block 7");
}

#[test]
fn capacities_that_make_sense_and_others() {
    let long = |last: u64, bytes: u32, exponent: u8| {
        let mut answer = [last.to_be_bytes().to_vec(), bytes.to_be_bytes().to_vec()].concat();
        answer.extend([0, exponent, 0x80, 0]);
        Capacity::parse_16(&answer)
    };
    let good = long(99, 512, 3);
    assert_eq!(good, Some(Capacity { blocks: 100, block_bytes: 512, physical_bytes: 4096, provisions: true }));
    for (last, bytes, exponent) in
        [(u64::MAX, 512, 0), (1, 0, 0), (1, 511, 0), (1, 256, 0), (1, 131_072, 0), (1, u32::MAX, 0)]
    {
        assert_eq!(long(last, bytes, exponent), None, "{last} {bytes}");
    }
    assert!(long(1, 65_536, 15).is_some());
    assert_eq!(long(1, 65_536, 15).map(|capacity| capacity.physical_bytes), Some(1 << 31));
    assert_eq!(long(u64::MAX - 1, 4096, 0).map(|capacity| capacity.bytes()), Some(u64::MAX), "and not around the end");
    assert_eq!(Capacity::parse_10(&[0xff; 8]), Some(Err(())), "the long command knows");
    assert_eq!(Capacity::parse_10(&[0, 0, 0, 9, 0, 0, 2]), None);
    assert_eq!(
        Capacity::parse_10(&[0, 0, 0, 9, 0, 0, 2, 0]).and_then(Result::ok).map(|capacity| capacity.bytes()),
        Some(5120)
    );
}

#[test]
fn lists_of_units() {
    let list = |bytes: u32, entries: &[[u8; 8]]| luns(&[&bytes.to_be_bytes()[..], &[0; 4], &entries.concat()].concat());
    let entries = [[0, 5, 0, 0, 0, 0, 0, 0], [0x40, 1, 0, 0, 0, 0, 0, 0], [0; 8], [0, 5, 0, 0, 0, 0, 0, 0]];
    assert_eq!(list(32, &entries), Some((vec![0, 1, 5], 32)));
    assert_eq!(list(8, &entries), Some((vec![5], 8)), "what is behind the list is none of it");
    assert_eq!(list(u32::MAX, &entries), Some((vec![0, 1, 5], u32::MAX)), "nor is what is not there");
    assert_eq!(list(8, &[[0x40, 1, 2, 0, 0, 0, 0, 0]]), Some((vec![], 8)), "of another kind");
    assert_eq!(luns(&[0, 0, 0]), None);
}

#[test]
fn modes_and_pages() {
    let caching = [0x88, 0x12, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let six = [&[23, 0, 0x80, 0][..], &caching].concat();
    assert_eq!(Mode::parse_6(&six), Some(Mode { read_only: true, write_cache: true }));
    // Block descriptors and another page before.
    let ten = [&[0, 40, 0, 0, 0, 0, 0, 8][..], &[1; 8], &[1, 2, 0, 0], &caching].concat();
    assert_eq!(Mode::parse_10(&ten), Some(Mode { read_only: false, write_cache: true }));
    assert_eq!(Mode::parse_6(&[3, 0, 0x80, 0]), Some(Mode { read_only: true, write_cache: false }));
    assert_eq!(Mode::parse_6(&[255, 0, 0, 255, 8, 255]), Some(Mode::default()));
    let page = [0, 0x83, 0, 20, 2, 0, 0, 4, b'o', b'l', b'd', b'!', 1, 3, 0, 3, 0x60, 0x22, 0x48, 1, 3, 0, 200, 9];
    assert_eq!(device_identifier(&page).as_deref(), Some("602248"));
    assert_eq!(device_identifier(&[0, 0x80, 0, 1, 1]), None);
    assert_eq!(serial_number(&[0, 0x80, 0, 4, b' ', b'A', b'1', 0]).as_deref(), Some("A1"));
    assert_eq!(supported_pages(&[0, 0, 0, 9, 0, 0x80]), Some(vec![0, 0x80]));
    assert_eq!(
        Provisioning::parse(&[0, 0xb2, 0, 4, 0, 0x84, 2, 0]),
        Some(Provisioning { unmaps: true, reads_zeroes: true })
    );
}

proptest! {
    /// Any bytes are an answer or none.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..260)) {
        let _ = (Sense::parse(&bytes), Inquiry::parse(&bytes), Capacity::parse_10(&bytes), Capacity::parse_16(&bytes));
        let _ = (Mode::parse_6(&bytes), Mode::parse_10(&bytes), luns(&bytes), supported_pages(&bytes));
        let _ = (serial_number(&bytes), device_identifier(&bytes), BlockLimits::parse(&bytes), Provisioning::parse(&bytes));
        if let Some(capacity) = Capacity::parse_16(&bytes) {
            prop_assert!(capacity.block_bytes.is_power_of_two() && capacity.blocks != 0);
        }
    }
}
