//! Drivers over hostile memory, shared by the property tests and the fuzz targets: they do what a script says and
//! check what must hold whatever the other side does. A broken promise is a failed assertion.

use crate::doubles::{HostileMemory, Script};
use crate::error::{Corrupt, ReadError, WriteError};
use crate::layout::{LARGEST_PACKET_BYTES, SMALLEST_DATA_BYTES};
use crate::memory::Memory;
use crate::packet::{MultiPageBuffer, OutgoingPacket, Packet, PageBuffer, TransferPageRange};
use crate::reader::Reader;
use crate::writer::{WriteBatch, Writer};

/// Accesses that one step of a reader or writer may take: a constant, or the other side could keep us busy.
const ACCESSES_PER_STEP: u64 = 24;
/// Steps of a run, for scripts that change nothing.
const STEPS: usize = 4096;

/// Reads from memory that changes under the reader. Every packet that comes out is looked at from all sides.
pub fn read_hostile(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let data_bytes = SMALLEST_DATA_BYTES + script.below(512) * 8;
    let mut steps = script.split_off();
    let memory = HostileMemory::new(data_bytes, script);
    let Ok(mut reader) = Reader::new(&memory) else { return };
    let mut buffer = [0; 4096 + 512];
    for _ in 0..STEPS {
        let known = reader.corrupt();
        let before = memory.accesses();
        let result = match steps.byte() % 8 {
            0 => reader.read_into(&mut buffer).map(drop).or_else(ignore_short),
            1 => reader.peek().map(|packet| inspect_all(&memory, packet, data_bytes)),
            2 => reader.is_empty().map(drop),
            3 => {
                reader.mask();
                Ok(())
            }
            4 => {
                let _ = reader.unmask();
                Ok(())
            }
            5 => {
                let _ = reader.batch().finish();
                Ok(())
            }
            _ => reader.batch().next().map(|packet| inspect_all(&memory, packet, data_bytes)),
        };
        check_sticky(known, result.as_ref().err().copied(), reader.corrupt());
        assert!(
            result.is_err() || memory.accesses() - before <= ACCESSES_PER_STEP + u64::from(data_bytes),
            "a step took {} accesses",
            memory.accesses() - before
        );
        if memory.is_exhausted() && (steps.is_exhausted() || known.is_some()) {
            return;
        }
    }
}

/// Writes into memory that changes under the writer.
pub fn write_hostile(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let data_bytes = SMALLEST_DATA_BYTES + script.below(512) * 8;
    let mut steps = script.split_off();
    let memory = HostileMemory::new(data_bytes, script);
    let Ok(mut writer) = Writer::new(&memory) else { return };
    let source = [0xa5; 600];
    for _ in 0..STEPS {
        let known = writer.corrupt();
        let before = memory.accesses();
        let length = usize::from(steps.byte()) * 2;
        let (payload, _) = source.split_at(length);
        let result = match steps.byte() % 8 {
            0 | 1 => writer.try_write(&OutgoingPacket::in_band(1), &[payload]).map(drop).or_else(ignore_full),
            2 => writer.request_space(u32::from(steps.u16())).map(drop),
            3 => {
                writer.cancel_space_request();
                Ok(())
            }
            4 => writer.free_bytes().map(|free| assert!(free <= data_bytes)),
            _ => write_batch(writer.batch(), &mut steps, payload).or_else(ignore_full),
        };
        check_sticky(known, result.as_ref().err().copied(), writer.corrupt());
        let taken = memory.accesses() - before;
        assert!(taken <= 8 * ACCESSES_PER_STEP, "a step took {taken} accesses");
        if memory.is_exhausted() && (steps.is_exhausted() || known.is_some()) {
            return;
        }
    }
}

fn write_batch<M: Memory>(
    mut batch: WriteBatch<'_, M>,
    steps: &mut Script<'_>,
    payload: &[u8],
) -> Result<(), WriteError> {
    let pages = [PageBuffer { page_frame: 7, byte_offset: 8, byte_count: 16 }; 3];
    let ranges = [TransferPageRange { byte_count: 9, byte_offset: 1 }; 3];
    let multi = MultiPageBuffer { page_frames: &[1, 2], byte_offset: 4095, byte_count: 2 };
    for _ in 0..steps.byte() % 4 {
        match steps.byte() % 5 {
            0 => batch.push(&OutgoingPacket::gpa_direct_pages(2, &pages), &[payload, b"abc"])?,
            1 => batch.push(&OutgoingPacket::gpa_direct_multi_page(2, multi), &[payload])?,
            2 => batch.push(&OutgoingPacket::transfer_pages(3, 4, true, &ranges), &[payload])?,
            3 => {
                let mut reservation = batch.reserve(OutgoingPacket::completion(5), payload.len())?;
                let _ = reservation.write_at(usize::from(steps.byte()), payload);
                if steps.byte() & 1 == 0 {
                    reservation.commit();
                }
            }
            _ => batch.push(&OutgoingPacket::in_band(6).with_completion_requested(), &[b"", payload, b"x"])?,
        }
    }
    if steps.byte() & 1 == 0 {
        let _ = batch.commit();
    }
    Ok(())
}

/// Uses every accessor of a packet from a hostile peer.
fn inspect_all(memory: &HostileMemory<'_>, packet: Option<Packet<'_, &HostileMemory<'_>>>, data_bytes: u32) {
    let Some(packet) = packet else { return };
    let _ = memory;
    let payload = packet.payload();
    let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    assert!(bytes < data_bytes && bytes <= LARGEST_PACKET_BYTES, "a payload of {bytes} in {data_bytes}");
    assert!(payload.len() + packet.extra().len() + 24 < data_bytes as usize, "a packet larger than its ring");
    let mut buffer = [0; 4096 + 512];
    assert_eq!(payload.copy_to(&mut buffer).ok(), Some(payload.len()), "the buffer is larger than the ring");
    assert!(payload.copy_to(buffer.split_at_mut(payload.len().saturating_sub(1)).0).is_err() || payload.is_empty());
    assert_eq!(payload.read::<u64>(0).is_ok(), payload.len() >= 8, "a word of a payload");
    assert!(payload.read::<u64>(payload.len()).is_err(), "a word behind a payload");
    assert!(payload.copy_part(usize::MAX, &mut [0]).is_err(), "a part that overflows");
    assert_eq!(payload.words().count() * 8, payload.len(), "words of a payload");
    let header_words = packet.extra().words().count();
    if let Ok(ranges) = packet.transfer_pages() {
        assert!(ranges.count() < header_words, "more ranges than words");
    }
    if let Ok(ranges) = packet.gpa_ranges() {
        let frames: usize = ranges.map_while(Result::ok).map(|range| range.page_frames().count()).sum();
        assert!(frames < header_words.max(1), "more page frames than words");
    }
}

fn check_sticky(known: Option<Corrupt>, error: Option<Corrupt>, now: Option<Corrupt>) {
    if known.is_some() {
        assert_eq!(now, known, "a corrupt ring stays corrupt in the same way");
    }
    if error.is_some() {
        assert_eq!(now, error, "an error is remembered");
    }
}

fn ignore_short(error: ReadError) -> Result<(), Corrupt> {
    match error {
        ReadError::ShortBuffer { .. } => Ok(()),
        ReadError::Corrupt(corrupt) => Err(corrupt),
    }
}

fn ignore_full(error: WriteError) -> Result<(), Corrupt> {
    match error {
        WriteError::Corrupt(corrupt) => Err(corrupt),
        _ => Ok(()),
    }
}
