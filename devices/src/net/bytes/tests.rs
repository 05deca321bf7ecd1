//! Copies at every offset and of every length, beside a copy that is easy to see through.

use super::*;
use std::os::fd::AsFd;
use vmbus::memory::Piece;

fn memory() -> Mapping {
    let file = rustix::fs::memfd_create("bytes", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 4096).unwrap();
    Mapping::new(&[Piece { file: file.as_fd(), file_offset: 0, bytes: 4096 }]).unwrap()
}

#[test]
fn what_was_written_is_read_at_every_offset() {
    let memory = memory();
    let all: Vec<u8> = (0..4096_usize).map(|place| u8::try_from(place * 7 % 251).unwrap()).collect();
    assert!(write(&memory, 0, &[&all]));
    let mut scratch = Vec::new();
    for offset in (0..40).chain([4088, 4095, 4096]) {
        for count in 0..40 {
            let expected = all.get(offset..offset + count);
            assert_eq!(read(&memory, offset, count, &mut scratch), expected, "{count} from {offset}");
        }
    }
    assert_eq!(read(&memory, 0, 4096, &mut scratch), Some(all.as_slice()));
    for (offset, count) in [(0, 4097), (4097, 0), (4097, 1), (usize::MAX, 1), (8, usize::MAX), (usize::MAX, usize::MAX)]
    {
        assert_eq!(read(&memory, offset, count, &mut scratch), None, "{count} from {offset}");
    }
}

#[test]
fn parts_of_every_length_are_written_one_behind_the_other() {
    let memory = memory();
    let source: Vec<u8> = (1..=60).collect();
    let mut scratch = Vec::new();
    for first in 0..20 {
        for second in 0..20 {
            for third in 0..3 {
                let (one, rest) = source.split_at(first);
                let (two, rest) = rest.split_at(second);
                let three = &rest[..third];
                assert!(write(&memory, 64, &[&[0xee; 56]]));
                assert!(write(&memory, 64, &[one, two, &[], three]));
                let total = first + second + third;
                let mut expected = source[..total].to_vec();
                expected.resize(total.next_multiple_of(8), 0);
                expected.resize(56, 0xee);
                assert_eq!(read(&memory, 64, 56, &mut scratch), Some(expected.as_slice()), "{first} {second} {third}");
            }
        }
    }
    assert!(!write(&memory, 4088, &[&[0; 9]]));
    assert!(!write(&memory, 4096, &[&[0]]));
    assert!(!write(&memory, 4, &[&[0; 8]]), "not aligned");
    assert!(write(&memory, 4088, &[&[1; 8]]));
}
