//! What a host may not do to the book-keeping: ids, ranges, completions.

use super::*;
use crate::net::shared::Region;
use crate::net::wire::nvsp::{MessageType, Version};
use proptest::prelude::*;
use std::os::fd::AsFd;
use std::sync::Arc;
use vmbus::memory::{Mapping, Piece};
use vmbus::message::GpadlId;
use vmbus::uio::KernelBuffer;

const PARTS: u32 = 70;
const BYTES: usize = 128 << 10;

fn region() -> Region {
    let file = rustix::fs::memfd_create("region", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, u64::try_from(BYTES).unwrap()).unwrap();
    let memory = Mapping::new(&[Piece { file: file.as_fd(), file_offset: 0, bytes: BYTES }]).unwrap();
    Region::Kernel(KernelBuffer { name: "recv".to_owned(), gpadl: GpadlId(1), memory: Arc::new(memory) })
}

fn shared() -> Shared {
    Shared::new(Version::V6_1, (region(), BYTES, PARTS), (region(), 6144, 20), None)
}

const DATA: Result<HostMessage, WireError> = Ok(HostMessage::Rndis(ChannelType::DATA));
const CONTROL: Result<HostMessage, WireError> = Ok(HostMessage::Rndis(ChannelType::CONTROL));

fn range(byte_offset: u32, byte_count: u32) -> TransferPageRange {
    TransferPageRange { byte_count, byte_offset }
}

fn packet(intake: &mut Intake, shared: &Shared, id: u64, ranges: &[TransferPageRange]) {
    intake.transfer(shared, id, CONTROL, RECEIVE_BUFFER_ID, ranges.iter().copied());
}

/// Completions that wait, and that are sent now.
fn completions(intake: &mut Intake) -> Vec<(u64, Status)> {
    let all: Vec<_> = intake.completions().collect();
    intake.completed(all.len());
    all
}

/// The driver for DPDK compares with `>` where the number of parts itself is one too many: `hn_rx_buf_init`.
#[test]
fn the_first_id_that_is_none_is_the_number_of_parts() {
    let shared = shared();
    let mut intake = Intake::new(&shared);
    packet(&mut intake, &shared, u64::from(PARTS) - 1, &[range(0, 8)]);
    assert_eq!((intake.control.len(), intake.statistics.bad_transactions), (1, 0));
    for (count, id) in (1..).zip([u64::from(PARTS), u64::from(PARTS) + 1, 127, 128, 1 << 32, u64::MAX]) {
        packet(&mut intake, &shared, id, &[range(0, 8)]);
        assert_eq!((intake.control.len(), intake.statistics.bad_transactions), (1, count), "{id:#x}");
    }
    assert_eq!(completions(&mut intake), []);
}

#[test]
fn an_id_is_free_when_its_completion_is_sent_and_not_before() {
    let shared = shared();
    let mut intake = Intake::new(&shared);
    packet(&mut intake, &shared, 3, &[range(0, 8)]);
    packet(&mut intake, &shared, 3, &[range(0, 8)]);
    assert_eq!((intake.control.len(), intake.statistics.bad_transactions), (1, 1));
    let held = intake.control.pop_front().unwrap();
    intake.complete(held.transaction, Status::SUCCESS);
    packet(&mut intake, &shared, 3, &[range(0, 8)]);
    assert_eq!(intake.statistics.bad_transactions, 2, "it waits for room");
    assert_eq!(completions(&mut intake), [(3, Status::SUCCESS)]);
    packet(&mut intake, &shared, 3, &[range(0, 8)]);
    assert_eq!((intake.control.len(), intake.statistics.bad_transactions), (1, 2));
}

#[test]
fn ranges_are_inside_or_the_packet_fails() {
    let end = u32::try_from(BYTES).unwrap();
    let longest = u32::try_from(rndis::LONGEST_BYTES).unwrap();
    let good: [&[TransferPageRange]; 5] =
        [&[range(0, 0)], &[range(0, 1)], &[range(end - 1, 1)], &[range(end, 0)], &[range(0, longest)]];
    let bad: [&[TransferPageRange]; 8] = [
        &[],
        &[range(end, 1)],
        &[range(end - 1, 2)],
        &[range(end + 1, 0)],
        &[range(u32::MAX, u32::MAX)],
        &[range(0, longest + 1)],
        &[range(0, u32::MAX)],
        &[range(0, 8), range(end, 1)],
    ];
    let shared = shared();
    let mut intake = Intake::new(&shared);
    for ranges in good {
        packet(&mut intake, &shared, 0, ranges);
        assert_eq!((intake.control.pop_front().unwrap().messages(), intake.statistics.bad_ranges), (ranges.len(), 0));
        intake.complete(0, Status::SUCCESS);
        completions(&mut intake);
    }
    for (count, ranges) in (1..).zip(bad) {
        packet(&mut intake, &shared, 0, ranges);
        assert_eq!((intake.control.len(), intake.statistics.bad_ranges), (0, count), "{ranges:?}");
        assert_eq!(completions(&mut intake), [(0, Status::FAILURE)]);
    }
    for (count, bad) in [(MOST_RANGES, 8), (MOST_RANGES + 1, 9)] {
        packet(&mut intake, &shared, u64::try_from(count % 64).unwrap(), &vec![range(0, 8); count]);
        assert_eq!(intake.statistics.bad_ranges, bad);
    }
}

#[test]
fn another_set_of_pages_or_another_message_is_malformed() {
    let shared = shared();
    let mut intake = Intake::new(&shared);
    for set in [0, RECEIVE_BUFFER_ID - 1, RECEIVE_BUFFER_ID + 1, u16::MAX] {
        intake.transfer(&shared, 1, DATA, set, [range(0, 8)].into_iter());
        assert_eq!(completions(&mut intake), [(1, Status::FAILURE)]);
    }
    for message in [Ok(HostMessage::RndisComplete(Status::SUCCESS)), Err(WireError::Unknown(0))] {
        intake.transfer(&shared, 1, message, RECEIVE_BUFFER_ID, [range(0, 8)].into_iter());
        assert_eq!(completions(&mut intake), [(1, Status::FAILURE)]);
    }
    assert_eq!((intake.statistics.malformed, intake.control.len(), intake.has_frames()), (6, 0, false));
}

#[test]
fn a_completion_frees_its_section_once() {
    let shared = shared();
    let mut intake = Intake::new(&shared);
    let words = |words: [u32; 2]| words.map(u32::to_le_bytes).concat();
    let success = words([MessageType::RNDIS_COMPLETE.0, 1]);
    let failure = words([MessageType::RNDIS_COMPLETE.0, 2]);
    let sent = |intake: &mut Intake| {
        let section = shared.sections.take().unwrap();
        intake.expect(Sent::Frame { section, bytes: 100 }).unwrap()
    };
    let id = sent(&mut intake);
    for other in [0, id + 1, id ^ 1 << 40, u64::MAX] {
        intake.completion(&shared, other, &success);
    }
    assert_eq!((shared.sections.in_use(), intake.statistics.unknown_completions), (1, 4));
    intake.completion(&shared, id, &success);
    intake.completion(&shared, id, &success);
    assert_eq!((shared.sections.in_use(), intake.statistics.unknown_completions), (0, 5));
    // Refused, and completed by something that is no message: the section is free all the same.
    for payload in [failure.as_slice(), &[], &[1; 4]] {
        let id = sent(&mut intake);
        intake.completion(&shared, id, payload);
        assert_eq!(shared.sections.in_use(), 0);
    }
    let statistics = intake.statistics;
    assert_eq!((statistics.transmitted_frames, statistics.transmitted_bytes), (1, 100));
    assert_eq!((statistics.transmit_refused, statistics.malformed), (1, 2));
}

#[test]
fn what_a_host_tells_does_not_grow() {
    let shared = shared();
    let mut intake = Intake::new(&shared);
    for serial in 0..1000_u32 {
        let message = [MessageType::VF_ASSOCIATION.0, 1, serial].map(u32::to_le_bytes).concat();
        intake.in_band(&shared, &message);
    }
    assert_eq!(intake.told.len(), NOTICES);
    assert_eq!(intake.told.back(), Some(&Told::VirtualFunction { allocated: true, serial: 999 }));
    intake.in_band(&shared, &[0; 7]);
    intake.in_band(&shared, &[MessageType::RNDIS_COMPLETE.0, 1].map(u32::to_le_bytes).concat());
    assert_eq!((intake.statistics.malformed, intake.statistics.unexpected), (1, 1));
}

proptest! {
    /// Whatever a host sends in whatever order, no more than the parts wait here, and each id is completed once for
    /// each time that it was taken.
    #[test]
    fn never_more_than_there_are_parts(
        packets in prop::collection::vec((0_u64..80, any::<bool>(), 0_u32..200_000, 0_u32..200_000), 0..400),
    ) {
        let shared = shared();
        let mut intake = Intake::new(&shared);
        let mut open = std::collections::BTreeSet::new();
        for (id, give_back, offset, count) in packets {
            let before = intake.statistics.bad_transactions;
            packet(&mut intake, &shared, id, &[range(offset, count)]);
            let taken = intake.statistics.bad_transactions == before;
            prop_assert_eq!(taken, id < u64::from(PARTS) && !open.contains(&id));
            if taken {
                open.insert(id);
            }
            if give_back && let Some(held) = intake.control.pop_front() {
                intake.complete(held.transaction, Status::SUCCESS);
            }
            prop_assert!(intake.control.len() + intake.completions().count() <= 70);
            if give_back {
                for (id, _) in completions(&mut intake) {
                    prop_assert!(open.remove(&id));
                }
            }
        }
        prop_assert_eq!(open.len(), intake.control.len() + intake.completions().count());
    }
}
