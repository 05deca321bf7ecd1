//! Places for frames that are longer than a section of the send buffer: pages that a packet names by their numbers.

use super::sections::Sections;
use super::wire::rndis::PACKET_HEADER_MOST_BYTES;
use vmbus::direct::{DirectMemory, PAGE_BYTES};
use vmbus_ringbuf::PageBuffer;

/// Pages of one place: a packet of 64 KiB, its Ethernet header, and what goes with it.
const PLACE_PAGES: usize = 17;
/// Bytes of one place.
const PLACE_BYTES: usize = PLACE_PAGES * PAGE_BYTES;
/// Bytes of the longest frame that fits.
pub(super) const LONGEST_FRAME: usize = PLACE_BYTES - PACKET_HEADER_MOST_BYTES;

/// Bytes of so many places.
pub(super) fn bytes_of(places: u32) -> usize {
    usize::try_from(places).unwrap_or(0).saturating_mul(PLACE_BYTES)
}

/// Places for long frames. The host only reads them.
#[derive(Debug)]
pub(super) struct LongFrames {
    memory: DirectMemory,
    pub(super) places: Sections,
}

/// The pages of one frame.
pub(super) type Pages = ([PageBuffer; PLACE_PAGES], usize);

impl LongFrames {
    pub(super) fn new(memory: DirectMemory) -> Self {
        let places = Sections::new(u32::try_from(memory.bytes() / PLACE_BYTES).unwrap_or(0));
        Self { memory, places }
    }

    /// Puts a message into a place, and says which pages it is in: so many of these.
    pub(super) fn fill(&self, place: u32, message: &[u8]) -> Option<Pages> {
        let place = usize::try_from(place).ok()?;
        let fits = message.len() <= PLACE_BYTES;
        if !fits || !self.memory.write(place.checked_mul(PLACE_BYTES)?, message) {
            return None;
        }
        let mut pages = [PageBuffer { page_frame: 0, byte_offset: 0, byte_count: 0 }; PLACE_PAGES];
        let mut count = 0;
        let frames = self.memory.frames().get(place.checked_mul(PLACE_PAGES)?..)?;
        for ((page, frame), piece) in pages.iter_mut().zip(frames).zip(message.chunks(PAGE_BYTES)) {
            let byte_count = u32::try_from(piece.len()).ok()?;
            *page = PageBuffer { page_frame: *frame, byte_offset: 0, byte_count };
            count += 1;
        }
        Some((pages, count))
    }
}
