//! Every control field and every header byte with every kind of wrong value, by table: what is refused, and as what.
#![expect(clippy::unwrap_used, reason = "tests")]

use vmbus_ringbuf::doubles::PlainMemory;
use vmbus_ringbuf::{
    ControlField, FEATURE_PENDING_SEND_SIZE, LayoutError, Malformed, Memory, MultiPageBuffer, OutgoingPacket,
    PacketType, PageBuffer, ReadError, Reader, RingLayout, Signal, What, WriteError, Writer,
};

const SIZE: u32 = 256;
const NASTY: [u32; 12] =
    [1, 4, 7, 12, SIZE - 1, SIZE, SIZE + 8, 2 * SIZE, 0x7fff_fff8, 0x8000_0000, u32::MAX - 7, u32::MAX];

fn ring() -> PlainMemory {
    let memory = PlainMemory::new(SIZE);
    memory.store(ControlField::FeatureBits, FEATURE_PENDING_SEND_SIZE);
    memory
}

/// A ring with two packets of 32 bytes each.
fn filled() -> PlainMemory {
    let memory = ring();
    let mut writer = Writer::new(&memory).unwrap();
    for id in [1, 2] {
        let _ = writer.try_write(&OutgoingPacket::in_band(id), &[&[0xaa; 8]]).unwrap();
    }
    memory
}

#[test]
fn a_write_index_that_is_none_is_corrupt() {
    for value in NASTY {
        let memory = ring();
        let mut reader = Reader::new(&memory).unwrap();
        memory.store(ControlField::WriteIndex, value);
        let corrupt = reader.batch().next().unwrap_err();
        assert_eq!((corrupt.what, corrupt.value), (What::WriteIndex, value));
        memory.store(ControlField::WriteIndex, 0);
        assert_eq!(reader.peek().unwrap_err(), corrupt, "sticky");
        assert_eq!(reader.read_into(&mut []), Err(ReadError::Corrupt(corrupt)));
        assert!(reader.unmask(), "no sleeping on a corrupt ring");
        assert!(Writer::new(&memory).is_ok() && Reader::new(&memory).is_ok(), "the ring itself is sound again");
    }
}

#[test]
fn a_write_index_that_goes_back_is_corrupt() {
    let memory = ring();
    let mut writer = Writer::new(&memory).unwrap();
    let _ = writer.try_write(&OutgoingPacket::in_band(1), &[]).unwrap();
    let _ = writer.try_write(&OutgoingPacket::in_band(2), &[]).unwrap();
    let mut reader = Reader::new(&memory).unwrap();
    let mut batch = reader.batch();
    assert_eq!(batch.next().unwrap().unwrap().transaction_id(), 1);
    assert_eq!(batch.next().unwrap().unwrap().transaction_id(), 2);
    // 48 bytes, less than a quarter: nothing was given back, so the writer can't have come around to here.
    memory.store(ControlField::WriteIndex, 24);
    assert_eq!(batch.next().unwrap_err().what, What::WriteIndex);
}

#[test]
fn a_read_index_that_is_none_is_corrupt() {
    for value in NASTY {
        let memory = filled();
        let mut writer = Writer::new(&memory).unwrap();
        memory.store(ControlField::ReadIndex, value);
        let corrupt = writer.free_bytes().unwrap_err();
        assert_eq!((corrupt.what, corrupt.value), (What::ReadIndex, value));
        memory.store(ControlField::ReadIndex, 0);
        assert_eq!(writer.request_space(8), Err(corrupt), "sticky");
        let refused = writer.try_write(&OutgoingPacket::in_band(3), &[]);
        assert_eq!(refused, Err(WriteError::Corrupt(corrupt)), "sticky, although there is room");
    }
}

#[test]
fn a_read_index_that_passes_the_writer_or_goes_back_is_corrupt() {
    let memory = filled();
    let mut writer = Writer::new(&memory).unwrap();
    memory.store(ControlField::ReadIndex, 72);
    assert_eq!(writer.free_bytes().unwrap_err().what, What::ReadIndex, "beyond the write index of 64");
    let memory = filled();
    let mut writer = Writer::new(&memory).unwrap();
    memory.store(ControlField::ReadIndex, 32);
    assert_eq!(writer.free_bytes(), Ok(SIZE - 32));
    memory.store(ControlField::ReadIndex, 24);
    assert_eq!(writer.free_bytes().unwrap_err().what, What::ReadIndex, "taken back");
}

#[test]
fn every_header_byte_with_every_value_is_read_or_refused() {
    for byte in 0..16 {
        for value in 0..=255 {
            let memory = filled();
            memory.write(byte, &[value]);
            let mut reader = Reader::new(&memory).unwrap();
            let mut batch = reader.batch();
            let (offset, length) = match byte {
                2 => (u32::from(value), 3),
                3 => (2 + u32::from(value) * 256, 3),
                4 => (2, u32::from(value)),
                5 => (2, 3 + u32::from(value) * 256),
                _ => (2, 3),
            };
            let what = if length * 8 + 8 > 64 {
                Some(What::PacketLength)
            } else if offset < 2 || offset > length {
                Some(What::PayloadOffset)
            } else {
                None
            };
            match batch.next() {
                Ok(packet) => {
                    let packet = packet.unwrap();
                    assert_eq!(what, None, "byte {byte} = {value}");
                    assert_eq!(packet.payload().len(), (length - offset) as usize * 8);
                    assert_eq!(packet.extra().len(), (offset - 2) as usize * 8);
                }
                Err(corrupt) => assert_eq!(Some(corrupt.what), what, "byte {byte} = {value}"),
            }
        }
    }
}

#[test]
fn unknown_types_are_skipped() {
    let memory = filled();
    memory.write(0, &[0x42, 0x99]);
    let mut reader = Reader::new(&memory).unwrap();
    let mut batch = reader.batch();
    let packet = batch.next().unwrap().unwrap();
    assert_eq!((packet.kind(), packet.kind().name()), (PacketType(0x9942), None));
    assert_eq!(packet.transfer_pages().err(), Some(Malformed::WrongType { found: 0x9942 }));
    assert_eq!(packet.gpa_ranges().err(), Some(Malformed::WrongType { found: 0x9942 }));
    assert_eq!(batch.next().unwrap().unwrap().transaction_id(), 2, "the next one is fine");
}

#[test]
fn ranges_that_leave_their_header_are_malformed_and_nothing_else() {
    // (type, first word of the ranges, second word): counts and lengths beyond the two words that are there.
    let one = 1 << 32;
    for (kind, head, range) in [
        (PacketType::TRANSFER_PAGES, 2 * one, 0),
        (PacketType::TRANSFER_PAGES, 0xffff_ffff * one, 0),
        (PacketType::GPA_DIRECT, 0xffff_ffff * one, 0),
        (PacketType::GPA_DIRECT, one, 8),
        (PacketType::GPA_DIRECT, one, 0),
    ] {
        let memory = ring();
        let first = u64::from(kind.0) | 4 << 16 | 5 << 32;
        memory.store_words(0, [first, 7, head, range, 0xabcd, 0]);
        memory.store(ControlField::WriteIndex, 48);
        let mut reader = Reader::new(&memory).unwrap();
        let mut batch = reader.batch();
        let packet = batch.next().unwrap().unwrap();
        let malformed = Malformed::Ranges { header_bytes: 32 };
        if kind == PacketType::TRANSFER_PAGES {
            assert_eq!(packet.transfer_pages().err(), Some(malformed));
        } else {
            let error = packet.gpa_ranges().and_then(|mut ranges| ranges.next().unwrap().map(drop)).unwrap_err();
            assert_eq!(error, malformed);
        }
        assert_eq!(packet.payload().read::<u64>(0), Ok(0xabcd), "the payload is still there");
        assert_eq!(batch.next().map(drop), Ok(()), "and the ring is sound");
    }
}

#[test]
fn ranges_that_cannot_be_are_not_sent() {
    let memory = ring();
    let mut writer = Writer::new(&memory).unwrap();
    for (byte_offset, byte_count) in [(0, 0), (4096, 1), (4095, 2), (u32::MAX, 1), (1, u32::MAX)] {
        let page = PageBuffer { page_frame: 1, byte_offset, byte_count };
        let refused = writer.try_write(&OutgoingPacket::gpa_direct_pages(1, &[page]), &[]);
        assert_eq!(refused, Err(WriteError::BadRanges), "{page:?}");
    }
    let buffer = MultiPageBuffer { page_frames: &[1, 2], byte_offset: 0, byte_count: 4096 };
    let refused = writer.try_write(&OutgoingPacket::gpa_direct_multi_page(1, buffer), &[]);
    assert_eq!(refused, Err(WriteError::BadRanges), "a frame too many");
    assert_eq!(memory.load(ControlField::WriteIndex), 0);
}

#[test]
fn signals_follow_the_rules() {
    let memory = ring();
    let (mut writer, mut reader) = (Writer::new(&memory).unwrap(), Reader::new(&memory).unwrap());
    let packet = OutgoingPacket::in_band(0);
    assert_eq!(writer.try_write(&packet, &[]), Ok(Signal::Needed), "the ring was empty");
    assert_eq!(writer.try_write(&packet, &[]), Ok(Signal::NotNeeded), "it was not");
    for _ in 0..2 {
        assert_eq!(reader.read_into(&mut []).unwrap().signal, Signal::NotNeeded);
    }
    assert_eq!(writer.try_write(&packet, &[]), Ok(Signal::NotNeeded), "a reader that has not finished is awake");
    reader.mask();
    let _ = reader.read_into(&mut []).unwrap();
    assert_eq!(reader.batch().finish(), Signal::NotNeeded, "no writer is blocked");
    let payload = [0_u8; 40];
    assert_eq!(writer.try_write(&packet, &[&payload]), Ok(Signal::NotNeeded), "masked");
    assert!(reader.unmask(), "do not sleep: a packet came while masked");

    // Fill it: 64 are used, 64 more each. The fourth would fill it completely.
    for _ in 0..2 {
        let _ = writer.try_write(&packet, &[&payload]).unwrap();
    }
    let full = writer.try_write(&packet, &[&payload]);
    assert_eq!(full, Err(WriteError::Full { needed: 64, free: 64 }), "never filled completely");
    assert_eq!(writer.request_space(64), Ok(false), "sleep");
    let _ = reader.batch().next().unwrap();
    assert_eq!(reader.batch().finish(), Signal::Needed, "from 64 free to 128: the writer fits");
    let _ = reader.batch().next().unwrap();
    assert_eq!(reader.batch().finish(), Signal::NotNeeded, "it was told already");
    let _ = writer.try_write(&packet, &[&payload]).unwrap();
    assert_eq!(memory.load(ControlField::PendingSendSize), 0, "a write takes the request back");
}

#[test]
fn a_writer_without_the_feature_is_not_signalled() {
    let memory = filled();
    memory.store(ControlField::FeatureBits, 0);
    memory.store(ControlField::PendingSendSize, SIZE - 40);
    let mut reader = Reader::new(&memory).unwrap();
    let _ = reader.batch().next().unwrap();
    assert_eq!(reader.batch().finish(), Signal::NotNeeded);
    assert_eq!(memory.load(ControlField::ReadIndex), 32, "given back all the same");
}

#[test]
fn layouts_are_checked() {
    assert_eq!(RingLayout::of_ring(0x11000, 4096), Ok(RingLayout { control_bytes: 4096, data_bytes: 0x10000 }));
    assert_eq!(RingLayout::of_ring(0x20_0000, 0x1_0000).map(|layout| layout.data_bytes), Ok(0x1f_0000));
    let refused = LayoutError::RingBytes { ring_bytes: 4095, page_bytes: 4096 };
    assert_eq!(RingLayout::of_ring(4095, 4096), Err(refused));
    assert_eq!(RingLayout::of_ring(4096 + 36, 4096), Err(LayoutError::DataBytes { data_bytes: 36 }));
    assert_eq!(Reader::new(PlainMemory::new(24)).unwrap_err().what, What::DataBytes);
}
