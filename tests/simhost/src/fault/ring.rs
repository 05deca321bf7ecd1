//! Rings as a hostile host leaves them: indices, lengths and offsets that no honest one writes.

use vmbus_ringbuf::ControlField;

use super::mutate::word;
use crate::{Error, Host, Memory, OfferId, PAGE_BYTES, Random};

/// What of a channel's rings is spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingFault {
    /// How far the host has written.
    WriteIndex,
    /// How far the host has read.
    ReadIndex,
    /// Whether the host wants signals.
    InterruptMask,
    /// How much room the host waits for.
    PendingSendSize,
    /// Whether the host uses that.
    FeatureBits,
    /// Type, payload offset, length or flags of the packet that the guest reads next.
    PacketHead,
    /// Its transaction id.
    TransactionId,
    /// Any byte of the data.
    Data,
}

impl RingFault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::WriteIndex,
        Self::ReadIndex,
        Self::InterruptMask,
        Self::PendingSendSize,
        Self::FeatureBits,
        Self::PacketHead,
        Self::TransactionId,
        Self::Data,
    ];
}

/// Spoils the rings of an open channel. From then on the guest owes the host nothing on that channel.
///
/// # Errors
/// [`Error::NoOffer`] when the channel is not open.
pub fn corrupt_ring<M: Memory>(
    host: &Host<M>,
    id: OfferId,
    fault: RingFault,
    random: &mut Random,
) -> Result<(), Error> {
    let (to_host, to_guest) = host.ring_pages(id).ok_or(Error::NoOffer)?;
    let (pages, field) = match fault {
        RingFault::WriteIndex => (&to_guest, Some(ControlField::WriteIndex)),
        RingFault::ReadIndex => (&to_host, Some(ControlField::ReadIndex)),
        RingFault::InterruptMask => (&to_host, Some(ControlField::InterruptMask)),
        RingFault::PendingSendSize => (&to_guest, Some(ControlField::PendingSendSize)),
        RingFault::FeatureBits => (&to_guest, Some(ControlField::FeatureBits)),
        RingFault::PacketHead | RingFault::TransactionId | RingFault::Data => (&to_guest, None),
    };
    let at = |offset: u64| {
        let page = usize::try_from(offset / PAGE_BYTES).ok().and_then(|index| pages.get(index));
        page.map_or(u64::MAX, |page| page * PAGE_BYTES + offset % PAGE_BYTES)
    };
    let data_bytes = u64::try_from(pages.len().saturating_sub(1)).unwrap_or(0) * PAGE_BYTES;
    let next = u64::from(load(host, at(offset_of(ControlField::ReadIndex))) & !7);
    let inside = |offset: u64| at(PAGE_BYTES + offset.checked_rem(data_bytes).unwrap_or(0));
    let address = match (field, fault) {
        (Some(field), _) => at(offset_of(field)),
        (None, RingFault::PacketHead) => inside(next + random.below(4) * 2),
        (None, RingFault::TransactionId) => inside(next + 8 + random.below(2) * 4),
        (None, _) => inside(random.below(data_bytes) & !3),
    };
    let mut value = load(host, address & !3);
    word(&mut value, random);
    // Offsets and lengths are of 16 bits.
    let bytes = value.to_le_bytes();
    let bytes = if fault == RingFault::PacketHead { bytes.get(..2) } else { bytes.get(..) };
    host.memory().write(address, bytes.unwrap_or_default());
    Ok(())
}

fn offset_of(field: ControlField) -> u64 {
    u64::try_from(field.offset()).unwrap_or(0)
}

fn load<M: Memory>(host: &Host<M>, address: u64) -> u32 {
    let mut bytes = [0; 4];
    host.memory().read(address, &mut bytes);
    u32::from_le_bytes(bytes)
}
